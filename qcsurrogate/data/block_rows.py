"""The blocks of matrices as irreps: rows of every pair in its bond's frame, and of every atom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qcsurrogate.data.blocks import BlockLayouts, to_bond_frame
from qcsurrogate.data.graphs import Graph, PairKind
from qcsurrogate.data.matrices import MatrixPlaces


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
