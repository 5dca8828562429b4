"""Labels of the quantities: data sets in the networks' form give the stored matrices and coefficients back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from qcsurrogate.basis import BasisSet
from qcsurrogate.data.blocks import BlockLayouts, from_bond_frame
from qcsurrogate.data.graphs import GraphSettings
from qcsurrogate.errors import StoreError
from qcsurrogate.models.settings import DensitySettings, EncoderSettings, HamiltonianSettings
from qcsurrogate.quantities.density.labels import DensityDataset
from qcsurrogate.quantities.density.start import StartingDensity
from qcsurrogate.quantities.hamiltonian.labels import HamiltonianBatch, HamiltonianDataset
from qcsurrogate.reference.orthogonal import StartingPoint
from qcsurrogate.reference.record import ReferenceRecord
from qcsurrogate.reference.settings import Method
from qcsurrogate.registry import find_quantity
from tests.models.test_equivariance import FORMAMIDE, FREE_ATOMS, WATER, flat_potentials
from tests.store.fakes import pretend

METHOD = Method(basis="sto-3g", auxiliary_basis="def2-universal-jfit")
GRAPHS = GraphSettings(l_max=3, message_cutoff=5.0, pair_cutoff=20.0)
ENCODER = EncoderSettings(channels=4, edge_channels=4, hidden=8, hidden_odd=2)


class FakeStore:
    """Two molecules in the training set, with random but well-shaped records."""

    path = "store"

    def __init__(self, **changes: Any) -> None:
        self.spec = SimpleNamespace(method=METHOD)
        self.atoms = dict.fromkeys((1, 6, 7, 8))
        self.plan = SimpleNamespace(split=np.zeros(2, np.int64))
        self.records = {
            s.key: replace(pretend(s, METHOD, None, {}), **changes)  # type: ignore[arg-type]
            for s in (WATER, FORMAMIDE)
        }

    def keys(self, split: str) -> list[str]:
        return list(self.records) if split == "train" else []

    def read_many(self, keys: Sequence[str]) -> Iterator[ReferenceRecord]:
        return iter([self.records[key] for key in keys])


def matrices_of(batch: HamiltonianBatch, basis: BasisSet, what: str = "labels", n_components: int = 1) -> np.ndarray:
    """The matrix (or the two) of the whole batch, in internal order, put together from its irreps."""
    graph, layouts, rows_of = batch.graph, BlockLayouts(basis, n_components), getattr(batch, what)
    assert graph.pairs is not None
    starts = basis.offsets(graph.atomic_numbers.tolist())
    matrix = np.zeros((n_components, starts[-1], starts[-1]))
    first = 0
    for (kind, count), rows in zip(graph.pair_kinds, rows_of.pairs, strict=True):
        part = slice(first, first + count)
        blocks = from_bond_frame(kind, basis, layouts.pair(kind).to_blocks(rows), graph.pairs.wigner[part])
        ends = zip(graph.pairs.target[part].tolist(), graph.pairs.source[part].tolist(), strict=True)
        for (i, j), block in zip(ends, blocks.numpy(), strict=True):
            matrix[:, starts[i] : starts[i + 1], starts[j] : starts[j + 1]] = block
            matrix[:, starts[j] : starts[j + 1], starts[i] : starts[i + 1]] = block.swapaxes(-1, -2)
        first += count
    for z, rows in rows_of.atoms:
        blocks = layouts.atom(z).to_blocks(rows)
        for i, block in zip(graph.atoms_by_element[z].tolist(), blocks.numpy(), strict=True):
            matrix[:, starts[i] : starts[i + 1], starts[i] : starts[i + 1]] = block
    return matrix[0] if n_components == 1 else matrix


def hamiltonians(store: Any, graphs: GraphSettings = GRAPHS, dtype: torch.dtype = torch.float64) -> HamiltonianDataset:
    return HamiltonianDataset.from_store(store, "train", graphs, flat_potentials([1, 6, 7, 8]), dtype=dtype)


def test_labels_and_inputs_put_together_are_the_matrices() -> None:
    store: Any = FakeStore()
    data = hamiltonians(store)
    assert len(data) == 2
    basis = data.orbital_basis
    for index, structure in enumerate((WATER, FORMAMIDE)):
        record = store.records[structure.key]
        start = StartingPoint.of(structure, basis, data.potentials)
        order = basis.internal_order(structure.atomic_numbers)
        batch = data.batch([index])
        for what, expected in (("labels", start.correction(record.hamiltonian)), ("inputs", start.density)):
            np.testing.assert_allclose(matrices_of(batch, basis, what), expected[np.ix_(order, order)], atol=1e-12)
        assert batch.n_elements == record.hamiltonian.size
        assert batch.neglected == pytest.approx(0.0, abs=1e-9)


def test_blocks_beyond_the_reach_of_pairs_are_counted() -> None:
    store: Any = FakeStore()
    data = hamiltonians(store, GraphSettings(l_max=3, message_cutoff=2.5, pair_cutoff=2.5))
    batch = data.batch([0])
    start = StartingPoint.of(WATER, data.orbital_basis, data.potentials)
    label = np.abs(start.correction(store.records[WATER.key].hamiltonian))
    far = 2 * label[5:6, 6:7].sum()  # the two hydrogen atoms of water, the last two functions
    assert batch.neglected == pytest.approx(far)


def test_batches_keep_the_order_that_was_asked_for() -> None:
    store: Any = FakeStore()
    data = hamiltonians(store)
    batch = data.batch([1, 0])
    assert batch.graph.atom_counts == (6, 3)
    basis = data.orbital_basis
    n = basis.n_functions(FORMAMIDE.atomic_numbers)
    both = matrices_of(batch, basis)
    np.testing.assert_allclose(both[:n, :n], matrices_of(data.batch([1]), basis), atol=1e-12)
    np.testing.assert_allclose(both[n:, n:], matrices_of(data.batch([0]), basis), atol=1e-12)
    assert not both[:n, n:].any()


def test_density_labels_are_the_stored_coefficients() -> None:
    store: Any = FakeStore()
    data = DensityDataset.from_store(store, "train", GraphSettings(4, 5.0), dtype=torch.float64)
    basis = data.density_basis
    assert basis is not None
    record = store.records[WATER.key]
    starts = basis.offsets(WATER.atomic_numbers)
    rows = dict(data.batch([0]).atom_rows)
    taken = dict.fromkeys(rows, 0)
    for atom, z in enumerate(WATER.atomic_numbers.tolist()):
        internal = rows[z][taken[z]].numpy()
        taken[z] += 1
        own = np.empty_like(internal)
        own[basis[z].internal_order] = internal
        expected = record.density_coefficients[starts[atom] : starts[atom + 1]]
        np.testing.assert_allclose(data.functions[z].transform @ own, expected, atol=1e-9)


def test_functions_of_an_atom_are_orthonormal_in_the_coulomb_metric() -> None:
    store: Any = FakeStore()
    data = DensityDataset.from_store(store, "train", GraphSettings(4, 5.0))
    assert data.density_basis is not None
    for z, functions in data.functions.items():
        from qcsurrogate.structures import Structure

        mol = data.density_basis.build_mol(Structure(np.array([z]), np.zeros((1, 3)), spin=z % 2))
        metric = functions.transform.T @ mol.intor("int2c2e_sph") @ functions.transform
        np.testing.assert_allclose(metric, np.eye(len(metric)), atol=1e-8)


def test_new_models_take_statistics_from_their_training_set() -> None:
    store: Any = FakeStore()
    data = hamiltonians(store)
    model = find_quantity("hamiltonian").new_model(HamiltonianSettings(encoder=ENCODER), data, seed=3)
    assert model.elements == (1, 6, 7, 8)
    assert model.settings.encoder.average_neighbours == pytest.approx(data.average_neighbours, abs=1e-6)
    oxygen = model.atom_labels["8"]
    rows = model.layouts.atom(8).to_irreps(model.layouts.atom(8).to_blocks(data.rows_of_atoms(8)))
    restored = oxygen.restore(oxygen.standardise(rows))  # type: ignore[operator]
    torch.testing.assert_close(restored, rows)
    again = find_quantity("hamiltonian").new_model(HamiltonianSettings(encoder=ENCODER), data, seed=3)
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    start = StartingDensity(flat_potentials((1, 6, 7, 8)), FREE_ATOMS)
    densities = DensityDataset.from_store(store, "train", GraphSettings(4, 5.0), dtype=torch.float64, start=start)
    density = find_quantity("density").new_model(DensitySettings(encoder=ENCODER), densities, seed=3)
    assert density.elements == (1, 6, 7, 8)
    batch = densities.batch([0, 1])
    for (z, rows), (_, known) in zip(batch.atom_rows, batch.inputs, strict=True):
        invariant = density.statistics[str(z)].mean != 0
        torch.testing.assert_close((rows - known).mean(0)[invariant], density.statistics[str(z)].mean[invariant])


def test_missing_labels_and_empty_splits_are_said() -> None:
    with pytest.raises(StoreError, match="holds no density coefficients"):
        DensityDataset.from_store(FakeStore(density_coefficients=None), "train", GraphSettings(4, 5.0))  # type: ignore[arg-type]
    with pytest.raises(StoreError, match=r"in the split 'test'; none of its structures is in that part: add"):
        HamiltonianDataset.from_store(FakeStore(), "test", GRAPHS, {})  # type: ignore[arg-type]
