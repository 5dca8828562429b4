"""What a reference calculation is: functional, bases, grid, thresholds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from qcsurrogate.basis import BasisSet, even_tempered_basis, orbital_basis

BaselineKind = Literal["free_atoms", "minao", "none"]


class EvenTempered(BaseModel):
    """An auxiliary basis made from the orbital basis."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    even_tempered_beta: Annotated[float, Field(ge=1.2, le=4.0)]


class Method(BaseModel):
    """Level of theory and numerical settings of the reference."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    xc: Annotated[str, Field(description="Exchange-correlation functional, PySCF's name.")] = "pbe"
    basis: Annotated[str, Field(description="Spherical orbital basis, PySCF's name.")] = "def2-svp"
    auxiliary_basis: Annotated[
        str | EvenTempered,
        Field(description="Density-fitting basis by PySCF's name, or {even_tempered_beta: 1.8}."),
    ] = EvenTempered(even_tempered_beta=1.8)
    grid_level: Annotated[int, Field(ge=0, le=9, description="PySCF grid level of the SCF.")] = 3
    conv_tol: Annotated[float, Field(gt=0, le=1e-5, description="SCF energy threshold, Hartree.")] = 1e-10
    conv_tol_grad: Annotated[float, Field(gt=0, le=1e-3, description="SCF orbital-gradient threshold, Hartree.")] = 1e-6
    max_cycle: Annotated[int, Field(ge=1, description="Cycles allowed to each step of the ladder.")] = 60
    baseline: Annotated[
        BaselineKind, Field(description="H0 stored beside H: from free atoms, from the minao guess, or none.")
    ] = "free_atoms"
    baseline_grid_level: Annotated[int, Field(ge=0, le=9, description="PySCF grid level of H0.")] = 2
    charge: int = 0
    spin: Annotated[int, Field(ge=0, description="Unpaired electrons.")] = 0

    def orbital_basis(self, atomic_numbers: Iterable[int]) -> BasisSet:
        """The orbital basis for these elements."""
        return orbital_basis(self.basis, atomic_numbers)

    def density_basis(self, atomic_numbers: Iterable[int]) -> BasisSet:
        """The auxiliary basis for these elements."""
        if isinstance(self.auxiliary_basis, str):
            return orbital_basis(self.auxiliary_basis, atomic_numbers)
        return even_tempered_basis(self.orbital_basis(atomic_numbers), self.auxiliary_basis.even_tempered_beta)


class Targets(BaseModel):
    """Which optional quantities a record holds, beside those that every record has."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    density_coefficients: bool = True
    core_hamiltonian: bool = False
    forces: bool = False
