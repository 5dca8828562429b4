"""What a Hamiltonian model learns from: corrections to H0 in the orthogonalised basis, and what it is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qcsurrogate.basis import BasisSet
from qcsurrogate.data.block_rows import BlockRows, block_rows, join_rows
from qcsurrogate.data.blocks import BlockLayouts
from qcsurrogate.data.datasets import InMemoryDataset, Sample, read_split
from qcsurrogate.data.graphs import Graph, GraphSettings, PairKind, collate
from qcsurrogate.models.uncertainty import spread_over
from qcsurrogate.reference.orthogonal import StartingPoint, each_spin
from qcsurrogate.reference.potentials import AtomicPotential, AtomicPotentials
from qcsurrogate.store.spec import SplitName
from qcsurrogate.store.store import Store

MOLECULES_TO_CALIBRATE = 32
"""Validation molecules on whose orbital energies expected errors are calibrated."""


@dataclass(frozen=True)
class HamiltonianBatch:
    """Graph, labels and inputs of some molecules.

    Attributes:
        graph: with pairs.
        labels: D = X (H - H0) X, Hartree; unrestricted: of the mean of both spins, and half their difference.
        inputs: density matrix of H0 in the same basis; unrestricted: alpha + beta, and alpha - beta.
        n_elements: matrix elements of all molecules, of both spins if unrestricted.
        neglected: sum of |D| over blocks beyond the reach of pairs.
    """

    graph: Graph
    labels: BlockRows
    inputs: BlockRows
    n_elements: int
    neglected: float

    def to(self, device: torch.device | str) -> HamiltonianBatch:
        """The same batch on another device."""
        return replace(self, graph=self.graph.to(device), labels=self.labels.to(device), inputs=self.inputs.to(device))


@dataclass(frozen=True)
class HamiltonianSample(Sample):
    """Graph, labels and inputs of one molecule.

    Attributes:
        pair_rows: for each pair of elements (n_pairs, n_rows) labels.
        inputs: density matrix of H0.
        n_elements: of the matrix.
        neglected: sum of |D| over blocks beyond the reach of pairs.
    """

    pair_rows: Mapping[PairKind, Tensor]
    inputs: BlockRows
    n_elements: int
    neglected: float


class HamiltonianDataset(InMemoryDataset[HamiltonianSample]):
    """X (H - H0) X of the molecules of a store, and what H0 says of them.

    Attributes:
        potentials: of H0.
        n_components: matrices of a molecule, 2 of an unrestricted store.
    """

    potentials: Mapping[int, AtomicPotential]
    n_components: int
    starts: Mapping[int, StartingPoint]
    """Starting points of some molecules by index, from which errors of orbital energies are calibrated."""

    def rows_of_pairs(self, kind: PairKind) -> Tensor | None:
        """(n, n_rows) labels of all pairs of one kind, or None if it does not occur."""
        rows = [s.pair_rows[kind] for s in self.samples if kind in s.pair_rows]
        return torch.cat(rows) if rows else None

    @classmethod
    def from_store(
        cls,
        store: Store,
        split: SplitName,
        settings: GraphSettings,
        potentials: AtomicPotentials,
        *,
        dtype: torch.dtype = torch.float32,
        progress: bool = False,
        elements: Sequence[int] | None = None,
    ) -> HamiltonianDataset:
        """Read every complete record of a split.

        Args:
            store: where to read.
            split: train, validation or test.
            settings: graphs of the model to be trained; needs a pair cutoff.
            potentials: of H0.
            dtype: of graphs and inputs; labels stay in float64 until a model has taken their mean away.
            progress: whether to draw a progress bar.
            elements: atomic numbers of the bases; those of all planned structures if None.

        Raises:
            StoreError: if the split is empty.
        """
        keys, records = read_split(store, split, progress=progress, unrestricted=True)
        basis = store.spec.method.orbital_basis(elements or sorted(store.atoms))
        unrestricted = store.spec.method.unrestricted
        layouts = BlockLayouts(basis, 2 if unrestricted else 1)
        samples, starts = [], {}
        kept = set() if split == "train" else set(spread_over(len(keys), MOLECULES_TO_CALIBRATE))
        for number, record in enumerate(records):
            start = StartingPoint.of(record.structure, basis, potentials, unrestricted=unrestricted)
            label = start.correction(record.hamiltonian_components)
            graph = settings.graph(record.structure)
            if number in kept:
                starts[number] = start
            rows, inputs = block_rows(np.stack([label, start.density]), graph, layouts).apart(2)
            samples.append(
                HamiltonianSample(
                    graph.to(dtype=dtype),
                    dict(rows.atoms),
                    {kind: part for (kind, _), part in zip(graph.pair_kinds, rows.pairs, strict=True)},
                    inputs.to(dtype=dtype),
                    label.size,
                    _neglected(each_spin(label), graph, basis),
                )
            )
        dataset = cls(samples, keys, basis, settings)
        dataset.potentials, dataset.n_components, dataset.starts = potentials, layouts.n_components, starts
        return dataset

    def batch(self, indices: Sequence[int]) -> HamiltonianBatch:
        """The molecules with these indices, in this order."""
        chosen = [self.samples[i] for i in indices]
        graphs = [s.graph for s in chosen]
        labels = [
            BlockRows(tuple(s.pair_rows[kind] for kind, _ in s.graph.pair_kinds), tuple(sorted(s.atom_rows.items())))
            for s in chosen
        ]
        return HamiltonianBatch(
            collate(graphs),
            join_rows(labels, graphs),
            join_rows([s.inputs for s in chosen], graphs),
            sum(s.n_elements for s in chosen),
            sum(s.neglected for s in chosen),
        )


def _neglected(matrix: NDArray[np.float64], graph: Graph, basis: BasisSet) -> float:
    """Sum of |M| over the blocks of ([2,] n_ao, n_ao) matrices that a graph does not reach."""
    total = float(np.abs(matrix).sum())
    if graph.pairs is None:
        return total
    n = graph.n_atoms
    reached = np.eye(n, dtype=bool)
    reached[graph.pairs.target.numpy(), graph.pairs.source.numpy()] = True
    reached |= reached.T
    owner = np.repeat(np.arange(n), np.diff(basis.offsets(graph.atomic_numbers.tolist())))
    return max(0.0, total - float(np.abs(matrix)[..., reached[np.ix_(owner, owner)]].sum()))
