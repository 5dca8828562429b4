"""Blocks of all pairs of elements as parts of one: places, orders and weights against what is written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qcsurrogate.basis import orbital_basis
from qcsurrogate.data.blocks import BlockLayouts
from qcsurrogate.models.shared_block import SharedBlock
from qcsurrogate.quantities.hamiltonian.pairs import PairHead

BASIS = orbital_basis("def2-svp", [1, 6, 16])


@pytest.fixture(scope="module")
def block() -> SharedBlock:
    return SharedBlock(BASIS, BlockLayouts(BASIS))


def test_the_shared_block_is_that_of_an_atom_with_all_shells(block: SharedBlock) -> None:
    """Sulfur has most shells of every kind: 4s 3p 1d; its own pairs have every row, hydrogen's some."""
    assert block.kinds == ((1, 1), (6, 1), (6, 6), (16, 1), (16, 6), (16, 16))
    n = BASIS[16].n_functions
    assert block.n_rows == n * n == len(block.place((16, 16)))
    for kind in block.kinds:
        place = block.place(kind)
        assert len(place) == BASIS[kind[0]].n_functions * BASIS[kind[1]].n_functions
        assert len(set(place.tolist())) == len(place)


def test_rows_of_a_kind_mean_the_same_in_the_shared_block(block: SharedBlock) -> None:
    """The n-th shell of an l of an element is the n-th of that l, and l, m and parity of a row stay."""
    for kind in block.kinds:
        own = BlockLayouts(BASIS).pair(kind).channels
        numbered = torch.arange(float(sum(2 * c.l + 1 for c in own))).unsqueeze(0)
        order = [int(abs(x)) for x in block.sorted(kind, numbered)[0].tolist()]
        names = [(c, m) for c in own for m in range(-c.l, c.l + 1)]
        for row, place in zip(order, block.place(kind).tolist(), strict=True):
            (channel, m), group = names[row], int(block.group[place])
            shared = block.channels[group // (1 + max(c.l for c in block.channels))]
            assert (shared.l, shared.natural, group % (1 + max(c.l for c in block.channels))) == (
                channel.l,
                channel.natural,
                abs(m),
            )
            for element, ours, theirs in (
                (0, channel.first_shell, shared.first_shell),
                (1, channel.second_shell, shared.second_shell),
            ):
                momenta, most = BASIS[kind[element]].angular_momenta, BASIS[16].angular_momenta
                assert most[theirs] == momenta[ours]
                assert most[:theirs].count(most[theirs]) == momenta[:ours].count(momenta[ours])


def test_orders_go_back_and_forth(block: SharedBlock) -> None:
    for kind in block.kinds:
        rows = torch.randn(3, len(block.place(kind)), dtype=torch.float64)
        assert torch.equal(block.unsorted(kind, block.sorted(kind, rows)), rows)
        spread = block.spread(kind, rows)
        assert torch.equal(spread[:, block.place(kind)], rows)
        assert float(spread.abs().sum()) == pytest.approx(float(rows.abs().sum()))


def test_the_head_is_one_linear_map_for_each_m(block: SharedBlock) -> None:
    """Weights of all pairs plus those of both elements, applied to every row of the shared block."""
    torch.manual_seed(0)
    head = PairHead(block, hidden=5, hidden_odd=2).double()
    torch.nn.init.normal_(head.bias)
    m_max = len(block.order.n_half)
    counts = {(16, 6): 4, (6, 1): 1, (1, 1): 3}
    hidden, odd = torch.randn(8, 1 + 2 * m_max, 5).double(), torch.randn(8, 2).double()
    found = head(list(counts.items()), hidden, odd)
    places = {1: 0, 6: 1, 16: 2}
    parts = zip(counts, found, hidden.split([4, 1, 3]), odd.split([4, 1, 3]), strict=True)
    for kind, values, h, o in parts:
        of = [0, 1 + places[kind[0]], 4 + places[kind[1]]]
        assert head.odd is not None
        rows = [h[:, 0] @ head.even[of].sum(0) + head.bias[of].sum(0), o @ head.odd[of].sum(0)]
        for m, weight in enumerate(head.halves):
            rows += [h[:, 1 + 2 * m] @ weight[of].sum(0), h[:, 2 + 2 * m] @ weight[of].sum(0)]
        expected = torch.cat(rows, dim=1)[:, block.place(kind)]
        np.testing.assert_allclose(values.detach().numpy(), expected.detach().numpy(), atol=1e-12)
    assert head([], hidden[:0], odd[:0]) == []
