"""Measures predicted density expansions; errors split into the fit's and the network's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from qcsurrogate.basis import same_functions
from qcsurrogate.comparison.figures import (
    DENSITY_NMAE,
    DIPOLE,
    HARTREE_ENERGY,
    QUADRUPOLE,
    SPIN_DENSITY_NMAE,
    Figure,
)
from qcsurrogate.comparison.headline import DENSITY, Rule
from qcsurrogate.comparison.judge import Judge, finite, spin_mismatch
from qcsurrogate.comparison.measure import MeasuredDensity, Reference, Values, density_values
from qcsurrogate.comparison.subjects import auxiliary_name
from qcsurrogate.density.densities import GaussianDensity
from qcsurrogate.quantities.density.prediction import DensityPrediction
from qcsurrogate.quantities.density.surrogate import DensitySurrogate
from qcsurrogate.store.store import Store
from qcsurrogate.units import DEBYE_PER_ATOMIC_UNIT


def _split(figure: Figure) -> tuple[Figure, ...]:
    """A density error, and its split into what the fit leaves and what the network adds."""
    return figure, *(
        replace(
            figure,
            name=f"{figure.name}_{part}",
            title=f"{figure.title}: {title}",
            definition=f"the same {words}: {figure.definition}",
        )
        for part, title, words in (
            ("fit_floor", "fit floor", "for the fitted coefficients of the store"),
            ("network", "network part", "between predicted and fitted density"),
        )
    )  # fmt: skip


class DensityJudge(Judge):
    """See :class:`qcsurrogate.comparison.judge.Judge`."""

    figures: ClassVar[Sequence[Figure]] = (
        *_split(DENSITY_NMAE),
        Figure(
            "density_nmae_over_fit_floor",
            "Density error over fit floor",
            "1",
            "density_nmae / density_nmae_fit_floor; 1 means that the network adds nothing",
        ),
        *_split(SPIN_DENSITY_NMAE),
        Figure(
            "unpaired_electrons_error", "Unpaired electrons", "e", "|int (rho_alpha - rho_beta) dr - spin|, analytic"
        ),
        *_split(DIPOLE),
        *_split(QUADRUPOLE),
        *_split(HARTREE_ENERGY),
    )
    rules: ClassVar[Sequence[Rule]] = (
        DENSITY,
        Rule(
            "density_nmae_over_fit_floor",
            "Density error over that of the fit",
            (1.3, 3.0),
            (
                "Limited by the auxiliary basis, not by the network.",
                "Network and auxiliary basis both count.",
                "Limited by the network.",
            ),
        ),
        Rule(
            "dipole_error",
            "Dipole error",
            (0.02 / DEBYE_PER_ATOMIC_UNIT, 0.1 / DEBYE_PER_ATOMIC_UNIT),
            (
                "Below what basis sets and functionals differ by.",
                "Good enough to rank molecules by polarity.",
                "Too far off for electrostatics.",
            ),
        ),
    )

    def __init__(self, surrogate: DensitySurrogate) -> None:
        self._surrogate = surrogate

    def measure(self, prediction: DensityPrediction, reference: Reference, *, on_grid: bool) -> Values:
        values = self._spin_values(prediction, reference, on_grid=on_grid)
        predicted = MeasuredDensity(self.density(prediction, reference), reference.structure)
        values |= density_values(predicted, reference, on_grid=on_grid)
        if (fit := reference.fitted_density) is None:
            return values
        grid = reference.grid if on_grid else None
        values |= {f"{name}_fit_floor": value for name, value in fit.errors(reference.density, grid).items()}
        values |= {f"{name}_network": value for name, value in predicted.errors(fit, grid).items()}
        if on_grid:
            values["density_nmae_over_fit_floor"] = values["density_nmae"] / values["density_nmae_fit_floor"]
        return values

    def _spin_values(self, prediction: DensityPrediction, reference: Reference, *, on_grid: bool) -> Values:
        """Errors of what alpha has more than beta; nothing of restricted Kohn-Sham."""
        if not self._surrogate.method.unrestricted:
            return {}
        finite(prediction.spin_density_coefficients, "coefficients of the spin density")
        values = {"unpaired_electrons_error": abs(prediction.unpaired_electrons - reference.structure.spin)}
        if on_grid:
            predicted = MeasuredDensity(prediction.electron_spin_density, reference.structure)
            name, grid = SPIN_DENSITY_NMAE.name, reference.grid
            values[name] = predicted.nmae(reference.spin_density, grid)
            if (fit := reference.fitted_spin_density) is not None:
                values[f"{name}_fit_floor"] = fit.nmae(reference.spin_density, grid)
                values[f"{name}_network"] = predicted.nmae(fit, grid)
        return values

    def density(self, prediction: DensityPrediction, reference: Reference) -> GaussianDensity:
        finite(prediction.density_coefficients, "density coefficients")
        return prediction.electron_density

    def mismatches(self, store: Store, elements: Sequence[int]) -> list[str]:
        ours, theirs = self._surrogate.method, store.spec.method
        own = self._surrogate.auxiliary_basis.restricted_to(elements)
        found = spin_mismatch(ours, store)
        if same_functions(own, theirs.density_basis(elements)):
            return found
        return [*found, f"auxiliary basis {auxiliary_name(ours)} against {auxiliary_name(theirs)}"]
