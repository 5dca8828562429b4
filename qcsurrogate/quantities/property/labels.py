"""Training data of property models: flat arrays, graphs made batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from qcsurrogate.data.batches import Molecules
from qcsurrogate.data.graphs import Graph, GraphSettings, collate
from qcsurrogate.models.uncertainty import spread_over
from qcsurrogate.quantities.property.networks import ElectronicRows, ElectronicStart
from qcsurrogate.structures import Structure
from qcsurrogate.tables.sets import Array, Target

_COUNTED = 512
"""Molecules in which neighbours are counted."""


@dataclass(frozen=True)
class PropertyBatch:
    """Graph and labels of some molecules.

    Attributes:
        graph: as the network needs it.
        labels: by target (n_molecules, ...) or (n_atoms, ...), float64.
        known: what H0 says of them, with electronic inputs.
    """

    graph: Graph
    labels: Mapping[str, Tensor]
    known: ElectronicRows | None = None

    def to(self, device: torch.device | str) -> PropertyBatch:
        """The same batch on another device."""
        return replace(
            self,
            graph=self.graph.to(device),
            labels={name: values.to(device) for name, values in self.labels.items()},
            known=None if self.known is None else self.known.to(device),
        )


class Inputs:
    """What a network is given of molecules, by their indices.

    Args:
        structures: the molecules.
        settings: of the graphs.
        start: H0, with electronic inputs, which are then computed and kept.
        dtype: of graphs and inputs.
        progress: what to call a progress bar; none if empty.
    """

    def __init__(
        self,
        structures: Sequence[Structure],
        settings: GraphSettings,
        start: ElectronicStart | None,
        dtype: torch.dtype,
        progress: str = "",
    ) -> None:
        self.molecules, self.settings, self.dtype = Molecules(structures), settings, dtype
        self.graphs: list[Graph] = []
        self.known: list[ElectronicRows] = []
        if start is not None:
            for structure in tqdm(structures, progress, disable=not progress):
                graph = settings.graph(structure)
                self.known.append(start.rows(structure, graph).to(dtype=dtype))
                self.graphs.append(graph.to(dtype=dtype))

    def of(self, indices: Sequence[int]) -> tuple[Graph, ElectronicRows | None]:
        """Graph and electronic inputs of some molecules."""
        if not self.known:
            return self.molecules.graph(indices, self.settings, self.dtype), None
        graphs = [self.graphs[i] for i in indices]
        return collate(graphs), ElectronicRows.joined([self.known[i] for i in indices], graphs)


class PropertyDataset:
    """Labels of the molecules of one part of a labelled set.

    Attributes:
        keys: of the molecules.
        targets: what is known of each.
        inputs: what a network is given of them.
        start: H0, with electronic inputs.
    """

    def __init__(
        self,
        keys: Sequence[str],
        inputs: Inputs,
        targets: Sequence[Target],
        labels: Mapping[str, Sequence[Array]],
        start: ElectronicStart | None = None,
    ) -> None:
        self.keys, self.inputs, self.targets, self.start = tuple(keys), inputs, tuple(targets), start
        self._labels: dict[str, Tensor] = {}
        for target in self.targets:
            values = labels[target.name]
            joined = np.concatenate(values) if target.per_atom else np.stack(values)
            self._labels[target.name] = torch.as_tensor(np.asarray(joined, dtype=np.float64))

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def structures(self) -> tuple[Structure, ...]:
        """The molecules."""
        return self.inputs.molecules.structures

    @property
    def elements(self) -> tuple[int, ...]:
        """Atomic numbers that occur, ascending."""
        return tuple(np.unique(self.inputs.molecules.numbers).tolist())

    @property
    def average_neighbours(self) -> float:
        """Messages that an atom receives, averaged over the atoms of molecules all over the data; at least one."""
        edges = atoms = 0
        for graph in self._some_graphs():
            edges, atoms = edges + len(graph.messages), atoms + graph.n_atoms
        return max(1.0, edges / max(1, atoms))

    def _some_graphs(self) -> Iterator[Graph]:
        chosen = spread_over(len(self), _COUNTED)
        yield from (self.inputs.of(chosen[first : first + 64])[0] for first in range(0, len(chosen), 64))

    def values(self, target: Target) -> list[Array]:
        """The labels of a target, one array for each molecule."""
        values = self._labels[target.name].numpy()
        if not target.per_atom:
            return list(values)
        return np.split(values, self.inputs.molecules.starts[1:-1])

    def batch(self, indices: Sequence[int]) -> PropertyBatch:
        """The molecules with these indices, in this order."""
        graph, known = self.inputs.of(indices)
        rows = torch.as_tensor(np.asarray(indices, dtype=np.int64))
        atoms = torch.as_tensor(self.inputs.molecules.atoms_of(indices))
        labels = {t.name: self._labels[t.name][atoms if t.per_atom else rows] for t in self.targets}
        return PropertyBatch(graph, labels, known)
