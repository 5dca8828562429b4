"""Graphs keep vectors, charge and spin; frames follow from the vectors where they are used."""

from __future__ import annotations

import pytest
import torch

from qcsurrogate.data.graphs import GraphSettings, bond_frames, collate, flat_wigner
from qcsurrogate.structures import Structure

WATER = Structure([8, 1, 1], [[0.0, 0.0, 0.2], [0.1, 1.4, -0.9], [0.0, -1.4, -0.8]], name="water")
HYDRONIUM = Structure([8, 1, 1, 1], [[0, 0, 0.2], [0, 1.8, -0.3], [1.6, -0.9, -0.3], [-1.6, -0.9, -0.3]], charge=1)
OXYGEN = Structure([8, 8], [[0, 0, 0], [0, 0, 2.28]], spin=2)
SETTINGS = GraphSettings(4, 6.0, 12.0)


def test_charge_and_spin_of_every_molecule_are_kept() -> None:
    graph = collate([SETTINGS.graph(s) for s in (WATER, HYDRONIUM, OXYGEN)]).to("cpu", torch.float32)
    assert graph.charge.tolist() == [0, 1, 0]
    assert graph.spin.tolist() == [0, 0, 2]


def test_a_stored_edge_is_a_vector_and_two_numbers() -> None:
    graph = SETTINGS.graph(HYDRONIUM, torch.float32)
    stored = sum(t.numel() * t.element_size() for t in vars(graph.messages).values() if torch.is_tensor(t))
    assert stored == len(graph.messages) * (3 * 4 + 2 * 8)


def test_frames_of_a_batch_are_those_of_its_molecules() -> None:
    graphs = [SETTINGS.graph(s) for s in (WATER, HYDRONIUM)]
    together = collate(graphs).messages.wigner
    torch.testing.assert_close(together, torch.cat([g.messages.wigner for g in graphs]), rtol=0, atol=1e-15)
    vectors = graphs[0].messages.vectors
    torch.testing.assert_close(graphs[0].messages.wigner, flat_wigner(4, bond_frames(vectors)), rtol=0, atol=0)


def test_gradients_reach_the_positions() -> None:
    graph = SETTINGS.graph(WATER)
    positions = torch.tensor(WATER.positions, requires_grad=True)
    energy = (1.0 / graph.at(positions).messages.lengths).sum()
    (found,) = torch.autograd.grad(energy, positions)
    step = 1e-5
    for atom in range(3):
        for axis in range(3):
            ends = []
            for sign in (1.0, -1.0):
                moved = positions.detach().clone()
                moved[atom, axis] += sign * step
                ends.append(float((1.0 / graph.at(moved).messages.lengths).sum()))
            assert abs(float(found[atom, axis]) - (ends[0] - ends[1]) / (2 * step)) < 1e-8
    frames = graph.at(positions).pairs
    assert frames is not None
    assert torch.isfinite(torch.autograd.grad(frames.wigner.square().sum() + frames.wigner.sum(), positions)[0]).all()


def test_kinds_of_edges() -> None:
    far = Structure([8, 1, 1, 8], [[0.0, 0.0, 0.2], [0.1, 1.4, -0.9], [0.0, -1.4, -0.8], [90.0, 0.0, 0.0]])
    infinite = float("inf")
    edges = {
        kind: GraphSettings(0, 4.0 if kind == "radius" else infinite, edges=kind).graph(far).messages
        for kind in ("radius", "complete", "bonds")
    }
    pairs = {kind: sorted(zip(e.target.tolist(), e.source.tolist(), strict=True)) for kind, e in edges.items()}
    assert pairs["complete"] == [(i, j) for i in range(4) for j in range(4) if i != j]
    assert pairs["bonds"] == [(0, 1), (0, 2), (1, 0), (2, 0)]
    assert pairs["radius"] == [(i, j) for i in range(3) for j in range(3) if i != j]
    with pytest.raises(ValueError, match="only radius has a finite one"):
        GraphSettings(0, 4.0, edges="bonds").graph(WATER)


def test_a_lone_atom_has_no_edges_of_any_kind() -> None:
    helium = Structure([2], [[1.0, 2.0, 3.0]])
    for kind, reach in (("radius", 6.0), ("complete", float("inf")), ("bonds", float("inf"))):
        assert len(GraphSettings(0, reach, edges=kind).graph(helium).messages) == 0


def test_positions_are_kept_where_graphs_are_joined_and_moved() -> None:
    batch = collate([SETTINGS.graph(s) for s in (WATER, HYDRONIUM)])
    expected = torch.cat([torch.tensor(s.positions) for s in (WATER, HYDRONIUM)])
    assert torch.equal(batch.positions, expected)
    assert batch.to(dtype=torch.float32).positions.dtype == torch.float32
    moved = batch.at(2.0 * expected)
    assert torch.equal(moved.positions, 2.0 * expected)
    torch.testing.assert_close(moved.messages.vectors, 2.0 * batch.messages.vectors)
