"""Hamiltonian matrices from irreps of pairs and atoms."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from qcsurrogate.basis import BasisSet
from qcsurrogate.conventions import inverse_order
from qcsurrogate.data.blocks import BlockLayout, BlockLayouts, from_bond_frame
from qcsurrogate.data.graphs import EdgeSet, Graph, GraphSettings, PairKind, collate
from qcsurrogate.models.base import SurrogateModel
from qcsurrogate.models.encoder import Encoder
from qcsurrogate.models.settings import HamiltonianSettings
from qcsurrogate.models.statistics import Standardisation
from qcsurrogate.nn.convolution import scale_hidden
from qcsurrogate.nn.head import DegreeHead
from qcsurrogate.nn.layout import FeatureLayout, Row, bond_order
from qcsurrogate.nn.node import GatedBlock
from qcsurrogate.nn.norm import EquivariantRMSNorm
from qcsurrogate.nn.radial import RadialBasis, RadialWeights
from qcsurrogate.nn.rotation import BondRotation
from qcsurrogate.nn.scatter import gather
from qcsurrogate.nn.so2 import FromHidden, HiddenGate, ToHidden
from qcsurrogate.structures import Structure


def feature_layout(basis: BasisSet) -> FeatureLayout:
    """Irreps that the blocks of a basis need: d x d holds natural l = 0..4 and pseudo 1..3."""
    l_max = max(2, 2 * basis.l_max)
    return FeatureLayout(l_max, l_max - 1)


def pair_cutoff(basis: BasisSet, threshold: float) -> float:
    """Distance (bohr) beyond which no two functions overlap by more than ``threshold``.

    From the most diffuse primitives a, b of each element: exp(-r^2 ab/(a+b)).
    """
    diffuse = [min(row[0] for g in e.groups for row in g.primitives) for e in basis.elements.values()]
    return max(math.sqrt(-math.log(threshold) * (a + b) / (a * b)) for a in diffuse for b in diffuse)


class PairOrder(nn.Module):
    """Rows of a pair block: order of :class:`BlockLayout` <-> order by |m| of the SO(2) readout."""

    index: Tensor
    sign: Tensor
    inverse: Tensor

    def __init__(self, layout: BlockLayout) -> None:
        super().__init__()
        channels = [layout.channels[c] for c in layout.row_channel.tolist()]
        rows = [Row(c.l, m, c.natural) for c, m in zip(channels, layout.row_m.tolist(), strict=True)]
        self.order = bond_order(rows)
        self.register_buffer("index", self.order.index, persistent=False)
        self.register_buffer("sign", self.order.sign.double(), persistent=False)
        self.register_buffer("inverse", torch.argsort(self.order.index), persistent=False)
        l_top = 1 + max(c.l for c in layout.channels)
        self.group = layout.row_channel[self.order.index] * l_top + layout.row_m[self.order.index].abs()
        self.invariant = torch.tensor([rows[k].m == 0 and rows[k].natural for k in self.order.index.tolist()])

    def sorted(self, rows: Tensor) -> Tensor:
        """(n, n_rows) in the layout's order -> by |m|."""
        return rows[:, self.index] * self.sign.to(rows)

    def unsorted(self, rows: Tensor) -> Tensor:
        """The inverse of :meth:`sorted`."""
        return (rows * self.sign.to(rows))[:, self.inverse]


