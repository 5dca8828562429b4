"""Electron densities: their values on points, their moments, their Hartree energy.

A density is either that of a density matrix, or an expansion in atom-centred Gaussians
(an auxiliary basis and free atoms).  Both answer the same questions, for a prediction, a
comparison or a cube file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pyscf import gto, scf
from pyscf.gto import Mole

from qcsurrogate.basis import BasisSet
from qcsurrogate.density.expansion import complete_basis, complete_coefficients
from qcsurrogate.density.moments import Moments
from qcsurrogate.errors import StructureError
from qcsurrogate.reference.atoms import FreeAtoms, free_atom_mol
from qcsurrogate.reference.density_fit import charges
from qcsurrogate.structures import Structure

Array = NDArray[np.float64]

_CHUNK_BYTES = 64e6


class ElectronDensity(ABC):
    """What one may ask of a density."""

    @abstractmethod
    def on_points(self, points: Array) -> Array:
        """(n,) electrons/bohr^3 at (n, 3) points in bohr; in chunks of bounded memory."""

    @abstractmethod
    def moments(self) -> Moments:
        """Analytic moments about the origin."""

    @abstractmethod
    def hartree_energy(self) -> float:
        """1/2 int int rho(r) rho(r') / |r - r'|, in Hartree; analytic."""


@dataclass(frozen=True, eq=False)
class OrbitalDensity(ElectronDensity):
    """The density of an (n_ao, n_ao) density matrix, PySCF AO order."""

    mol: Mole
    density_matrix: Array

    def on_points(self, points: Array) -> Array:
        density = np.empty(len(points))
        for part, orbitals in _chunks(self.mol, points):
            density[part] = np.einsum("pi,pi->p", orbitals @ self.density_matrix, orbitals)
        return density

    def moments(self) -> Moments:
        with self.mol.with_common_orig((0.0, 0.0, 0.0)):
            count, first, second = (
                np.einsum("...ij,ji->...", self.mol.intor(name), self.density_matrix)
                for name in ("int1e_ovlp", "int1e_r", "int1e_rr")
            )
        return Moments(float(count), first, second.reshape(3, 3))

    def hartree_energy(self) -> float:
        coulomb = scf.hf.get_jk(self.mol, self.density_matrix, hermi=1, with_k=False)[0]
        return float(0.5 * np.vdot(coulomb, self.density_matrix))


@dataclass(frozen=True, eq=False)
class GaussianDensity(ElectronDensity):
    """rho(r) = sum_k c_k chi_k(r) with the functions of ``mol``, coefficients (n_functions,)."""

    mol: Mole
    coefficients: Array

    @classmethod
    def from_fit(
        cls, structure: Structure, auxiliary: BasisSet, coefficients: Array, atoms: FreeAtoms
    ) -> GaussianDensity:
        """Free atoms plus an expansion in an auxiliary basis.

        Args:
            coefficients: (n_aux,) of rho - rho_atoms, PySCF order.
        """
        auxiliary = auxiliary.restricted_to(structure.atomic_numbers)
        mol = complete_basis(auxiliary, atoms).build_mol(structure)
        return cls(mol, complete_coefficients(structure, auxiliary, coefficients, atoms))

    def on_points(self, points: Array) -> Array:
        density = np.empty(len(points))
        for part, functions in _chunks(self.mol, points):
            density[part] = functions @ self.coefficients
        return density

    def moments(self) -> Moments:
        unit = _unit_function()
        with self.mol.with_common_orig((0.0, 0.0, 0.0)):
            first, second = (
                gto.mole.intor_cross(name, self.mol, unit)[..., 0] @ self.coefficients
                for name in ("int1e_r", "int1e_rr")
            )
        return Moments(float(charges(self.mol) @ self.coefficients), first, second.reshape(3, 3))

    def hartree_energy(self) -> float:
        return float(0.5 * self.coefficients @ self.mol.intor("int2c2e", hermi=1) @ self.coefficients)


def free_atom_density(structure: Structure, atoms: FreeAtoms) -> GaussianDensity:
    """The superposition of free atoms, sum_A rho_A(|r - R_A|)."""
    return GaussianDensity(*free_atom_mol(structure, atoms))


def as_points(points: ArrayLike) -> Array:
    """``points`` as (n, 3) float64 in bohr; one point (3,) becomes (1, 3).

    Raises:
        StructureError: on another shape, or numbers that are not finite.
    """
    try:
        array = np.atleast_2d(np.asarray(points, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise StructureError(f"points are not an array of numbers ({error}); expected (n, 3) in bohr") from error
    if array.ndim != 2 or array.shape[1] != 3:
        raise StructureError(f"points have the shape {np.shape(points)}; expected (n, 3) in bohr")
    if not np.isfinite(array).all():
        row = int(np.argmin(np.isfinite(array).all(axis=1)))
        raise StructureError(f"point {row} is {array[row].tolist()}; expected finite numbers in bohr")
    return np.ascontiguousarray(array)


def _chunks(mol: Mole, points: Array) -> Iterator[tuple[slice, Array]]:
    """Values of all functions of ``mol``, (n, n_functions), for a slice of points at a time."""
    step = max(256, int(_CHUNK_BYTES / 8 / max(mol.nao, 1)))
    for start in range(0, len(points), step):
        part = slice(start, start + step)
        yield part, mol.eval_gto("GTOval_sph", points[part])


def _unit_function() -> Mole:
    """A molecule whose only function is 1 everywhere, which makes overlaps of integrals."""
    unit = gto.fakemol_for_charges(np.zeros((1, 3)))
    exponent, coefficient = unit._bas[0, gto.PTR_EXP], unit._bas[0, gto.PTR_COEFF]
    unit._env[exponent] = 0.0
    unit._env[coefficient] = 2.0 * np.sqrt(np.pi)  # libcint's s functions carry 1/sqrt(4 pi)
    return unit
