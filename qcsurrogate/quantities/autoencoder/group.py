"""Elements of SE(3) x S_n that are read off a molecule: a frame, a place and an order of its atoms.

A function psi of a molecule x is equivariant if psi(g x) = g psi(x).  Where a molecule has symmetries of
its own this can hold only up to them (R. Winter, M. Bertolini, T. Le, F. Noe and D.-A. Clevert, NeurIPS
2022): no equivariant vector leaves the axis of ammonia, and nothing tells one hydrogen of methane from
another.  There one of several equal directions is chosen, see :func:`frames`.  Another choice gives
another frame and another order, which a symmetry of the molecule takes into the first: a cloud that is
put into this frame in this order lies just as far from the molecule.  The choice fails only where proper
rotations do not exchange all of the atoms that are equally far away: those of a molecule of the kind D_nh
or D_nd with atoms outside of all its mirror planes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from qcsurrogate.data.graphs import Graph

DEGENERATE = 0.03
"""Vectors whose sum is shorter than this part of the sum of their lengths say nothing about a direction."""
SOFTNESS = 0.01
"""The same for the continuous frame of an embedding: it fades where vectors are about so short."""
MARGIN = 0.3
"""Training makes vectors longer that are shorter than this part of the sum of their lengths."""
_VANISHING = 0.1
"""Circular harmonics below this part of what they are summed of are taken for zero; they still choose among roots."""
_HIGHEST_FOLD = 6
"""Axes of higher order are taken for cylinders."""
_TINY = 1e-8
"""A lone atom has no vectors at all."""


@dataclass(frozen=True)
class Places:
    """Where each atom stands in arrays (n_molecules, n_places, ...).

    Attributes:
        molecule, place: (n_atoms,).
        present: (n_molecules, n_places) whether there is an atom.
    """

    molecule: Tensor
    place: Tensor
    present: Tensor

    @classmethod
    def of(cls, graph: Graph) -> Places:
        """The atoms of a molecule one after the other, in the order in which they are given."""
        counts = torch.tensor(graph.atom_counts, device=graph.molecule.device)
        starts = counts.cumsum(0) - counts
        place = torch.arange(graph.n_atoms, device=counts.device) - starts[graph.molecule]
        present = torch.arange(int(counts.max()), device=counts.device) < counts.unsqueeze(1)
        return cls(graph.molecule, place, present)

    @property
    def n_molecules(self) -> int:
        return len(self.present)

    @property
    def counts(self) -> Tensor:
        """(n_molecules,) numbers of atoms."""
        return self.present.sum(1)

    def fill(self, values: Tensor) -> Tensor:
        """(n_atoms, ...) -> (n_molecules, n_places, ...), zero where there is no atom."""
        filled = values.new_zeros(*self.present.shape, *values.shape[1:])
        return filled.index_put((self.molecule, self.place), values)


@dataclass(frozen=True)
class GroupElement:
    """What takes a canonical cloud to the places and the order of a batch of molecules.

    Attributes:
        rotation: (n_molecules, 3, 3) proper; its columns are the axes of the canonical frame.
        translation: (n_molecules, 3) bohr.
        slots: (n_molecules, n_places) which point of the cloud each atom is; places beyond the
            atoms of a molecule hold the points that are left.
        assignment: (n_molecules, n_places, n_places) the same as a matrix (atom, point) of zeros and
            ones, whose gradient is that of a soft order.
        doubt: (n_molecules,) see :func:`degeneracy`.
    """

    rotation: Tensor
    translation: Tensor
    slots: Tensor
    assignment: Tensor
    doubt: Tensor

    def placed(self, cloud: Tensor) -> Tensor:
        """(n_molecules, n, 3) points of the canonical frame -> where they lie in the molecule's, in their own order."""
        return cloud @ self.rotation.transpose(1, 2) + self.translation.unsqueeze(1)

    def ordered(self, values: Tensor) -> Tensor:
        """(n_molecules, n_points, ...) of a cloud's points -> the same of the atoms, (n_molecules, n_places, ...)."""
        index = self.slots.reshape(*self.slots.shape, *(1,) * (values.ndim - 2))
        return values.gather(1, index.expand(*self.slots.shape, *values.shape[2:]))


def frames(vectors: Tensor, lengths: Tensor, offsets: Tensor) -> Tensor:
    """Proper rotations from two vectors of each molecule (Gram-Schmidt, the third axis by the cross product).

    Where the first vector says nothing (:data:`DEGENERATE`), as in molecules with several axes of
    symmetry, the atom farthest from the centre takes its place.  Where the second says nothing, which
    happens if the first axis is one of symmetry, the atoms' lowest circular harmonic about it does that
    does not nearly vanish: the sum of w z^n, with z the place of an atom across the axis as a complex number, has n
    roots, and a turn by 2 pi / n takes one into the other, and a symmetric molecule into itself; of one that
    is only nearly so, that root is taken which is nearest to the harmonic of n = 1.  A mirror plane
    holds them.  Where all atoms lie on the first axis, any direction serves.

    Args:
        vectors: (n_molecules, 3, 2), sums of vectors of the atoms.
        lengths: (n_molecules, 2) sums of the lengths of these vectors.
        offsets: (n_molecules, n_places, 3) of atoms from their centre; zero where there is no atom.

    Returns:
        (n_molecules, 3, 3); the columns are the axes.
    """
    first, second = vectors.unbind(2)
    x = _direction(first, lengths[:, :1], _farthest(offsets))
    aside = second - (second * x).sum(1, keepdim=True) * x
    y = _direction(aside, lengths[:, 1:], _harmonic_direction(x.detach(), offsets.detach()))
    y = y - (y * x).sum(1, keepdim=True) * x  # once more: the first time may have left the rounding of a long vector
    y = y / _norm(y)
    return torch.stack([x, y, torch.linalg.cross(x, y)], dim=2)


