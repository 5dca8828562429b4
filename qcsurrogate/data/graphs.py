"""Molecules as tensors: who talks to whom, how far apart, in which bond frame.

Two sets of directed edges exist.  *Messages* carry information inside the encoder: they
end at a short cutoff, or join all atoms of a molecule, or only those that are bound.
*Pairs* are what a pair readout predicts on; they reach as far as the orbitals overlap and
are sorted by their kind (first element, second element), so that a readout can split them
without gathering.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from qcsurrogate.conventions import wigner_matrices
from qcsurrogate.sources.bonds import bonded
from qcsurrogate.structures import Structure

PairKind = tuple[int, int]
"""(first, second) atomic number of a pair, first >= second."""

EdgeKind = Literal["radius", "complete", "bonds"]
"""Which atoms send each other messages: those within a cutoff, all of a molecule, or those that are bound."""


@dataclass(frozen=True)
class EdgeSet:
    """Directed edges from ``source`` to ``target``.

    Attributes:
        target: (n_edges,) atom that receives; the first atom of a pair.
        source: (n_edges,) atom that sends; the second atom of a pair.
        vectors: (n_edges, 3) from target to source, bohr.
        l_max: highest l of the Wigner matrices.
    """

    target: Tensor
    source: Tensor
    vectors: Tensor
    l_max: int

    def __len__(self) -> int:
        return len(self.target)

    @cached_property
    def lengths(self) -> Tensor:
        """(n_edges,) bohr."""
        return self.vectors.norm(dim=-1)

    @cached_property
    def wigner(self) -> Tensor:
        """(n_edges, sum over l of (2l+1)^2) Wigner matrices, l = 0..l_max one after the other.

        They belong to the rotation that takes the bond to z, and are computed where they are
        used: stored for every edge of a data set they would fill the memory.
        """
        return flat_wigner(self.l_max, bond_frames(self.vectors))


@dataclass(frozen=True)
class Graph:
    """One molecule or a batch of them.

    Attributes:
        atomic_numbers: (n_atoms,).
        positions: (n_atoms, 3) bohr; edges hold vectors of their own, which a model that is to be equivariant uses.
        molecule: (n_atoms,) which molecule of the batch an atom belongs to.
        atom_counts: atoms of each molecule.
        charge: (n_molecules,) total charges, e.
        spin: (n_molecules,) numbers of unpaired electrons.
        messages: edges of the encoder.
        pairs: edges of a pair readout, sorted by kind; None where none is needed.
        pair_message: (n_pairs,) the message edge with the same ends, or -1.
        pair_kinds: kinds of the pairs in their order, with the number of each.
    """

    atomic_numbers: Tensor
    positions: Tensor
    molecule: Tensor
    atom_counts: tuple[int, ...]
    charge: Tensor
    spin: Tensor
    messages: EdgeSet
    pairs: EdgeSet | None = None
    pair_message: Tensor | None = None
    pair_kinds: tuple[tuple[PairKind, int], ...] = ()

    @property
    def n_atoms(self) -> int:
        return len(self.atomic_numbers)

    @property
    def n_molecules(self) -> int:
        return len(self.atom_counts)

    @cached_property
    def atoms_by_element(self) -> dict[int, Tensor]:
        """Indices of the atoms of each element present, ascending."""
        return {int(z): torch.nonzero(self.atomic_numbers == z).squeeze(1) for z in torch.unique(self.atomic_numbers)}

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Graph:
        """The same graph on another device or in another floating-point type."""
        return replace(
            self,
            atomic_numbers=self.atomic_numbers.to(device),
            positions=self.positions.to(device=device, dtype=dtype),
            molecule=self.molecule.to(device),
            charge=self.charge.to(device),
            spin=self.spin.to(device),
            messages=_move_edges(self.messages, device, dtype),
            pairs=None if self.pairs is None else _move_edges(self.pairs, device, dtype),
            pair_message=None if self.pair_message is None else self.pair_message.to(device),
        )

    def at(self, positions: Tensor) -> Graph:
        """The same edges between atoms at other places; gradients reach ``positions``.

        Args:
            positions: (n_atoms, 3) bohr, close enough to the old ones that no edge is missing.
        """
        pairs = None if self.pairs is None else _between(self.pairs, positions)
        return replace(self, positions=positions, messages=_between(self.messages, positions), pairs=pairs)


def _between(edges: EdgeSet, positions: Tensor) -> EdgeSet:
    return replace(edges, vectors=positions[edges.source] - positions[edges.target])


def _move_edges(edges: EdgeSet, device: torch.device | str | None, dtype: torch.dtype | None) -> EdgeSet:
    return EdgeSet(
        edges.target.to(device),
        edges.source.to(device),
        edges.vectors.to(device=device, dtype=dtype),
        edges.l_max,
    )


def bond_frames(vectors: Tensor) -> Tensor:
    """(n, 3, 3) rotations that take each vector to the z axis.

    The turn about z is arbitrary: every layer that uses a frame is equivariant to it.
    """
    z = vectors / vectors.norm(dim=-1, keepdim=True)
    helper = torch.zeros_like(z).scatter_(-1, z.abs().argmin(-1, keepdim=True), 1.0)
    x = torch.linalg.cross(helper, z)
    x = x / x.norm(dim=-1, keepdim=True)
    return torch.stack([x, torch.linalg.cross(z, x), z], dim=-2)


def flat_wigner(l_max: int, rotations: Tensor) -> Tensor:
    """(n, sum of (2l+1)^2) Wigner matrices of all l <= l_max, flattened one after the other."""
    return torch.cat([d.flatten(1) for d in wigner_matrices(l_max, rotations)], dim=1)


def wigner_of(l: int, wigner: Tensor) -> Tensor:
    """(n, 2l+1, 2l+1) view of one l in :func:`flat_wigner`'s result."""
    start = sum((2 * k + 1) ** 2 for k in range(l))
    size = 2 * l + 1
    return wigner[:, start : start + size * size].reshape(-1, size, size)


