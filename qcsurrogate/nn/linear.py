"""One matrix per irrep."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from qcsurrogate.nn.layout import FeatureLayout


class DegreeLinear(nn.Module):
    """Mixes channels with one matrix for each irrep of the layout; bias on l = 0.

    irreps_in: layout x channels_in; irreps_out: layout x channels_out.
    """

    def __init__(self, layout: FeatureLayout, channels_in: int, channels_out: int, gain: float = 1.0) -> None:
        super().__init__()
        n = len(layout.degrees)
        self.weight = nn.Parameter(gain * torch.randn(n, channels_in, channels_out) / math.sqrt(channels_in))
        self.bias = nn.Parameter(torch.zeros(channels_out))
        self.sizes = [2 * l + 1 for l, _ in layout.degrees]

    def forward(self, features: Tensor) -> Tensor:
        """(n, row, channels_in) -> (n, row, channels_out)."""
        parts = [x @ w for x, w in zip(features.split(self.sizes, dim=1), self.weight, strict=True)]
        parts[0] = parts[0] + self.bias
        return torch.cat(parts, dim=1)
