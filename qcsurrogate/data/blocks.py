"""Matrix blocks <-> irreps: the change of basis between orbital pairs and l-channels.

A block between two atoms is a sum over pairs of shells (l1, l2); each pair decomposes
into L = |l1 - l2| .. l1 + l2 by Clebsch-Gordan coefficients.  Components with parity
(-1)^L ("natural") and (-1)^(L+1) ("pseudo") both occur: p x p holds a 1e, p x d a 2o.
The change of basis is orthogonal, so its inverse is its transpose, exactly.

Matrices of closed shells are (n, n).  Those of open shells are (2, n, n): what is common to both
spins, and what changes its sign when the spins are swapped; their blocks hold both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from e3nn import o3
from numpy.typing import NDArray
from torch import Tensor

from qcsurrogate.basis import BasisSet, ElementBasis
from qcsurrogate.conventions import clebsch_gordan
from qcsurrogate.data.graphs import PairKind, wigner_of
from qcsurrogate.errors import BasisError

LARGEST_BLOCK = 128**2
"""Elements of the largest block: the change of basis is dense, and a file must not make it fill the memory."""


@dataclass(frozen=True)
class Channel:
    """One irrep of a block: shells (first, second) coupled to angular momentum l.

    ``natural`` tells whether its parity is (-1)^l, ``component`` which of the matrices it belongs to.
    """

    l: int
    natural: bool
    first_shell: int
    second_shell: int
    component: int = 0


def block_channels(first: Sequence[int], second: Sequence[int], *, symmetric: bool = False) -> tuple[Channel, ...]:
    """The irreps of a block between shells of these angular momenta, pair by pair of shells."""
    channels: list[Channel] = []
    for i, l1 in enumerate(first):
        for j, l2 in enumerate(second):
            if symmetric and j < i:
                continue
            # the antisymmetric part of a shell with itself does not occur
            momenta = range(abs(l1 - l2), l1 + l2 + 1, 2 if symmetric and i == j else 1)
            channels.extend(Channel(l, (l1 + l2 + l) % 2 == 0, i, j) for l in momenta)
    return tuple(channels)


def of_components(channels: Sequence[Channel], n_components: int) -> tuple[Channel, ...]:
    """The channels of the blocks of one matrix, for each of several."""
    return tuple(replace(channel, component=c) for c in range(n_components) for channel in channels)


class BlockLayout:
    """The irreps of the blocks between two elements, or of the blocks on one atom.

    Args:
        first, second: shells of the rows and of the columns.
        symmetric: whether the blocks are symmetric (on one atom, ``first`` is
            ``second``); then only the unique channels are kept.
        n_components: how many matrices a block is cut from.

    Raises:
        BasisError: if a block has more than :data:`LARGEST_BLOCK` elements.

    Attributes:
        shape: of one block, (n_first, n_second), or (n_components, n_first, n_second) where it holds several.
        channels: the irreps, in order, component after component; channel c has 2l+1 rows, m = -l..l.
        transform: (n_rows / n_components, n_first * n_second), orthonormal rows.
    """

    def __init__(
        self, first: ElementBasis, second: ElementBasis, *, symmetric: bool = False, n_components: int = 1
    ) -> None:
        if symmetric and first != second:
            raise ValueError("a symmetric block needs the same element twice")
        if first.n_functions * second.n_functions > LARGEST_BLOCK:
            raise BasisError(
                f"a block of {first.n_functions} x {second.n_functions} functions is too large; "
                f"expected at most {LARGEST_BLOCK} elements, which is about 128 functions per atom"
            )
        self.first, self.second, self.symmetric = first, second, symmetric
        momenta = first.angular_momenta, second.angular_momenta
        channels = block_channels(*momenta, symmetric=symmetric)
        self.n_components, self.channels = n_components, of_components(channels, n_components)
        one = first.n_functions, second.n_functions
        self.shape = one if n_components == 1 else (n_components, *one)
        rows: list[NDArray[np.float64]] = []
        for c in channels:
            i, j = c.first_shell, c.second_shell
            rows.extend(self._rows(i, j, clebsch_gordan(momenta[0][i], momenta[1][j], c.l)))
        self.transform = torch.as_tensor(np.asarray(rows))

    def _rows(self, i: int, j: int, coupling: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        rows = []
        for m in range(coupling.shape[2]):
            block = np.zeros((self.first.n_functions, self.second.n_functions))
            block[self.first.shell_slices[i], self.second.shell_slices[j]] = coupling[:, :, m]
            if self.symmetric and i != j:
                block = (block + block.T) / np.sqrt(2.0)
            rows.append(block.ravel())
        return rows

    @property
    def n_rows(self) -> int:
        """Number of independent numbers in a block."""
        return self.n_components * len(self.transform)

    @cached_property
    def row_channel(self) -> Tensor:
        """(n_rows,) channel of every row."""
        return torch.tensor([c for c, channel in enumerate(self.channels) for _ in range(2 * channel.l + 1)])

    @cached_property
    def odd_in_spin(self) -> Tensor:
        """(n_rows,) rows that change their sign when the spins are swapped: those of the second component."""
        return torch.tensor([channel.component == 1 for channel in self.channels])[self.row_channel]

    @property
    def irreps(self) -> o3.Irreps:
        """The channels as e3nn irreps, in order (1x0e+1x1o+...)."""
        return o3.Irreps([(1, (c.l, (-1) ** c.l if c.natural else (-1) ** (c.l + 1))) for c in self.channels])

    def to_irreps(self, blocks: Tensor) -> Tensor:
        """(..., *shape) blocks in internal order -> (..., n_rows)."""
        flat = blocks.reshape(*blocks.shape[: -len(self.shape)], self.n_components, -1)
        return (flat @ self.transform.T.to(blocks)).flatten(-2)

    def to_blocks(self, rows: Tensor) -> Tensor:
        """(..., n_rows) -> (..., *shape) blocks in internal order."""
        flat = rows.unflatten(-1, (self.n_components, -1)) @ self.transform.to(rows)
        return flat.reshape(*rows.shape[:-1], *self.shape)


class BlockLayouts:
    """The layouts of a basis, made once per kind of pair and per element; see :class:`BlockLayout`."""

    def __init__(self, basis: BasisSet, n_components: int = 1) -> None:
        self.basis, self.n_components = basis, n_components
        self._pairs: dict[PairKind, BlockLayout] = {}
        self._atoms: dict[int, BlockLayout] = {}

    def pair(self, kind: PairKind) -> BlockLayout:
        """Blocks between two atoms of these elements."""
        if kind not in self._pairs:
            first, second = (self.basis[z] for z in kind)
            self._pairs[kind] = BlockLayout(first, second, n_components=self.n_components)
        return self._pairs[kind]

    def atom(self, atomic_number: int) -> BlockLayout:
        """Blocks on one atom of this element."""
        if atomic_number not in self._atoms:
            element = self.basis[atomic_number]
            layout = BlockLayout(element, element, symmetric=True, n_components=self.n_components)
            self._atoms[atomic_number] = layout
        return self._atoms[atomic_number]


def shell_wigner(element: ElementBasis, wigner: Tensor) -> Tensor:
    """(n_edges, n_functions, n_functions) Wigner matrices of an element's functions.

    Args:
        element: the shells.
        wigner: (n_edges, ...) flat Wigner matrices of :func:`..graphs.flat_wigner`.
    """
    matrix = wigner.new_zeros(len(wigner), element.n_functions, element.n_functions)
    for l, part in zip(element.angular_momenta, element.shell_slices, strict=True):
        matrix[:, part, part] = wigner_of(l, wigner)
    return matrix


def to_bond_frame(kind: PairKind, basis: BasisSet, blocks: Tensor, wigner: Tensor) -> Tensor:
    """Blocks (n_edges, ..., n_first, n_second) in the molecule's frame -> in the bond's frame."""
    first, second = _turns(kind, basis, blocks, wigner)
    return first @ blocks @ second.mT


def from_bond_frame(kind: PairKind, basis: BasisSet, blocks: Tensor, wigner: Tensor) -> Tensor:
    """The inverse of :func:`to_bond_frame`."""
    first, second = _turns(kind, basis, blocks, wigner)
    return first.mT @ blocks @ second


def _turns(kind: PairKind, basis: BasisSet, blocks: Tensor, wigner: Tensor) -> tuple[Tensor, Tensor]:
    """(n_edges, ..., n, n) Wigner matrices of both elements, with as many axes as the blocks."""
    shape = len(blocks), *(1 for _ in blocks.shape[1:-2])
    first, second = (shell_wigner(basis[z], wigner) for z in kind)
    return first.view(*shape, *first.shape[1:]), second.view(*shape, *second.shape[1:])
