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
_POLAR_PER_AXIAL = 4
_TENSORS = 8


class _Held(NamedTuple):
    """Of every atom (n_atoms, c) scalars, (n_atoms, 3, c) polar and (n_atoms, 3, fewer) axial vectors."""

    scalars: Tensor
    polar: Tensor
    axial: Tensor


class _Messages(nn.Module):
    """What neighbours say: their scalars and vectors, the direction to them, and cross products with it."""

    def __init__(self, width: int, axial: int, n_radial: int) -> None:
        super().__init__()
        self.sizes = [width, width, width, axial, axial, axial]
        self.of_sender = perceptron(width, width, sum(self.sizes))
        self.of_distance = nn.Linear(n_radial, sum(self.sizes))
        self.fewer = nn.Linear(width, axial, bias=False)
        self.more = nn.Linear(axial, width, bias=False)

    def forward(self, held: _Held, graph: Graph, radial: Tensor, decay: Tensor, scale: float) -> _Held:
        edges = graph.messages
        weights = gather(self.of_sender(held.scalars), edges.source) * self.of_distance(radial) * decay
        scalars, along, polar, axial, to_axial, to_polar = weights.split(self.sizes, dim=1)
        direction = (edges.vectors / edges.lengths.unsqueeze(1)).unsqueeze(2)
        v, u, a = (gather(x, edges.source) for x in (held.polar, self.fewer(held.polar), held.axial))
        parts = (
            scalars.unsqueeze(1),
            direction * _spread(along) + v * _spread(polar),
            _cross(a, direction) * _spread(to_polar),
            a * _spread(axial) + _cross(u, direction) * _spread(to_axial),
        )
        said, vectors, of_axial, pseudo = (scale * scatter_sum(x, edges.target, graph.n_atoms) for x in parts)
        return _Held(said.squeeze(1), vectors + self.more(of_axial), pseudo)


class _Update(nn.Module):
    """What an atom makes of its own scalars and vectors."""

    def __init__(self, width: int, axial: int) -> None:
        super().__init__()
        self.width, self.n_axial = width, axial
        self.polar = nn.Linear(width, 2 * width + 2 * axial, bias=False)
        self.axial = nn.Linear(axial, 2 * axial, bias=False)
        self.more = nn.Linear(axial, width, bias=False)
        self.sizes = [width, width, width, axial, axial, axial]
        self.weights = perceptron(2 * width + axial, width, sum(self.sizes))

    def forward(self, held: _Held) -> _Held:
        few = self.n_axial
        u, v, p, q = self.polar(held.polar).split([self.width, self.width, few, few], dim=2)
        a, b = self.axial(held.axial).split(few, dim=2)
        invariants = torch.cat([held.scalars, _length(v), _length(a)], dim=1)
        plain, product, polar, axial, to_polar, to_axial = self.weights(invariants).split(self.sizes, dim=1)
        return _Held(
            plain + product * (u * v).sum(1),
            u * _spread(polar) + self.more(_cross(a, p) * _spread(to_polar)),
            b * _spread(axial) + _cross(p, q) * _spread(to_axial),
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
        self.n_axial = max(1, width // _POLAR_PER_AXIAL)
        layers = range(settings.layers)
        self.messages = nn.ModuleList(_Messages(width, self.n_axial, self.radial.n_out) for _ in layers)
        self.updates = nn.ModuleList(_Update(width, self.n_axial) for _ in layers)
        self.factors = nn.Linear(width, 2 * _TENSORS, bias=False)
        self.widths = FeatureWidths(width, width, _TENSORS)

    def forward(self, graph: Graph, known: ElectronicRows | None = None) -> AtomFeatures:
        edges, elements = graph.messages, self.element_index[graph.atomic_numbers]
        radial = self.radial(edges.lengths, elements[edges.target], elements[edges.source])
        decay = smooth_cutoff(edges.lengths, self.settings.message_cutoff).unsqueeze(1)
        scalars = self.embedding(elements)
        nothing = (scalars.new_zeros(graph.n_atoms, 3, width) for width in (scalars.shape[1], self.n_axial))
        held = _Held(scalars, *nothing)
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
    """Channel by channel, (n, 3, c) and (n, 3, c or 1); torch.linalg.cross is many times slower in this layout."""
    (x, y, z), (u, v, w) = one.unbind(1), other.unbind(1)
    return torch.stack([y * w - z * v, z * u - x * w, x * v - y * u], dim=1)


def _length(vectors: Tensor) -> Tensor:
    """(n, c) lengths, smooth at zero."""
    return (vectors.square().sum(1) + _SMALL).sqrt()
