"""The one place that knows about orders, signs and axes.

Two orders of atomic orbitals exist here:

- *PySCF order*: what every user sees.  Shells in PySCF's order; inside a shell p is
  (x, y, z) and l >= 2 runs m = -l..l.
- *internal order*: the same shells, every one of them m = -l..l, which is the order of
  e3nn's real spherical harmonics when the positions are fed to e3nn as
  ``positions[..., [1, 2, 0]]``.

So the only permutation is that of p shells, (x, y, z) -> (y, z, x), and no sign ever
changes.  The tests hold this against integrals that PySCF recomputes on rotated and
reflected molecules.

torch and e3nn are imported only by what computes with them: the workers that generate
references need the orders, and should not wait seconds for a network library.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

E3NN_AXES = (1, 2, 0)
"""``positions[..., E3NN_AXES]`` are the coordinates that e3nn is given."""

_P_SHELL = (1, 2, 0)


def internal_order(angular_momenta: Iterable[int]) -> NDArray[np.int64]:
    """Indices that take functions from PySCF order to internal order.

    Args:
        angular_momenta: l of every shell, in order.

    Returns:
        (n_functions,) indices: ``internal = pyscf[order]``,
        ``H_internal = H_pyscf[np.ix_(order, order)]``.
    """
    order: list[int] = []
    for l in angular_momenta:
        start = len(order)
        order.extend(start + k for k in (_P_SHELL if l == 1 else range(2 * l + 1)))
    return np.asarray(order, dtype=np.int64)


def inverse_order(order: NDArray[np.int64]) -> NDArray[np.int64]:
    """The indices that undo ``order``."""
    inverse = np.empty_like(order)
    inverse[order] = np.arange(len(order))
    return inverse


def spherical_harmonics(l_max: int, directions: Tensor) -> Tensor:
    """Real spherical harmonics of all l <= ``l_max`` in internal order.

    Args:
        l_max: highest angular momentum.
        directions: (..., 3) vectors of any length, in the usual x, y, z axes.

    Returns:
        (..., (l_max + 1)^2) values, normalised so that their squares average to one
        over the sphere (e3nn's ``component`` normalisation).
    """
    from e3nn import o3

    return o3.spherical_harmonics(
        list(range(l_max + 1)),
        directions[..., E3NN_AXES],
        normalize=True,
        normalization="component",
    )


@cache
def _sample_points(l_max: int) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Fixed directions, and for each l <= l_max the matrix that reads its coefficients off values there."""
    import torch

    generator = torch.Generator().manual_seed(l_max)
    points = torch.randn(3 * l_max + 3, 3, generator=generator, dtype=torch.float64)
    points = points / points.norm(dim=1, keepdim=True)
    values = spherical_harmonics(l_max, points)
    return points, tuple(torch.linalg.pinv(values[:, l * l : (l + 1) ** 2].T) for l in range(l_max + 1))


def wigner_d(l: int, rotations: Tensor) -> Tensor:
    """(..., 2l+1, 2l+1) Wigner matrices of one l, see :func:`wigner_matrices`."""
    return wigner_matrices(l, rotations)[l]


def wigner_matrices(l_max: int, rotations: Tensor) -> list[Tensor]:
    """Wigner matrices of the real harmonics of all l <= l_max, for proper and improper rotations.

    They are solved from the harmonics themselves at fixed points,
    ``Y_l(R x) = D_l(R) Y_l(x)``, so that no Euler angles (and none of their
    singularities) occur and the parity of an improper rotation, (-1)^l, comes out by
    itself.

    Args:
        l_max: highest angular momentum.
        rotations: (..., 3, 3) orthogonal matrices acting on x, y, z.

    Returns:
        For each l a (..., 2l+1, 2l+1) matrix in internal order, of the dtype of ``rotations``.
    """
    import torch

    axes = list(E3NN_AXES)
    exact = [rotations.new_ones(*rotations.shape[:-2], 1, 1), rotations[..., axes, :][..., :, axes]]
    if l_max < 2:
        return exact[: l_max + 1]
    points, reads = _sample_points(l_max)
    rotated = torch.einsum("...ab,nb->...na", rotations, points.to(rotations))
    values = spherical_harmonics(l_max, rotated).transpose(-1, -2)
    solved = [values[..., l * l : (l + 1) ** 2, :] @ reads[l].to(rotations) for l in range(2, l_max + 1)]
    return exact + solved


def block_diagonal_wigner(angular_momenta: Sequence[int], rotations: Tensor) -> Tensor:
    """Wigner matrices of a list of shells, block by block on the diagonal.

    Args:
        angular_momenta: l of every shell.
        rotations: (..., 3, 3) orthogonal matrices.

    Returns:
        (..., n, n) with n = sum of 2l+1, in internal order.
    """
    n = sum(2 * l + 1 for l in angular_momenta)
    matrix = rotations.new_zeros(*rotations.shape[:-2], n, n)
    blocks = wigner_matrices(max(angular_momenta), rotations)
    start = 0
    for l in angular_momenta:
        stop = start + 2 * l + 1
        matrix[..., start:stop, start:stop] = blocks[l]
        start = stop
    return matrix


@cache
def clebsch_gordan(l1: int, l2: int, l3: int) -> NDArray[np.float64]:
    """Real Clebsch-Gordan coefficients (2 l1+1, 2 l2+1, 2 l3+1) in internal order.

    Normalised so that, for fixed l1 and l2, the stack over all l3 is an orthogonal
    matrix from (m1, m2) to (l3, m3).
    """
    import torch
    from e3nn import o3

    w3j = o3.wigner_3j(l1, l2, l3, dtype=torch.float64).numpy()
    return np.asarray(w3j * np.sqrt(2 * l3 + 1))
