"""The matrices of a batch as one flat vector, in which every block has its places.

Cutting blocks out and putting them together are then one index each for a kind of pair, however
many molecules there are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qcsurrogate.basis import BasisSet
from qcsurrogate.data.graphs import Graph


class MatrixPlaces:
    """Where the blocks of the molecules of a graph lie in their matrices, row by row, one after the other.

    Matrices have PySCF's order, blocks the internal one; any axes before the last two of a matrix
    are kept.

    Args:
        graph: of one molecule or a batch, on the CPU.
        basis: whose functions index the matrices.
    """

    def __init__(self, graph: Graph, basis: BasisSet) -> None:
        numbers = graph.atomic_numbers.tolist()
        offsets = torch.from_numpy(basis.offsets(numbers))
        last = np.cumsum(graph.atom_counts)
        ends = offsets[torch.from_numpy(last)]
        sizes = torch.diff(ends, prepend=ends.new_zeros(1))
        bases = torch.cumsum(sizes.square(), 0) - sizes.square()
        self._numbers = numbers
        self._orders = {z: torch.from_numpy(basis[z].internal_order) for z in set(numbers)}
        self._first = offsets[:-1] - (ends - sizes)[graph.molecule]
        self._width, self._base = sizes[graph.molecule], bases[graph.molecule]
        self.sizes: list[int] = sizes.tolist()

    def of(self, first: Tensor, second: Tensor) -> Tensor:
        """(n, n_first, n_second) places of blocks, all between the same two elements.

        Args:
            first, second: (n > 0,) atoms of the rows and of the columns of each.
        """
        rows, columns = (self._first[a].unsqueeze(1) + self._orders[self._numbers[int(a[0])]] for a in (first, second))
        start = self._base[first].view(-1, 1, 1)
        return start + rows.unsqueeze(2) * self._width[first].view(-1, 1, 1) + columns.unsqueeze(1)

    def joined(self, matrices: Sequence[NDArray[np.float64]]) -> Tensor:
        """Matrices (..., n, n) of the molecules as one vector (..., sum of n^2)."""
        flat = [torch.as_tensor(m).flatten(-2) for m in matrices]
        return flat[0] if len(flat) == 1 else torch.cat(flat, dim=-1)

    def split(self, flat: Tensor) -> list[NDArray[np.float64]]:
        """The inverse of :meth:`joined`."""
        parts = flat.split([n * n for n in self.sizes], dim=-1)
        return [part.unflatten(-1, (n, n)).numpy() for part, n in zip(parts, self.sizes, strict=True)]

    def cut(self, flat: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """(n, ..., n_first, n_second) blocks out of :meth:`joined` matrices."""
        return flat[..., self.of(first, second)].movedim(-3, 0)

    def put(self, flat: Tensor, first: Tensor, second: Tensor, blocks: Tensor) -> None:
        """The inverse of :meth:`cut`."""
        flat[..., self.of(first, second)] = blocks.movedim(0, -3).to(flat)
