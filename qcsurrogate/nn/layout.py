"""Orders of equivariant features.

Features are tensors (n, row, channel).  In the *molecule's frame* the rows run over
l = 0..l_max with parity (-1)^l ("natural") and then l = 1..l_pseudo with parity
(-1)^(l+1) ("pseudo"), each m = -l..l.

In a *bond's frame* rows are sorted by |m| instead, because only a turn about the bond
and the mirror planes through it are left to respect, and those mix nothing but +m with
-m.  Under such a mirror N(+m) and P(-m) are even, N(-m) and P(+m) odd; so
[N(+m), P(-m)] and [N(-m), -P(+m)] transform alike and share their weights, while at
m = 0 N and P stay apart.  That is what keeps an SO(2) convolution equivariant to
reflections.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from e3nn import o3
from torch import Tensor


@dataclass(frozen=True)
class Row:
    """One component of an irrep: its l, m, and whether its parity is natural, (-1)^l."""

    l: int
    m: int
    natural: bool


@dataclass(frozen=True)
class BondOrder:
    """Rows sorted by |m|: even m = 0, odd m = 0, then for each m its + and its - half.

    Attributes:
        index: (n_rows,) ``bond = sign * rows[index]``.
        sign: (n_rows,) +1 or -1.
        n_even, n_odd: natural and pseudo rows of m = 0.
        n_half: rows of one half for m = 1, 2, ...
    """

    index: Tensor
    sign: Tensor
    n_even: int
    n_odd: int
    n_half: tuple[int, ...]

    @property
    def sizes(self) -> list[int]:
        """Lengths of the consecutive parts: even, odd, then both halves of each m together."""
        return [self.n_even, self.n_odd, *(2 * n for n in self.n_half)]


def bond_order(rows: Sequence[Row]) -> BondOrder:
    """The order by |m| of any list of rows that holds whole irreps, each m = -l..l in a run."""
    index: list[int] = []
    sign: list[float] = []
    even = [k for k, r in enumerate(rows) if r.m == 0 and r.natural]
    odd = [k for k, r in enumerate(rows) if r.m == 0 and not r.natural]
    index += even + odd
    sign += [1.0] * len(index)
    halves = []
    for m in range(1, max(r.l for r in rows) + 1):
        natural = [k for k, r in enumerate(rows) if r.m == m and r.natural]
        pseudo = [k for k, r in enumerate(rows) if r.m == m and not r.natural]
        # -m lies 2m rows before +m
        index += natural + [k - 2 * m for k in pseudo] + [k - 2 * m for k in natural] + pseudo
        sign += [1.0] * (2 * len(natural) + len(pseudo)) + [-1.0] * len(pseudo)
        halves.append(len(natural) + len(pseudo))
    return BondOrder(torch.tensor(index), torch.tensor(sign), len(even), len(odd), tuple(halves))


@dataclass(frozen=True)
class FeatureLayout:
    """Rows of the features: natural l = 0..l_max, pseudo l = 1..l_pseudo."""

    l_max: int
    l_pseudo: int

    @cached_property
    def degrees(self) -> tuple[tuple[int, bool], ...]:
        """(l, natural) of every irrep in order."""
        natural = [(l, True) for l in range(self.l_max + 1)]
        return tuple(natural + [(l, False) for l in range(1, self.l_pseudo + 1)])

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        return tuple(Row(l, m, natural) for l, natural in self.degrees for m in range(-l, l + 1))

    @property
    def n_rows(self) -> int:
        return len(self.rows)

    @cached_property
    def row_degree(self) -> Tensor:
        """(n_rows,) index of each row's irrep in :attr:`degrees`."""
        return torch.tensor([d for d, (l, _) in enumerate(self.degrees) for _ in range(2 * l + 1)])

    @property
    def degree_indicator(self) -> Tensor:
        """(n_rows, n_degrees) ones where a row belongs to an irrep: spreads values of irreps over their rows."""
        return torch.nn.functional.one_hot(self.row_degree, len(self.degrees)).double()

    @cached_property
    def slices(self) -> tuple[slice, ...]:
        """Rows of every irrep."""
        stop = 0
        parts = []
        for l, _ in self.degrees:
            parts.append(slice(stop, stop + 2 * l + 1))
            stop += 2 * l + 1
        return tuple(parts)

    @cached_property
    def bond_order(self) -> BondOrder:
        return bond_order(self.rows)

    def irreps(self, channels: int) -> o3.Irreps:
        """As e3nn irreps with ``channels`` copies each."""
        return o3.Irreps([(channels, (l, (-1) ** l if natural else (-1) ** (l + 1))) for l, natural in self.degrees])
