"""Atoms and bonds of a molecule as equivariant features."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from qcsurrogate.data.graphs import EdgeSet, Graph
from qcsurrogate.models.settings import EncoderSettings
from qcsurrogate.nn.convolution import Convolution, Edges, SO2Convolution, TensorProductConvolution
from qcsurrogate.nn.layout import FeatureLayout
from qcsurrogate.nn.linear import DegreeLinear
from qcsurrogate.nn.node import GatedBlock
from qcsurrogate.nn.norm import EquivariantRMSNorm
from qcsurrogate.nn.radial import RadialBasis, smooth_cutoff
from qcsurrogate.nn.rotation import BondRotation
from qcsurrogate.nn.scatter import scatter_sum

CONVOLUTIONS: dict[str, type[SO2Convolution] | type[TensorProductConvolution]] = {
    "so2": SO2Convolution,
    "tensor_product": TensorProductConvolution,
}


class Layer(nn.Module):
    """One round of messages and one update of every atom, both residual."""

    def __init__(self, layout: FeatureLayout, settings: EncoderSettings, n_radial: int, *, first: bool) -> None:
        super().__init__()
        channels = settings.channels
        if settings.average_neighbours is None:
            raise ValueError("average_neighbours is set from the training set before a model is built")
        self.scale = 1.0 / math.sqrt(settings.average_neighbours)
        self.message_norm = EquivariantRMSNorm(layout, channels)
        self.convolution: Convolution = CONVOLUTIONS[settings.convolution](
            layout,
            channels,
            settings.edge_channels,
            n_radial,
            settings.hidden,
            settings.hidden_odd,
            first=first,
        )
        self.linear = DegreeLinear(layout, channels, channels, gain=0.5)
        self.update_norm = EquivariantRMSNorm(layout, channels)
        self.update = GatedBlock(layout, channels, 2 * channels, channels, gain=0.3)

    def forward(self, nodes: Tensor, edge_features: Tensor | None, edges: Edges) -> tuple[Tensor, Tensor]:
        """(n_atoms, row, channels), (n_edges, row, edge_channels) in bond frames; the same out."""
        messages, update = self.convolution(self.message_norm(nodes), edge_features, edges)
        total = scatter_sum(messages, edges.target, len(nodes)) * self.scale
        nodes = nodes + self.linear(total)
        nodes = nodes + self.update(self.update_norm(nodes))
        return nodes, update if edge_features is None else edge_features + update


class Encoder(nn.Module):
    """Element embeddings, then layers of messages.

    Args:
        elements: atomic numbers it knows, ascending.
        layout: irreps of the features.
        settings: sizes.
    """

    element_index: Tensor
    bond_harmonics: Tensor
    harmonic_norm: Tensor

    def __init__(self, elements: Sequence[int], layout: FeatureLayout, settings: EncoderSettings) -> None:
        super().__init__()
        self.layout, self.settings = layout, settings
        index = torch.full((max(elements) + 1,), -1)
        index[torch.tensor(list(elements))] = torch.arange(len(elements))
        self.register_buffer("element_index", index, persistent=False)
        self.embedding = nn.Embedding(len(elements), settings.channels)
        self.radial = RadialBasis(len(elements), settings.gaussians, settings.message_cutoff)
        self.rotation = BondRotation(layout)
        self.layers = nn.ModuleList(
            Layer(layout, settings, self.radial.n_out, first=k == 0) for k in range(settings.layers)
        )
        self.register_buffer("bond_harmonics", _bond_harmonics(layout.l_max), persistent=False)
        norms = [math.sqrt(2 * l + 1) for l in range(layout.l_max + 1) for _ in range(2 * l + 1)]
        self.register_buffer("harmonic_norm", torch.tensor(norms, dtype=torch.float64), persistent=False)

    def forward(self, graph: Graph, known: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Features of atoms and of the edges of messages.

        Args:
            graph: the molecules.
            known: (n_atoms, row, channels) what is known of the atoms beside their elements.

        Returns:
            (n_atoms, row, channels), and (n_edges, row, edge_channels) in bond frames, where
            they do not vanish at the cutoff: who uses them must see to that.
        """
        elements = self.element_index[graph.atomic_numbers]
        edges = self._edges(graph.messages, elements)
        embedded = self.embedding(elements).unsqueeze(1)
        nodes = torch.cat([embedded, embedded.new_zeros(graph.n_atoms, self.layout.n_rows - 1, embedded.shape[2])], 1)
        if known is not None:
            nodes = nodes + known
        edge_features: Tensor | None = None
        for layer in self.layers:
            nodes, edge_features = layer(nodes, edge_features, edges)
        if edge_features is None:
            raise ValueError("an encoder needs at least one layer")
        return nodes, edge_features

    def _edges(self, messages: EdgeSet, elements: Tensor) -> Edges:
        radial = self.radial(messages.lengths, elements[messages.target], elements[messages.source])
        return Edges(
            messages.target,
            messages.source,
            self.rotation(messages.wigner),
            radial,
            smooth_cutoff(messages.lengths, self.settings.message_cutoff).view(-1, 1, 1),
            messages.wigner[:, self.bond_harmonics] * self.harmonic_norm.to(messages.wigner),
        )


def _bond_harmonics(l_max: int) -> Tensor:
    """Where the rows m = 0 lie in flat Wigner matrices: Y_l(bond) = sqrt(2l+1) D_l[0, :]."""
    places: list[int] = []
    start = 0
    for l in range(l_max + 1):
        size = 2 * l + 1
        places.extend(range(start + l * size, start + (l + 1) * size))
        start += size * size
    return torch.tensor(places)
