"""What a network puts out for pairs of atoms: parts of one block that all pairs share."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from qcsurrogate.data.graphs import PairKind
from qcsurrogate.models.shared_block import SharedBlock


class PairHead(nn.Module):
    """Hidden form -> rows of every kind of pair, by weights of all pairs plus those of its first and second element."""

    own: Tensor

    def __init__(self, block: SharedBlock, hidden: int, hidden_odd: int) -> None:
        super().__init__()
        elements = sorted({z for kind in block.kinds for z in kind})
        order, n = block.order, 1 + 2 * len(elements)
        self.block = block
        self.hidden_odd = hidden_odd if order.n_odd else 0
        self.even = _weights(n, hidden, order.n_even)
        self.bias = nn.Parameter(torch.zeros(n, order.n_even))
        self.odd = _weights(n, self.hidden_odd, order.n_odd) if self.hidden_odd else None
        self.halves = nn.ParameterList(_weights(n, hidden, count) for count in order.n_half)
        own = torch.zeros(len(block.kinds), n)
        for k, (first, second) in enumerate(block.kinds):
            own[k, [0, 1 + elements.index(first), 1 + len(elements) + elements.index(second)]] = 1.0
        self.number = {kind: k for k, kind in enumerate(block.kinds)}
        self.register_buffer("own", own, persistent=False)

    def forward(self, kinds: Sequence[tuple[PairKind, int]], hidden: Tensor, odd: Tensor) -> list[Tensor]:
        """For each kind (n_pairs, n_rows of the kind), sorted by |m|.

        Args:
            kinds: kinds and numbers of pairs.
            hidden: (n_pairs, >= 1 + 2 m_max, width), of all kinds one after the other.
            odd: (n_pairs, n_odd).
        """
        if not kinds:
            return []
        own = torch.stack([self.own[self.number[kind]] for kind, _ in kinds])  # (kind, 1 + 2 element)
        evens, biases = _mixed(own, self.even), _mixed(own, self.bias)
        odds = None if self.odd is None else _mixed(own, self.odd)
        halves = [_mixed(own, weights) for weights in self.halves]
        counts, rows = [count for _, count in kinds], []
        for k, ((kind, _), h, o) in enumerate(zip(kinds, hidden.split(counts), odd.split(counts), strict=True)):
            even, odd_places, *others = self.block.parts(kind, hidden.device)
            parts = [h[:, 0] @ evens[k].index_select(1, even) + biases[k][even]]
            if len(odd_places):
                zeros = h.new_zeros(len(h), len(odd_places))
                parts.append(zeros if odds is None else o @ odds[k].index_select(1, odd_places))
            for m, (half, places) in enumerate(zip(halves, others, strict=True), start=1):
                if len(places):
                    parts.append((h[:, 2 * m - 1 : 2 * m + 1] @ half[k].index_select(1, places)).flatten(1))
            rows.append(torch.cat(parts, dim=1))
        return rows


def _mixed(own: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
    """For every kind the sum of its weights, (kind, n) and (n, ...) -> (...) of each."""
    return (own @ weights.flatten(1)).view(-1, *weights.shape[1:]).unbind()


def _weights(n: int, n_in: int, n_out: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(n, n_in, n_out) / math.sqrt(3.0 * max(1, n_in)))
