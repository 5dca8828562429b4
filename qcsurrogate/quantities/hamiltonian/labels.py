"""What a Hamiltonian model learns from: corrections to H0 in the orthogonalised basis, and what it is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qcsurrogate.basis import BasisSet
from qcsurrogate.data.blocks import BlockLayouts, to_bond_frame
from qcsurrogate.data.datasets import InMemoryDataset, Sample, read_split
from qcsurrogate.data.graphs import Graph, GraphSettings, PairKind, collate
from qcsurrogate.data.matrices import MatrixPlaces
from qcsurrogate.models.uncertainty import spread_over
from qcsurrogate.reference.orthogonal import StartingPoint, each_spin
from qcsurrogate.reference.potentials import AtomicPotential, AtomicPotentials
from qcsurrogate.store.spec import SplitName
from qcsurrogate.store.store import Store

MOLECULES_TO_CALIBRATE = 32
"""Validation molecules on whose orbital energies expected errors are calibrated."""


@dataclass(frozen=True)
class BlockRows:
    """The blocks of symmetric matrices as irreps, molecule after molecule.

    Unrestricted, every block holds those of two matrices: see :mod:`qcsurrogate.data.blocks`.

    Attributes:
        pairs: for each of a graph's ``pair_kinds`` (n_pairs, n_rows), in bond frames.
        atoms: for each element, ascending, (n_atoms, n_rows).
    """

    pairs: tuple[Tensor, ...]
    atoms: tuple[tuple[int, Tensor], ...]

    def apart(self, n: int) -> tuple[BlockRows, ...]:
        """Rows of n matrices of each molecule, (..., n, n_rows) -> those of every one."""
        return tuple(
            BlockRows(
                tuple(rows[:, k].contiguous() for rows in self.pairs),
                tuple((z, rows[:, k].contiguous()) for z, rows in self.atoms),
            )
            for k in range(n)
        )

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> BlockRows:
        """The same on another device or in another floating-point type."""
        return BlockRows(
            tuple(rows.to(device=device, dtype=dtype) for rows in self.pairs),
            tuple((z, rows.to(device=device, dtype=dtype)) for z, rows in self.atoms),
        )


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


def block_rows(matrix: NDArray[np.float64], graph: Graph, layouts: BlockLayouts) -> BlockRows:
    """The blocks of a matrix of one molecule, ([2,] n_ao, n_ao) in PySCF's order, that its graph reaches."""
    return rows_of_batch([matrix], graph, layouts)


def rows_of_batch(matrices: Sequence[NDArray[np.float64]], graph: Graph, layouts: BlockLayouts) -> BlockRows:
    """The blocks of matrices of several molecules that their graph reaches; as :func:`block_rows`, then joined."""
    if graph.pairs is None:
        raise ValueError("blocks of a matrix need a graph with pairs")
    places = MatrixPlaces(graph, layouts.basis)
    flat = places.joined(matrices)
    pairs, first = [], 0
    for kind, count in graph.pair_kinds:
        part = slice(first, first + count)
        blocks = places.cut(flat, graph.pairs.target[part], graph.pairs.source[part])
        turned = to_bond_frame(kind, layouts.basis, blocks, graph.pairs.wigner[part])
        pairs.append(layouts.pair(kind).to_irreps(turned))
        first += count
    atoms = [(z, layouts.atom(z).to_irreps(places.cut(flat, own, own))) for z, own in graph.atoms_by_element.items()]
    return BlockRows(tuple(pairs), tuple(atoms))


def join_rows(rows: Sequence[BlockRows], graphs: Sequence[Graph]) -> BlockRows:
    """The rows of several molecules in the order of their collated graph."""
    pairs: dict[PairKind, list[Tensor]] = {}
    atoms: dict[int, list[Tensor]] = {}
    for one, graph in zip(rows, graphs, strict=True):
        for (kind, _), part in zip(graph.pair_kinds, one.pairs, strict=True):
            pairs.setdefault(kind, []).append(part)
        for z, part in one.atoms:
            atoms.setdefault(z, []).append(part)
    return BlockRows(
        tuple(torch.cat(pairs[kind]) for kind in sorted(pairs)), tuple((z, torch.cat(atoms[z])) for z in sorted(atoms))
    )


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
