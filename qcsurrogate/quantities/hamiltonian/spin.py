"""What happens to the two components of a block when alpha and beta are swapped.

The first (a mean of spins, or their sum) stays, the second (a difference) changes its sign.
"""

from __future__ import annotations

from qcsurrogate.data.block_rows import BlockRows
from qcsurrogate.data.blocks import BlockLayouts
from qcsurrogate.data.graphs import Graph
from qcsurrogate.models.spin import with_spins_swapped


def spins_swapped(rows: BlockRows, graph: Graph, layouts: BlockLayouts) -> BlockRows:
    """The rows of the same molecules with alpha for beta."""
    pairs = zip(graph.pair_kinds, rows.pairs, strict=True)
    return BlockRows(
        tuple(with_spins_swapped(values, layouts.pair(kind).odd_in_spin) for (kind, _), values in pairs),
        tuple((z, with_spins_swapped(values, layouts.atom(z).odd_in_spin)) for z, values in rows.atoms),
    )
