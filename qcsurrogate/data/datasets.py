"""Training data in memory, made from a store once.

Labels are turned into the form that the networks predict (irreps in bond frames,
coefficients over atom-orthonormal functions) when a data set is opened, so that a
training step only concatenates tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from qcsurrogate.basis import BasisSet
from qcsurrogate.data.blocks import BlockLayouts, cut_blocks, to_bond_frame
from qcsurrogate.data.graphs import Graph, GraphSettings, PairKind, collate
from qcsurrogate.errors import StoreError
from qcsurrogate.reference.density_fit import atom_orthonormal_transform, charges
from qcsurrogate.reference.record import ReferenceRecord
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
class DensityBatch:
    """Graph and labels of some molecules.

    Attributes:
        graph: without pairs.
        atom_rows: for each element, ascending, (n_atoms, n_functions) coefficients over
            atom-orthonormal functions, internal order, e^(1/2)-like Coulomb units.
    """

    graph: Graph
    atom_rows: tuple[tuple[int, Tensor], ...]

    def to(self, device: torch.device | str) -> DensityBatch:
        """The same batch on another device."""
        return replace(
            self, graph=self.graph.to(device), atom_rows=tuple((z, rows.to(device)) for z, rows in self.atom_rows)
        )


@dataclass(frozen=True, eq=False)
class AtomFunctions:
    """What a density model knows of the auxiliary functions of one element.

    Attributes:
        transform: (n, n) atom-orthonormal functions in terms of PySCF's, PySCF order:
            ``c = transform @ c_orthonormal``.
        charges: (n,) integrals of PySCF's functions.
    """

    transform: NDArray[np.float64]
    charges: NDArray[np.float64]


def atom_functions(basis: BasisSet) -> dict[int, AtomFunctions]:
    """The orthonormal functions of every element of an auxiliary basis (Coulomb metric)."""
    found = {}
    for z in basis.elements:
        mol = basis.build_mol(Structure(np.array([z]), np.zeros((1, 3)), spin=z % 2))
        metric = mol.intor("int2c2e_sph", aosym="s1")
        found[z] = AtomFunctions(atom_orthonormal_transform(mol, metric), charges(mol))
    return found


@dataclass(frozen=True)
class _Sample:
    graph: Graph
    pair_rows: Mapping[PairKind, Tensor]
    atom_rows: Mapping[int, Tensor]
    n_elements: int = 0
    neglected: float = 0.0


class _InMemory:
    """Samples by index, and what is common to both data sets."""

    def __init__(
        self,
        samples: Sequence[_Sample],
        keys: Sequence[str],
        orbital_basis: BasisSet,
        settings: GraphSettings,
    ) -> None:
        self.samples, self.keys, self.settings = tuple(samples), tuple(keys), settings
        self.orbital_basis = orbital_basis

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def elements(self) -> tuple[int, ...]:
        """Atomic numbers that occur, ascending."""
        return tuple(sorted({z for s in self.samples for z in s.atom_rows}))

    @property
    def average_neighbours(self) -> float:
        """Messages that an atom receives, averaged over all atoms; at least one."""
        edges = sum(len(s.graph.messages) for s in self.samples)
        return max(1.0, edges / max(1, sum(s.graph.n_atoms for s in self.samples)))

    def rows_of_atoms(self, z: int) -> Tensor:
        """(n, n_rows) labels of all atoms of one element."""
        return torch.cat([s.atom_rows[z] for s in self.samples if z in s.atom_rows])

    def rows_of_pairs(self, kind: PairKind) -> Tensor | None:
        """(n, n_rows) labels of all pairs of one kind, or None if it does not occur."""
        rows = [s.pair_rows[kind] for s in self.samples if kind in s.pair_rows]
        return torch.cat(rows) if rows else None

    def _atom_rows(self, chosen: Sequence[_Sample]) -> tuple[tuple[int, Tensor], ...]:
        elements = sorted({z for s in chosen for z in s.atom_rows})
        return tuple((z, torch.cat([s.atom_rows[z] for s in chosen if z in s.atom_rows])) for z in elements)


class HamiltonianDataset(_InMemory):
    """H - H0 of the molecules of a store, as irreps in bond frames; H itself where ``baseline`` is False."""

    baseline: bool = True

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
        _refuse_unrestricted(store)
        basis = store.spec.method.orbital_basis(elements or sorted(store.atoms))
        layouts = BlockLayouts(basis)
        keys = _keys(store, split)
        samples = []
        for record in _progress(store.read_many(keys), len(keys), f"reading {split}", progress):
            label = record.hamiltonian
            if baseline:
                if record.baseline is None:
                    raise StoreError(
                        f"store '{store.path}' holds no baseline (method.baseline: none); train with baseline: none, "
                        "or generate with method.baseline: free_atoms"
                    )
                label = label - record.baseline
            samples.append(_hamiltonian_sample(record, label, layouts, settings, dtype))
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
            self._atom_rows(chosen),
            sum(s.n_elements for s in chosen),
            sum(s.neglected for s in chosen),
        )


class DensityDataset(_InMemory):
    """Density coefficients of the molecules of a store, over atom-orthonormal functions."""

    density_basis: BasisSet
    functions: dict[int, AtomFunctions]

    @classmethod
    def from_store(
        cls,
        store: Store,
        split: SplitName,
        settings: GraphSettings,
        *,
        dtype: torch.dtype = torch.float32,
        progress: bool = False,
        elements: Sequence[int] | None = None,
    ) -> DensityDataset:
        """Read every complete record of a split.

        Raises:
            StoreError: if the split is empty, or the store is unrestricted or holds no density
                coefficients.
        """
        _refuse_unrestricted(store)
        elements = elements or sorted(store.atoms)
        method = store.spec.method
        basis = method.density_basis(elements)
        functions = atom_functions(basis)
        inverse = {z: np.asarray(np.linalg.inv(f.transform), dtype=np.float64) for z, f in functions.items()}
        keys = _keys(store, split)
        samples = []
        for record in _progress(store.read_many(keys), len(keys), f"reading {split}", progress):
            if record.density_coefficients is None:
                raise StoreError(
                    f"store '{store.path}' holds no density coefficients; generate it with "
                    "targets.density_coefficients: true"
                )
            samples.append(_density_sample(record, basis, inverse, settings, dtype))
        dataset = cls(samples, keys, method.orbital_basis(elements), settings)
        dataset.density_basis, dataset.functions = basis, functions
        return dataset

    def batch(self, indices: Sequence[int]) -> DensityBatch:
        """The molecules with these indices, in this order."""
        chosen = [self.samples[i] for i in indices]
        return DensityBatch(collate([s.graph for s in chosen]), self._atom_rows(chosen))


def _hamiltonian_sample(
    record: ReferenceRecord,
    label: NDArray[np.float64],
    layouts: BlockLayouts,
    settings: GraphSettings,
    dtype: torch.dtype,
) -> _Sample:
    basis, numbers = layouts.basis, record.structure.atomic_numbers
    graph = settings.graph(record.structure)
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
    return _Sample(graph.to(dtype=dtype), pair_rows, atom_rows, matrix.numel(), neglected)


def _density_sample(
    record: ReferenceRecord,
    basis: BasisSet,
    inverse: Mapping[int, NDArray[np.float64]],
    settings: GraphSettings,
    dtype: torch.dtype,
) -> _Sample:
    numbers = record.structure.atomic_numbers
    starts = basis.offsets(numbers)
    coefficients = np.asarray(record.density_coefficients)
    rows: dict[int, list[NDArray[np.float64]]] = {}
    for atom, z in enumerate(numbers.tolist()):
        own = inverse[z] @ coefficients[starts[atom] : starts[atom + 1]]
        rows.setdefault(z, []).append(own[basis[z].internal_order])
    graph = settings.graph(record.structure, dtype)
    return _Sample(graph, {}, {z: torch.as_tensor(np.stack(r)) for z, r in sorted(rows.items())})


def _refuse_unrestricted(store: Store) -> None:
    if store.spec.method.unrestricted:
        raise StoreError(
            f"store '{store.path}' holds unrestricted Kohn-Sham references (method.spin_treatment); models learn only "
            "from restricted ones so far: train on a store generated with method.spin_treatment: restricted"
        )


def _keys(store: Store, split: SplitName) -> list[str]:
    keys = store.keys(split)
    if not keys:
        raise StoreError(
            f"store '{store.path}' has no complete record in the split '{split}'; run 'qcsurrogate status' to see how "
            "far its generation is"
        )
    return keys


def _progress(records: Iterable[ReferenceRecord], total: int, what: str, enabled: bool) -> Iterable[ReferenceRecord]:
    return tqdm(records, total=total, desc=what, unit="molecule", disable=not enabled, leave=False)
