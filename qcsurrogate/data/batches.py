"""Graphs of many small molecules made when they are needed: a batch at once, from flat arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from ase.data import covalent_radii
from numpy.typing import NDArray
from torch import Tensor

from qcsurrogate.data.graphs import EdgeSet, Graph, GraphSettings, collate
from qcsurrogate.sources.bonds import BOND_FACTOR
from qcsurrogate.structures import Structure
from qcsurrogate.units import BOHR_PER_ANGSTROM

LARGEST: Final = 200
"""Atoms of a molecule; of larger ones not all pairs are looked at."""

Integers = NDArray[np.int64]


class Molecules:
    """Molecules in flat arrays, from which a training step takes its batch in a millisecond.

    The memory is that of their coordinates; graphs, whose edges take a hundred times that, live as long as a step.
    """

    def __init__(self, structures: Sequence[Structure]) -> None:
        self.structures = tuple(structures)
        self.counts = np.array([len(s) for s in structures], dtype=np.int64)
        self.starts = np.concatenate([[0], np.cumsum(self.counts)])
        self.numbers = np.concatenate([s.atomic_numbers for s in structures])
        self.positions = np.concatenate([s.positions for s in structures])
        self.charges = np.array([s.charge for s in structures], dtype=np.int64)
        self.spins = np.array([s.spin for s in structures], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.structures)

    def atoms_of(self, indices: Sequence[int]) -> Integers:
        """Rows of the flat arrays that hold the atoms of some molecules, in their order."""
        return np.concatenate([np.arange(self.starts[i], self.starts[i + 1]) for i in indices])

    def graph(self, indices: Sequence[int], settings: GraphSettings, dtype: torch.dtype) -> Graph:
        """The graph of some molecules, equal to their graphs one by one, collated; without pairs.

        Raises:
            ValueError: if the settings ask for pairs.
        """
        if settings.pair_cutoff is not None:
            raise ValueError("graphs with pairs are made one by one")
        chosen = np.asarray(indices, dtype=np.int64)
        counts = self.counts[chosen]
        if counts.max() > LARGEST:
            return collate([settings.graph(self.structures[i], dtype) for i in chosen.tolist()])
        atoms = self.atoms_of(chosen.tolist())
        numbers, positions = self.numbers[atoms], self.positions[atoms]
        target, source = _pairs_within(counts)
        vectors = positions[source] - positions[target]
        squared = np.einsum("ex,ex->e", vectors, vectors)
        reach: NDArray[np.float64] | float = settings.message_cutoff
        if settings.edges == "bonds":
            radii = covalent_radii[numbers] * BOHR_PER_ANGSTROM * BOND_FACTOR
            reach = radii[source] + radii[target]
        near = squared < np.square(reach)
        messages = EdgeSet(_tensor(target[near]), _tensor(source[near]), _tensor(vectors[near]), settings.l_max)
        return Graph(
            _tensor(numbers),
            _tensor(positions),
            torch.repeat_interleave(torch.arange(len(chosen)), _tensor(counts)),
            tuple(counts.tolist()),
            _tensor(self.charges[chosen]),
            _tensor(self.spins[chosen]),
            messages,
        ).to(dtype=dtype)


def _pairs_within(counts: Integers) -> tuple[Integers, Integers]:
    """All ordered pairs of different atoms of one molecule, by target, then source."""
    starts = np.cumsum(counts) - counts
    partners = np.repeat(counts, counts) - 1  # of every atom
    target = np.repeat(np.arange(len(partners)), partners)
    within = np.arange(len(target)) - np.repeat(np.cumsum(partners) - partners, partners)
    source = np.repeat(np.repeat(starts, counts), partners) + within
    return target, source + (source >= target)


def _tensor(array: NDArray[np.int64] | NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
