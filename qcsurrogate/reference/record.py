"""The reference record: every stored quantity, its shape, unit and meaning, in one list.

Shapes are given in the dimensions of one structure: ``atom`` atoms, ``ao`` orbitals,
``aux`` auxiliary functions.  ``triangle`` is a symmetric (ao, ao) matrix of which the
store keeps the lower triangle, row by row.  The store takes everything it writes,
reads and checks from :data:`FIELDS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from qcsurrogate.structures import Structure

FieldShape = Literal["scalar", "vector3", "atom", "atom3", "ao", "aux", "triangle"]


@dataclass(frozen=True)
class Field:
    """One stored quantity."""

    name: str
    shape: FieldShape
    dtype: Literal["float64", "int64", "bool"]
    units: str
    description: str
    optional: bool = False


FIELDS: Final[tuple[Field, ...]] = (
    Field("atomic_numbers", "atom", "int64", "1", "nuclear charges"),
    Field("positions", "atom3", "float64", "bohr", "nuclear positions"),
    Field("charge", "scalar", "int64", "e", "total charge"),
    Field("spin", "scalar", "int64", "1", "unpaired electrons, n_alpha - n_beta"),
    Field("overlap", "triangle", "float64", "1", "overlap matrix, PySCF AO order"),
    Field(
        "hamiltonian",
        "triangle",
        "float64",
        "hartree",
        "converged Fock matrix, PySCF AO order; unrestricted: mean of alpha and beta",
    ),
    Field(
        "spin_hamiltonian",
        "triangle",
        "float64",
        "hartree",
        "half the difference of the Fock matrices of alpha and beta; F_alpha = hamiltonian + spin_hamiltonian",
        optional=True,
    ),
    Field(
        "density_matrix",
        "triangle",
        "float64",
        "1",
        "converged one-particle density matrix, PySCF AO order; unrestricted: alpha + beta",
    ),
    Field(
        "spin_density_matrix", "triangle", "float64", "1", "density matrix of alpha less that of beta", optional=True
    ),
    Field("core_hamiltonian", "triangle", "float64", "hartree", "kinetic + nuclear attraction", optional=True),
    Field(
        "density_coefficients",
        "aux",
        "float64",
        "e bohr^-1.5",
        "fit of rho - rho_free_atoms, PySCF order and normalisation; electron count exact",
        optional=True,
    ),
    Field(
        "density_coefficients_unprojected",
        "aux",
        "float64",
        "e bohr^-1.5",
        "the same fit without the constraint on the electron count",
        optional=True,
    ),
    Field(
        "spin_density_coefficients",
        "aux",
        "float64",
        "e bohr^-1.5",
        "fit of rho_alpha - rho_beta, no free atoms subtracted; integral exactly n_alpha - n_beta",
        optional=True,
    ),
    Field(
        "spin_density_coefficients_unprojected",
        "aux",
        "float64",
        "e bohr^-1.5",
        "the same fit without the constraint on its integral",
        optional=True,
    ),
    Field("energy", "scalar", "float64", "hartree", "total Kohn-Sham energy"),
    Field("mo_energy", "ao", "float64", "hartree", "orbital energies, ascending; unrestricted: alpha"),
    Field("mo_occ", "ao", "float64", "1", "orbital occupations; unrestricted: alpha"),
    Field("mo_energy_beta", "ao", "float64", "hartree", "orbital energies of beta, ascending", optional=True),
    Field("mo_occ_beta", "ao", "float64", "1", "orbital occupations of beta", optional=True),
    Field("spin_square", "scalar", "float64", "1", "<S^2> of the Kohn-Sham determinant", optional=True),
    Field("dipole", "vector3", "float64", "e bohr", "dipole moment, origin at (0, 0, 0)"),
    Field("forces", "atom3", "float64", "hartree/bohr", "minus the energy gradient", optional=True),
    Field("converged", "scalar", "bool", "1", "whether the SCF converged (always true)"),
    Field("cycles", "scalar", "int64", "1", "SCF cycles, all ladder steps together"),
    Field("ladder_step", "scalar", "int64", "1", "0 DIIS, 1 damping, 2 level shift, 3 second order"),
    Field(
        "stability",
        "scalar",
        "int64",
        "1",
        "internal stability: 0 not examined, 1 stable, 2 an instability was followed to a stable solution, "
        "3 unstable, but nothing lower was found",
        optional=True,
    ),
    Field(
        "on_gpu", "scalar", "bool", "1", "whether GPU4PySCF ran the SCF (false: it fell back on the CPU)", optional=True
    ),
    Field("wall_time", "scalar", "float64", "s", "wall time of the whole record"),
)

OPEN_SHELL_FIELDS: Final = (
    "spin_hamiltonian",
    "spin_density_matrix",
    "mo_energy_beta",
    "mo_occ_beta",
    "spin_square",
)
"""What an unrestricted record has and a restricted one has not, whatever the targets."""

FIELD: Final = {field.name: field for field in FIELDS}


@dataclass(frozen=True, eq=False)
class ReferenceRecord:
    """One converged calculation. Arrays as listed in :data:`FIELDS`; matrices are full.

    Attributes not listed there: ``structure``, the molecule itself.
    """

    structure: Structure
    overlap: NDArray[np.float64]
    hamiltonian: NDArray[np.float64]
    density_matrix: NDArray[np.float64]
    energy: float
    mo_energy: NDArray[np.float64]
    mo_occ: NDArray[np.float64]
    dipole: NDArray[np.float64]
    converged: bool
    cycles: int
    ladder_step: int
    wall_time: float
    core_hamiltonian: NDArray[np.float64] | None = None
    density_coefficients: NDArray[np.float64] | None = None
    density_coefficients_unprojected: NDArray[np.float64] | None = None
    forces: NDArray[np.float64] | None = None
    spin_hamiltonian: NDArray[np.float64] | None = None
    spin_density_matrix: NDArray[np.float64] | None = None
    spin_density_coefficients: NDArray[np.float64] | None = None
    spin_density_coefficients_unprojected: NDArray[np.float64] | None = None
    mo_energy_beta: NDArray[np.float64] | None = None
    mo_occ_beta: NDArray[np.float64] | None = None
    spin_square: float | None = None
    stability: int | None = None
    on_gpu: bool | None = None

    @property
    def unrestricted(self) -> bool:
        """Whether each spin has its own orbitals."""
        return self.spin_hamiltonian is not None

    @property
    def hamiltonian_components(self) -> NDArray[np.float64]:
        """(2, n_ao, n_ao) mean and half difference of alpha and beta, Hartree; restricted: (n_ao, n_ao)."""
        spin = self.spin_hamiltonian
        return self.hamiltonian if spin is None else np.stack([self.hamiltonian, spin])

    @property
    def density_components(self) -> NDArray[np.float64] | None:
        """(2, n_aux) fitted coefficients of alpha + beta less the free atoms, and of alpha - beta, in e bohr^-1.5.

        Restricted: (n_aux,), the first of them.  None where no density was fitted.
        """
        total, spin = self.density_coefficients, self.spin_density_coefficients
        return total if total is None or spin is None else np.stack([total, spin])

    @property
    def fock(self) -> NDArray[np.float64]:
        """(2, n_ao, n_ao) Fock matrices of alpha and beta, Hartree; restricted: (n_ao, n_ao), the only one."""
        return np.stack([self.hamiltonian_alpha, self.hamiltonian_beta]) if self.unrestricted else self.hamiltonian

    @property
    def hamiltonian_alpha(self) -> NDArray[np.float64]:
        """(n_ao, n_ao) Fock matrix of alpha, Hartree; restricted: the only one."""
        return self.hamiltonian if self.spin_hamiltonian is None else self.hamiltonian + self.spin_hamiltonian

    @property
    def hamiltonian_beta(self) -> NDArray[np.float64]:
        """(n_ao, n_ao) Fock matrix of beta, Hartree; restricted: the only one."""
        return self.hamiltonian if self.spin_hamiltonian is None else self.hamiltonian - self.spin_hamiltonian

    @property
    def density_matrix_alpha(self) -> NDArray[np.float64]:
        """(n_ao, n_ao) density matrix of alpha; restricted: half of the total."""
        spin = 0.0 if self.spin_density_matrix is None else self.spin_density_matrix
        return np.asarray(0.5 * (self.density_matrix + spin))

    @property
    def density_matrix_beta(self) -> NDArray[np.float64]:
        """(n_ao, n_ao) density matrix of beta; restricted: half of the total."""
        spin = 0.0 if self.spin_density_matrix is None else self.spin_density_matrix
        return np.asarray(0.5 * (self.density_matrix - spin))

    @property
    def n_ao(self) -> int:
        """Number of orbitals."""
        return len(self.overlap)

    def value(self, name: str) -> object:
        """A listed quantity by name, those of the structure included."""
        if name in ("atomic_numbers", "positions", "charge", "spin"):
            return getattr(self.structure, name)
        return getattr(self, name)
