"""From features of atoms to properties of molecules, each in the form that its physics has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from qcsurrogate.data.graphs import Graph
from qcsurrogate.errors import SpecError
from qcsurrogate.models.statistics import Float64Buffers
from qcsurrogate.nn.scatter import gather, scatter_sum
from qcsurrogate.quantities.property.networks.base import LENGTH, AtomFeatures, FeatureWidths, perceptron
from qcsurrogate.quantities.property.networks.electronic import ElectronicRows
from qcsurrogate.quantities.property.networks.targets import OF_LEVELS, TargetSpec

_GAIN = 0.2
_MAX_Z = 118


class Offset(Float64Buffers):
    """What of a label needs no network, float64: mean, references, populations, levels of H0."""

    references: Tensor
    populations: Tensor

    def __init__(self, spec: TargetSpec) -> None:
        super().__init__()
        self.spec = spec
        for name in ("references", "populations"):
            table = torch.zeros(_MAX_Z + 1, dtype=torch.float64)
            for z, value in getattr(spec, name).items():
                table[z] = value
            self.register_buffer(name, table, persistent=False)

    def forward(self, graph: Graph, known: ElectronicRows | None = None) -> Tensor:
        """(n_molecules, ...) or (n_atoms, ...) in the unit of the labels."""
        if self.spec.readout in OF_LEVELS:
            levels = _known(known).levels.double()
            return levels @ levels.new_tensor(OF_LEVELS[self.spec.readout]) + self.spec.mean
        own = self.references[graph.atomic_numbers]
        if self.spec.readout == "r2":
            own = own + self.populations[graph.atomic_numbers] * from_centre(graph).double().square().sum(1)
        total = own if self.spec.per_atom else scatter_sum(own, graph.molecule, graph.n_molecules)
        total = total.view(-1, *(1 for _ in self.spec.shape)) + self.spec.mean
        if self.spec.rank == "tensor":
            return total * torch.eye(3, dtype=total.dtype, device=total.device)
        return total.expand(-1, *self.spec.shape)


class TargetHead(nn.Module, ABC):
    """One target, standardised: its label less :class:`Offset`, in units of its spread."""

    def __init__(self, spec: TargetSpec, widths: FeatureWidths) -> None:
        super().__init__()
        self.spec, self.widths = spec, widths
        self.offset = Offset(spec)

    @abstractmethod
    def forward(self, features: AtomFeatures, graph: Graph, known: ElectronicRows | None = None) -> Tensor:
        """(n_molecules, ...), or (n_atoms, ...) of a target of atoms."""

    def standardise(self, labels: Tensor, graph: Graph, known: ElectronicRows | None = None) -> Tensor:
        """What the network should put out for these labels, float64."""
        return (labels.double() - self.offset(graph, known)) / self.spec.spread

    def restore(self, outputs: Tensor, graph: Graph, known: ElectronicRows | None = None) -> Tensor:
        """The inverse of :meth:`standardise`."""
        return self.offset(graph, known) + self.spec.spread * outputs.double()


class AtomScalars(nn.Module):
    """Some numbers of every atom, from its scalars."""

    def __init__(self, widths: FeatureWidths, n_out: int) -> None:
        super().__init__()
        self.layers = perceptron(widths.scalars, widths.scalars, n_out)
        last = cast(nn.Linear, self.layers[2])
        with torch.no_grad():
            last.weight.mul_(_GAIN)
            last.bias.zero_()

    def forward(self, features: AtomFeatures) -> Tensor:
        """(n_atoms, n_out)."""
        return self.layers(features.scalars)


class AtomVectors(nn.Module):
    """One vector, or one traceless tensor, of every atom: a mean of its channels, weighted by its scalars."""

    def __init__(self, widths: FeatureWidths, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.weights = AtomScalars(widths, channels) if channels else None

    def forward(self, features: AtomFeatures, values: Tensor | None) -> Tensor | None:
        """(n_atoms, ..., channels) -> (n_atoms, ...); None where a network has none."""
        if self.weights is None or values is None:
            return None
        weights = self.weights(features)
        return (values * weights.view(len(values), *(1 for _ in values.shape[1:-1]), -1)).sum(-1)


class ScalarHead(TargetHead):
    """Sum or mean of atoms' numbers, or these themselves; as charges they add up to the charge of the molecule."""

    def __init__(self, spec: TargetSpec, widths: FeatureWidths) -> None:
        super().__init__(spec, widths)
        self.atoms = AtomScalars(widths, 1)

    def forward(self, features: AtomFeatures, graph: Graph, known: ElectronicRows | None = None) -> Tensor:
        own = self.atoms(features).squeeze(1)
        if self.spec.readout == "charges":
            # in units of the spread; what is missing is spread evenly, references included
            missing = (graph.charge.double() - _total(self.offset(graph), graph)) / self.spec.spread
            return own + gather((missing.to(own) - _total(own, graph)) / _counts(graph).to(own), graph.molecule)
        if self.spec.readout == "atoms":
            return own
        total = _total(own, graph)
        return total / _counts(graph).to(own) if self.spec.readout == "mean" else total


