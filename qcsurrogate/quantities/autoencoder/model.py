"""An autoencoder of molecules that knows SE(3) x S_n: an invariant embedding beside a pose and an order.

R. Winter, M. Bertolini, T. Le, F. Noe and D.-A. Clevert, "Unsupervised learning of group invariant and
equivariant representations", NeurIPS 2022: x is reconstructed as rho(psi(x)) delta(eta(x)) with an
invariant embedding eta, a decoder delta that sees nothing else, and a group element psi(x) that turns,
moves and orders what was decoded.  The loss is then the same for all g x, and no orientation, place or
numbering of the atoms has to be learned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from qcsurrogate.data.graphs import Graph, GraphSettings, collate
from qcsurrogate.models.base import SurrogateModel
from qcsurrogate.models.encoder import Encoder
from qcsurrogate.models.statistics import Float64Buffers
from qcsurrogate.nn.layout import FeatureLayout
from qcsurrogate.nn.norm import EquivariantRMSNorm
from qcsurrogate.nn.scatter import scatter_sum
from qcsurrogate.quantities.autoencoder.decoder import Cloud, Decoder
from qcsurrogate.quantities.autoencoder.group import (
    GroupElement,
    Places,
    degeneracy,
    frames,
    soft_frames,
    soft_order,
    straight_through,
)
from qcsurrogate.quantities.autoencoder.settings import AutoencoderSettings
from qcsurrogate.structures import Structure

_XYZ: Final = [2, 0, 1]
"""Features of l = 1 are kept as (y, z, x)."""
_SWEEP: Final = (1.0, 0.25, 0.0625)
"""Atoms are ordered along this direction of their frame, unless training finds better; no mirror plane holds it."""
_SHARPNESS: Final = 0.1
"""Temperature of the order that an embedding looks at, in that of training."""
_MOMENTS: Final = 3


class Sizes(Float64Buffers):
    """Sizes of the training molecules.

    Attributes:
        length: root-mean-square distance of atoms from their molecule's centre, bohr.
        atoms: average number of atoms.
    """

    length: Tensor
    atoms: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("length", torch.tensor(4.0, dtype=torch.float64))
        self.register_buffer("atoms", torch.tensor(10.0, dtype=torch.float64))


@dataclass(frozen=True)
class MoleculeVectors:
    """Equivariant vectors of molecules: sums over their atoms.

    Attributes:
        vectors: (n_molecules, 3, n_vectors).
        lengths: (n_molecules, n_vectors) sums of the lengths of what was added; large where it cancelled.
    """

    vectors: Tensor
    lengths: Tensor


class AtomInvariants(nn.Module):
    """What is invariant of every atom, and what is equivariant of the molecule.

    Polar and axial vectors are the same to proper rotations, so both make the vectors of a molecule;
    products of one with the other change sign in a mirror, so that mirror images differ.  The second
    moment of the molecule tells places apart where its symmetry leaves no vector.
    """

    def __init__(self, channels: int, vectors: int) -> None:
        super().__init__()
        self.channels, self.n_vectors = channels, vectors
        self.polar = nn.Parameter(torch.randn(channels, vectors + channels) / math.sqrt(channels))
        self.axial = nn.Parameter(torch.randn(channels, vectors + channels) / math.sqrt(channels))
        self.gates = nn.Linear(channels + 1, 4 * vectors)

    @property
    def n_out(self) -> int:
        """Invariants of an atom."""
        return 2 * self.channels + 2 * self.n_vectors + _MOMENTS

    def forward(
        self, scalars: Tensor, polar: Tensor, axial: Tensor, offsets: Tensor, places: Places, norm: Tensor
    ) -> tuple[Tensor, MoleculeVectors]:
        """Invariants (n_atoms, n_out) and the vectors of the molecules.

        Args:
            scalars: (n_atoms, channels).
            polar, axial: (n_atoms, 3, channels).
            offsets: (n_atoms, 3) from the centre.
            places: of the atoms.
            norm: what sums over atoms are multiplied with.
        """
        k, n, molecule = self.n_vectors, places.n_molecules, places.molecule
        polar, axial = polar @ self.polar, axial @ self.axial
        gates = self.gates(torch.cat([scalars, offsets.square().sum(1, keepdim=True)], dim=1)).unsqueeze(1)
        own = polar[..., :k] * gates[..., :k] + axial[..., :k] * gates[..., k : 2 * k]
        here = offsets.unsqueeze(2)
        own = own + here * gates[..., 2 * k : 3 * k]
        own = own + torch.linalg.cross(here.expand_as(own), polar[..., :k], dim=1) * gates[..., 3 * k :]
        total = scatter_sum(own, molecule, n) * norm
        lengths = scatter_sum(own.detach().norm(dim=1), molecule, n) * norm
        bounded = (total * torch.rsqrt(1.0 + total.square().sum(1, keepdim=True)))[molecule]
        along = (here * bounded).sum(1)
        across = (torch.linalg.cross(here.expand_as(bounded), bounded, dim=1) * bounded.roll(1, dims=2)).sum(1)
        products = (polar[..., k:] * axial[..., k:]).sum(1)
        moments = _moments(offsets, places)
        return torch.cat([moments, scalars, products, along, across], dim=1), MoleculeVectors(total, lengths)


def _moments(offsets: Tensor, places: Places) -> Tensor:
    """(n_atoms, 3) of x . x, x . T x and x . T T x with T the average x x^T of the molecule, as sqrt(1 + m) - 1."""
    outer = scatter_sum(offsets.unsqueeze(2) * offsets.unsqueeze(1), places.molecule, places.n_molecules)
    turned = (outer / places.counts[:, None, None])[places.molecule] @ offsets.unsqueeze(2)
    turned = turned.squeeze(2)
    found = torch.stack([(a * b).sum(1) for a, b in ((offsets, offsets), (offsets, turned), (turned, turned))], dim=1)
    return (1.0 + found).sqrt() - 1.0


class AutoencoderModel(SurrogateModel):
    """Embeds molecules and makes them again.

    The embedding looks at what is invariant of every atom, and at the atoms in a frame and an order.  With
    ``continuous`` these are those of the group element but continuous: where the molecule's vectors fade,
    so does the frame, and two atoms that change places in the order are the average of both where they
    meet.  So the embedding is a continuous function of the positions; the group element cannot be one.
    Without, it sees the very frame and order of the group element: symmetric molecules come back better, but where
    the frame jumps the embedding does, too.

    Args:
        elements: atomic numbers it knows, ascending.
        n_points: atoms of the largest molecule.
        settings: sizes; ``encoder.average_neighbours`` must be set.
    """

    kind: ClassVar[str] = "autoencoder"
    monitored: ClassVar[str] = "position_error"

    def __init__(self, elements: Sequence[int], n_points: int, settings: AutoencoderSettings) -> None:
        super().__init__()
        self.elements, self.n_points, self.settings = tuple(elements), n_points, settings
        self.graphs = self.graph_settings(settings)
        self.features = FeatureLayout(settings.l_max, 1)
        self.sizes = Sizes()
        self.encoder = Encoder(self.elements, self.features, settings.encoder)
        channels, wide, n_elements = settings.encoder.channels, settings.atom_width, len(self.elements)
        self.norm = EquivariantRMSNorm(self.features, channels)
        self.invariants = AtomInvariants(channels, settings.vectors)
        n = self.invariants.n_out
        self.atoms = nn.Sequential(nn.Linear(n, wide), nn.SiLU(), nn.Linear(wide, wide), nn.SiLU())
        last = nn.Linear(wide, 1)
        self.score = nn.Sequential(nn.Linear(n + 3, wide), nn.SiLU(), last)
        nn.init.zeros_(last.weight)
        self.into = nn.Sequential(
            nn.Linear(wide + 2 + n_points * (4 + _MOMENTS + n_elements), settings.width),
            nn.SiLU(),
            nn.Linear(settings.width, settings.width),
            nn.SiLU(),
            nn.Linear(settings.width, settings.embedding),
        )
        self.decoder = Decoder(settings.embedding, n_points, n_elements, settings.width)

    @staticmethod
    def graph_settings(settings: AutoencoderSettings) -> GraphSettings:
        """The graphs of a model, in training and in prediction."""
        return GraphSettings(settings.l_max, settings.encoder.message_cutoff)

    def encode(self, graph: Graph) -> tuple[Tensor, GroupElement]:
        """The invariant embeddings (n_molecules, embedding), and the group elements of the molecules.

        Molecules far from the origin lose digits in float32: who cares moves them there first.
        """
        places, length = Places.of(graph), self.sizes.length.to(graph.positions)
        norm = self.sizes.atoms.to(graph.positions).rsqrt()
        centre = scatter_sum(graph.positions, graph.molecule, graph.n_molecules) / places.counts.unsqueeze(1)
        offsets = (graph.positions - centre[graph.molecule]) / length
        features = self.norm(self.encoder(graph)[0])
        parts = dict(zip(self.features.degrees, self.features.slices, strict=True))
        polar, axial = (features[:, parts[degree]][:, _XYZ] for degree in ((1, True), (1, False)))
        invariants, found = self.invariants(features[:, 0], polar, axial, offsets, places, norm)
        shift = 0.1 * found.vectors[..., 2]
        offsets = offsets - shift[graph.molecule]

        def seen_from(axes: Tensor) -> tuple[Tensor, Tensor]:
            """Atoms in a frame, and their scores."""
            seen = (offsets.unsqueeze(1) @ axes[graph.molecule]).squeeze(1)
            learned = self.score(torch.cat([invariants, seen], dim=1)).squeeze(1)
            return seen, places.fill(seen @ seen.new_tensor(_SWEEP) + learned)

        pair, lengths = found.vectors[..., :2], found.lengths[:, :2]
        rotation = frames(pair, lengths, places.fill(offsets))
        seen, scores = seen_from(rotation)
        slots, soft = soft_order(scores, places.present, self.settings.temperature)
        weights = nn.functional.one_hot(slots, soft.shape[2]).to(soft) * places.present.unsqueeze(1)
        axes = rotation
        if self.settings.continuous:
            # to differentiate what is steep would drown everything else: the embedding takes frame and order as given
            axes = soft_frames(pair, lengths).detach()
            seen, faded = seen_from(axes)
            weights = soft_order(faded.detach(), places.present, _SHARPNESS * self.settings.temperature)[1]
        kinds = nn.functional.one_hot(self._indices(graph), len(self.elements)).to(seen)
        known = torch.cat([seen, invariants[:, :_MOMENTS], torch.ones_like(seen[:, :1]), kinds], dim=1)
        sequence = weights.transpose(1, 2) @ places.fill(known)
        sequence = nn.functional.pad(sequence, (0, 0, 0, self.n_points - sequence.shape[1]))
        summed = scatter_sum(self.atoms(invariants), graph.molecule, graph.n_molecules) * norm
        told = axes[..., :2].square().sum(1)
        embeddings = self.into(torch.cat([summed, told, sequence.flatten(1)], dim=1))

        doubt = degeneracy(pair, lengths)
        return embeddings, GroupElement(rotation, centre + shift * length, slots, straight_through(slots, soft), doubt)

    def decode(self, embeddings: Tensor) -> Cloud:
        """Canonical clouds, positions in bohr."""
        return self.decoder(embeddings).scaled(self.sizes.length.to(embeddings))

    def loss(self, batch: Graph) -> Tensor:
        """Squared distances in lengths, cross-entropies of elements and number of atoms, doubt about the frame."""
        embeddings, element = self.encode(batch)
        cloud, places = self.decode(embeddings), Places.of(batch)
        width = places.present.shape[1]
        target = (places.fill(batch.positions) - element.translation.unsqueeze(1)) @ element.rotation
        apart = (target.unsqueeze(2) - cloud.positions[:, None, :width]).square().sum(3)
        logits = torch.log_softmax(cloud.element_logits[:, :width], dim=2)
        kinds = places.fill(self._indices(batch)).unsqueeze(2).expand(-1, -1, width)
        surprise = -logits.transpose(1, 2).gather(1, kinds)  # (molecule, atom, point)
        weight = self.settings.element_weight
        cost = apart / self.sizes.length.to(apart) ** 2 + weight * surprise
        per_atom = (cost * element.assignment).sum(2)[places.present]
        size = nn.functional.cross_entropy(cloud.size_logits, places.counts - 1)
        return per_atom.mean() + 0.1 * weight * size + element.doubt.mean()

    def reconstruct(self, graph: Graph) -> Reconstruction:
        """Embeds, decodes, and puts what was decoded where the molecules are."""
        embeddings, element = self.encode(graph)
        cloud, places = self.decode(embeddings), Places.of(graph)
        width = places.present.shape[1]
        positions = element.ordered(element.placed(cloud.positions[:, :width]))[places.present]
        kinds = element.ordered(cloud.element_logits[:, :width]).argmax(2)[places.present]
        numbers = torch.tensor(self.elements, device=kinds.device)[kinds]
        return Reconstruction(embeddings, positions, numbers, cloud.sizes, places.counts)

    def errors(self, batch: Graph) -> dict[str, tuple[Tensor, int]]:
        made = self.reconstruct(batch)
        squared = (made.positions - batch.positions).square().sum(1)
        per_molecule = scatter_sum(squared, batch.molecule, batch.n_molecules) / made.counts
        return {
            "position_error": (per_molecule.double().sqrt().sum().cpu(), batch.n_molecules),
            "wrong_elements": ((made.numbers != batch.atomic_numbers).double().sum().cpu(), batch.n_atoms),
            "wrong_size": ((made.sizes != made.counts).double().sum().cpu(), batch.n_molecules),
        }

    def _indices(self, graph: Graph) -> Tensor:
        """(n_atoms,) indices of the elements."""
        return self.encoder.element_index[graph.atomic_numbers]

    def description(self) -> dict[str, Any]:
        return {
            "elements": list(self.elements),
            "n_points": self.n_points,
            "settings": self.settings.model_dump(mode="json"),
        }

    output_basis = None

    def graph(self, structures: Sequence[Structure]) -> Graph:
        """Molecules, each with its centre at the origin, on the model's device and in its precision."""
        weight = self.invariants.polar
        centred = [s.moved(s.positions - s.positions.mean(0)) for s in structures]
        return collate([self.graphs.graph(s) for s in centred]).to(weight.device, weight.dtype)

    @torch.no_grad()
    def predict_arrays(self, structures: Sequence[Structure]) -> list[NDArray[np.float64]]:
        """Embeddings."""
        return list(self.encode(self.graph(structures))[0].cpu().double().numpy())


@dataclass(frozen=True)
class Reconstruction:
    """What came out for a batch.

    Attributes:
        embeddings: (n_molecules, embedding).
        positions, numbers: (n_atoms, 3) bohr and (n_atoms,), where the molecules are and in their order.
        sizes, counts: (n_molecules,) likeliest and given numbers of atoms.
    """

    embeddings: Tensor
    positions: Tensor
    numbers: Tensor
    sizes: Tensor
    counts: Tensor
