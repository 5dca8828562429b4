"""Two ways to carry features along an edge, behind one interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from e3nn import o3
from torch import Tensor, nn

from qcsurrogate.nn.layout import FeatureLayout
from qcsurrogate.nn.linear import DegreeLinear
from qcsurrogate.nn.norm import EquivariantRMSNorm
from qcsurrogate.nn.radial import RadialWeights
from qcsurrogate.nn.scatter import gather
from qcsurrogate.nn.so2 import FromHidden, HiddenGate, ToHidden


@dataclass(frozen=True)
class Edges:
    """What a convolution knows of the edges.

    Attributes:
        target, source: (n_edges,).
        rotation: (n_edges, n_rows, n_rows) to bond frames, rows sorted by |m|.
        radial: (n_edges, n_radial).
        envelope: (n_edges, 1, 1), zero at the cutoff.
        harmonics: (n_edges, (l_max+1)^2) of the bond direction, internal order.
    """

    target: Tensor
    source: Tensor
    rotation: Tensor
    radial: Tensor
    envelope: Tensor
    harmonics: Tensor


class Convolution(nn.Module, ABC):
    """Messages along edges, and what the edge itself remembers."""

    @abstractmethod
    def forward(self, nodes: Tensor, edge_features: Tensor | None, edges: Edges) -> tuple[Tensor, Tensor]:
        """Features of atoms and edges -> messages and an update of the edges.

        Args:
            nodes: (n_atoms, row, channels), normalised.
            edge_features: (n_edges, row, edge_channels) in bond frames; None in the
                first layer.
            edges: geometry.

        Returns:
            messages (n_edges, row, channels) in the molecule's frame and the update
            (n_edges, row, edge_channels) in bond frames.
        """


class SO2Convolution(Convolution):
    """Rotate both ends into the bond's frame, mix per |m|, gate, mix, rotate back."""

    def __init__(
        self,
        layout: FeatureLayout,
        channels: int,
        edge_channels: int,
        n_radial: int,
        hidden: int,
        hidden_odd: int,
        *,
        first: bool,
    ) -> None:
        super().__init__()
        order = layout.bond_order
        self.channels, self.m_max = channels, layout.l_max
        self.norm = None if first else EquivariantRMSNorm(layout, edge_channels, bond_frame=True)
        hidden_odd = hidden_odd if order.n_odd else 0  # l_max = 1 has no mirror-odd rows at m = 0
        self.into = ToHidden(order, 2 * channels + (0 if first else edge_channels), hidden, hidden_odd)
        self.radial = RadialWeights(n_radial, (layout.l_max + 1) * hidden + hidden_odd)
        self.gate = HiddenGate(hidden, hidden_odd, layout.l_max)
        self.out = FromHidden(order, channels + edge_channels, hidden, hidden_odd, gain=0.5)

    def forward(self, nodes: Tensor, edge_features: Tensor | None, edges: Edges) -> tuple[Tensor, Tensor]:
        ends = torch.cat([gather(nodes, edges.target), gather(nodes, edges.source)], dim=2)
        rows = torch.bmm(edges.rotation, ends)
        if self.norm is not None and edge_features is not None:
            rows = torch.cat([rows, self.norm(edge_features)], dim=2)
        hidden, odd = self.into(rows)
        hidden, odd = scale_hidden(hidden, odd, self.radial(edges.radial))
        mixed = self.out(*self.gate(hidden, odd))
        messages, update = mixed.split([self.channels, mixed.shape[2] - self.channels], dim=2)
        return torch.bmm(edges.rotation.transpose(1, 2), messages * edges.envelope), update


def scale_hidden(hidden: Tensor, odd: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Multiplies each |m| of a hidden form, and its odd scalars, by 1 + radial weights.

    Args:
        hidden: (n_edges, 1 + 2 m_max, width).
        odd: (n_edges, n_odd).
        weights: (n_edges, (1 + m_max) width + n_odd).
    """
    width, n_odd = hidden.shape[2], odd.shape[1]
    even, halves, odd_weights = (1.0 + weights).split([width, weights.shape[1] - width - n_odd, n_odd], dim=1)
    zero, rest = hidden.split([1, hidden.shape[1] - 1], dim=1)
    scaled = rest.unflatten(1, (-1, 2)) * halves.unflatten(1, (-1, 1, width))
    return torch.cat([zero * even.unsqueeze(1), scaled.flatten(1, 2)], dim=1), odd * odd_weights


class TensorProductConvolution(Convolution):
    """The reference: e3nn tensor products with spherical harmonics, weights from the radius.

    Messages couple the sender with the bond's harmonics channel by channel ("uvu"),
    edges couple both ends ("uuu"), as in QHNet (Yu et al., ICML 2023).
    """

    def __init__(
        self,
        layout: FeatureLayout,
        channels: int,
        edge_channels: int,
        n_radial: int,
        hidden: int,
        hidden_odd: int,
        *,
        first: bool,
    ) -> None:
        super().__init__()
        self.layout, self.channels = layout, channels
        irreps, harmonics = layout.irreps(channels), o3.Irreps.spherical_harmonics(layout.l_max)
        self.message_product = _product(irreps, harmonics, irreps, "uvu")
        self.edge_product = _product(irreps, irreps, irreps, "uuu")
        self.message_weights = RadialWeights(n_radial, self.message_product.weight_numel)
        self.edge_weights = RadialWeights(n_radial, self.edge_product.weight_numel)
        self.edge_linear = DegreeLinear(layout, channels, edge_channels, gain=0.5)

    def forward(self, nodes: Tensor, edge_features: Tensor | None, edges: Edges) -> tuple[Tensor, Tensor]:
        flat = self._flatten(nodes)
        sender = gather(flat, edges.source)
        messages = self.message_product(sender, edges.harmonics, self.message_weights(edges.radial))
        coupled = self.edge_product(gather(flat, edges.target), sender, self.edge_weights(edges.radial))
        update = torch.bmm(edges.rotation, self.edge_linear(self._unflatten(coupled)))
        return self._unflatten(messages) * edges.envelope, update

    def _flatten(self, features: Tensor) -> Tensor:
        """(n, row, channels) -> e3nn's (n, channel x row) for each irrep."""
        parts = [features[:, part].transpose(1, 2).flatten(1) for part in self.layout.slices]
        return torch.cat(parts, dim=1)

    def _unflatten(self, flat: Tensor) -> Tensor:
        sizes = [(part.stop - part.start) * self.channels for part in self.layout.slices]
        parts = [x.unflatten(1, (self.channels, -1)).transpose(1, 2) for x in flat.split(sizes, dim=1)]
        return torch.cat(parts, dim=1)


class ExactTensorProduct(o3.TensorProduct):
    """e3nn's tensor product, but with coupling coefficients exact in whatever type it is cast to.

    e3nn stores them in float32 and only casts them, which limits equivariance in float64
    to 1e-9.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        for module in self.modules():
            for name, buffer in module._buffers.items():
                if buffer is not None and name.startswith("_w3j_"):
                    l1, l2, l3 = (int(part) for part in name.removeprefix("_w3j_").split("_"))
                    buffer.copy_(o3.wigner_3j(l1, l2, l3, dtype=torch.float64))
        return self


def _product(first: o3.Irreps, second: o3.Irreps, out: o3.Irreps, mode: str) -> ExactTensorProduct:
    instructions = [
        (i, j, k, mode, True)
        for i, (_, a) in enumerate(first)
        for j, (_, b) in enumerate(second)
        for k, (_, c) in enumerate(out)
        if c in a * b
    ]
    return ExactTensorProduct(first, second, out, instructions, shared_weights=False, internal_weights=False)
