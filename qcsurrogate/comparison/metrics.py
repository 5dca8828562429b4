"""Matrices, orbitals and densities: pure functions of arrays.

Matrices are in PySCF's AO order and in Hartree.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def nmae(predicted: Array, reference: Array, weights: Array, n_electrons: int) -> float:
    """100 * int |rho_pred - rho_ref| dr / N, in percent.

    Args:
        predicted, reference: (n_points,) densities on one grid.
        weights: (n_points,).
    """
    return float(100.0 * (weights @ np.abs(predicted - reference)) / n_electrons)


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


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's correlation of two lists; None for fewer than three, or for constant, values."""
    from scipy.stats import rankdata

    if len(first) < 3 or len(set(first)) == 1 or len(set(second)) == 1:
        return None
    return float(np.corrcoef(rankdata(first), rankdata(second))[0, 1])