def build_graph(
    structure: Structure,
    *,
    l_max: int,
    message_cutoff: float,
    pair_cutoff: float | None = None,
    edges: EdgeKind = "radius",
) -> Graph:
    """The graph of one molecule in float64.

    Args:
        structure: the molecule.
        l_max: highest l of the Wigner matrices.
        message_cutoff: bohr; infinite where ``edges`` is not "radius".
        pair_cutoff: bohr; None if no pairs are needed.
        edges: which atoms send each other messages; bonds are read off distances
            (:mod:`qcsurrogate.sources.bonds`) and so come and go as atoms move.

    Raises:
        ValueError: for a cutoff that ``edges`` does not have.
    """
    if (edges == "radius") != math.isfinite(message_cutoff):
        raise ValueError(f"edges '{edges}' with a cutoff of {message_cutoff} bohr; only radius has a finite one")
    positions = torch.as_tensor(np.array(structure.positions))
    numbers = torch.as_tensor(np.array(structure.atomic_numbers))
    reach = max(message_cutoff, pair_cutoff or 0.0)
    target, source = _directed_neighbours(structure, reach)
    vectors = positions[source] - positions[target]
    found = EdgeSet(target, source, vectors, l_max)
    lengths = found.lengths
    is_message = lengths < message_cutoff
    if edges == "bonds":
        is_message = torch.as_tensor(bonded(structure))[target, source]
    charge, spin = torch.tensor([structure.charge]), torch.tensor([structure.spin])
    messages = _select(found, is_message)
    graph = Graph(numbers, positions, torch.zeros_like(numbers), (len(numbers),), charge, spin, messages)
    if pair_cutoff is None:
        return graph
    # Unlike elements are predicted once, from the heavier atom; like ones both ways and averaged.
    chosen = (numbers[target] >= numbers[source]) & (lengths < pair_cutoff)
    index = torch.nonzero(chosen).squeeze(1)
    kinds = numbers[target[index]] * 1000 + numbers[source[index]]
    index = index[torch.argsort(kinds, stable=True)]
    values, counts = torch.unique(kinds, return_counts=True)
    message_number = torch.where(is_message, torch.cumsum(is_message, 0) - 1, -1)
    return replace(
        graph,
        pairs=_select(found, index),
        pair_message=message_number[index],
        pair_kinds=tuple(((int(v) // 1000, int(v) % 1000), int(n)) for v, n in zip(values, counts, strict=True)),
    )


def _directed_neighbours(structure: Structure, cutoff: float) -> tuple[Tensor, Tensor]:
    from scipy.spatial import cKDTree

    if math.isinf(cutoff):
        found = np.stack(np.triu_indices(len(structure), 1), axis=1).astype(np.int64)
    else:
        found = cKDTree(structure.positions).query_pairs(cutoff, output_type="ndarray").astype(np.int64)
    both = np.concatenate([found, found[:, ::-1]])
    both = both[np.lexsort((both[:, 1], both[:, 0]))]
    return torch.as_tensor(both[:, 0].copy()), torch.as_tensor(both[:, 1].copy())


def _select(edges: EdgeSet, index: Tensor) -> EdgeSet:
    return EdgeSet(edges.target[index], edges.source[index], edges.vectors[index], edges.l_max)


@dataclass(frozen=True)
class GraphSettings:
    """What a model needs to know of a molecule: see :func:`build_graph`."""

    l_max: int
    message_cutoff: float
    pair_cutoff: float | None = None
    edges: EdgeKind = "radius"

    def graph(self, structure: Structure, dtype: torch.dtype = torch.float64) -> Graph:
        """The graph of one structure."""
        graph = build_graph(
            structure,
            l_max=self.l_max,
            message_cutoff=self.message_cutoff,
            pair_cutoff=self.pair_cutoff,
            edges=self.edges,
        )
        return graph.to(dtype=dtype)


def collate(graphs: Sequence[Graph]) -> Graph:
    """One graph of several molecules; pairs stay sorted by kind."""
    atom_starts = _starts(g.n_atoms for g in graphs)
    message_starts = _starts(len(g.messages) for g in graphs)
    molecule = torch.repeat_interleave(
        torch.arange(sum(g.n_molecules for g in graphs)),
        torch.tensor([n for g in graphs for n in g.atom_counts]),
    )
    batch = Graph(
        torch.cat([g.atomic_numbers for g in graphs]),
        torch.cat([g.positions for g in graphs]),
        molecule,
        tuple(n for g in graphs for n in g.atom_counts),
        torch.cat([g.charge for g in graphs]),
        torch.cat([g.spin for g in graphs]),
        _join([g.messages for g in graphs], atom_starts),
    )
    return _with_pairs(batch, graphs, atom_starts, message_starts)


def _starts(sizes: Iterable[int]) -> list[int]:
    starts = [0]
    for size in sizes:
        starts.append(starts[-1] + size)
    return starts


def _join(parts: Sequence[EdgeSet], starts: Sequence[int]) -> EdgeSet:
    return EdgeSet(
        torch.cat([p.target + s for p, s in zip(parts, starts, strict=False)]),
        torch.cat([p.source + s for p, s in zip(parts, starts, strict=False)]),
        torch.cat([p.vectors for p in parts]),
        parts[0].l_max,
    )


def _with_pairs(
    batch: Graph, graphs: Sequence[Graph], atom_starts: Sequence[int], message_starts: Sequence[int]
) -> Graph:
    pieces: dict[PairKind, list[tuple[EdgeSet, Tensor, int]]] = {}
    for k, graph in enumerate(graphs):
        if graph.pairs is None or graph.pair_message is None:
            return batch
        start = 0
        for kind, count in graph.pair_kinds:
            part = slice(start, start + count)
            message = graph.pair_message[part]
            message = torch.where(message >= 0, message + message_starts[k], message)
            pieces.setdefault(kind, []).append((_slice(graph.pairs, part), message, atom_starts[k]))
            start += count
    kinds = sorted(pieces)
    flat = [piece for kind in kinds for piece in pieces[kind]]
    if not flat:
        return replace(batch, pairs=graphs[0].pairs, pair_message=graphs[0].pair_message)
    return replace(
        batch,
        pairs=_join([p[0] for p in flat], [p[2] for p in flat]),
        pair_message=torch.cat([p[1] for p in flat]),
        pair_kinds=tuple((kind, sum(len(p[0]) for p in pieces[kind])) for kind in kinds),
    )


def _slice(edges: EdgeSet, part: slice) -> EdgeSet:
    return EdgeSet(edges.target[part], edges.source[part], edges.vectors[part], edges.l_max)
