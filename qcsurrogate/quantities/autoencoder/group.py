"""Elements of SE(3) x S_n that are read off a molecule: a frame, a place and an order of its atoms.

A function psi of a molecule x is equivariant if psi(g x) = g psi(x).  Where a molecule has symmetries of
its own this can hold only up to them (R. Winter, M. Bertolini, T. Le, F. Noe and D.-A. Clevert, NeurIPS
2022): no equivariant vector leaves the axis of ammonia, and nothing tells one hydrogen of methane from
another.  There an atom is chosen to look at, the first of those that are equally far away.  Another
choice gives another frame and another order, which a symmetry of the molecule takes into the first: a
cloud that is put into this frame in this order lies just as far from the molecule.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from qcsurrogate.data.graphs import Graph

DEGENERATE = 0.01
"""Vectors whose sum is shorter than this part of the sum of their lengths say nothing about a direction."""
SOFTNESS = 0.01
"""The same for the continuous frame of an embedding: it fades where vectors are about so short."""
MARGIN = 0.3
"""Training makes vectors longer that are shorter than this part of the sum of their lengths."""
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

    Where a vector says nothing (:data:`DEGENERATE`), as in symmetric molecules, the atom farthest from
    the centre takes the place of the first, the one farthest from the first axis that of the second.
    Where all atoms lie on the first axis, any turn about it is a symmetry, and a fixed direction serves.

    Args:
        vectors: (n_molecules, 3, 2), sums of vectors of the atoms.
        lengths: (n_molecules, 2) sums of the lengths of these vectors.
        offsets: (n_molecules, n_places, 3) of atoms from their centre; zero where there is no atom.

    Returns:
        (n_molecules, 3, 3); the columns are the axes.
    """
    first, second = vectors.unbind(2)
    size = offsets.norm(dim=2).amax(1, keepdim=True)
    x = _direction(first, lengths[:, :1], _farthest(offsets), size)
    x = torch.where((size > 0) | (_norm(first) > 0), x, _axis(x, 0))
    across = offsets - (offsets @ x.unsqueeze(2)) * x.unsqueeze(1)
    aside = second - (second * x).sum(1, keepdim=True) * x
    y = _direction(aside, lengths[:, 1:], _farthest(across), size)
    helper = torch.zeros_like(x).scatter_(1, x.abs().argmin(1, keepdim=True), 1.0)
    spare = torch.linalg.cross(helper, x)
    y = torch.where(_norm(y) > 0, y, spare / _norm(spare))
    y = y - (y * x).sum(1, keepdim=True) * x  # once more: the first time may have left the rounding of a long vector
    y = y / _norm(y)
    return torch.stack([x, y, torch.linalg.cross(x, y)], dim=2)


def _norm(vectors: Tensor) -> Tensor:
    return vectors.norm(dim=1, keepdim=True)


def _axis(like: Tensor, k: int) -> Tensor:
    return torch.nn.functional.one_hot(torch.tensor(k, device=like.device), 3).to(like).expand_as(like)


def _farthest(offsets: Tensor) -> Tensor:
    """(n_molecules, 3) of the atom with the longest offset."""
    index = offsets.norm(dim=2).argmax(1)
    return offsets[torch.arange(len(offsets), device=offsets.device), index]


def _direction(vector: Tensor, length: Tensor, instead: Tensor, size: Tensor) -> Tensor:
    """The direction of a vector, or of what stands for it; zero where neither says anything.

    Nothing is divided by a number near zero, not even in the branch that is not taken: its gradient would be NaN.
    """
    said = _norm(vector.detach()) > DEGENERATE * length.detach()
    chosen = torch.where(said, vector, instead)
    told = said | (_norm(instead) > DEGENERATE * size)
    norm = torch.where(told, chosen, torch.ones_like(chosen)).norm(dim=1, keepdim=True)
    return torch.where(told, chosen / norm, torch.zeros_like(chosen))


def degeneracy(vectors: Tensor, lengths: Tensor) -> Tensor:
    """(n_molecules,) how close the vectors of :func:`frames` are to saying nothing: zero if both are long and apart."""
    first, second = vectors.unbind(2)
    x = first * torch.rsqrt(first.square().sum(1, keepdim=True) + _TINY)
    aside = second - (second * x).sum(1, keepdim=True) * x
    squared = torch.stack([v.square().sum(1) for v in (first, aside)], dim=1)
    told = (squared + _TINY).sqrt() / (lengths + _TINY**0.5)
    return (MARGIN - told).clamp(min=0.0).square().sum(1)


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
