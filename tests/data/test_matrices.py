"""Matrices of a batch as one vector: blocks lie where the functions of their atoms are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qcsurrogate.basis import orbital_basis
from qcsurrogate.data.graphs import GraphSettings, collate
from qcsurrogate.data.matrices import MatrixPlaces
from tests.models.test_equivariance import FORMAMIDE, WATER


@pytest.mark.parametrize("leading", [(), (2,)])
def test_blocks_of_a_batch_are_cut_and_put_where_they_belong(leading: tuple[int, ...]) -> None:
    basis = orbital_basis("def2-svp", [1, 6, 7, 8])
    structures = [WATER, FORMAMIDE, WATER]
    graph = collate([GraphSettings(4, 5.0, 20.0).graph(s) for s in structures])
    rng = np.random.default_rng(0)
    sizes = [basis.n_functions(s.atomic_numbers) for s in structures]
    matrices = [rng.normal(size=(*leading, n, n)) for n in sizes]
    places = MatrixPlaces(graph, basis)
    flat = places.joined(matrices)
    for matrix, again in zip(matrices, places.split(flat), strict=True):
        np.testing.assert_array_equal(matrix, again)
    oxygens, hydrogens = torch.tensor([0, 3, 9]), torch.tensor([2, 7, 11])
    blocks = places.cut(flat, oxygens, hydrogens)
    assert blocks.shape == (3, *leading, 14, 5)
    for k, (structure, matrix, first, second) in enumerate(
        zip(structures, matrices, (0, 0, 0), (2, 4, 2), strict=True)
    ):
        starts, numbers = basis.offsets(structure.atomic_numbers), structure.atomic_numbers
        rows, columns = (starts[a] + basis[int(numbers[a])].internal_order for a in (first, second))
        np.testing.assert_array_equal(blocks[k].numpy(), matrix[..., rows[:, None], columns])
    other = torch.zeros_like(flat)
    places.put(other, oxygens, hydrogens, blocks)
    torch.testing.assert_close(places.cut(other, oxygens, hydrogens), blocks, rtol=0, atol=0)
    assert int((other != 0).sum()) == blocks.numel()
