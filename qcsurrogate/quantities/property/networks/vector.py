"""Scalars and vectors, and nothing done to them that a rotation or a reflection would notice.

The operations allowed are f(s), s v, W v, <v, v> and v x v.  Messages and update follow PaiNN
(Schütt, Unke, Gastegger, ICML 2021); cross products are taken as in EQGAT (Le, Noé, Clevert, LoG 2022).
The cross product of two polar vectors does not change its sign in a mirror: such axial vectors
are kept apart, and become polar again by another cross product with a polar one, so that the
network respects O(3) and not only rotations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, NamedTuple, final

import torch
from torch import Tensor, nn

from qcsurrogate.data.graphs import EdgeKind, Graph
from qcsurrogate.nn.radial import RadialBasis, smooth_cutoff
from qcsurrogate.nn.scatter import gather, scatter_sum
from qcsurrogate.quantities.property.networks.base import (
    AtomFeatures,
    FeatureWidths,
    Group,
    PropertyNetwork,
    perceptron,
)
from qcsurrogate.quantities.property.networks.electronic import ElectronicRows, ElectronicStart
from qcsurrogate.quantities.property.networks.settings import NetworkSettings

_SMALL = 1e-8
_TENSORS = 8


class _Held(NamedTuple):
    """Of every atom (n_atoms, c) scalars, and (n_atoms, 3, c) polar and axial vectors."""

    scalars: Tensor
    polar: Tensor
    axial: Tensor


class _Messages(nn.Module):
    """What neighbours say: their scalars and vectors, the direction to them, and cross products with it."""

    def __init__(self, width: int, n_radial: int) -> None:
        super().__init__()
        self.width = width
        self.of_sender = perceptron(width, width, 6 * width)
        self.of_distance = nn.Linear(n_radial, 6 * width)

    def forward(self, held: _Held, graph: Graph, radial: Tensor, decay: Tensor, scale: float) -> _Held:
        edges = graph.messages
        weights = gather(self.of_sender(held.scalars), edges.source) * self.of_distance(radial) * decay
        scalars, along, polar, axial, to_axial, to_polar = weights.split(self.width, dim=1)
        direction = (edges.vectors / edges.lengths.unsqueeze(1)).unsqueeze(2)
        v, a = gather(held.polar, edges.source), gather(held.axial, edges.source)
        vectors = direction * _spread(along) + v * _spread(polar) + _cross(a, direction) * _spread(to_polar)
        pseudo = a * _spread(axial) + _cross(v, direction) * _spread(to_axial)
        both = torch.cat([scalars.unsqueeze(1), vectors, pseudo], dim=1)
        total = scatter_sum(both, edges.target, graph.n_atoms) * scale
        return _Held(total[:, 0], total[:, 1:4], total[:, 4:])


class _Update(nn.Module):
    """What an atom makes of its own scalars and vectors."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.polar = nn.Linear(width, 3 * width, bias=False)
        self.axial = nn.Linear(width, 2 * width, bias=False)
        self.weights = perceptron(3 * width, width, 6 * width)

    def forward(self, held: _Held) -> _Held:
        u, v, w = self.polar(held.polar).split(self.width, dim=2)
        a, b = self.axial(held.axial).split(self.width, dim=2)
        invariants = torch.cat([held.scalars, _length(v), _length(a)], dim=1)
        plain, product, polar, axial, to_polar, to_axial = self.weights(invariants).split(self.width, dim=1)
        return _Held(
            plain + product * (u * v).sum(1),
            u * _spread(polar) + _cross(a, v) * _spread(to_polar),
            b * _spread(axial) + _cross(v, w) * _spread(to_axial),
        )


@final
class VectorNetwork(PropertyNetwork):
    """Scalars, polar and axial vectors of every atom; heads are given scalars, polar vectors and products of two."""

    group: ClassVar[Group] = "O(3)"
    edges: ClassVar[EdgeKind] = "radius"

    def __init__(
        self, elements: Sequence[int], settings: NetworkSettings, start: ElectronicStart | None = None
    ) -> None:
        super().__init__(elements, settings, start)
        if settings.average_neighbours is None:
            raise ValueError("average_neighbours is set from the training set before a model is built")
        width = settings.channels
        self.scale = 1.0 / math.sqrt(settings.average_neighbours)
        self.embedding = nn.Embedding(len(self.elements), width)
        self.radial = RadialBasis(len(self.elements), settings.gaussians, settings.message_cutoff)
        self.messages = nn.ModuleList(_Messages(width, self.radial.n_out) for _ in range(settings.layers))
        self.updates = nn.ModuleList(_Update(width) for _ in range(settings.layers))
        self.factors = nn.Linear(width, 2 * _TENSORS, bias=False)
        self.widths = FeatureWidths(width, width, _TENSORS)

    def forward(self, graph: Graph, known: ElectronicRows | None = None) -> AtomFeatures:
        edges, elements = graph.messages, self.element_index[graph.atomic_numbers]
        radial = self.radial(edges.lengths, elements[edges.target], elements[edges.source])
        decay = smooth_cutoff(edges.lengths, self.settings.message_cutoff).unsqueeze(1)
        scalars = self.embedding(elements)
        nothing = scalars.new_zeros(graph.n_atoms, 3, scalars.shape[1])
        held = _Held(scalars, nothing, nothing)
        for messages, update in zip(self.messages, self.updates, strict=True):
            held = _sum(held, messages(held, graph, radial, decay, self.scale))
            held = _sum(held, update(held))
        return AtomFeatures(held.scalars, held.polar, self._tensors(held.polar))

    def _tensors(self, polar: Tensor) -> Tensor:
        """(n_atoms, 3, 3, c) symmetric traceless products of two vectors."""
        one, other = self.factors(polar).split(_TENSORS, dim=2)
        product = one.unsqueeze(2) * other.unsqueeze(1)
        unit = torch.eye(3, dtype=polar.dtype, device=polar.device).view(1, 3, 3, 1)
        return 0.5 * (product + product.transpose(1, 2)) - (one * other).sum(1).view(-1, 1, 1, _TENSORS) * unit / 3.0


def _sum(one: _Held, other: _Held) -> _Held:
    return _Held(*(a + b for a, b in zip(one, other, strict=True)))


def _spread(weights: Tensor) -> Tensor:
    """(n, c) -> (n, 1, c), for vectors (n, 3, c)."""
    return weights.unsqueeze(1)


def _cross(one: Tensor, other: Tensor) -> Tensor:
    """Channel by channel, (n, 3, c) and (n, 3, c or 1)."""
    return torch.linalg.cross(*torch.broadcast_tensors(one, other), dim=1)


def _length(vectors: Tensor) -> Tensor:
    """(n, c) lengths, smooth at zero."""
    return (vectors.square().sum(1) + _SMALL).sqrt()
