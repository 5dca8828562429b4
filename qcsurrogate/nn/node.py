"""Nonlinear update of one atom's features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qcsurrogate.nn.layout import FeatureLayout
from qcsurrogate.nn.linear import DegreeLinear


class GatedBlock(nn.Module):
    """Linear, gate, linear: l = 0 through SiLU, every other irrep times a sigmoid.

    irreps_in: layout x channels_in; irreps_out: layout x channels_out.
    """

    spread: Tensor

    def __init__(
        self, layout: FeatureLayout, channels_in: int, hidden: int, channels_out: int, gain: float = 1.0
    ) -> None:
        super().__init__()
        self.hidden = hidden
        self.first = DegreeLinear(layout, channels_in, hidden)
        self.gates = nn.Linear(hidden, (len(layout.degrees) - 1) * hidden)
        self.second = DegreeLinear(layout, hidden, channels_out, gain)
        self.register_buffer("spread", layout.degree_indicator[1:, 1:], persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """(n, row, channels_in) -> (n, row, channels_out)."""
        scalars, rest = self.first(features).split([1, len(self.spread)], dim=1)
        scalars = nn.functional.silu(scalars)
        gates = torch.sigmoid(self.gates(scalars.squeeze(1))).unflatten(1, (-1, self.hidden))
        return self.second(torch.cat([scalars, rest * (self.spread.to(gates) @ gates)], dim=1))