class VectorHead(TargetHead):
    """The dipole: charges that add up to that of the molecule, at the atoms, and dipoles on them.

    mu = sum_i q_i r_i + sum_i d_i about the origin (PaiNN: Schütt, Unke, Gastegger, ICML 2021).  Where the target is a
    scalar it is the length of mu about the centre of nuclear charge, which for an ion moves with the molecule.  A
    network without vectors has charges only.  Of a vector on every atom only d_i is left.
    """

    def __init__(self, spec: TargetSpec, widths: FeatureWidths) -> None:
        super().__init__(spec, widths)
        if spec.readout == "atoms" and not widths.vectors:
            raise SpecError(
                f"target '{spec.name}' is a vector of every atom, which this network does not have; expected a network "
                "with vectors: vector, tensor_product or so2"
            )
        self.charges = None if spec.readout == "atoms" else AtomScalars(widths, 1)
        self.dipoles = AtomVectors(widths, widths.vectors)

    def forward(self, features: AtomFeatures, graph: Graph, known: ElectronicRows | None = None) -> Tensor:
        own = self.dipoles(features, features.vectors)
        if self.charges is None:
            return cast(Tensor, own)
        raw = self.charges(features)
        charge = (graph.charge.double() / self.spec.spread).unsqueeze(1).to(raw)
        charges = raw + gather((charge - _total(raw, graph)) / _counts(graph).to(raw).unsqueeze(1), graph.molecule)
        moments = charges * from_centre(graph)  # a large vector to a far molecule would cost digits
        total = _total(moments if own is None else moments + own, graph)
        if self.spec.rank == "scalar":
            return torch.linalg.vector_norm(total, dim=1)
        return total + charge * centres(graph)


class R2Head(TargetHead):
    """Electronic spatial extent <r^2> about the centre of nuclear charge.

    With x_i from the centre to atom i, <r^2> = sum_i N_i |x_i|^2 + 2 d_i . x_i + s_i, exact for atoms of N_i
    electrons, (electronic) dipole d_i and extent s_i; SchNetPack (Schütt et al., J. Chem. Theory Comput. 2019, 15,
    448) keeps the first term.  What elements have in common is in the offset.
    """

    def __init__(self, spec: TargetSpec, widths: FeatureWidths) -> None:
        super().__init__(spec, widths)
        self.atoms = AtomScalars(widths, 2)
        self.dipoles = AtomVectors(widths, widths.vectors)

    def forward(self, features: AtomFeatures, graph: Graph, known: ElectronicRows | None = None) -> Tensor:
        x = from_centre(graph) / LENGTH
        population, extent = self.atoms(features).unbind(1)
        own = population * x.square().sum(1) + extent
        dipoles = self.dipoles(features, features.vectors)
        if dipoles is not None:
            own = own + 2.0 * (dipoles * x).sum(1)
        return _total(own, graph)


class TensorHead(TargetHead):
    """A symmetric tensor about the centre of nuclear charge: polarisability, or traceless quadrupole.

    alpha = sum_i a_i 1 + q_i x_i x_i^T + (u_i x_i^T + x_i u_i^T) / 2 + T_i, after PaiNN, which has the first and the
    third term; a quadrupole is its traceless part.
    """

    def __init__(self, spec: TargetSpec, widths: FeatureWidths) -> None:
        super().__init__(spec, widths)
        self.atoms = AtomScalars(widths, 2)
        self.vectors = AtomVectors(widths, widths.vectors)
        self.tensors = AtomVectors(widths, widths.tensors)

    def forward(self, features: AtomFeatures, graph: Graph, known: ElectronicRows | None = None) -> Tensor:
        x = from_centre(graph) / LENGTH
        isotropic, charges = self.atoms(features).unbind(1)
        unit = torch.eye(3, dtype=x.dtype, device=x.device)
        own = charges.view(-1, 1, 1) * _outer(x, x)
        vectors = self.vectors(features, features.vectors)
        if vectors is not None:
            own = own + 0.5 * (_outer(vectors, x) + _outer(x, vectors))
        tensors = self.tensors(features, features.tensors)
        if tensors is not None:
            own = own + tensors
        if self.spec.readout == "quadrupole":
            own = own - own.diagonal(dim1=1, dim2=2).mean(1).view(-1, 1, 1) * unit
        else:
            own = own + isotropic.view(-1, 1, 1) * unit
        return _total(own, graph)


