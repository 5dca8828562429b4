"""Training data in memory, made from a store once: what the labels of all quantities share.

Labels are turned into the form that the networks predict when a data set is opened, so
that a training step only concatenates tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from qcsurrogate.basis import BasisSet
from qcsurrogate.data.graphs import Graph, GraphSettings
from qcsurrogate.errors import StoreError
from qcsurrogate.reference.record import ReferenceRecord
from qcsurrogate.store.spec import SPLIT_NAMES, SplitName
from qcsurrogate.store.store import Store


@dataclass(frozen=True)
class Sample:
    """Graph and labels of one molecule.

    Attributes:
        graph: of the molecule alone.
        atom_rows: for each element (n_atoms, n_rows) labels.
    """

    graph: Graph
    atom_rows: Mapping[int, Tensor]


S = TypeVar("S", bound=Sample)


class InMemoryDataset(Generic[S]):
    """Samples by index.

    Attributes:
        samples, keys: of the molecules, and of their records.
        orbital_basis: of the elements that may occur.
        settings: of the graphs.
    """

    def __init__(
        self, samples: Sequence[S], keys: Sequence[str], orbital_basis: BasisSet, settings: GraphSettings
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
        return _rows_of(self.samples, z)


def atom_rows_of(samples: Sequence[Sample]) -> tuple[tuple[int, Tensor], ...]:
    """For each element, ascending, (n, n_rows) labels of all its atoms, in the order of the samples."""
    return tuple((z, _rows_of(samples, z)) for z in sorted({z for s in samples for z in s.atom_rows}))


def _rows_of(samples: Sequence[Sample], z: int) -> Tensor:
    return torch.cat([s.atom_rows[z] for s in samples if z in s.atom_rows])


def read_split(
    store: Store, split: SplitName, *, progress: bool, unrestricted: bool = False
) -> tuple[list[str], Iterable[ReferenceRecord]]:
    """Keys and records of everything complete in a split.

    Args:
        store: where to read.
        split: train, validation or test.
        progress: whether to draw a progress bar.
        unrestricted: whether it may be a store with orbitals of their own for each spin.

    Raises:
        StoreError: if the split is empty, or the store is unrestricted and may not be.
    """
    if store.spec.method.unrestricted and not unrestricted:
        raise StoreError(
            f"store '{store.path}' holds unrestricted Kohn-Sham references (method.spin_treatment); this kind of model "
            "learns only from restricted ones: train it on a store generated with method.spin_treatment: restricted"
        )
    keys = store.keys(split)
    if not keys:
        planned = SPLIT_NAMES.index(split) in store.plan.split
        remedy = "run 'qcsurrogate status' to see how far its generation is"
        if not planned:
            remedy = "none of its structures is in that part: add structures to it"
        raise StoreError(f"store '{store.path}' has no complete record in the split '{split}'; {remedy}")
    what = f"reading {split}"
    records = store.read_many(keys)
    return keys, tqdm(records, total=len(keys), desc=what, unit="molecule", disable=not progress, leave=False)
