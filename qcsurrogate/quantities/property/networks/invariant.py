"""Messages between all atoms of a molecule that know squared distances only.

The E(n)-invariant part of EGNN (Satorras, Hoogeboom, Welling, ICML 2021), as its authors use it
for QM9: complete graphs, inferred edges, no update of coordinates, a sum over atoms:

    m_ij = phi_e(h_i, h_j, |x_i - x_j|^2),   h_i <- h_i + phi_h(h_i, sum_j sigmoid(phi_inf(m_ij)) m_ij)
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


class _Layer(nn.Module):
    """One round of messages and one update, residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.message = perceptron(2 * width + 1, width, width)
        self.weight = nn.Linear(width, 1)
        self.update = perceptron(2 * width, width, width)

    def forward(self, held: Tensor, target: Tensor, source: Tensor, squares: Tensor) -> Tensor:
        """(n_atoms, width), the edges and their (n_edges, 1) squared lengths; the same out."""
        ends = torch.cat([gather(held, target), gather(held, source), squares], dim=1)
        messages = nn.functional.silu(self.message(ends))
        messages = messages * torch.sigmoid(self.weight(messages))
        return held + self.update(torch.cat([held, scatter_sum(messages, target, len(held))], dim=1))


@final
class InvariantNetwork(PropertyNetwork):
    """Invariant features of atoms from elements and distances."""

    group: ClassVar[Group] = "E(3)"
    edges: ClassVar[EdgeKind] = "complete"

    def __init__(
        self, elements: Sequence[int], settings: NetworkSettings, start: ElectronicStart | None = None
    ) -> None:
        super().__init__(elements, settings, start)
        self.embedding = nn.Embedding(len(self.elements), settings.channels)
        self.layers = nn.ModuleList(_Layer(settings.channels) for _ in range(settings.layers))
        self.widths = FeatureWidths(settings.channels)

    def forward(self, graph: Graph, known: ElectronicRows | None = None) -> AtomFeatures:
        messages = graph.messages
        squares = (messages.vectors / LENGTH).square().sum(1, keepdim=True)
        held = self.embedding(self.element_index[graph.atomic_numbers])
        for layer in self.layers:
            held = layer(held, messages.target, messages.source, squares)
        return AtomFeatures(held)
