"""The encoder of all other models of this package, and its counterpart with e3nn's tensor products.

Features of atoms carry irreps l = 0..l_max of both parities and are mixed along edges, in the
bond's frame by SO(2) maps (Passaro and Zitnick, ICML 2023) or by Clebsch-Gordan products with
spherical harmonics (NequIP: Batzner et al., Nat. Commun. 2022, 13, 2453); see
:mod:`qcsurrogate.models.encoder`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal, final

import torch
from torch import Tensor

from qcsurrogate.conventions import clebsch_gordan, internal_order, inverse_order
from qcsurrogate.data.graphs import EdgeKind, Graph, GraphSettings
from qcsurrogate.models.encoder import Encoder
from qcsurrogate.models.settings import EncoderSettings
from qcsurrogate.nn.layout import FeatureLayout
from qcsurrogate.nn.node import GatedBlock
from qcsurrogate.nn.norm import EquivariantRMSNorm
from qcsurrogate.quantities.property.networks.base import AtomFeatures, FeatureWidths, Group, PropertyNetwork
from qcsurrogate.quantities.property.networks.electronic import ElectronicRows, ElectronicStart
from qcsurrogate.quantities.property.networks.embedding import ElectronicEmbedding
from qcsurrogate.quantities.property.networks.settings import NetworkSettings

_XYZ = inverse_order(internal_order([1])).tolist()
"""Where x, y and z lie among the components of l = 1."""


class EncoderNetwork(PropertyNetwork):
    """Irreps of atoms from the shared encoder; scalars, vectors and tensors of them are what heads are given."""

    group: ClassVar[Group] = "O(3)"
    edges: ClassVar[EdgeKind] = "radius"
    convolution: ClassVar[Literal["so2", "tensor_product"]]
    coupling: Tensor

    def __init__(
        self, elements: Sequence[int], settings: NetworkSettings, start: ElectronicStart | None = None
    ) -> None:
        super().__init__(elements, settings, start)
        layout = _layout(settings)
        encoder = EncoderSettings(
            convolution=self.convolution,
            channels=settings.channels,
            edge_channels=settings.edge_channels,
            hidden=settings.hidden,
            hidden_odd=settings.hidden_odd,
            layers=settings.layers,
            gaussians=settings.gaussians,
            message_cutoff=settings.message_cutoff,
            average_neighbours=settings.average_neighbours,
        )
        self.encoder = Encoder(self.elements, layout, encoder)
        self.electronic: ElectronicEmbedding | None = None
        if start is not None:
            scale = 1.0 / math.sqrt(settings.average_neighbours or 1.0)
            self.electronic = ElectronicEmbedding(start.basis, layout, settings, scale)
        self.norm = EquivariantRMSNorm(layout, settings.channels)
        self.readout = GatedBlock(layout, settings.channels, settings.readout, settings.readout)
        self.rank_parts = tuple(layout.slices[l] for l in range(min(layout.l_max, 2) + 1))
        width = settings.readout
        self.widths = FeatureWidths(width, width, width if layout.l_max > 1 else 0, start is not None)
        self.register_buffer("coupling", _cartesian_of_quadrupole(), persistent=False)

    @classmethod
    def graph_settings(cls, settings: NetworkSettings, start: ElectronicStart | None = None) -> GraphSettings:
        if start is None:
            return GraphSettings(settings.l_max, settings.message_cutoff)
        return GraphSettings(max(settings.l_max, start.basis.l_max), settings.message_cutoff, settings.message_cutoff)

    def fit_inputs(self, known: Sequence[ElectronicRows], graphs: Sequence[Graph]) -> None:
        if self.electronic is not None:
            self.electronic.fit(known, graphs)

    def forward(self, graph: Graph, known: ElectronicRows | None = None) -> AtomFeatures:
        told = None
        if self.electronic is not None:
            if known is None:
                raise ValueError("a network with electronic inputs was given none")
            told = self.electronic(known, graph, self.element_index[graph.atomic_numbers])
        nodes, _ = self.encoder(graph, told)
        rows = self.readout(self.norm(nodes))
        scalars, vectors, *rest = (rows[:, part] for part in self.rank_parts)
        tensors = (self.coupling.to(rows) @ rest[0]).unflatten(1, (3, 3)) if rest else None
        return AtomFeatures(scalars.squeeze(1), vectors[:, _XYZ], tensors)


@final
class SO2Network(EncoderNetwork):
    """SO(2) convolutions in bond frames."""

    convolution = "so2"


@final
class TensorProductNetwork(EncoderNetwork):
    """e3nn's tensor products."""

    convolution = "tensor_product"


def _layout(settings: NetworkSettings) -> FeatureLayout:
    return FeatureLayout(settings.l_max, settings.l_max - 1)


def _cartesian_of_quadrupole() -> Tensor:
    """(9, 5) symmetric traceless tensors, x, y, z, of the components m = -2..2."""
    coupling = torch.as_tensor(clebsch_gordan(1, 1, 2))[_XYZ][:, _XYZ]
    return coupling.flatten(0, 1)
