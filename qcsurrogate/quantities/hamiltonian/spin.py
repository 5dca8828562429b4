"""What happens to the two components of a block when alpha and beta are swapped.

The first (a mean of spins, or their sum) stays, the second (a difference) changes its sign.
"""

from __future__ import annotations

import torch
from torch import Tensor

from qcsurrogate.data.block_rows import BlockRows
from qcsurrogate.data.blocks import BlockLayouts
from qcsurrogate.data.graphs import Graph


def spins_swapped(rows: BlockRows, graph: Graph, layouts: BlockLayouts) -> BlockRows:
    """The rows of the same molecules with alpha for beta."""
    pairs = zip(graph.pair_kinds, rows.pairs, strict=True)
    return BlockRows(
        tuple(_signed(values, layouts.pair(kind).odd_in_spin) for (kind, _), values in pairs),
        tuple((z, _signed(values, layouts.atom(z).odd_in_spin)) for z, values in rows.atoms),
    )


def of_right_symmetry(rows: Tensor, swapped: Tensor, odd: Tensor) -> Tensor:
    """What of (n, n_rows) stays when the spins are swapped, and of the ``odd`` ones (n_rows,) what changes its sign."""
    return 0.5 * (rows + _signed(swapped, odd))


def _signed(rows: Tensor, odd: Tensor) -> Tensor:
    return torch.where(odd.to(rows.device), -rows, rows)
