"""Matrix <-> irreps as exact inverses, and graphs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qcsurrogate.basis import orbital_basis
from qcsurrogate.conventions import block_diagonal_wigner, wigner_d
from qcsurrogate.data.blocks import BlockLayout, BlockLayouts, from_bond_frame, to_bond_frame
from qcsurrogate.data.graphs import build_graph, collate
from qcsurrogate.structures import Structure
from qcsurrogate.testing import random_rotation
from tests.models.test_equivariance import FORMAMIDE, WATER

BASES = ("sto-3g", "def2-svp", "def2-tzvp", "cc-pvdz")


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize("symmetric", [False, True])
def test_blocks_to_irreps_and_back(name: str, symmetric: bool) -> None:
    basis = orbital_basis(name, [1, 16])
    first, second = basis[16], basis[16 if symmetric else 1]
    layout = BlockLayout(first, second, symmetric=symmetric)
    blocks = torch.randn(3, first.n_functions, second.n_functions, dtype=torch.float64)
    if symmetric:
        blocks = blocks + blocks.transpose(1, 2)
        assert layout.n_rows == first.n_functions * (first.n_functions + 1) // 2
    else:
        assert layout.n_rows == first.n_functions * second.n_functions
    rows = layout.to_irreps(blocks)
    torch.testing.assert_close(layout.to_blocks(rows), blocks, atol=1e-12, rtol=0)
    torch.testing.assert_close(layout.to_irreps(layout.to_blocks(rows)), rows, atol=1e-12, rtol=0)
    torch.testing.assert_close(rows.square().sum(1), blocks.square().sum((1, 2)))


@pytest.mark.parametrize("improper", [False, True])
def test_rows_turn_as_their_irreps_say(improper: bool) -> None:
    basis = orbital_basis("def2-svp", [6, 8])
    layout = BlockLayout(basis[8], basis[6])
    rotation = torch.as_tensor(random_rotation(3, improper=improper))
    left, right = (block_diagonal_wigner(basis[z].angular_momenta, rotation) for z in (8, 6))
    block = torch.randn(basis[8].n_functions, basis[6].n_functions, dtype=torch.float64)
    turned = layout.to_irreps(left @ block @ right.T)
    blocks = []
    for _, irrep in layout.irreps:
        natural = irrep.p == (-1) ** irrep.l
        blocks.append(wigner_d(irrep.l, rotation) * (-1.0 if improper and not natural else 1.0))
    torch.testing.assert_close(turned, torch.block_diag(*blocks) @ layout.to_irreps(block), atol=1e-12, rtol=0)


def test_irreps_of_p_with_p_are_those_of_textbooks() -> None:
    basis = orbital_basis("sto-3g", [6])
    irreps = [
        str(ir)
        for c, (_, ir) in zip(
            BlockLayout(basis[6], basis[6]).channels, BlockLayout(basis[6], basis[6]).irreps, strict=True
        )
        if (c.first_shell, c.second_shell) == (2, 2)
    ]
    assert irreps == ["0e", "1e", "2e"]


def test_bond_frame_and_back() -> None:
    basis = orbital_basis("def2-svp", [1, 6, 7, 8])
    graph = build_graph(FORMAMIDE, l_max=4, message_cutoff=5.0, pair_cutoff=12.0)
    layouts = BlockLayouts(basis)
    first = 0
    assert graph.pairs is not None
    for kind, count in graph.pair_kinds:
        wigner = graph.pairs.wigner[first : first + count]
        layout = layouts.pair(kind)
        blocks = torch.randn(count, layout.first.n_functions, layout.second.n_functions, dtype=torch.float64)
        turned = to_bond_frame(kind, basis, blocks, wigner)
        torch.testing.assert_close(from_bond_frame(kind, basis, turned, wigner), blocks, atol=1e-12, rtol=0)
        first += count


def test_overlap_in_the_bond_frame_couples_equal_m_only() -> None:
    """Outside truth: PySCF's overlap of two atoms is diagonal in m about their bond."""
    basis = orbital_basis("def2-svp", [6, 8])
    molecule = Structure([8, 6], [[0.1, 0.2, 0.3], [1.2, -0.7, 1.9]])
    order = basis.internal_order(molecule.atomic_numbers)
    overlap = torch.as_tensor(basis.build_mol(molecule).intor("int1e_ovlp")[np.ix_(order, order)])
    n = basis[8].n_functions
    graph = build_graph(molecule, l_max=4, message_cutoff=5.0, pair_cutoff=5.0)
    assert graph.pairs is not None
    assert graph.pair_kinds == (((8, 6), 1),)
    local = to_bond_frame((8, 6), basis, overlap[None, :n, n:], graph.pairs.wigner)[0]
    m_of = [torch.tensor([m for l in basis[z].angular_momenta for m in range(-l, l + 1)]) for z in (8, 6)]
    forbidden = m_of[0][:, None] != m_of[1][None, :]
    assert float(local[forbidden].abs().max()) < 1e-12 < float(local[~forbidden].abs().max())


def test_pairs_of_unlike_elements_once_of_like_ones_both_ways() -> None:
    graph = build_graph(WATER, l_max=2, message_cutoff=2.5, pair_cutoff=10.0)
    assert graph.pairs is not None
    assert graph.pair_message is not None
    assert graph.pair_kinds == (((1, 1), 2), ((8, 1), 2))
    ends = list(zip(graph.pairs.target.tolist(), graph.pairs.source.tolist(), strict=True))
    assert ends == [(1, 2), (2, 1), (0, 1), (0, 2)]
    assert graph.pair_message.tolist()[:2] == [-1, -1]  # H..H lies beyond the reach of messages
    for pair, message in zip(ends[2:], graph.pair_message.tolist()[2:], strict=True):
        assert (int(graph.messages.target[message]), int(graph.messages.source[message])) == pair


def test_collate_keeps_every_molecule_to_itself() -> None:
    graphs = [build_graph(s, l_max=2, message_cutoff=5.0, pair_cutoff=12.0) for s in (WATER, FORMAMIDE, WATER)]
    batch = collate(graphs)
    assert batch.atom_counts == (3, 6, 3)
    assert batch.n_molecules == 3
    for edges in (batch.messages, batch.pairs):
        assert edges is not None
        assert torch.equal(batch.molecule[edges.target], batch.molecule[edges.source])
    assert batch.pairs is not None
    assert batch.pair_message is not None
    assert sum(n for _, n in batch.pair_kinds) == len(batch.pairs) == sum(len(g.pairs or ()) for g in graphs)
    kinds = [kind for kind, n in batch.pair_kinds for _ in range(n)]
    found = zip(
        batch.atomic_numbers[batch.pairs.target].tolist(),
        batch.atomic_numbers[batch.pairs.source].tolist(),
        strict=True,
    )
    assert kinds == list(found)
    known = batch.pair_message >= 0
    assert torch.equal(batch.messages.target[batch.pair_message[known]], batch.pairs.target[known])
