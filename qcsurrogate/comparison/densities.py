"""Electron densities of a comparison: on a grid, their moments, their Hartree energy.

A density is either that of a density matrix, or an expansion in atom-centred Gaussians
(free atoms and an auxiliary basis).  Both answer the same questions, so that whatever is
compared is compared in the same way.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from pyscf import dft, gto, scf
from pyscf.gto import Mole

from qcsurrogate.basis import BasisSet
from qcsurrogate.comparison.metrics import traceless_quadrupole
from qcsurrogate.reference.atoms import FreeAtoms
from qcsurrogate.reference.baseline import free_atom_mol
from qcsurrogate.structures import Structure

Array = NDArray[np.float64]

LOWEST_GRID_LEVEL = 3
"""Densities are never compared on a coarser PySCF grid than this."""

_CHUNK_BYTES = 64e6


@dataclass(frozen=True, eq=False)
class IntegrationGrid:
    """Points (n, 3) in bohr and their weights (n,) in bohr^3."""

    points: Array
    weights: Array

    @classmethod
    def for_molecule(cls, mol: Mole, level: int) -> IntegrationGrid:
        """PySCF's grid of at least level :data:`LOWEST_GRID_LEVEL`."""
        grids = dft.gen_grid.Grids(mol)
        grids.level = max(level, LOWEST_GRID_LEVEL)
        grids.verbose = 0
        grids.build()
        return cls(np.asarray(grids.coords), np.asarray(grids.weights))


def nmae(predicted: Array, reference: Array, weights: Array, n_electrons: int) -> float:
    """100 * int |rho_pred - rho_ref| dr / N, in percent.

    Args:
        predicted, reference: (n_points,) densities on one grid.
        weights: (n_points,).
    """
    return float(100.0 * (weights @ np.abs(predicted - reference)) / n_electrons)


@dataclass(frozen=True, eq=False)
class Moments:
    """Moments of an electron density about the origin, electrons counted positive.

    Attributes:
        count: number of electrons.
        first: (3,) int rho r, bohr.
        second: (3, 3) int rho r r^T, bohr^2.
    """

    count: float
    first: Array
    second: Array


class ElectronDensity(ABC):
    """What a comparison asks of a density."""

    @abstractmethod
    def on_points(self, points: Array) -> Array:
        """(n,) electrons/bohr^3 at (n, 3) points in bohr."""

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
        return Moments(
            count=float(np.vdot(self.density_matrix, self.mol.intor("int1e_ovlp"))),
            first=np.einsum("xij,ji->x", self.mol.intor("int1e_r"), self.density_matrix),
            second=np.einsum("xij,ji->x", self.mol.intor("int1e_rr"), self.density_matrix).reshape(3, 3),
        )

    def hartree_energy(self) -> float:
        coulomb = scf.hf.get_jk(self.mol, self.density_matrix, hermi=1, with_k=False)[0]
        return float(0.5 * np.vdot(coulomb, self.density_matrix))


@dataclass(frozen=True, eq=False)
class GaussianDensity(ElectronDensity):
    """rho(r) = sum_k c_k chi_k(r) with the functions of ``mol``, coefficients (n_functions,)."""

    mol: Mole
    coefficients: Array

    @classmethod
    def from_fit(cls, structure: Structure, basis: BasisSet, coefficients: Array, atoms: FreeAtoms) -> GaussianDensity:
        """Free atoms plus an expansion in an auxiliary basis.

        Args:
            structure: the molecule.
            basis: auxiliary basis.
            coefficients: (n_aux,) of rho - rho_atoms, PySCF order.
            atoms: free atoms by atomic number.
        """
        free = free_atom_density(structure, atoms)
        mol = gto.mole.conc_mol(basis.build_mol(structure), free.mol)
        return cls(mol, np.concatenate([coefficients, free.coefficients]))

    def on_points(self, points: Array) -> Array:
        density = np.empty(len(points))
        for part, functions in _chunks(self.mol, points):
            density[part] = functions @ self.coefficients
        return density

    def moments(self) -> Moments:
        unit = _unit_function()
        first, second = (
            gto.mole.intor_cross(name, self.mol, unit)[..., 0] @ self.coefficients for name in ("int1e_r", "int1e_rr")
        )
        count = gto.mole.intor_cross("int1e_ovlp", self.mol, unit)[:, 0] @ self.coefficients
        return Moments(float(count), first, second.reshape(3, 3))

    def hartree_energy(self) -> float:
        return float(0.5 * self.coefficients @ self._coulomb_metric @ self.coefficients)

    @cached_property
    def _coulomb_metric(self) -> Array:
        return np.asarray(self.mol.intor("int2c2e", hermi=1))


def free_atom_density(structure: Structure, atoms: FreeAtoms) -> GaussianDensity:
    """The superposition of free atoms, sum_A rho_A(|r - R_A|)."""
    return GaussianDensity(*free_atom_mol(structure, atoms))


@dataclass(frozen=True, eq=False)
class ChargeMoments:
    """Multipoles of electrons and nuclei together.

    Attributes:
        dipole: (3,) e bohr, origin at (0, 0, 0).
        quadrupole: (3, 3) traceless, e bohr^2, origin at the centre of nuclear charge.
    """

    dipole: Array
    quadrupole: Array


def charge_moments(structure: Structure, electrons: Moments) -> ChargeMoments:
    """Dipole and traceless quadrupole of a molecule from its electrons' moments."""
    charges = structure.atomic_numbers.astype(np.float64)
    positions = structure.positions
    centre = charges @ positions / charges.sum()
    shifted = positions - centre
    first, count = electrons.first, electrons.count
    # moments about the centre: int rho (r - c)(r - c)^T
    second = electrons.second - np.outer(first, centre) - np.outer(centre, first) + count * np.outer(centre, centre)
    nuclear = np.einsum("a,ax,ay->xy", charges, shifted, shifted)
    return ChargeMoments(
        dipole=charges @ positions - first,
        quadrupole=traceless_quadrupole(nuclear - second),
    )


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
