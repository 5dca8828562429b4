"""A network without symmetry: raw coordinates as features of atoms, sums along bonds.

GIN (Xu, Hu, Leskovec, Jegelka, ICLR 2019): h_i <- MLP((1 + eps) h_i + sum over neighbours of h_j),
and a readout of all layers.  It is what lies nearest at hand for a molecule given as a table
of coordinates and bonds, and it answers differently when the molecule is turned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from qcsurrogate.data.graphs import EdgeKind, Graph
from qcsurrogate.nn.scatter import gather, scatter_sum
from qcsurrogate.quantities.property.networks.base import (
    LENGTH,
    AtomFeatures,
    FeatureWidths,
    Group,
    PropertyNetwork,
    perceptron,
)
from qcsurrogate.quantities.property.networks.electronic import ElectronicRows, ElectronicStart
from qcsurrogate.quantities.property.networks.settings import NetworkSettings


@final
class NaiveNetwork(PropertyNetwork):
    """Element and coordinates of every atom, mixed along bonds."""

    group: ClassVar[Group] = "none"
    edges: ClassVar[EdgeKind] = "bonds"

    def __init__(
        self, elements: Sequence[int], settings: NetworkSettings, start: ElectronicStart | None = None
    ) -> None:
        super().__init__(elements, settings, start)
        width = settings.channels
        self.embedding = nn.Embedding(len(self.elements), width)
        self.coordinates = nn.Linear(3, width)
        self.epsilon = nn.Parameter(torch.zeros(settings.layers))
        self.layers = nn.ModuleList(perceptron(width, width, width) for _ in range(settings.layers))
        self.readout = nn.Linear((settings.layers + 1) * width, width)
        self.widths = FeatureWidths(width)

    def forward(self, graph: Graph, known: ElectronicRows | None = None) -> AtomFeatures:
        messages = graph.messages
        held = self.inputs(graph)
        layers = [held]
        for epsilon, layer in zip(self.epsilon, self.layers, strict=True):
            total = scatter_sum(gather(held, messages.source), messages.target, graph.n_atoms)
            held = nn.functional.silu(layer((1.0 + epsilon) * held + total))
            layers.append(held)
        return AtomFeatures(self.readout(torch.cat(layers, dim=1)))

    def inputs(self, graph: Graph) -> Tensor:
        """(n_atoms, channels) what is known of every atom before any message."""
        elements = self.element_index[graph.atomic_numbers]
        return self.embedding(elements) + self.coordinates(graph.positions / LENGTH)
