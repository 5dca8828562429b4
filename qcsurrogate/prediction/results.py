"""What a surrogate gives back: NumPy float64 arrays in atomic units and PySCF's order.

What costs something is computed when it is first asked for, and kept.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pyscf.scf import hf

from qcsurrogate.basis import BasisSet
from qcsurrogate.domain import UNKNOWN, DomainVerdict
from qcsurrogate.prediction import observables
from qcsurrogate.prediction.cube import write_cube
from qcsurrogate.reference.atoms import FreeAtoms
from qcsurrogate.structures import Structure

if TYPE_CHECKING:
    from pyscf.gto import Mole


def read_only(array: ArrayLike) -> NDArray[np.float64]:
    """An array that refuses to be written into: what follows from it is computed once, and would not follow."""
    kept = np.asarray(array)
    kept.flags.writeable = False
    return kept


@dataclass(frozen=True, eq=False, repr=False)
class Prediction(ABC):
    """A prediction for one structure; its arrays cannot be written into, copy them to change them.

    Attributes:
        structure: what was predicted for.
        domain: what of it lies outside of the training data.
        units: unit of every quantity that :func:`qcsurrogate.prediction.files.save` writes.
        summary_units: unit of every quantity of the JSON summary.
    """

    structure: Structure
    domain: DomainVerdict = field(default=UNKNOWN, kw_only=True)

    units: ClassVar[Mapping[str, str]]
    summary_units: ClassVar[Mapping[str, str]]

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, np.ndarray):
                object.__setattr__(self, entry.name, read_only(value.copy()))

    def __repr__(self) -> str:
        structure = self.structure
        state = f"charge {structure.charge}, spin {structure.spin}"
        return f"<{type(self).__name__} of {structure.formula}: {state}; {self.domain.summary}>"


@dataclass(frozen=True, eq=False, repr=False)
class HamiltonianPrediction(Prediction):
    """A Kohn-Sham Hamiltonian and what its orbitals say; closed shells.

    Attributes:
        orbital_basis: the basis of all matrices.
        hamiltonian: (n_ao, n_ao) Fock matrix in Hartree, PySCF AO order, symmetric.
    """

    orbital_basis: BasisSet
    hamiltonian: NDArray[np.float64]

    units: ClassVar[Mapping[str, str]] = {
        "hamiltonian": "hartree",
        "overlap": "1",
        "mo_energy": "hartree",
        "mo_coeff": "1",
        "mo_occ": "1",
        "density_matrix": "1",
        "dipole": "e bohr",
    }
    summary_units: ClassVar[Mapping[str, str]] = {
        "homo": "hartree",
        "lumo": "hartree",
        "gap": "hartree",
        "dipole": "e bohr",
    }

    @cached_property
    def mol(self) -> Mole:
        """The PySCF ``Mole`` whose orbitals the matrices refer to."""
        return self.orbital_basis.build_mol(self.structure)

    @cached_property
    def overlap(self) -> NDArray[np.float64]:
        """(n_ao, n_ao) overlap matrix, PySCF AO order."""
        return read_only(self.mol.intor_symmetric("int1e_ovlp"))

    @cached_property
    def _orbitals(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        energies, coefficients = hf.eig(self.hamiltonian, self.overlap)
        return read_only(energies), read_only(coefficients)

    @property
    def mo_energy(self) -> NDArray[np.float64]:
        """(n_ao,) orbital energies in Hartree, ascending: H C = S C e."""
        return self._orbitals[0]

    @property
    def mo_coeff(self) -> NDArray[np.float64]:
        """(n_ao, n_mo) orbital coefficients, C^T S C = 1; the largest one of each orbital is positive."""
        return self._orbitals[1]

    @property
    def n_occupied(self) -> int:
        """Number of doubly occupied orbitals."""
        return self.structure.n_electrons // 2

    @cached_property
    def mo_occ(self) -> NDArray[np.float64]:
        """(n_ao,) occupations, 2 for the lowest orbitals and 0 above."""
        occupations = np.zeros(len(self.mo_energy))
        occupations[: self.n_occupied] = 2.0
        return read_only(occupations)

    @property
    def homo(self) -> float:
        """Energy of the highest occupied orbital, Hartree; NaN without electrons."""
        return float(self.mo_energy[self.n_occupied - 1]) if self.n_occupied else float("nan")

    @property
    def lumo(self) -> float:
        """Energy of the lowest empty orbital, Hartree; NaN where the basis has none."""
        return float(self.mo_energy[self.n_occupied]) if self.n_occupied < len(self.mo_energy) else float("nan")

    @property
    def gap(self) -> float:
        """LUMO less HOMO energy, Hartree."""
        return self.lumo - self.homo

    @cached_property
    def density_matrix(self) -> NDArray[np.float64]:
        """(n_ao, n_ao) one-particle density matrix of the orbitals, tr(D S) = number of electrons."""
        occupied = self.mo_coeff[:, : self.n_occupied]
        return read_only(2.0 * occupied @ occupied.T)

    @cached_property
    def dipole(self) -> NDArray[np.float64]:
        """(3,) dipole moment in e bohr, origin at (0, 0, 0), pointing from minus to plus."""
        with self.mol.with_common_orig((0.0, 0.0, 0.0)):
            positions = self.mol.intor_symmetric("int1e_r", comp=3)
        electrons = np.einsum("xab,ba->x", positions, self.density_matrix)
        return read_only(self.structure.atomic_numbers @ self.structure.positions - electrons)


@dataclass(frozen=True, eq=False, repr=False)
class DensityPrediction(Prediction):
    """An electron density: free atoms plus an expansion in auxiliary functions.

    Attributes:
        density_basis: auxiliary basis of the expansion.
        atoms: free-atom densities by atomic number.
        density_coefficients: (n_aux,) of rho - rho_free_atoms, so without the free atoms, in
            e bohr^-1.5, PySCF order and normalisation.
    """

    density_basis: BasisSet
    atoms: FreeAtoms
    density_coefficients: NDArray[np.float64]

    units: ClassVar[Mapping[str, str]] = {
        "density_coefficients": "e bohr^-1.5",
        "electron_count": "e",
        "dipole": "e bohr",
        "quadrupole": "e bohr^2",
    }
    summary_units: ClassVar[Mapping[str, str]] = {
        "electron_count": "e",
        "dipole": "e bohr",
        "quadrupole": "e bohr^2",
    }

    def density(self, points: ArrayLike) -> NDArray[np.float64]:
        """Electron density on points.

        Args:
            points: (n, 3) in bohr, any number of them.

        Returns:
            (n,) electrons / bohr^3.

        Raises:
            StructureError: if the points are not finite numbers of shape (n, 3).
        """
        return observables.density_on_points(
            self.structure, self.density_basis, self.density_coefficients, self.atoms, points
        )

    @cached_property
    def electron_count(self) -> float:
        """Integral of the density over space (analytic), electrons."""
        return observables.electron_count(self.structure, self.density_basis, self.density_coefficients)

    @cached_property
    def dipole(self) -> NDArray[np.float64]:
        """(3,) dipole moment (analytic) in e bohr, origin at (0, 0, 0), pointing from minus to plus."""
        return read_only(observables.dipole_moment(self.structure, self.density_basis, self.density_coefficients))

    @cached_property
    def quadrupole(self) -> NDArray[np.float64]:
        """(3, 3) traceless quadrupole moment (analytic) in e bohr^2, origin at (0, 0, 0), PySCF's definition."""
        return read_only(observables.quadrupole_moment(self.structure, self.density_basis, self.density_coefficients))

    def write_cube(self, path: str | Path, *, resolution: float = 0.2, margin: float = 4.0) -> None:
        """Write the density as a Gaussian cube file (bohr, electrons / bohr^3).

        Args:
            path: where to; an older file stays until the new one is complete.
            resolution: distance of neighbouring points, bohr.
            margin: least distance from a nucleus to the edge of the box, bohr.

        Raises:
            SpecError: if resolution or margin cannot be used.
            OutputError: if the file cannot be written.
        """
        name = self.structure.name or self.structure.formula
        write_cube(
            path,
            self.structure,
            self.density,
            comment=f"electron density of {name}, predicted by qcsurrogate",
            resolution=resolution,
            margin=margin,
        )
