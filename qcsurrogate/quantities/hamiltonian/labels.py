"""Labels of Hamiltonian models: H - H0 as irreps in bond frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qcsurrogate.data.blocks import BlockLayouts, cut_blocks, to_bond_frame
from qcsurrogate.data.datasets import InMemoryDataset, Sample, atom_rows_of, read_split
from qcsurrogate.data.graphs import Graph, GraphSettings, PairKind, collate
from qcsurrogate.errors import StoreError
from qcsurrogate.store.spec import SplitName
from qcsurrogate.store.store import Store
from qcsurrogate.structures import Structure


@dataclass(frozen=True)
class HamiltonianBatch:
    """Graph and labels of some molecules.

    Attributes:
        graph: with pairs.
        pair_rows: for each of ``graph.pair_kinds`` (n_pairs, n_rows) irreps of H - H0 in
            bond frames, Hartree.
        atom_rows: for each element, ascending, (n_atoms, n_rows) irreps of the blocks on
            atoms, Hartree.
        n_elements: matrix elements of all molecules.
        neglected: sum of |H - H0| over blocks beyond the reach of pairs.
    """

    graph: Graph
    pair_rows: tuple[Tensor, ...]
    atom_rows: tuple[tuple[int, Tensor], ...]
    n_elements: int
    neglected: float

    def to(self, device: torch.device | str) -> HamiltonianBatch:
        """The same batch on another device."""
        return replace(
            self,
            graph=self.graph.to(device),
            pair_rows=tuple(rows.to(device) for rows in self.pair_rows),
            atom_rows=tuple((z, rows.to(device)) for z, rows in self.atom_rows),
        )


@dataclass(frozen=True)
class HamiltonianSample(Sample):
    """Graph and labels of one molecule.

    Attributes:
        pair_rows: for each pair of elements (n_pairs, n_rows) irreps.
        n_elements: of the matrix.
        neglected: sum of |H - H0| over blocks beyond the reach of pairs.
    """

    pair_rows: Mapping[PairKind, Tensor]
    n_elements: int
    neglected: float


class HamiltonianDataset(InMemoryDataset[HamiltonianSample]):
    """H - H0 of the molecules of a store, as irreps in bond frames; H itself where ``baseline`` is False."""

    baseline: bool = True

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
        *,
        baseline: bool = True,
        dtype: torch.dtype = torch.float32,
        progress: bool = False,
        elements: Sequence[int] | None = None,
    ) -> HamiltonianDataset:
        """Read every complete record of a split.

        Args:
            store: where to read.
            split: train, validation or test.
            settings: graphs of the model to be trained; needs a pair cutoff.
            baseline: whether the label is H - H0 (else H itself).
            dtype: of the graphs; labels stay in float64 until a model has taken their mean away.
            progress: whether to draw a progress bar.
            elements: atomic numbers of the bases; those of all planned structures if None.

        Raises:
            StoreError: if the split is empty, or the store is unrestricted or holds no baseline.
        """
        keys, records = read_split(store, split, progress=progress)
        basis = store.spec.method.orbital_basis(elements or sorted(store.atoms))
        layouts = BlockLayouts(basis)
        samples = []
        for record in records:
            label = record.hamiltonian
            if baseline:
                if record.baseline is None:
                    raise StoreError(
                        f"store '{store.path}' holds no baseline (method.baseline: none); train with baseline: none, "
                        "or generate with method.baseline: free_atoms"
                    )
                label = label - record.baseline
            samples.append(hamiltonian_sample(record.structure, label, layouts, settings, dtype))
        dataset = cls(samples, keys, basis, settings)
        dataset.baseline = baseline
        return dataset

    def batch(self, indices: Sequence[int]) -> HamiltonianBatch:
        """The molecules with these indices, in this order."""
        chosen = [self.samples[i] for i in indices]
        graph = collate([s.graph for s in chosen])
        pair_rows = tuple(
            torch.cat([s.pair_rows[kind] for s in chosen if kind in s.pair_rows]) for kind, _ in graph.pair_kinds
        )
        return HamiltonianBatch(
            graph,
            pair_rows,
            atom_rows_of(chosen),
            sum(s.n_elements for s in chosen),
            sum(s.neglected for s in chosen),
        )


def hamiltonian_sample(
    structure: Structure,
    label: NDArray[np.float64],
    layouts: BlockLayouts,
    settings: GraphSettings,
    dtype: torch.dtype,
) -> HamiltonianSample:
    """The label, an (n_ao, n_ao) matrix in PySCF's order, as irreps."""
    basis, numbers = layouts.basis, structure.atomic_numbers
    graph = settings.graph(structure)
    order = basis.internal_order(numbers)
    matrix = torch.as_tensor(label[np.ix_(order, order)])
    starts = basis.offsets(numbers)
    pair_rows: dict[PairKind, Tensor] = {}
    covered = 0.0
    first = 0
    if graph.pairs is None:
        raise ValueError("Hamiltonian data needs graph settings with a pair cutoff")
    for kind, count in graph.pair_kinds:
        part = slice(first, first + count)
        ends = zip(graph.pairs.target[part].tolist(), graph.pairs.source[part].tolist(), strict=True)
        blocks = cut_blocks(matrix, starts, ends)
        rotated = to_bond_frame(kind, basis, blocks, graph.pairs.wigner[part])
        pair_rows[kind] = layouts.pair(kind).to_irreps(rotated)
        covered += float(blocks.abs().sum()) * (1.0 if kind[0] == kind[1] else 2.0)
        first += count
    atom_rows: dict[int, Tensor] = {}
    for z, atoms in graph.atoms_by_element.items():
        blocks = cut_blocks(matrix, starts, ((i, i) for i in atoms.tolist()))
        atom_rows[z] = layouts.atom(z).to_irreps(blocks)
        covered += float(blocks.abs().sum())
    neglected = max(0.0, float(matrix.abs().sum()) - covered)
    return HamiltonianSample(graph.to(dtype=dtype), atom_rows, pair_rows, matrix.numel(), neglected)