class PairReadout(nn.Module):
    """Irreps of pair blocks from both atoms and the edge between them."""

    def __init__(
        self,
        layout: FeatureLayout,
        settings: HamiltonianSettings,
        n_elements: int,
        orders: Mapping[PairKind, PairOrder],
        reach: float,
    ) -> None:
        super().__init__()
        encoder, hidden = settings.encoder, settings.readout_hidden
        odd = encoder.hidden_odd
        self.edge_channels = encoder.edge_channels
        self.edge_norm = EquivariantRMSNorm(layout, encoder.edge_channels, bond_frame=True)
        self.node_norm = EquivariantRMSNorm(layout, encoder.channels)
        self.rotation = BondRotation(layout)
        self.radial = RadialBasis(n_elements, encoder.gaussians, reach)
        self.weights = RadialWeights(self.radial.n_out, (layout.l_max + 1) * hidden + odd)
        order = layout.bond_order
        self.into = ToHidden(order, encoder.edge_channels + 2 * encoder.channels, hidden, odd)
        self.gate = HiddenGate(hidden, odd, layout.l_max)
        self.out = nn.ModuleDict({_name(kind): FromHidden(o.order, 1, hidden, odd) for kind, o in orders.items()})

    def forward(self, nodes: Tensor, edge_features: Tensor, graph: Graph, elements: Tensor) -> list[Tensor]:
        """For each kind of pair in the graph (n_pairs, n_rows), rows sorted by |m|."""
        pairs = _pairs(graph)
        normed = self.node_norm(nodes)
        ends = torch.cat([gather(normed, pairs.target), gather(normed, pairs.source)], dim=2)
        rows = torch.bmm(self.rotation(pairs.wigner), ends)
        rows = torch.cat([self._edge_rows(edge_features, graph), rows], dim=2)
        radial = self.radial(pairs.lengths, elements[pairs.target], elements[pairs.source])
        hidden, odd = self.into(rows)
        hidden, odd = self.gate(*scale_hidden(hidden, odd, self.weights(radial)))
        counts = [count for _, count in graph.pair_kinds]
        parts = zip(graph.pair_kinds, hidden.split(counts), odd.split(counts), strict=True)
        return [self.out[_name(kind)](h, o).squeeze(2) for (kind, _), h, o in parts]

    def _edge_rows(self, edge_features: Tensor, graph: Graph) -> Tensor:
        """Edge features of the pairs; zero beyond the reach of messages."""
        if graph.pair_message is None:
            raise ValueError("a Hamiltonian model needs a graph with pairs")
        normed = self.edge_norm(edge_features)
        if len(normed) == 0:
            return normed.new_zeros(len(graph.pair_message), *normed.shape[1:])
        known = graph.pair_message >= 0
        return gather(normed, graph.pair_message.clamp(min=0)) * known.view(-1, 1, 1).to(normed)