class LevelHead(TargetHead):
    """Orbital energies: that of H0, and what atoms shift it by, each as far as the orbital lies on it.

    To first order a perturbation shifts a level by its mean in the orbital, sum_i w_i s_i with the shares w_i of
    the atoms: a far molecule changes nothing, and nothing is diluted as a molecule grows.
    """

    def __init__(self, spec: TargetSpec, widths: FeatureWidths) -> None:
        super().__init__(spec, widths)
        if not widths.levels:
            raise SpecError(
                f"target '{spec.name}' is read out as '{spec.readout}' of H0's levels, which this network is not told; "
                "expected inputs: electronic, or the readout mean"
            )
        self.atoms = AtomScalars(widths, 2)

    def forward(self, features: AtomFeatures, graph: Graph, known: ElectronicRows | None = None) -> Tensor:
        shifts = _total(self.atoms(features) * _known(known).populations.to(features.scalars), graph)
        return shifts @ shifts.new_tensor(OF_LEVELS[self.spec.readout])


_HEADS: Mapping[str, type[TargetHead]] = {
    "dipole": VectorHead,
    "r2": R2Head,
    "homo": LevelHead,
    "lumo": LevelHead,
    "gap": LevelHead,
    "polarisability": TensorHead,
    "quadrupole": TensorHead,
}


class PropertyHeads(nn.Module):
    """The heads of several targets that share a network.

    Args:
        targets: with different names.
        widths: of the network's features.

    Raises:
        SpecError: if the network cannot have one of them, or two have one name.
    """

    def __init__(self, targets: Sequence[TargetSpec], widths: FeatureWidths) -> None:
        super().__init__()
        self.targets = tuple(targets)
        names = [target.name for target in targets]
        if len({*names}) != len(names) or not names:
            raise SpecError(f"expected targets with different names, at least one; got {', '.join(names) or 'none'}")
        self.heads = nn.ModuleList(_head(target, widths) for target in targets)

    def forward(self, features: AtomFeatures, graph: Graph, known: ElectronicRows | None = None) -> dict[str, Tensor]:
        """By name what is put out for each target, standardised; (n_molecules, ...) or (n_atoms, ...)."""
        return {head.spec.name: head(features, graph, known) for head in self._all()}

    def standardise(
        self, labels: Mapping[str, Tensor], graph: Graph, known: ElectronicRows | None = None
    ) -> dict[str, Tensor]:
        """What should be put out for labels of all targets, float64."""
        return {head.spec.name: head.standardise(labels[head.spec.name], graph, known) for head in self._all()}

    def restore(
        self, outputs: Mapping[str, Tensor], graph: Graph, known: ElectronicRows | None = None
    ) -> dict[str, Tensor]:
        """The inverse of :meth:`standardise`: predictions in the units of the labels, float64."""
        return {head.spec.name: head.restore(outputs[head.spec.name], graph, known) for head in self._all()}

    def _all(self) -> list[TargetHead]:
        return [cast(TargetHead, head) for head in self.heads]


def _head(spec: TargetSpec, widths: FeatureWidths) -> TargetHead:
    kind = _HEADS.get(spec.readout, VectorHead if spec.rank == "vector" else ScalarHead)
    return kind(spec, widths)


def centres(graph: Graph) -> Tensor:
    """(n_molecules, 3) centres of nuclear charge, bohr."""
    charges = graph.atomic_numbers.to(graph.positions).unsqueeze(1)
    return _total(charges * graph.positions, graph) / _total(charges, graph)


def from_centre(graph: Graph) -> Tensor:
    """(n_atoms, 3) from the centre of nuclear charge of its molecule to every atom, bohr."""
    return graph.positions - gather(centres(graph), graph.molecule)


def _known(known: ElectronicRows | None) -> ElectronicRows:
    if known is None:
        raise ValueError("frontier levels need what H0 says of the molecules")
    return known


def _total(values: Tensor, graph: Graph) -> Tensor:
    return scatter_sum(values, graph.molecule, graph.n_molecules)


def _counts(graph: Graph) -> Tensor:
    return torch.tensor(graph.atom_counts, device=graph.molecule.device)


def _outer(one: Tensor, other: Tensor) -> Tensor:
    return one.unsqueeze(2) * other.unsqueeze(1)
