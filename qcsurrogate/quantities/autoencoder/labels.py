"""Training data of autoencoders: structures, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from qcsurrogate.data.batches import Molecules
from qcsurrogate.data.graphs import Graph, GraphSettings
from qcsurrogate.models.uncertainty import spread_over
from qcsurrogate.structures import Structure

_COUNTED = 512
"""Molecules in which neighbours are counted."""


class CloudDataset:
    """Molecules, each with its centre at the origin.

    Attributes:
        keys: of the molecules.
    """

    def __init__(
        self, keys: Sequence[str], structures: Sequence[Structure], settings: GraphSettings, dtype: torch.dtype
    ) -> None:
        self.keys, self._settings, self._dtype = tuple(keys), settings, dtype
        self.molecules = Molecules([s.moved(s.positions - s.positions.mean(0)) for s in structures])

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def elements(self) -> tuple[int, ...]:
        """Atomic numbers that occur, ascending."""
        return tuple(np.unique(self.molecules.numbers).tolist())

    @property
    def largest(self) -> int:
        """Atoms of the largest molecule."""
        return int(self.molecules.counts.max())

    @property
    def average_atoms(self) -> float:
        """Atoms of a molecule."""
        return float(self.molecules.counts.mean())

    @property
    def length(self) -> float:
        """Root-mean-square distance of atoms from their molecule's centre, bohr; one where all are lone atoms."""
        return float(np.sqrt(np.square(self.molecules.positions).sum(1).mean())) or 1.0

    @property
    def average_neighbours(self) -> float:
        """Messages that an atom receives, averaged over the atoms of molecules all over the data; at least one."""
        graph = self.batch(spread_over(len(self), _COUNTED))
        return max(1.0, len(graph.messages) / graph.n_atoms)

    def batch(self, indices: Sequence[int]) -> Graph:
        """The molecules with these indices, in this order."""
        return self.molecules.graph(indices, self._settings, self._dtype)
