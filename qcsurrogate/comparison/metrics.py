"""Matrices, orbitals and moments: pure functions of arrays.

Matrices are in PySCF's AO order and in Hartree.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

Array = NDArray[np.float64]


def block_means(matrix: Array, offsets: Sequence[int] | NDArray[np.int64]) -> Array:
    """Mean of every block of a matrix.

    Args:
        matrix: (n, n).
        offsets: (k + 1,) ascending first indices of the k blocks, and n.

    Returns:
        (k, k) means over the elements of each block.
    """
    bounds = np.asarray(offsets, dtype=np.int64)
    sizes = np.diff(bounds)
    sums = np.add.reduceat(np.add.reduceat(matrix, bounds[:-1], axis=0), bounds[:-1], axis=1)
    return np.asarray(sums / np.outer(sizes, sizes))


def solve_orbitals(hamiltonian: Array, overlap: Array) -> tuple[Array, Array]:
    """Orbital energies (n_ao,), ascending, and coefficients (n_ao, n_ao) of HC = SCe."""
    energies, coefficients = eigh(hamiltonian, overlap)
    return np.asarray(energies), np.asarray(coefficients)


def closed_shell_density_matrix(coefficients: Array, n_occupied: int) -> Array:
    """(n_ao, n_ao) density matrix with two electrons in each of the lowest orbitals."""
    occupied = coefficients[:, :n_occupied]
    return np.asarray(2.0 * occupied @ occupied.T)


def occupied_subspace_defect(reference: Array, predicted: Array, overlap: Array, n_occupied: int) -> float:
    """1 - |C_ref^T S C_pred|_F^2 / n_occ: the part of the occupied space that is missed.

    Zero for equal spaces, one for orthogonal ones; rotations among occupied orbitals,
    and so degeneracies, do not enter.

    Args:
        reference, predicted: (n_ao, n_ao) orbital coefficients, S-orthonormal columns.
        overlap: (n_ao, n_ao).
    """
    # |C_ref^T S C_pred|^2 loses half the digits near one; the part of C_pred that lies
    # outside the reference space holds them: n_occ - |O|^2 = |C_pred - C_ref O|_S^2.
    chosen = predicted[:, :n_occupied]
    overlaps = reference[:, :n_occupied].T @ overlap @ chosen
    outside = chosen - reference[:, :n_occupied] @ overlaps
    return float(np.einsum("ik,ij,jk->", outside, overlap, outside, optimize=True) / n_occupied)


def orbital_cosine_defects(reference: Array, predicted: Array, overlap: Array, n_occupied: int) -> Array:
    """(n_occ,) 1 - |c_ref^T S c_pred| of each occupied orbital.

    Fragile: two nearly degenerate orbitals may mix freely without any change of the
    density.  Read it only beside :func:`occupied_subspace_defect`.
    """
    products = np.einsum("ik,ij,jk->k", reference[:, :n_occupied], overlap, predicted[:, :n_occupied], optimize=True)
    return np.asarray(1.0 - np.abs(products))


def commutator_norm(fock: Array, density_matrix: Array, overlap: Array) -> float:
    """|FDS - SDF|_F in Hartree: zero where the density matrix is self-consistent."""
    product = fock @ density_matrix @ overlap
    return float(np.linalg.norm(product - product.T))


def traceless_quadrupole(second_moments: Array) -> Array:
    """(3, 3) Q_ab = (3 M_ab - tr(M) delta_ab) / 2 of charge second moments M (e bohr^2)."""
    return np.asarray(1.5 * second_moments - 0.5 * np.trace(second_moments) * np.eye(3))


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's correlation of two lists; None for fewer than three, or for constant, values."""
    from scipy.stats import rankdata

    if len(first) < 3 or len(set(first)) == 1 or len(set(second)) == 1:
        return None
    return float(np.corrcoef(rankdata(first), rankdata(second))[0, 1])
