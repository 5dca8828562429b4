"""Linear maps in a bond's frame: one real matrix for each |m|.

The cost grows as l_max^2 in the number of rows times channels, against the l_max^6 of
Clebsch-Gordan tensor products (Passaro and Zitnick, ICML 2023, introduced the
reduction; here it keeps reflections as well, see :mod:`.layout`).

Between the two maps lies a *hidden* form (n_edges, 1 + 2 m_max, hidden): row 0 is m = 0,
then (+m, -m) for each m; and ``odd``, (n_edges, hidden_odd), the m = 0 numbers that
change sign in a mirror.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from qcsurrogate.nn.layout import BondOrder


class ToHidden(nn.Module):
    """Rows in bond order -> hidden form."""

    def __init__(self, order: BondOrder, channels: int, hidden: int, hidden_odd: int) -> None:
        super().__init__()
        self.sizes = order.sizes
        self.even = _matrix(order.n_even * channels, hidden)
        self.bias = nn.Parameter(torch.zeros(hidden))
        self.odd = _matrix(order.n_odd * channels, hidden_odd) if order.n_odd and hidden_odd else None
        self.halves = nn.ParameterList(_matrix(n * channels, hidden) for n in order.n_half)

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(n_edges, n_rows, channels) -> hidden (n_edges, 1 + 2 m_max, hidden), odd."""
        n = len(rows)
        even, odd, *halves = rows.split(self.sizes, dim=1)
        parts = [(even.flatten(1) @ self.even + self.bias).unsqueeze(1)]
        parts += [half.reshape(n, 2, len(weight)) @ weight for half, weight in zip(halves, self.halves, strict=True)]
        odd_scalars = rows.new_zeros(n, 0) if self.odd is None else odd.flatten(1) @ self.odd
        return torch.cat(parts, dim=1), odd_scalars


class FromHidden(nn.Module):
    """Hidden form -> rows in bond order; ``gain`` scales the initial weights."""

    def __init__(self, order: BondOrder, channels: int, hidden: int, hidden_odd: int, gain: float = 1.0) -> None:
        super().__init__()
        self.channels = channels
        self.n_even, self.n_odd, self.n_half = order.n_even, order.n_odd, order.n_half
        self.even = _matrix(hidden, order.n_even * channels, gain)
        self.bias = nn.Parameter(torch.zeros(order.n_even * channels))
        self.odd = _matrix(hidden_odd, order.n_odd * channels, gain) if order.n_odd and hidden_odd else None
        self.halves = nn.ParameterList(_matrix(hidden, n * channels, gain) for n in order.n_half)

    def forward(self, hidden: Tensor, odd: Tensor) -> Tensor:
        """hidden (n_edges, >= 1 + 2 m_max, hidden), odd -> (n_edges, n_rows, channels)."""
        n = len(hidden)
        m_max = (hidden.shape[1] - 1) // 2
        zero, *halves = hidden.split([1] + [2] * m_max, dim=1)
        parts = [(zero.squeeze(1) @ self.even + self.bias).view(n, self.n_even, self.channels)]
        if self.n_odd:
            values = hidden.new_zeros(n, self.n_odd * self.channels) if self.odd is None else odd @ self.odd
            parts.append(values.view(n, self.n_odd, self.channels))
        for half, weight, rows in zip(halves, self.halves, self.n_half, strict=False):
            parts.append((half @ weight).reshape(n, 2 * rows, self.channels))
        return torch.cat(parts, dim=1)


class HiddenGate(nn.Module):
    """Nonlinearity of the hidden form: m = 0 through SiLU, the rest through sigmoid gates.

    The gates are functions of the mirror-even m = 0 numbers, which are invariant, so the
    result is exactly equivariant (a pointwise nonlinearity on a grid of angles is not).
    """

    def __init__(self, hidden: int, hidden_odd: int, m_max: int) -> None:
        super().__init__()
        self.hidden, self.hidden_odd, self.m_max = hidden, hidden_odd, m_max
        self.gates = nn.Linear(hidden, m_max * hidden + hidden_odd)

    def forward(self, hidden: Tensor, odd: Tensor) -> tuple[Tensor, Tensor]:
        """Both in and out: hidden (n_edges, 1 + 2 m_max, hidden), odd (n_edges, hidden_odd)."""
        zero, rest = hidden.split([1, 2 * self.m_max], dim=1)
        scalars = nn.functional.silu(zero.squeeze(1))
        gates = torch.sigmoid(self.gates(scalars))
        halves, odd_gate = gates.split([self.m_max * self.hidden, self.hidden_odd], dim=1)
        halves = halves.view(-1, self.m_max, 1, self.hidden)
        gated = rest.reshape(-1, self.m_max, 2, self.hidden) * halves
        out = torch.cat([scalars.unsqueeze(1), gated.reshape(-1, 2 * self.m_max, self.hidden)], dim=1)
        return out, odd * odd_gate


def _matrix(n_in: int, n_out: int, gain: float = 1.0) -> nn.Parameter:
    return nn.Parameter(gain * torch.randn(n_in, n_out) / math.sqrt(max(1, n_in)))
