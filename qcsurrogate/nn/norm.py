"""Root-mean-square normalisation that respects irreps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qcsurrogate.nn.layout import FeatureLayout

_EPSILON = 1e-4


class EquivariantRMSNorm(nn.Module):
    """Divides by the size over all irreps (each weighs the same), then scales each irrep.

    Args:
        layout: rows of the features.
        channels: number of channels.
        bond_frame: whether rows come sorted by |m| (then the gains are, too).
    """

    spread: Tensor
    share: Tensor

    def __init__(self, layout: FeatureLayout, channels: int, *, bond_frame: bool = False) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(len(layout.degrees), channels))
        spread = layout.degree_indicator
        share = torch.tensor([1.0 / ((2 * r.l + 1) * len(layout.degrees)) for r in layout.rows], dtype=torch.float64)
        if bond_frame:
            order = layout.bond_order.index
            spread, share = spread[order], share[order]
        self.register_buffer("spread", spread, persistent=False)
        self.register_buffer("share", share.unsqueeze(1), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """(n, row, channels), same shape out."""
        mean_square = (features.square() * self.share.to(features)).sum(1, keepdim=True).mean(2, keepdim=True)
        return features * torch.rsqrt(mean_square + _EPSILON) * (self.spread.to(features) @ self.gain)