def _norm(vectors: Tensor) -> Tensor:
    return vectors.norm(dim=1, keepdim=True)


def _direction(vector: Tensor, length: Tensor, instead: Tensor) -> Tensor:
    """The direction of a vector, or that of what stands for it.

    Nothing is divided by a number near zero, not even in the branch that is not taken: its gradient would be NaN.
    """
    said = _norm(vector.detach()) > DEGENERATE * length.detach() + _TINY
    chosen = torch.where(said, vector, instead)
    return chosen / _norm(chosen)


def _farthest(offsets: Tensor) -> Tensor:
    """(n_molecules, 3) of the atom with the longest offset; any vector of a lone atom."""
    lengths, index = offsets.norm(dim=2).max(1)
    found = offsets[torch.arange(len(offsets), device=offsets.device), index]
    return torch.where((lengths > 0).unsqueeze(1), found, torch.ones_like(found))


def _harmonic_direction(axis: Tensor, offsets: Tensor) -> Tensor:
    """(n_molecules, 3) a root of the lowest circular harmonic of the atoms about an axis that does not vanish."""
    helper = torch.zeros_like(axis).scatter_(1, axis.abs().argmin(1, keepdim=True), 1.0)
    across = torch.linalg.cross(helper, axis)
    across = across / _norm(across)
    other = torch.linalg.cross(axis, across)
    height, p, q = (torch.einsum("mix,mx->mi", offsets, direction) for direction in (axis, across, other))
    places = torch.complex(p, q)
    weights = 1.5 + torch.sin(1.7 * height + 0.3)  # any function of the height; a constant would leave no sum
    sums = [(weights * places**n).sum(1) for n in range(1, _HIGHEST_FOLD + 1)]
    angle, lean = torch.zeros_like(axis[:, 0]), sums[0].angle()
    for n in range(_HIGHEST_FOLD, 0, -1):
        size = (weights * places.abs() ** n).sum(1)
        root = sums[n - 1].angle() / n
        root = root + 2 * math.pi / n * torch.round((lean - root) * n / (2 * math.pi))
        angle = torch.where(sums[n - 1].abs() > _VANISHING * size + _TINY, root, angle)
    return torch.cos(angle).unsqueeze(1) * across + torch.sin(angle).unsqueeze(1) * other


def degeneracy(vectors: Tensor, lengths: Tensor) -> Tensor:
    """(n_molecules,) how close the vectors of :func:`frames` are to saying nothing: zero if both are long and apart.

    Zero too where they do say nothing: no training gives a symmetric molecule a direction.
    """
    first, second = vectors.unbind(2)
    x = first * torch.rsqrt(first.square().sum(1, keepdim=True) + _TINY)
    aside = second - (second * x).sum(1, keepdim=True) * x
    squared = torch.stack([v.square().sum(1) for v in (first, aside)], dim=1)
    told = (squared + _TINY).sqrt() / (lengths + _TINY**0.5)
    short = (MARGIN - told).clamp(min=0.0).square()
    return torch.where(told > DEGENERATE, short, torch.zeros_like(short)).sum(1)


def soft_frames(vectors: Tensor, lengths: Tensor) -> Tensor:
    """What :func:`frames` makes of the same vectors, but continuous: where they say nothing, the axes shrink to zero.

    Returns:
        (n_molecules, 3, 3); the columns are the axes, a little shorter than one where the vectors say something.
    """
    first, second = vectors.unbind(2)
    fading = (SOFTNESS * lengths).square() + _TINY
    x = first * torch.rsqrt(first.square().sum(1, keepdim=True) + fading[:, :1])
    aside = second - (second * x).sum(1, keepdim=True) * x
    y = aside * torch.rsqrt(aside.square().sum(1, keepdim=True) + fading[:, 1:])
    return torch.stack([x, y, torch.linalg.cross(x, y)], dim=2)


def soft_order(scores: Tensor, present: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """The order of atoms by ascending scores, and a soft one that is a continuous function of the scores.

    The soft order is SoftSort (S. Prillo and J. Eisenschlos, ICML 2020): the point of rank r looks at
    the atoms i with weights softmax_i(-|s_(r) - s_i| / temperature).

    Args:
        scores, present: (n_molecules, n_places) values, and whether there is an atom.
        temperature: in units of the scores.

    Returns:
        (n_molecules, n_places) rank of every atom, places without an atom come last; and
        (n_molecules, n_places, n_places) weights (atom, rank), zero where there is no atom or no such rank.
    """
    key = torch.where(present, scores.detach(), torch.full_like(scores, torch.inf))
    sequence = key.argsort(dim=1, stable=True)
    ranked = scores.gather(1, sequence)
    away = (ranked.unsqueeze(1) - scores.unsqueeze(2)).abs() / temperature
    weights = torch.softmax(-away.masked_fill(~present.unsqueeze(2), torch.inf), dim=1)
    return sequence.argsort(dim=1), weights * present.unsqueeze(1)


def straight_through(slots: Tensor, soft: Tensor) -> Tensor:
    """(n_molecules, n_places, n_places) zeros and ones (atom, rank) with the gradient of the soft order."""
    hard = torch.nn.functional.one_hot(slots, soft.shape[2]).to(soft)
    return hard + soft - soft.detach()
