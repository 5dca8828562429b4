"""Graphs made a batch at a time are those that are made one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qcsurrogate.data import batches
from qcsurrogate.data.batches import Molecules
from qcsurrogate.data.graphs import GraphSettings, collate
from qcsurrogate.structures import Structure
from qcsurrogate.tables.opening import open_set

KINDS = [
    GraphSettings(2, 5.0),
    GraphSettings(0, float("inf"), edges="complete"),
    GraphSettings(1, float("inf"), edges="bonds"),
]


@pytest.mark.parametrize("settings", KINDS, ids=lambda s: s.edges)
@pytest.mark.parametrize("largest", [200, 3])
def test_a_batch_is_its_molecules_collated(settings, largest, monkeypatch):
    monkeypatch.setattr(batches, "LARGEST", largest)
    helium = Structure([2], np.zeros((1, 3)))
    cation = Structure([1, 1], [[0, 0, 0], [0, 0, 2.0]], charge=1, spin=1)
    structures = [*open_set("qm9_small").structures[:20], helium, cation]
    molecules = Molecules(structures)
    chosen = [21, 3, 17, 20, 0]
    ours = molecules.graph(chosen, settings, torch.float64)
    expected = collate([settings.graph(structures[i]) for i in chosen])
    assert ours.atom_counts == expected.atom_counts
    for name in ("atomic_numbers", "positions", "molecule", "charge", "spin"):
        assert torch.equal(getattr(ours, name), getattr(expected, name)), name
    for name in ("target", "source", "vectors"):
        assert torch.equal(getattr(ours.messages, name), getattr(expected.messages, name)), name
    assert ours.messages.l_max == settings.l_max


def test_pairs_are_not_made_together():
    molecules = Molecules([Structure([2], np.zeros((1, 3)))])
    with pytest.raises(ValueError, match="one by one"):
        molecules.graph([0], GraphSettings(2, 5.0, 8.0), torch.float64)
