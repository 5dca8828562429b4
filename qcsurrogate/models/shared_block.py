"""Blocks between any two elements as parts of one block, so that all pairs share their weights.

The shells of every element are counted within their angular momentum; the n-th p shell of
carbon is then the n-th p shell of *the* atom, whose shells are as many as any element has.
What a network puts out for a pair is a block between two such atoms, of which the pair takes
the rows it has.  Nothing here grows with the number of pairs of elements but mean and spread.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from qcsurrogate.basis import BasisSet, ElementBasis
from qcsurrogate.data.blocks import BlockLayouts, Channel, block_channels, of_components
from qcsurrogate.data.graphs import PairKind
from qcsurrogate.models.statistics import SMALLEST_SCALE, Float64Buffers
from qcsurrogate.nn.layout import BondOrder, Row, bond_order

_CPU = torch.device("cpu")


class SharedBlock:
    """The block of which the blocks of all pairs of elements are parts.

    Attributes:
        order: its rows by |m|.
        channels: its irreps.
        kinds: pairs of elements (first >= second), in order.
        group: (n_rows,) rows of one irrep and one |m| have one number.
        invariant: (n_rows,) which may have a mean.
        odd_in_spin: (n_rows,) which change their sign when the spins are swapped.
    """

    def __init__(self, basis: BasisSet, layouts: BlockLayouts) -> None:
        counts = [max(e.angular_momenta.count(l) for e in basis.elements.values()) for l in range(basis.l_max + 1)]
        momenta = [l for l, count in enumerate(counts) for _ in range(count)]
        starts = [sum(counts[:l]) for l in range(len(counts))]
        self.channels: tuple[Channel, ...] = of_components(block_channels(momenta, momenta), layouts.n_components)
        rows, self.order = _ordered(self.channels)
        number = {(c.component, c.first_shell, c.second_shell, c.l): k for k, c in enumerate(self.channels)}
        row_starts = torch.cumsum(torch.tensor([0, *(2 * c.l + 1 for c in self.channels)]), 0).tolist()
        place = torch.argsort(self.order.index).tolist()
        elements = sorted(basis.elements)
        self.kinds: tuple[PairKind, ...] = tuple((a, b) for a in elements for b in elements if a >= b)
        self._tables: dict[tuple[PairKind, torch.device], _Tables] = {}
        sizes = [self.order.n_even, self.order.n_odd, *(2 * n for n in self.order.n_half)]
        stops = torch.cumsum(torch.tensor(sizes), 0).tolist()
        ends = [stops[0], stops[1], *(stop - n for stop, n in zip(stops[2:], self.order.n_half, strict=True))]
        for kind in self.kinds:
            own = layouts.pair(kind).channels
            first, second = (_shared_shells(basis[z], starts) for z in kind)
            _, order = _ordered(own)
            in_shared = [
                row_starts[number[c.component, first[c.first_shell], second[c.second_shell], c.l]] + m
                for c in own
                for m in range(2 * c.l + 1)
            ]
            places = torch.tensor([place[in_shared[k]] for k in order.index.tolist()])
            parts = [
                places[(places >= start) & (places < end)] - start
                for start, end in zip([0, *stops[:-1]], ends, strict=True)
            ]
            tables = _Tables(places, parts, order.index, order.sign.double(), torch.argsort(order.index))
            self._tables[kind, _CPU] = tables
        ordered = [(k, rows[k]) for k in self.order.index.tolist()]
        owner = [c for c, channel in enumerate(self.channels) for _ in range(2 * channel.l + 1)]
        l_top = 1 + max(c.l for c in self.channels)
        self.group = torch.tensor([owner[k] * l_top + abs(row.m) for k, row in ordered])
        self.odd_in_spin = torch.tensor([self.channels[owner[k]].component == 1 for k, _ in ordered])
        self.invariant = torch.tensor([row.m == 0 and row.natural for _, row in ordered]) & ~self.odd_in_spin

    @property
    def n_rows(self) -> int:
        """Rows of the shared block."""
        return len(self.order.index)

    def _on(self, kind: PairKind, device: torch.device) -> _Tables:
        """Tables of a kind, copied to a device once."""
        if (kind, device) not in self._tables:
            self._tables[kind, device] = self._tables[kind, _CPU].to(device)
        return self._tables[kind, device]

    def place(self, kind: PairKind, device: torch.device = _CPU) -> Tensor:
        """(n_rows of the kind,) where its rows, sorted by |m|, lie among the shared ones."""
        return self._on(kind, device).places

    def parts(self, kind: PairKind, device: torch.device) -> list[Tensor]:
        """Where the rows of a kind lie within the even and the odd ones of m = 0, and one half of each other |m|."""
        return self._on(kind, device).parts

    def sorted(self, kind: PairKind, rows: Tensor) -> Tensor:
        """(n, n_rows of the kind) in the order of its layout -> by |m|."""
        tables = self._on(kind, rows.device)
        return rows[:, tables.by_m] * tables.sign.to(rows)

    def unsorted(self, kind: PairKind, rows: Tensor) -> Tensor:
        """The inverse of :meth:`sorted`."""
        tables = self._on(kind, rows.device)
        return (rows * tables.sign.to(rows))[:, tables.inverse]

    def spread(self, kind: PairKind, rows: Tensor) -> Tensor:
        """(n, n_rows of the kind), sorted by |m| -> (n, n_rows) of the shared block, zero where it has none."""
        return rows.new_zeros(len(rows), self.n_rows).index_copy(1, self.place(kind, rows.device), rows)


class _Tables(NamedTuple):
    """Of one kind of pair: places of its rows in the shared block, and how its layout's rows become those by |m|."""

    places: Tensor
    parts: list[Tensor]
    by_m: Tensor
    sign: Tensor
    inverse: Tensor

    def to(self, device: torch.device) -> _Tables:
        """On another device."""
        first, parts, *rest = self
        return _Tables(first.to(device), [part.to(device) for part in parts], *(t.to(device) for t in rest))


