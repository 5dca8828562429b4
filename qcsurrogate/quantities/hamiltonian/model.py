"""Hamiltonian matrices from irreps of pairs and atoms."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from qcsurrogate.basis import BasisSet
from qcsurrogate.data.block_rows import BlockRows, rows_of_batch
from qcsurrogate.data.blocks import BlockLayouts, from_bond_frame
from qcsurrogate.data.graphs import EdgeSet, Graph, GraphSettings, PairKind, collate
from qcsurrogate.data.matrices import MatrixPlaces
from qcsurrogate.models.base import SurrogateModel
from qcsurrogate.models.encoder import Encoder
from qcsurrogate.models.settings import HamiltonianSettings
from qcsurrogate.models.shared_block import PairStatistics, SharedBlock
from qcsurrogate.models.spin import of_right_symmetry, require_closed_shells
from qcsurrogate.models.statistics import SMALLEST_SCALE, Standardisation, centred
from qcsurrogate.nn.convolution import scale_hidden
from qcsurrogate.nn.head import DegreeEmbedding, DegreeHead
from qcsurrogate.nn.layout import FeatureLayout
from qcsurrogate.nn.node import GatedBlock
from qcsurrogate.nn.norm import EquivariantRMSNorm
from qcsurrogate.nn.radial import RadialBasis, RadialWeights, smooth_cutoff
from qcsurrogate.nn.rotation import BondRotation
from qcsurrogate.nn.scatter import gather
from qcsurrogate.nn.so2 import HiddenGate, ToHidden
from qcsurrogate.prediction.uncertainty import Told
from qcsurrogate.quantities.hamiltonian.labels import HamiltonianBatch, HamiltonianDataset
from qcsurrogate.quantities.hamiltonian.pairs import PairHead
from qcsurrogate.quantities.hamiltonian.spin import spins_swapped
from qcsurrogate.quantities.hamiltonian.uncertainty import expecting, fit_errors, new_error_model
from qcsurrogate.reference.orthogonal import StartingPoint
from qcsurrogate.reference.potentials import AtomicPotentials, potentials_to_dict
from qcsurrogate.structures import Structure

SMALLEST_INPUT = 0.02
"""Electrons; elements of a density matrix that vary by less are not blown up to vary by one."""


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


class PairReadout(nn.Module):
    """Rows of the shared block of every pair, from both atoms, the edge between them and what is known of it."""

    def __init__(
        self, layout: FeatureLayout, settings: HamiltonianSettings, n_elements: int, block: SharedBlock, reach: float
    ) -> None:
        super().__init__()
        encoder, hidden = settings.encoder, settings.readout_hidden
        odd = encoder.hidden_odd
        self.message_cutoff, self.reach = encoder.message_cutoff, reach
        self.edge_norm = EquivariantRMSNorm(layout, encoder.edge_channels, bond_frame=True)
        self.node_norm = EquivariantRMSNorm(layout, encoder.channels)
        self.rotation = BondRotation(layout)
        self.radial = RadialBasis(n_elements, encoder.gaussians, reach)
        n_weights = (layout.l_max + 1) * hidden + odd
        self.weights = RadialWeights(self.radial.n_out, n_weights)
        self.into = ToHidden(layout.bond_order, encoder.edge_channels + 2 * encoder.channels, hidden, odd)
        self.known = ToHidden(block.order, 1, hidden, odd)
        self.gate = HiddenGate(hidden, odd, layout.l_max)
        self.out = PairHead(block, hidden, odd)

    def forward(
        self, nodes: Tensor, edge_features: Tensor, known: Tensor, graph: Graph, elements: Tensor
    ) -> list[Tensor]:
        """For each kind of pair in the graph (n_pairs, n_rows), sorted by |m|, standardised; nothing at their reach.

        Args:
            nodes: (n_atoms, row, channels).
            edge_features: (n_edges, row, edge_channels) of messages, in bond frames.
            known: (n_pairs, n_rows) standardised inputs.
            graph: with pairs.
            elements: (n_atoms,) index of each.
        """
        pairs = _pairs(graph)
        normed = self.node_norm(nodes)
        ends = torch.cat([gather(normed, pairs.target), gather(normed, pairs.source)], dim=2)
        rows = torch.bmm(self.rotation(pairs.wigner), ends)
        rows = torch.cat([self._edge_rows(edge_features, graph), rows], dim=2)
        first, second = elements[pairs.target], elements[pairs.source]
        hidden, odd = self.into(rows)
        more, more_odd = self.known(known.unsqueeze(2))
        padding = hidden.shape[1] - more.shape[1]
        hidden = hidden + nn.functional.pad(more, (0, 0, 0, padding))
        odd = odd + more_odd
        hidden, odd = scale_hidden(hidden, odd, self.weights(self.radial(pairs.lengths, first, second)))
        hidden, odd = self.gate(hidden, odd)
        decay = smooth_cutoff(pairs.lengths, self.reach).unsqueeze(1)
        decays = decay.split([count for _, count in graph.pair_kinds])
        rows_of = self.out(graph.pair_kinds, hidden, odd)
        return [rows * own for rows, own in zip(rows_of, decays, strict=True)]

    def _edge_rows(self, edge_features: Tensor, graph: Graph) -> Tensor:
        """Edge features of the pairs; they vanish at the reach of messages."""
        if graph.pair_message is None:
            raise ValueError("a Hamiltonian model needs a graph with pairs")
        normed = self.edge_norm(edge_features)
        if len(normed) == 0:
            return normed.new_zeros(len(graph.pair_message), *normed.shape[1:])
        known = (graph.pair_message >= 0) * smooth_cutoff(_pairs(graph).lengths, self.message_cutoff)
        return gather(normed, graph.pair_message.clamp(min=0)) * known.view(-1, 1, 1).to(normed)


class HamiltonianModel(SurrogateModel):
    """Predicts D = X (H - H0) X block by block, X = S^(-1/2); the matrix is symmetric by construction.

    With two components it predicts the mean of the D of alpha and beta, and half their difference.
    When alpha and beta are swapped in the density of H0, the first stays and the second changes its
    sign, exactly: the network is asked for both, and what has the other symmetry is taken away.
    Where no electrons are unpaired, within its reach, there is no difference; of a singlet whose
    reference has broken that symmetry it gives the mean, as nothing tells which spin is where.

    Charge and spin are inputs through H0 and its density: a number for the whole molecule, given to
    every atom, would be felt at any distance, and taught it nothing more.

    Args:
        basis: orbital basis of the elements it is made for.
        settings: sizes; ``encoder.average_neighbours`` must be set.
        potentials: of H0.
        n_components: 1 for restricted, 2 for unrestricted Kohn-Sham.
    """

    kind: ClassVar[str] = "hamiltonian"
    monitored: ClassVar[str] = "correction_mae"
    orbital_basis: BasisSet

    def __init__(
        self, basis: BasisSet, settings: HamiltonianSettings, potentials: AtomicPotentials, n_components: int = 1
    ) -> None:
        super().__init__()
        if n_components not in (1, 2):
            raise ValueError(f"a Hamiltonian model has 1 or 2 components, not {n_components}")
        self.orbital_basis, self.settings, self.potentials = basis, settings, dict(potentials)
        self.n_components = n_components
        self.elements = tuple(sorted(basis.elements))
        self.layouts = BlockLayouts(basis, n_components)
        self.features = feature_layout(basis)
        self.graphs = self.graph_settings(basis, settings)
        if self.graphs.pair_cutoff is None:
            raise ValueError("a Hamiltonian model needs pairs")
        self.block = SharedBlock(basis, self.layouts)
        self.encoder = Encoder(self.elements, self.features, settings.encoder)
        self.pair_readout = PairReadout(
            self.features, settings, len(self.elements), self.block, self.graphs.pair_cutoff
        )
        self.pair_labels, self.pair_inputs = PairStatistics(self.block), PairStatistics(self.block)
        channels, width = settings.encoder.channels, settings.atom_hidden
        self.atom_norm = EquivariantRMSNorm(self.features, channels)
        self.atom_known = nn.ModuleDict()
        self.atom_blocks = nn.ModuleDict()
        self.atom_heads = nn.ModuleDict()
        self.atom_labels = nn.ModuleDict()
        self.atom_inputs = nn.ModuleDict()
        for z in self.elements:
            irreps = [(c.l, c.natural) for c in self.layouts.atom(z).channels]
            self.atom_known[str(z)] = DegreeEmbedding(self.features, channels, irreps)
            self.atom_blocks[str(z)] = GatedBlock(self.features, channels, width, width)
            self.atom_heads[str(z)] = DegreeHead(self.features, width, irreps)
            self.atom_labels[str(z)] = Standardisation(self.layouts.atom(z).n_rows)
            self.atom_inputs[str(z)] = Standardisation(self.layouts.atom(z).n_rows)
        self.error_model = new_error_model(self)

    @staticmethod
    def graph_settings(basis: BasisSet, settings: HamiltonianSettings) -> GraphSettings:
        """The graphs of a model of this basis, in training and in prediction."""
        reach = pair_cutoff(basis, settings.overlap_threshold)
        return GraphSettings(feature_layout(basis).l_max, settings.encoder.message_cutoff, reach)

    @property
    def output_basis(self) -> BasisSet:
        return self.orbital_basis

    def predict_arrays(self, structures: Sequence[Structure]) -> list[NDArray[np.float64]]:
        return self.corrections(structures, self.starting_points(structures))

    def check_prediction(self, structure: Structure, prediction: NDArray[np.float64]) -> None:
        if not np.array_equal(prediction, prediction.swapaxes(-1, -2)):
            raise AssertionError(f"hamiltonian of {structure.label} is not exactly symmetric")

    def fit_statistics(self, labels: HamiltonianDataset) -> None:
        """Take means and spreads from a training set."""
        kinds = self.block.kinds
        found = {kind: labels.rows_of_pairs(kind) for kind in kinds}
        self.pair_labels.fit({kind: rows for kind, rows in found.items() if rows is not None})
        pairs: dict[PairKind, list[Tensor]] = {}
        atoms: dict[int, list[Tensor]] = {}
        for sample in labels.samples:
            for (kind, _), rows in zip(sample.graph.pair_kinds, sample.inputs.pairs, strict=True):
                pairs.setdefault(kind, []).append(rows)
            for z, rows in sample.inputs.atoms:
                atoms.setdefault(z, []).append(rows)
        self.pair_inputs.fit({kind: torch.cat(rows) for kind, rows in pairs.items()})
        for z in self.elements:
            layout = self.layouts.atom(z)
            invariant = torch.tensor([layout.channels[c].l == 0 for c in layout.row_channel.tolist()])
            invariant &= ~layout.odd_in_spin
            for statistics, rows in (
                (self.atom_labels, labels.rows_of_atoms(z)),
                (self.atom_inputs, torch.cat(atoms[z])),
            ):
                cast(Standardisation, statistics[str(z)]).fit(rows, layout.row_channel, invariant)

    def forward(self, graph: Graph, inputs: BlockRows) -> tuple[list[Tensor], list[tuple[int, Tensor]]]:
        """Standardised rows of each kind of pair, sorted by |m|, and of the atoms of each element."""
        pairs, atoms = self._rows(graph, inputs)
        if self.n_components == 1:
            return pairs, atoms
        swapped_pairs, swapped_atoms = self._rows(graph, spins_swapped(inputs, graph, self.layouts))
        odd = [self.block.odd_in_spin[self.block.place(kind)] for kind, _ in graph.pair_kinds]
        return [of_right_symmetry(*rows) for rows in zip(pairs, swapped_pairs, odd, strict=True)], [
            (z, of_right_symmetry(rows, swapped, self.layouts.atom(z).odd_in_spin))
            for (z, rows), (_, swapped) in zip(atoms, swapped_atoms, strict=True)
        ]

    def _rows(self, graph: Graph, inputs: BlockRows) -> tuple[list[Tensor], list[tuple[int, Tensor]]]:
        nodes, edge_features = self.encoder(graph, self._known_of_atoms(graph, inputs))
        elements = self.encoder.element_index[graph.atomic_numbers]
        known = self._known_of_pairs(graph, inputs).to(nodes)
        pairs = self.pair_readout(nodes, edge_features, known, graph, elements)
        normed = self.atom_norm(nodes)
        atoms = [
            (z, self.atom_heads[str(z)](self.atom_blocks[str(z)](normed[index])))
            for z, index in graph.atoms_by_element.items()
        ]
        return pairs, atoms

    def _known_of_atoms(self, graph: Graph, inputs: BlockRows) -> Tensor:
        weight = self.encoder.embedding.weight
        known = weight.new_zeros(graph.n_atoms, self.features.n_rows, weight.shape[1])
        for z, rows in inputs.atoms:
            of = self._atom(self.atom_inputs, z)
            own = centred(rows, of.mean, of.scale, SMALLEST_INPUT).to(weight)
            known = known.index_add(0, graph.atoms_by_element[z], self.atom_known[str(z)](own))
        return known

    def _known_of_pairs(self, graph: Graph, inputs: BlockRows) -> Tensor:
        parts = []
        for (kind, _), rows in zip(graph.pair_kinds, inputs.pairs, strict=True):
            own = centred(self.block.sorted(kind, rows), *self.pair_inputs.of(kind), SMALLEST_INPUT)
            parts.append(self.block.spread(kind, own))
        return torch.cat(parts) if parts else self.pair_inputs.mean.new_zeros(0, self.block.n_rows)

    def _atom(self, statistics: nn.ModuleDict, z: int) -> Standardisation:
        return cast(Standardisation, statistics[str(z)])

    def _by_kind(self, graph: Graph, pairs: Sequence[Tensor]) -> Iterator[tuple[PairKind, slice, Tensor]]:
        """Of every kind where its pairs lie, and their standardised rows sorted by |m|."""
        first = 0
        for (kind, count), rows in zip(graph.pair_kinds, pairs, strict=True):
            yield kind, slice(first, first + count), rows
            first += count

    def _pair_labels(self, kind: PairKind, rows: Tensor, lengths: Tensor) -> Tensor:
        """What the network must put out so that its pairs of a kind have these labels."""
        mean, scale = self.pair_labels.of(kind)
        decay = smooth_cutoff(lengths.double(), self.pair_readout.reach).unsqueeze(1)
        return (self.block.sorted(kind, rows.double()) - decay * mean) / scale.clamp(min=SMALLEST_SCALE)

    def _pair_rows(self, kind: PairKind, rows: Tensor, lengths: Tensor) -> Tensor:
        """The inverse of :meth:`_pair_labels`."""
        mean, scale = (numbers.to(rows.device) for numbers in self.pair_labels.of(kind))
        decay = smooth_cutoff(lengths.double(), self.pair_readout.reach).unsqueeze(1)
        return self.block.unsorted(kind, rows.double() * scale + decay * mean)

    def loss(self, batch: Any) -> Tensor:
        """Weighted mean square of the standardised errors; a matrix element counts once."""
        pairs, atoms = self(batch.graph, batch.inputs)
        lengths = _pairs(batch.graph).lengths
        total = norm = batch.graph.messages.lengths.new_zeros(())
        for (kind, part, prediction), rows in zip(self._by_kind(batch.graph, pairs), batch.labels.pairs, strict=True):
            target = self._pair_labels(kind, rows, lengths[part]).to(prediction)
            multiplicity = 1.0 if kind[0] == kind[1] else 2.0
            term, weight = self._weighted(prediction - target, self.pair_labels.of(kind)[1])
            total, norm = total + multiplicity * term, norm + multiplicity * weight
        for (z, prediction), (_, rows) in zip(atoms, batch.labels.atoms, strict=True):
            statistics = self._atom(self.atom_labels, z)
            term, weight = self._weighted(prediction - statistics.standardise(rows).to(prediction), statistics.scale)
            total, norm = total + term, norm + weight
        return total / norm

    def _weighted(self, error: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        weights = scale.to(error) ** self.settings.loss_power
        return (error.square() * weights).sum(), weights.sum() * len(error)

    def errors(self, batch: Any) -> dict[str, tuple[Tensor, int]]:
        """Absolute errors of all elements of D (Hartree), and those on atoms and between them."""
        pairs, atoms = self(batch.graph, batch.inputs)
        edges = _pairs(batch.graph)
        between = torch.tensor(batch.neglected, dtype=torch.float64)
        on_atoms = torch.zeros((), dtype=torch.float64)
        n_atoms = 0
        for (kind, part, prediction), rows in zip(self._by_kind(batch.graph, pairs), batch.labels.pairs, strict=True):
            wrong = self._pair_rows(kind, prediction, edges.lengths[part]) - rows.double()
            error = self._each_spin(self._blocks(kind, wrong, edges.wigner[part]))
            if kind[0] == kind[1]:
                error = 0.5 * (error + _reverse(error, edges.target[part], edges.source[part]))
            between = between + error.abs().sum().cpu() * (1.0 if kind[0] == kind[1] else 2.0)
        for (z, prediction), (_, rows) in zip(atoms, batch.labels.atoms, strict=True):
            layout = self.layouts.atom(z)
            wrong = self._atom(self.atom_labels, z).restore(prediction) - rows.double()
            error = self._each_spin(layout.to_blocks(wrong))
            on_atoms = on_atoms + error.abs().sum().cpu()
            n_atoms += error.numel()
        return {
            "correction_mae": (on_atoms + between, batch.n_elements),
            "atom_block_mae": (on_atoms, n_atoms),
            "pair_block_mae": (between, max(1, batch.n_elements - n_atoms)),
        }

    def _each_spin(self, blocks: Tensor) -> Tensor:
        """(n, 2, ...) mean and half difference -> alpha and beta."""
        if self.n_components == 1:
            return blocks
        mean, half = blocks.unbind(1)
        return torch.stack([mean + half, mean - half], dim=1)

    def _blocks(self, kind: PairKind, rows: Tensor, wigner: Tensor) -> Tensor:
        blocks = self.layouts.pair(kind).to_blocks(rows)
        return from_bond_frame(kind, self.orbital_basis, blocks, wigner.double())

    def expecting(self) -> AbstractContextManager[Told]:
        """While open: what is expected of the errors of the last predictions."""
        return expecting(self)

    def fit_uncertainty(self, training: Any, validation: Any, *, batch_size: int) -> bool:
        fit_errors(self, training, validation, batch_size)
        return True

    def matrices(
        self, batch: HamiltonianBatch, outputs: tuple[list[Tensor], list[tuple[int, Tensor]]]
    ) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
        """D of every molecule, PySCF AO order: what the network's ``outputs`` for a batch say, and its labels."""
        lengths, kinds = _pairs(batch.graph).lengths, self._by_kind(batch.graph, batch.labels.pairs)
        pairs = [self._pair_labels(kind, rows, lengths[part]) for kind, part, rows in kinds]
        atoms = [(z, self._atom(self.atom_labels, z).standardise(rows)) for z, rows in batch.labels.atoms]
        return self._assemble(batch.graph, *outputs), self._assemble(batch.graph, pairs, atoms)

    def starting_points(self, structures: Sequence[Structure]) -> list[StartingPoint]:
        """H0 of several molecules, and what follows from it.

        Raises:
            DomainError: for elements that the model was not trained on, or unpaired electrons in a restricted model.
        """
        self.check_elements(structures)
        unrestricted = self.n_components == 2
        if not unrestricted:
            require_closed_shells(structures)
        return [StartingPoint.of(s, self.orbital_basis, self.potentials, unrestricted=unrestricted) for s in structures]

    @torch.no_grad()
    def corrections(
        self, structures: Sequence[Structure], starts: Sequence[StartingPoint]
    ) -> list[NDArray[np.float64]]:
        """D = X (H - H0) X of several molecules in one pass.

        Returns:
            For each an (n_ao, n_ao) matrix in Hartree, PySCF AO order, exactly symmetric; with two components
            (2, n_ao, n_ao), the mean of alpha and beta and half their difference.
        """
        weight = self.encoder.embedding.weight
        exact = collate([self.graphs.graph(s) for s in structures])
        known = rows_of_batch([start.density for start in starts], exact, self.layouts)
        pairs, atoms = self(exact.to(weight.device, weight.dtype), known.to(weight.device))
        return self._assemble(exact, pairs, atoms)

    def _assemble(
        self, graph: Graph, pairs: Sequence[Tensor], atoms: list[tuple[int, Tensor]]
    ) -> list[NDArray[np.float64]]:
        """The matrix of every molecule, PySCF AO order, from the network's output for a whole batch."""
        graph = graph if graph.molecule.device.type == "cpu" else graph.to("cpu")
        places, edges = MatrixPlaces(graph, self.orbital_basis), _pairs(graph)
        leading = () if self.n_components == 1 else (self.n_components,)
        halves = torch.zeros(*leading, sum(n * n for n in places.sizes), dtype=torch.float64)
        for kind, part, prediction in self._by_kind(graph, [rows.cpu() for rows in pairs]):
            blocks = self._blocks(kind, self._pair_rows(kind, prediction, edges.lengths[part]), edges.wigner[part])
            share = 0.5 if kind[0] == kind[1] else 1.0  # like atoms have a block in each direction
            places.put(halves, edges.target[part], edges.source[part], share * blocks)
        for z, prediction in atoms:
            blocks = self.layouts.atom(z).to_blocks(self._atom(self.atom_labels, z).restore(prediction))
            own = graph.atoms_by_element[z]
            places.put(halves, own, own, 0.5 * blocks)
        return [half + half.swapaxes(-1, -2) for half in places.split(halves)]

    def description(self) -> dict[str, Any]:
        return {
            "orbital_basis": self.orbital_basis.to_dict(),
            "settings": self.settings.model_dump(mode="json"),
            "potentials": potentials_to_dict(self.potentials),
            "n_components": self.n_components,
        }


def _reverse(blocks: Tensor, target: Tensor, source: Tensor) -> Tensor:
    """For each directed pair (i, j) of like elements the transposed block of (j, i)."""
    n = int(torch.maximum(target.max(), source.max())) + 1
    forward, backward = target * n + source, source * n + target
    order = torch.argsort(forward)
    return blocks[order[torch.searchsorted(forward[order], backward)]].mT


def _pairs(graph: Graph) -> EdgeSet:
    if graph.pairs is None:
        raise ValueError("a Hamiltonian model needs a graph with pairs")
    return graph.pairs
