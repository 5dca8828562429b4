"""Electron densities as coefficients of atom-centred functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from qcsurrogate.basis import BasisSet
from qcsurrogate.conventions import inverse_order
from qcsurrogate.data.graphs import Graph, GraphSettings, collate
from qcsurrogate.models.base import SurrogateModel
from qcsurrogate.models.encoder import Encoder
from qcsurrogate.models.settings import DensitySettings
from qcsurrogate.models.spin import of_right_symmetry, require_closed_shells, with_spins_swapped
from qcsurrogate.models.statistics import Float64Buffers, Standardisation, centred
from qcsurrogate.nn.head import DegreeEmbedding, DegreeHead
from qcsurrogate.nn.layout import FeatureLayout
from qcsurrogate.nn.node import GatedBlock
from qcsurrogate.nn.norm import EquivariantRMSNorm
from qcsurrogate.prediction.uncertainty import Told
from qcsurrogate.quantities.density.labels import AtomFunctions, joined, orthonormal_rows
from qcsurrogate.quantities.density.start import StartingDensity
from qcsurrogate.quantities.density.uncertainty import expecting, fit_errors, new_error_model
from qcsurrogate.structures import Structure

SMALLEST_INPUT = 1e-3
"""e^(1/2)-like Coulomb units; inputs that vary by less are not blown up to vary by one."""

AtomRows = Sequence[tuple[int, Tensor]]


class AtomBasis(Float64Buffers):
    """Orthonormal functions of one element in terms of PySCF's, and their charges.

    Attributes:
        transform: (n, n), PySCF order: ``c = transform @ c_orthonormal``.
        charges: (n,) integrals of PySCF's functions, electrons per unit coefficient.
    """

    transform: Tensor
    charges: Tensor

    def __init__(self, n_functions: int) -> None:
        super().__init__()
        self.register_buffer("transform", torch.eye(n_functions, dtype=torch.float64))
        self.register_buffer("charges", torch.zeros(n_functions, dtype=torch.float64))

    def fill(self, transform: NDArray[np.float64], charges: NDArray[np.float64]) -> None:
        """Copy the numbers of a basis."""
        self.transform.copy_(torch.as_tensor(transform))
        self.charges.copy_(torch.as_tensor(charges))


class DensityModel(SurrogateModel):
    """Predicts the density less that of the free atoms, as a correction to that of H0's orbitals.

    That of H0, fitted in the same functions, is what the network looks at and what it corrects: it brings
    bonds, lone pairs and what is long-ranged in them, and it is a smooth function of the geometry.  With
    ``start: free_atoms`` there is neither, and no integral over three centres has to be computed.

    The coefficients it learns belong to functions that are orthonormal on each atom in
    the Coulomb metric, so that an error of a coefficient is an error of the density of
    the same size, however nearly dependent the auxiliary basis is.  The number of
    electrons is made exact afterwards by the smallest change, measured in units of each
    coefficient's spread over the training set.

    Of unrestricted Kohn-Sham there are two densities, alpha + beta and alpha - beta, each
    with the exact number of electrons.  To swap the spins changes the sign of the second
    exactly, and the first not at all; without unpaired electrons it is exactly zero.

    Args:
        orbital_basis: basis of the reference calculations.
        density_basis: auxiliary basis of the elements it is made for.
        settings: sizes; ``encoder.average_neighbours`` must be set.
        start: what it starts from; needed unless ``settings.start`` is free_atoms.
        n_components: 1 for restricted, 2 for unrestricted Kohn-Sham.
    """

    kind: ClassVar[str] = "density"
    monitored: ClassVar[str] = "coefficient_norm_per_electron"
    orbital_basis: BasisSet

    def __init__(
        self,
        orbital_basis: BasisSet,
        density_basis: BasisSet,
        settings: DensitySettings,
        start: StartingDensity | None = None,
        n_components: int = 1,
    ) -> None:
        super().__init__()
        if (start is None) != (settings.start == "free_atoms"):
            raise ValueError(f"a density model that starts from '{settings.start}' got the start {start}")
        if n_components not in (1, 2) or (n_components == 2 and start is None):
            raise ValueError(
                f"{n_components} components from '{settings.start}'; expected 1, or 2 that start from 'h0'"
            )
        self.start, self.n_components = start, n_components
        self.orbital_basis, self.density_basis, self.settings = orbital_basis, density_basis, settings
        self.elements = tuple(sorted(density_basis.elements))
        self.graphs = self.graph_settings(density_basis, settings)
        self.features = FeatureLayout(self.graphs.l_max, self.graphs.l_max - 1)
        self.encoder = Encoder(self.elements, self.features, settings.encoder)
        channels, hidden = settings.encoder.channels, settings.readout_hidden
        self.norm = EquivariantRMSNorm(self.features, channels)
        self.blocks = nn.ModuleDict()
        self.heads = nn.ModuleDict()
        self.statistics = nn.ModuleDict()
        self.functions = nn.ModuleDict()
        self.known = nn.ModuleDict()
        self.inputs = nn.ModuleDict()
        for z in self.elements:
            element = density_basis[z]
            self.blocks[str(z)] = GatedBlock(self.features, channels, hidden, hidden)
            irreps = [(l, True) for l in element.angular_momenta] * n_components
            n_rows = element.n_functions * n_components
            self.heads[str(z)] = DegreeHead(self.features, hidden, irreps)
            if start is not None:
                self.known[str(z)] = DegreeEmbedding(self.features, channels, irreps)
                self.inputs[str(z)] = Standardisation(n_rows)
            self.statistics[str(z)] = Standardisation(n_rows)
            self.functions[str(z)] = AtomBasis(element.n_functions)
        self.error_model = new_error_model(self)

    @staticmethod
    def graph_settings(density_basis: BasisSet, settings: DensitySettings) -> GraphSettings:
        """The graphs of a model of this auxiliary basis, in training and in prediction."""
        return GraphSettings(max(2, density_basis.l_max), settings.encoder.message_cutoff)

    @property
    def output_basis(self) -> BasisSet:
        return self.density_basis

    def predict_arrays(self, structures: Sequence[Structure]) -> list[NDArray[np.float64]]:
        return self.coefficients(structures)

    def check_prediction(self, structure: Structure, prediction: NDArray[np.float64]) -> None:
        charges = np.concatenate([self._functions(z).charges.cpu().numpy() for z in structure.atomic_numbers.tolist()])
        for found, expected, what in zip(
            np.atleast_2d(prediction) @ charges, (-structure.charge, structure.spin), ("", "unpaired "), strict=False
        ):
            if not abs(found - expected) <= 1e-8:
                surplus = found - expected
                raise AssertionError(f"density of {structure.label} holds {surplus:+.1e} {what}electrons too many")

    def _statistics(self, z: int) -> Standardisation:
        return cast(Standardisation, self.statistics[str(z)])

    def _functions(self, z: int) -> AtomBasis:
        return cast(AtomBasis, self.functions[str(z)])

    def fit_statistics(self, atom_rows: Mapping[int, Tensor], inputs: Mapping[int, Tensor]) -> None:
        """Take means and spreads from the labels of a training set, and from what the model starts from."""
        for z, rows in atom_rows.items():
            shells = self.density_basis[z].angular_momenta * self.n_components
            group = torch.tensor([s for s, l in enumerate(shells) for _ in range(2 * l + 1)])
            invariant = torch.tensor([l == 0 for l in shells for _ in range(2 * l + 1)]) & ~self._odd(z)
            if self.start is not None:
                cast(Standardisation, self.inputs[str(z)]).fit(inputs[z], group, invariant)
                rows = rows - inputs[z]
            self._statistics(z).fit(rows, group, invariant)

    def _odd(self, z: int) -> Tensor:
        """(n_rows,) which rows of an element change their sign when the spins are swapped."""
        n = self.density_basis[z].n_functions
        return torch.arange(n * self.n_components) >= n

    def set_functions(self, functions: Mapping[int, tuple[NDArray[np.float64], NDArray[np.float64]]]) -> None:
        """Set (transform, charges) of every element, see :class:`AtomBasis`."""
        for z, (transform, charges) in functions.items():
            self._functions(z).fill(transform, charges)

    def forward(self, graph: Graph, inputs: AtomRows = ()) -> list[tuple[int, Tensor]]:
        """For each element (n_atoms, n_components * n_functions) standardised coefficients, internal order.

        Args:
            graph: the molecules.
            inputs: for each element (n_atoms, n_components * n_functions) of the start.
        """
        rows = self._rows(graph, inputs)
        if self.n_components == 1:
            return rows
        swapped = self._rows(graph, [(z, with_spins_swapped(known, self._odd(z))) for z, known in inputs])
        return [
            (z, of_right_symmetry(found, other, self._odd(z)))
            for (z, found), (_, other) in zip(rows, swapped, strict=True)
        ]

    def _rows(self, graph: Graph, inputs: AtomRows) -> list[tuple[int, Tensor]]:
        nodes, _ = self.encoder(graph, self._known(graph, inputs))
        normed = self.norm(nodes)
        return [
            (z, self.heads[str(z)](self.blocks[str(z)](normed[index]))) for z, index in graph.atoms_by_element.items()
        ]

    def _known(self, graph: Graph, inputs: AtomRows) -> Tensor | None:
        if self.start is None:
            return None
        weight = self.encoder.embedding.weight
        known = weight.new_zeros(graph.n_atoms, self.features.n_rows, weight.shape[1])
        for z, rows in inputs:
            of = cast(Standardisation, self.inputs[str(z)])
            own = centred(rows, of.mean, of.scale, SMALLEST_INPUT).to(weight)
            known = known.index_add(0, graph.atoms_by_element[z], self.known[str(z)](own))
        return known

    def _targets(self, batch: Any) -> AtomRows:
        """For each element what the network corrects its start by, float64."""
        if self.start is None:
            return cast(AtomRows, batch.atom_rows)
        pairs = zip(batch.atom_rows, batch.inputs, strict=True)
        return [(z, rows.double() - known.double()) for (z, rows), (_, known) in pairs]

    def loss(self, batch: Any) -> Tensor:
        """Weighted mean square of the standardised errors, or that of the density, see the settings."""
        if self.settings.loss != "coefficients":
            return self._density_loss(batch)
        total = norm = batch.graph.messages.lengths.new_zeros(())
        for (z, prediction), (_, rows) in zip(self(batch.graph, batch.inputs), self._targets(batch), strict=True):
            statistics = self._statistics(z)
            weights = statistics.scale.to(prediction) ** self.settings.loss_power
            error = prediction - statistics.standardise(rows).to(prediction)
            total = total + (error.square() * weights).sum()
            norm = norm + weights.sum() * len(error)
        return total / norm

    def _density_loss(self, batch: Any) -> Tensor:
        """d^T M d per electron, mean over molecules: d all errors of a molecule, M the metric of all its functions.

        Unrestricted, that of alpha + beta and that of alpha - beta together.
        """
        graph: Graph = batch.graph
        if len(batch.metrics) != graph.n_molecules:
            raise ValueError(f"loss '{self.settings.loss}' needs a metric of each molecule; read the labels for it")
        parts: list[list[Tensor]] = [[] for _ in batch.metrics]
        for (z, prediction), (_, rows) in zip(self(graph, batch.inputs), self._targets(batch), strict=True):
            statistics = self._statistics(z)
            error = (prediction - statistics.standardise(rows).to(prediction)) * statistics.scale.to(prediction)
            error = error.unflatten(1, (self.n_components, -1))
            counts = torch.bincount(graph.molecule[graph.atoms_by_element[z]], minlength=graph.n_molecules).tolist()
            for part, own in zip(parts, error.split(counts), strict=True):
                part.append(own.transpose(0, 1).flatten(1))
        errors = [torch.cat(part, dim=1) for part in parts]
        squares = [(d * (d @ metric.to(d))).sum() for d, metric in zip(errors, batch.metrics, strict=True)]
        return (torch.stack(squares) / _electrons(graph).to(squares[0])).mean()

    def errors(self, batch: Any) -> dict[str, tuple[Tensor, int]]:
        """Mean absolute error of the coefficients; norm of a molecule's errors over its electrons, mean."""
        absolute = torch.zeros((), dtype=torch.float64)
        n_coefficients = 0
        square = torch.zeros(batch.graph.n_molecules, dtype=torch.float64, device=batch.graph.molecule.device)
        for (z, prediction), (_, rows) in zip(self(batch.graph, batch.inputs), self._targets(batch), strict=True):
            error = self._statistics(z).restore(prediction) - rows.double()
            absolute = absolute + error.abs().sum().cpu()
            n_coefficients += error.numel()
            owner = batch.graph.molecule[batch.graph.atoms_by_element[z]]
            square = square.index_add(0, owner, error.square().sum(1))
        per_electron = square.sqrt() / _electrons(batch.graph)
        return {
            "coefficient_mae": (absolute, n_coefficients),
            "coefficient_norm_per_electron": (per_electron.sum().cpu(), batch.graph.n_molecules),
        }

    def atom_errors(self, batch: Any, outputs: list[tuple[int, Tensor]]) -> Iterator[tuple[int, Tensor]]:
        """For each element (n_atoms,) norms of the errors of what the network's ``outputs`` for a batch say.

        Of both spins together: the density of alpha less that of beta is not looked at.
        """
        for (z, prediction), (_, rows) in zip(outputs, self._targets(batch), strict=True):
            error = self._statistics(z).restore(prediction) - rows.double()
            yield z, error[:, ~self._odd(z)].norm(dim=1)

    def spread_of_atoms(self) -> Tensor:
        """(n_elements,) root mean square norm of an atom's labels about their mean, of both spins together."""
        return torch.stack([self._statistics(z).scale[~self._odd(z)].square().sum().sqrt() for z in self.elements])

    def expecting(self) -> AbstractContextManager[Told]:
        """While open: what is expected of the errors of the last predictions."""
        return expecting(self)

    def fit_uncertainty(self, training: Any, validation: Any, *, batch_size: int) -> bool:
        fit_errors(self, training, validation, batch_size)
        return True

    def starting_rows(self, structures: Sequence[Structure]) -> AtomRows:
        """For each element (n_atoms, n_rows) coefficients that the model starts from; none for free atoms."""
        if self.start is None:
            return ()
        functions = {
            z: AtomFunctions(f.transform.cpu().numpy(), f.charges.cpu().numpy())
            for z, f in ((z, self._functions(z)) for z in self.elements)
        }
        known = [
            self.start.coefficients(s, self.orbital_basis, self.density_basis, unrestricted=self.n_components == 2)
            for s in structures
        ]
        return joined(
            [orthonormal_rows(s, c, self.density_basis, functions) for s, c in zip(structures, known, strict=True)]
        )

    @torch.no_grad()
    def coefficients(self, structures: Sequence[Structure]) -> list[NDArray[np.float64]]:
        """Coefficients of rho - rho_free_atoms of several molecules in one pass.

        Returns:
            For each (n_aux,) coefficients in PySCF's order and normalisation; with the
            free atoms they hold the exact number of electrons.  With two components (2, n_aux):
            these, and those of alpha - beta, which hold the exact number of unpaired electrons.

        Raises:
            DomainError: for elements that the model was not trained on, or unpaired electrons in a restricted model.
            BasisError, RecordError: if functions nearly depend on each other at this geometry.
        """
        self.check_elements(structures)
        if self.n_components == 1:
            require_closed_shells(structures)
        inputs = self.starting_rows(structures)
        weight = self.encoder.embedding.weight
        graph = collate([self.graphs.graph(s) for s in structures]).to(weight.device, weight.dtype)
        parts: dict[int, NDArray[np.float64]] = {}
        known = dict(inputs)
        for z, prediction in self(graph, [(z, rows.to(weight.device)) for z, rows in inputs]):
            restored = self._statistics(z).restore(prediction).cpu().numpy()
            if self.start is not None:
                restored = restored + known[z].numpy()
            parts.update(zip(graph.atoms_by_element[z].tolist(), restored, strict=True))
        results = []
        first = 0
        for structure in structures:
            rows = [parts[first + k] for k in range(len(structure))]
            results.append(self._projected(structure, rows))
            first += len(structure)
        return results

    def _projected(self, structure: Structure, rows: list[NDArray[np.float64]]) -> NDArray[np.float64]:
        """Rows of each atom (orthonormal functions, internal order) -> ([2,] n_aux) PySCF's, electron counts exact."""
        plain, change, charges = [], [], []
        for z, row in zip(structure.atomic_numbers.tolist(), rows, strict=True):
            order = inverse_order(self.density_basis[z].internal_order)
            functions, spread = self._functions(z), self._statistics(z).scale.cpu().numpy()
            own, spread = (numbers.reshape(self.n_components, -1)[:, order] for numbers in (row, spread))
            transform, charge = functions.transform.cpu().numpy(), functions.charges.cpu().numpy()
            plain.append(own @ transform.T)
            change.append((spread**2 * (transform.T @ charge)) @ transform.T)
            charges.append(charge)
        coefficients, direction, charge = (np.concatenate(x, axis=-1) for x in (plain, change, charges))
        counts = np.array([-structure.charge, structure.spin])[: self.n_components]
        missing = (counts - coefficients @ charge) / (direction @ charge)
        found = np.asarray(coefficients + direction * missing[:, None])
        return found[0] if self.n_components == 1 else found

    def description(self) -> dict[str, Any]:
        return {
            "orbital_basis": self.orbital_basis.to_dict(),
            "density_basis": self.density_basis.to_dict(),
            "settings": self.settings.model_dump(mode="json"),
            "start": None if self.start is None else self.start.to_dict(),
            "n_components": self.n_components,
        }


def _electrons(graph: Graph) -> Tensor:
    """(n_molecules,) float64; a bare nucleus counts as one, so that something can be divided by it."""
    nuclear = graph.atomic_numbers.new_zeros(graph.n_molecules).index_add(0, graph.molecule, graph.atomic_numbers)
    return (nuclear - graph.charge).clamp(min=1).double()