class PairStatistics(Float64Buffers):
    """Mean and spread of the rows of every kind of pair.

    A kind that the training set does not hold has no mean, and a spread that is made of
    those of the kinds that it holds: of one factor for each shell of each element, and one
    for each row.

    Attributes:
        mean, scale: (n_kinds, n_rows) in the order of the shared block.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, block: SharedBlock) -> None:
        super().__init__()
        self.block = block
        self._number = {kind: k for k, kind in enumerate(block.kinds)}
        shape = len(block.kinds), block.n_rows
        self.register_buffer("mean", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("scale", torch.zeros(shape, dtype=torch.float64))

    def fit(self, rows: Mapping[PairKind, Tensor]) -> None:
        """Take them from labels, (n, n_rows of the kind) in the order of each kind's layout."""
        n_groups = int(self.block.group.max()) + 1
        for kind, values in rows.items():
            place = self.block.place(kind)
            group, invariant = self.block.group[place], self.block.invariant[place]
            ordered = self.block.sorted(kind, values.double())
            mean = torch.where(invariant, ordered.mean(0), torch.zeros_like(ordered[0]))
            variance = (ordered - mean).square().mean(0)
            zeros = torch.zeros(n_groups, dtype=torch.float64)
            total, size = zeros.index_add(0, group, variance), zeros.index_add(0, group, torch.ones_like(variance))
            k = self._number[kind]
            self.mean[k, place] = mean
            self.scale[k, place] = (total / size.clamp(min=1))[group].sqrt().clamp(min=SMALLEST_SCALE)
        unseen = [kind for kind in self.block.kinds if kind not in rows]
        if rows and unseen:
            self._fill(list(rows), unseen)

    def _fill(self, seen: list[PairKind], unseen: list[PairKind]) -> None:
        """log scale = factor(first element, shell) + factor(second element, shell) + factor(row), by least squares."""
        columns: dict[tuple[object, ...], int] = {}
        rows, values = [], []
        for kind in seen:
            scale = self.scale[self._number[kind]]
            for r in self.block.place(kind).tolist():
                rows.append([columns.setdefault(name, len(columns)) for name in self._factors(kind, r)])
                values.append(float(scale[r].log()))
        design = torch.zeros(len(rows), len(columns), dtype=torch.float64)
        for i, row in enumerate(rows):
            for column in row:
                design[i, column] += 1.0
        target = torch.tensor(values, dtype=torch.float64)
        ridge = 1e-6 * torch.eye(len(columns), dtype=torch.float64)
        factors = torch.linalg.solve(design.T @ design + ridge, design.T @ (target - target.mean()))
        for kind in unseen:
            for r in self.block.place(kind).tolist():
                known = [float(factors[columns[n]]) for n in self._factors(kind, r) if n in columns]
                self.scale[self._number[kind], r] = torch.exp(target.mean() + sum(known))

    def _factors(self, kind: PairKind, row: int) -> list[tuple[object, ...]]:
        channel = self.block.channels[int(self.block.group[row]) // (1 + max(c.l for c in self.block.channels))]
        return [
            (kind[0], channel.component, channel.first_shell),
            (kind[1], channel.component, channel.second_shell),
            ("row", int(self.block.group[row])),
        ]

    def of(self, kind: PairKind) -> tuple[Tensor, Tensor]:
        """Mean and scale of the rows of a kind, sorted by |m|."""
        place = self.block.place(kind, self.mean.device)
        k = self._number[kind]
        return self.mean[k, place], self.scale[k, place]


def _ordered(channels: tuple[Channel, ...]) -> tuple[list[Row], BondOrder]:
    rows = [Row(c.l, m, c.natural) for c in channels for m in range(-c.l, c.l + 1)]
    return rows, bond_order(rows)


def _shared_shells(element: ElementBasis, starts: list[int]) -> list[int]:
    """For every shell of an element its number among the shared shells."""
    momenta = element.angular_momenta
    return [starts[l] + momenta[:k].count(l) for k, l in enumerate(momenta)]
