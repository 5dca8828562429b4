"""A predicted electron density."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from qcsurrogate.basis import BasisSet
from qcsurrogate.density.densities import GaussianDensity
from qcsurrogate.errors import BasisError
from qcsurrogate.prediction.results import MOMENTS, PredictionWithDensity
from qcsurrogate.prediction.uncertainty import Uncertainty
from qcsurrogate.quantities.density.uncertainty import FIGURE, nmae_estimate

if TYPE_CHECKING:
    from pyscf.gto import Mole


@dataclass(frozen=True, eq=False, repr=False)
class DensityPrediction(PredictionWithDensity):
    """An electron density as one expansion in atom-centred functions.

    Attributes:
        density_basis: functions of the expansion: the auxiliary basis, and the free atom of each
            element as one contracted s function, after the other s functions.
        density_coefficients: (n_functions,) of the whole density, free atoms included, in
            e bohr^-1.5, PySCF order and normalisation.
        spin_density_coefficients: (n_functions,) of alpha less beta, in the same functions; zero if restricted.

    Raises:
        BasisError: if there are not as many coefficients as functions.
    """

    density_basis: BasisSet
    density_coefficients: NDArray[np.float64]
    spin_density_coefficients: NDArray[np.float64]

    units: ClassVar[Mapping[str, str]] = {
        "density_coefficients": "e bohr^-1.5",
        "spin_density_coefficients": "e bohr^-1.5",
        "electron_count": "e",
        "unpaired_electrons": "e",
        "dipole": "e bohr",
        "quadrupole": "e bohr^2",
    }
    summary_units: ClassVar[Mapping[str, str]] = {
        "electron_count": "e",
        "unpaired_electrons": "e",
        "dipole": "e bohr",
        "quadrupole": "e bohr^2",
    }

    error_units: ClassVar[Mapping[str, str]] = {FIGURE: "%"}

    conventions: ClassVar[tuple[str, ...]] = (
        "The whole electron density is rho(r) = sum of 'density_coefficients' times the functions of 'density_basis'. "
        "The free atom of each element is the last s function of each atom, so that nothing has to be added. "
        "'spin_density_coefficients' times the same functions are the density of alpha less that of beta.",
        "'expected_block_errors' are norms of the errors of each atom's 'density_coefficients' over functions "
        "orthonormal in the Coulomb metric: the root of the self-repulsion of what is wrong. What the auxiliary basis "
        "cannot describe is not in them.",
        MOMENTS,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        n = self.density_basis.n_functions(self.structure.atomic_numbers)
        for what, found in (
            ("density", self.density_coefficients),
            ("spin density", self.spin_density_coefficients),
        ):
            if found.shape != (n,):
                raise BasisError(
                    f"the {what} of {self.structure.label} has coefficients of the shape {found.shape}; expected "
                    f"{(n,)}, the functions of '{self.density_basis.name}'"
                )

    def _raw_errors(self, uncertainty: Uncertainty) -> Mapping[str, float]:
        return nmae_estimate(uncertainty.blocks, self.structure.n_electrons)

    @cached_property
    def electron_density(self) -> GaussianDensity:
        """The expansion."""
        return GaussianDensity(self._mol, self.density_coefficients)

    @cached_property
    def electron_spin_density(self) -> GaussianDensity:
        """The expansion of the density of alpha less that of beta."""
        return GaussianDensity(self._mol, self.spin_density_coefficients)

    @cached_property
    def _mol(self) -> Mole:
        return self.density_basis.build_mol(self.structure)
