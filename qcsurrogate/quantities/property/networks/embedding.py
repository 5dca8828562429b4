"""From what H0 says of a molecule to features of its atoms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from qcsurrogate.basis import BasisSet
from qcsurrogate.data.blocks import BlockLayouts
from qcsurrogate.data.graphs import Graph, PairKind
from qcsurrogate.models.shared_block import PairStatistics, SharedBlock
from qcsurrogate.models.statistics import Standardisation, centred
from qcsurrogate.nn.convolution import scale_hidden
from qcsurrogate.nn.head import DegreeEmbedding
from qcsurrogate.nn.layout import FeatureLayout
from qcsurrogate.nn.radial import RadialBasis, RadialWeights, smooth_cutoff
from qcsurrogate.nn.rotation import BondRotation
from qcsurrogate.nn.scatter import scatter_sum
from qcsurrogate.nn.so2 import FromHidden, HiddenGate, ToHidden
from qcsurrogate.quantities.property.networks.electronic import ElectronicRows
from qcsurrogate.quantities.property.networks.settings import NetworkSettings

_SMALLEST = 0.02
"""Electrons; elements of a density matrix that vary by less are not blown up to vary by one."""


class ElectronicEmbedding(nn.Module):
    """Blocks of H0's density on atoms, mapped linearly; those between atoms as messages to both, in the bond's frame.

    Args:
        basis: of the blocks.
        layout: irreps of the features.
        settings: sizes.
    """

    def __init__(self, basis: BasisSet, layout: FeatureLayout, settings: NetworkSettings, scale: float) -> None:
        super().__init__()
        self.scale, self.reach = scale, settings.message_cutoff
        self.elements = tuple(sorted(basis.elements))
        layouts = BlockLayouts(basis)
        self.layouts = layouts
        self.atoms, self.atom_inputs = nn.ModuleDict(), nn.ModuleDict()
        for z in self.elements:
            irreps = [(c.l, c.natural) for c in layouts.atom(z).channels]
            self.atoms[str(z)] = DegreeEmbedding(layout, settings.channels, irreps)
            self.atom_inputs[str(z)] = Standardisation(layouts.atom(z).n_rows)
        self.block = SharedBlock(basis, layouts)
        self.pair_inputs = PairStatistics(self.block)
        hidden, odd, m_max = settings.hidden, settings.hidden_odd, len(self.block.order.n_half)
        self.radial = RadialBasis(len(self.elements), settings.gaussians, self.reach)
        self.into = ToHidden(self.block.order, 1, hidden, odd)
        self.n_odd = odd if self.block.order.n_odd else 0
        self.weights = RadialWeights(self.radial.n_out, (m_max + 1) * hidden + self.n_odd)
        self.gate = HiddenGate(hidden, self.n_odd, m_max)
        self.rotation = BondRotation(layout)
        self.to_first, self.to_second = (
            FromHidden(layout.bond_order, settings.channels, hidden, self.n_odd) for _ in range(2)
        )

    def fit(self, known: Sequence[ElectronicRows], graphs: Sequence[Graph]) -> None:
        """Take means and spreads of the blocks from a training set."""
        pairs: dict[PairKind, list[Tensor]] = {}
        atoms: dict[int, list[Tensor]] = {}
        for one, graph in zip(known, graphs, strict=True):
            for (kind, _), rows in zip(graph.pair_kinds, one.density.pairs, strict=True):
                pairs.setdefault(kind, []).append(rows)
            for z, rows in one.density.atoms:
                atoms.setdefault(z, []).append(rows)
        self.pair_inputs.fit({kind: torch.cat(rows) for kind, rows in pairs.items()})
        for z, found in atoms.items():
            layout = self.layouts.atom(z)
            invariant = torch.tensor([layout.channels[c].l == 0 for c in layout.row_channel.tolist()])
            cast(Standardisation, self.atom_inputs[str(z)]).fit(torch.cat(found), layout.row_channel, invariant)

    def forward(self, known: ElectronicRows, graph: Graph, elements: Tensor) -> Tensor:
        """(n_atoms, row, channels).

        Args:
            known: of the molecules.
            graph: with pairs.
            elements: (n_atoms,) index of each.
        """
        pairs = graph.pairs
        if pairs is None:
            raise ValueError("electronic inputs need a graph with pairs")
        rows = self._pair_rows(known, graph)
        hidden, odd = self.into(rows.unsqueeze(2))
        radial = self.radial(pairs.lengths, elements[pairs.target], elements[pairs.source])
        hidden, odd = self.gate(*scale_hidden(hidden, odd, self.weights(radial)))
        decay = smooth_cutoff(pairs.lengths, self.reach).view(-1, 1, 1) * self.scale
        back = self.rotation(pairs.wigner).transpose(1, 2)
        features = scatter_sum(torch.bmm(back, self.to_first(hidden, odd) * decay), pairs.target, graph.n_atoms)
        features = features + scatter_sum(
            torch.bmm(back, self.to_second(hidden, odd) * decay), pairs.source, graph.n_atoms
        )
        for z, own in known.density.atoms:
            of = cast(Standardisation, self.atom_inputs[str(z)])
            embedded = self.atoms[str(z)](centred(own, of.mean, of.scale, _SMALLEST).to(features))
            features = features.index_add(0, graph.atoms_by_element[z], embedded)
        return features

    def _pair_rows(self, known: ElectronicRows, graph: Graph) -> Tensor:
        """(n_pairs, n_rows) standardised, of the shared block."""
        parts = [graph.positions.new_zeros(0, self.block.n_rows)]
        for (kind, _), rows in zip(graph.pair_kinds, known.density.pairs, strict=True):
            own = centred(self.block.sorted(kind, rows), *self.pair_inputs.of(kind), _SMALLEST)
            parts.append(self.block.spread(kind, own).to(graph.positions))
        return torch.cat(parts)
