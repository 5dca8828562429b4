"""Density matrices to start an SCF from, in any basis: orbitals of another basis, or a density alone."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from pyscf import dft, gto
from pyscf.df.incore import aux_e2
from pyscf.gto import Mole
from pyscf.scf import hf

Array = NDArray[np.float64]

_GRID_LEVEL: Final = 1
_FUNCTIONAL: Final = "pbe"
"""What orbitals are made with where only a density is known; the SCF that starts from them has its own."""
_CHUNK_BYTES: Final = 128e6
_NO_DENSITY: Final = 1e-10
"""electrons / bohr^3: an expansion may fall below zero where there is nothing."""


def projected_orbitals(source: Mole, orbitals: Array, target: Mole) -> Array:
    """Occupied orbitals in another basis: projected, then orthonormalised symmetrically.

    Their number, and with it that of the electrons, stays exact: C' = P C (C^T P^T S P C)^(-1/2) with P = S^-1 S_ts.

    Args:
        source: molecule in whose basis they are.
        orbitals: (n_source, n_occupied).
        target: the same molecule in the basis that is wanted.

    Returns:
        (n_target, n_occupied), C'^T S C' = 1.
    """
    overlap = target.intor_symmetric("int1e_ovlp")
    mixed = gto.intor_cross("int1e_ovlp", target, source)
    projected = np.linalg.lstsq(overlap, mixed @ orbitals, rcond=1e-12)[0]
    values, vectors = np.linalg.eigh(projected.T @ overlap @ projected)
    return np.asarray(projected @ (vectors / np.sqrt(values)) @ vectors.T)


def occupied_in_density(mol: Mole, functions: Mole, coefficients: Array, n_occupied: int) -> Array:
    """The lowest orbitals in the potential of a given density: T + V_nuc + J[rho] + V_xc[rho] with PBE.

    Args:
        mol: molecule in the basis that is wanted.
        functions: molecule of the functions that the density is expanded in.
        coefficients: (n_functions,) of the whole density.
        n_occupied: how many are wanted.

    Returns:
        (n_ao, n_occupied), orthonormal.
    """
    if mol.cart:  # the integrals of libcint want one kind of functions; spherical ones lie within the Cartesian
        spherical = mol.copy()
        spherical.cart = False
        return projected_orbitals(spherical, occupied_in_density(spherical, functions, coefficients, n_occupied), mol)
    potential = _coulomb(mol, functions, coefficients) + _exchange_correlation(mol, functions, coefficients)
    orbitals = hf.eig(hf.get_hcore(mol) + potential, mol.intor_symmetric("int1e_ovlp"))[1]
    return np.asarray(orbitals[:, :n_occupied])


def _coulomb(mol: Mole, functions: Mole, coefficients: Array) -> Array:
    """(n_ao, n_ao) integrals of a density's electrostatic potential, a part of its functions at a time."""
    starts = functions.ao_loc_nr()
    total = np.zeros((mol.nao, mol.nao))
    most = max(int(_CHUNK_BYTES / 8 / mol.nao**2), int(np.diff(starts).max()))
    first = 0
    while first < functions.nbas:
        last = max(int(np.searchsorted(starts, starts[first] + most, side="right")) - 1, first + 1)
        part = (0, mol.nbas, 0, mol.nbas, first, last)
        total += aux_e2(mol, functions, "int3c2e", shls_slice=part) @ coefficients[starts[first] : starts[last]]
        first = last
    return total


def _exchange_correlation(mol: Mole, functions: Mole, coefficients: Array) -> Array:
    """(n_ao, n_ao) integrals of a density's PBE potential on a coarse grid."""
    grids = dft.Grids(mol)
    grids.level, grids.verbose = _GRID_LEVEL, 0
    grids.build()
    total = np.zeros((mol.nao, mol.nao))
    step = max(256, int(_CHUNK_BYTES / 32 / max(functions.nao, mol.nao)))
    for start in range(0, len(grids.weights), step):
        points, weights = grids.coords[start : start + step], grids.weights[start : start + step]
        density = functions.eval_gto("GTOval_sph_deriv1", points) @ coefficients
        known = density[0] > _NO_DENSITY
        points, weights, density = points[known], weights[known], np.ascontiguousarray(density[:, known])
        potential = dft.numint.NumInt().eval_xc_eff(_FUNCTIONAL, density, deriv=1)[1] * weights
        potential[0] *= 0.5
        orbitals = mol.eval_gto("GTOval_sph_deriv1", points)
        half = orbitals[0].T @ np.einsum("dp,dpi->pi", potential, orbitals)
        total += half + half.T
    return total