class HamiltonianModel(SurrogateModel):
    """Predicts H - H0 block by block; the matrix is symmetric by construction.

    Args:
        basis: orbital basis of the elements it is made for.
        settings: sizes; ``encoder.average_neighbours`` must be set.
        baseline: whether its labels are H - H0 (else H itself).
    """

    kind: ClassVar[str] = "hamiltonian"
    monitored: ClassVar[str] = "hamiltonian_mae"

    def __init__(self, basis: BasisSet, settings: HamiltonianSettings, *, baseline: bool = True) -> None:
        super().__init__()
        self.orbital_basis, self.settings, self.baseline = basis, settings, baseline
        self.elements = tuple(sorted(basis.elements))
        self.layouts = BlockLayouts(basis)
        self.features = feature_layout(basis)
        self.graphs = self.graph_settings(basis, settings)
        if self.graphs.pair_cutoff is None:
            raise ValueError("a Hamiltonian model needs pairs")
        kinds = [(a, b) for a in self.elements for b in self.elements if a >= b]
        self.orders = nn.ModuleDict({_name(kind): PairOrder(self.layouts.pair(kind)) for kind in kinds})
        self.encoder = Encoder(self.elements, self.features, settings.encoder)
        orders = {kind: self._order(kind) for kind in kinds}
        self.pair_readout = PairReadout(self.features, settings, len(self.elements), orders, self.graphs.pair_cutoff)
        channels = settings.encoder.channels
        self.atom_norm = EquivariantRMSNorm(self.features, channels)
        self.atom_blocks = nn.ModuleDict()
        self.atom_heads = nn.ModuleDict()
        self.statistics = nn.ModuleDict()
        for kind in kinds:
            self.statistics[_name(kind)] = Standardisation(self.layouts.pair(kind).n_rows)
        for z in self.elements:
            layout = self.layouts.atom(z)
            width = settings.atom_hidden
            self.atom_blocks[str(z)] = GatedBlock(self.features, channels, width, width)
            self.atom_heads[str(z)] = DegreeHead(self.features, width, [(c.l, c.natural) for c in layout.channels])
            self.statistics[str(z)] = Standardisation(layout.n_rows)

    @staticmethod
    def graph_settings(basis: BasisSet, settings: HamiltonianSettings) -> GraphSettings:
        """The graphs of a model of this basis, in training and in prediction."""
        reach = pair_cutoff(basis, settings.overlap_threshold)
        return GraphSettings(feature_layout(basis).l_max, settings.encoder.message_cutoff, reach)

    @property
    def output_basis(self) -> BasisSet:
        return self.orbital_basis

    def predict_arrays(self, structures: Sequence[Structure]) -> list[NDArray[np.float64]]:
        return self.delta_matrices(structures)

    def check_prediction(self, structure: Structure, prediction: NDArray[np.float64]) -> None:
        if not np.array_equal(prediction, prediction.T):
            raise AssertionError(f"hamiltonian of {structure.label} is not exactly symmetric")

    def _order(self, kind: PairKind) -> PairOrder:
        return cast(PairOrder, self.orders[_name(kind)])

    def _statistics(self, name: str) -> Standardisation:
        return cast(Standardisation, self.statistics[name])

    def fit_statistics(self, pair_rows: Mapping[PairKind, Tensor], atom_rows: Mapping[int, Tensor]) -> None:
        """Take means and spreads from the labels of a training set (Hartree)."""
        for kind, rows in pair_rows.items():
            order = self._order(kind)
            self._statistics(_name(kind)).fit(order.sorted(rows.double()), order.group, order.invariant)
        for z, rows in atom_rows.items():
            layout = self.layouts.atom(z)
            invariant = torch.tensor([layout.channels[c].l == 0 for c in layout.row_channel.tolist()])
            self._statistics(str(z)).fit(rows, layout.row_channel, invariant)

    def forward(self, graph: Graph) -> tuple[list[Tensor], list[tuple[int, Tensor]]]:
        """Standardised irreps: for each kind of pair (rows sorted by |m|), for each element."""
        nodes, edge_features = self.encoder(graph)
        elements = self.encoder.element_index[graph.atomic_numbers]
        pairs = self.pair_readout(nodes, edge_features, graph, elements) if graph.pair_kinds else []
        normed = self.atom_norm(nodes)
        atoms = [
            (z, self.atom_heads[str(z)](self.atom_blocks[str(z)](normed[index])))
            for z, index in graph.atoms_by_element.items()
        ]
        return pairs, atoms

    def loss(self, batch: Any) -> Tensor:
        """Weighted mean square of the standardised errors; a matrix element counts once."""
        pairs, atoms = self(batch.graph)
        total = norm = batch.graph.messages.lengths.new_zeros(())
        for (kind, _), prediction, rows in zip(batch.graph.pair_kinds, pairs, batch.pair_rows, strict=True):
            statistics = self._statistics(_name(kind))
            target = statistics.standardise(self._order(kind).sorted(rows)).to(prediction)
            multiplicity = 1.0 if kind[0] == kind[1] else 2.0
            term, weight = self._weighted(prediction - target, statistics)
            total, norm = total + multiplicity * term, norm + multiplicity * weight
        for (z, prediction), (_, rows) in zip(atoms, batch.atom_rows, strict=True):
            statistics = self._statistics(str(z))
            term, weight = self._weighted(prediction - statistics.standardise(rows).to(prediction), statistics)
            total, norm = total + term, norm + weight
        return total / norm

    def _weighted(self, error: Tensor, statistics: Standardisation) -> tuple[Tensor, Tensor]:
        weights = statistics.scale.to(error) ** self.settings.loss_power
        return (error.square() * weights).sum(), weights.sum() * len(error)

    def errors(self, batch: Any) -> dict[str, tuple[Tensor, int]]:
        """Absolute errors of all matrix elements (Hartree), and those on atoms and between them."""
        pairs, atoms = self(batch.graph)
        edges = _pairs(batch.graph)
        between = torch.tensor(batch.neglected, dtype=torch.float64)
        on_atoms = torch.zeros((), dtype=torch.float64)
        n_atoms = 0
        first = 0
        for (kind, count), prediction, rows in zip(batch.graph.pair_kinds, pairs, batch.pair_rows, strict=True):
            part = slice(first, first + count)
            error = self._pair_blocks(kind, prediction, edges.wigner[part]) - self._label_blocks(
                kind, rows, edges.wigner[part]
            )
            if kind[0] == kind[1]:
                error = 0.5 * (error + _reverse(error, edges.target[part], edges.source[part]))
            between = between + error.abs().sum().cpu() * (1.0 if kind[0] == kind[1] else 2.0)
            first += count
        for (z, prediction), (_, rows) in zip(atoms, batch.atom_rows, strict=True):
            layout = self.layouts.atom(z)
            error = layout.to_blocks(self._statistics(str(z)).restore(prediction) - rows.double())
            on_atoms = on_atoms + error.abs().sum().cpu()
            n_atoms += error.numel()
        return {
            "hamiltonian_mae": (on_atoms + between, batch.n_elements),
            "atom_block_mae": (on_atoms, n_atoms),
            "pair_block_mae": (between, max(1, batch.n_elements - n_atoms)),
        }

    def _pair_blocks(self, kind: PairKind, prediction: Tensor, wigner: Tensor) -> Tensor:
        rows = self._order(kind).unsorted(self._statistics(_name(kind)).restore(prediction))
        return self._label_blocks(kind, rows, wigner)

    def _label_blocks(self, kind: PairKind, rows: Tensor, wigner: Tensor) -> Tensor:
        blocks = self.layouts.pair(kind).to_blocks(rows.double())
        return from_bond_frame(kind, self.orbital_basis, blocks, wigner.double())

    @torch.no_grad()
    def delta_matrices(self, structures: Sequence[Structure]) -> list[NDArray[np.float64]]:
        """H - H0 of several molecules in one pass.

        Returns:
            For each an (n_ao, n_ao) matrix in Hartree, PySCF AO order, exactly symmetric.

        Raises:
            DomainError: for elements that the model was not trained on.
        """
        self.check_elements(structures)
        weight = self.encoder.embedding.weight
        exact = collate([self.graphs.graph(s) for s in structures])
        pairs, atoms = self(exact.to(weight.device, weight.dtype))
        matrices = self._assemble(exact, pairs, atoms)
        numbers = np.split(exact.atomic_numbers.numpy(), np.cumsum(exact.atom_counts)[:-1])
        return [self._to_pyscf_order(m, z.tolist()) for m, z in zip(matrices, numbers, strict=True)]

    def _assemble(
        self, graph: Graph, pairs: list[Tensor], atoms: list[tuple[int, Tensor]]
    ) -> list[NDArray[np.float64]]:
        """The matrix of every molecule in internal order, from the network's output for a whole batch."""
        place: list[slice] = []
        matrices: list[NDArray[np.float64]] = []
        for numbers in graph.atomic_numbers.split(list(graph.atom_counts)):
            starts = self.orbital_basis.offsets(numbers.tolist()).tolist()
            place += [slice(a, b) for a, b in itertools.pairwise(starts)]
            matrices.append(np.zeros((starts[-1], starts[-1])))
        owner = graph.molecule.tolist()
        edges = _pairs(graph)
        first = 0
        for (kind, count), prediction in zip(graph.pair_kinds, pairs, strict=True):
            part = slice(first, first + count)
            blocks = self._pair_blocks(kind, prediction, edges.wigner[part].to(prediction.device)).cpu().numpy()
            share = 0.5 if kind[0] == kind[1] else 1.0
            for i, j, block in zip(edges.target[part].tolist(), edges.source[part].tolist(), blocks, strict=True):
                matrix = matrices[owner[i]]
                matrix[place[i], place[j]] += share * block
                matrix[place[j], place[i]] += share * block.T
            first += count
        for z, prediction in atoms:
            blocks = self.layouts.atom(z).to_blocks(self._statistics(str(z)).restore(prediction)).cpu().numpy()
            for i, block in zip(graph.atoms_by_element[z].tolist(), blocks, strict=True):
                matrices[owner[i]][place[i], place[i]] = 0.5 * (block + block.T)
        return matrices

    def _to_pyscf_order(self, matrix: NDArray[np.float64], atomic_numbers: list[int]) -> NDArray[np.float64]:
        order = inverse_order(self.orbital_basis.internal_order(atomic_numbers))
        return matrix[np.ix_(order, order)]

    def description(self) -> dict[str, Any]:
        return {
            "orbital_basis": self.orbital_basis.to_dict(),
            "settings": self.settings.model_dump(mode="json"),
            "baseline": self.baseline,
        }


def _reverse(blocks: Tensor, target: Tensor, source: Tensor) -> Tensor:
    """For each directed pair (i, j) of like elements the transposed block of (j, i)."""
    n = int(torch.maximum(target.max(), source.max())) + 1
    forward, backward = target * n + source, source * n + target
    order = torch.argsort(forward)
    return blocks[order[torch.searchsorted(forward[order], backward)]].transpose(1, 2)


def _pairs(graph: Graph) -> EdgeSet:
    if graph.pairs is None:
        raise ValueError("a Hamiltonian model needs a graph with pairs")
    return graph.pairs


def _name(kind: PairKind) -> str:
    return f"{kind[0]}_{kind[1]}"
