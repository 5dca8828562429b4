"""Measures predicted density expansions; errors split into the fit's and the network's."""

from __future__ import annotations

from collections.abc import Sequence

from qcsurrogate.basis import same_functions
from qcsurrogate.comparison.densities import GaussianDensity
from qcsurrogate.comparison.judge import Judge, finite
from qcsurrogate.comparison.measure import Reference, Values, fitted_density_grid_values, fitted_density_values
from qcsurrogate.comparison.subjects import auxiliary_name
from qcsurrogate.prediction.results import DensityPrediction
from qcsurrogate.quantities.density.surrogate import DensitySurrogate
from qcsurrogate.store.store import Store


class DensityJudge(Judge):
    """See :class:`qcsurrogate.comparison.judge.Judge`."""

    def __init__(self, surrogate: DensitySurrogate) -> None:
        self._surrogate = surrogate

    def measure(self, prediction: DensityPrediction, reference: Reference, *, on_grid: bool) -> Values:
        density = self.density(prediction, reference)
        values = fitted_density_values(density, reference)
        return values | (fitted_density_grid_values(density, reference) if on_grid else {})

    def density(self, prediction: DensityPrediction, reference: Reference) -> GaussianDensity:
        return GaussianDensity.from_fit(
            prediction.structure,
            prediction.density_basis,
            finite(prediction.density_coefficients, "density coefficients"),
            prediction.atoms,
        )

    def mismatches(self, store: Store, elements: Sequence[int]) -> list[str]:
        ours, theirs = self._surrogate.method, store.spec.method
        own = self._surrogate.density_basis.restricted_to(elements)
        if same_functions(own, theirs.density_basis(elements)):
            return []
        return [f"auxiliary basis {auxiliary_name(ours)} against {auxiliary_name(theirs)}"]
