"""Labels of density models: coefficients over atom-orthonormal functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qcsurrogate.basis import BasisSet
from qcsurrogate.data.datasets import InMemoryDataset, Sample, atom_rows_of, read_split
from qcsurrogate.data.graphs import Graph, GraphSettings, collate
from qcsurrogate.errors import StoreError
from qcsurrogate.models.uncertainty import spread_over
from qcsurrogate.quantities.density.start import StartingDensity
from qcsurrogate.reference.density_fit import atom_orthonormal_transform, charges
from qcsurrogate.store.spec import SplitName
from qcsurrogate.store.store import Store
from qcsurrogate.structures import Structure

MOLECULES_TO_CALIBRATE = 24
"""Validation molecules on whose densities expected errors are calibrated."""


@dataclass(frozen=True)
class DensityBatch:
    """Graph and labels of some molecules.

    Attributes:
        graph: without pairs.
        atom_rows: for each element, ascending, (n_atoms, n_components * n_functions) coefficients over
            atom-orthonormal functions, internal order, e^(1/2)-like Coulomb units; unrestricted: those of
            alpha + beta, then those of alpha - beta.
        inputs: the same of the density that the model starts from; none if it starts from free atoms.
        metrics: of each molecule (n_aux, n_aux), of the same functions, atoms sorted by element first;
            none unless the loss needs them.
    """

    graph: Graph
    atom_rows: tuple[tuple[int, Tensor], ...]
    inputs: tuple[tuple[int, Tensor], ...] = ()
    metrics: tuple[Tensor, ...] = ()

    def to(self, device: torch.device | str) -> DensityBatch:
        """The same batch on another device."""
        return replace(
            self,
            graph=self.graph.to(device),
            atom_rows=tuple((z, rows.to(device)) for z, rows in self.atom_rows),
            inputs=tuple((z, rows.to(device)) for z, rows in self.inputs),
            metrics=tuple(metric.to(device) for metric in self.metrics),
        )


@dataclass(frozen=True)
class DensitySample(Sample):
    """Graph and labels of one molecule.

    Attributes:
        inputs, metric: see :class:`DensityBatch`.
    """

    inputs: Mapping[int, Tensor] | None
    metric: Tensor | None


@dataclass(frozen=True, eq=False)
class AtomFunctions:
    """What a density model knows of the auxiliary functions of one element.

    Attributes:
        transform: (n, n) atom-orthonormal functions in terms of PySCF's, PySCF order:
            ``c = transform @ c_orthonormal``.
        charges: (n,) integrals of PySCF's functions.
    """

    transform: NDArray[np.float64]
    charges: NDArray[np.float64]


def atom_functions(basis: BasisSet) -> dict[int, AtomFunctions]:
    """The orthonormal functions of every element of an auxiliary basis (Coulomb metric)."""
    found = {}
    for z in basis.elements:
        mol = basis.build_mol(Structure(np.array([z]), np.zeros((1, 3)), spin=z % 2))
        metric = mol.intor("int2c2e_sph", aosym="s1")
        found[z] = AtomFunctions(atom_orthonormal_transform(mol, metric), charges(mol))
    return found


class DensityDataset(InMemoryDataset[DensitySample]):
    """Density coefficients of the molecules of a store, over atom-orthonormal functions.

    Attributes:
        density_basis, functions: auxiliary functions of all elements.
        n_components: densities of a molecule, 2 of an unrestricted store.
        start: what the model starts from, None for free atoms.
    """

    density_basis: BasisSet
    n_components: int
    start: StartingDensity | None
    functions: dict[int, AtomFunctions]
    references: Mapping[int, tuple[Structure, NDArray[np.float64]]]
    """Structure and (n_aux,) coefficients of some molecules by index, from which expected errors are calibrated.

    Unrestricted, those of both spins together.
    """

    @classmethod
    def from_store(
        cls,
        store: Store,
        split: SplitName,
        settings: GraphSettings,
        *,
        dtype: torch.dtype = torch.float32,
        progress: bool = False,
        elements: Sequence[int] | None = None,
        start: StartingDensity | None = None,
        metric: Literal["coulomb", "overlap"] | None = None,
    ) -> DensityDataset:
        """Read every complete record of a split.

        Args:
            store: where to read.
            split: train, validation or test.
            settings: graphs of the model to be trained.
            dtype: of graphs and metrics; coefficients stay in float64 until a model has taken their mean away.
            progress: whether to draw a progress bar.
            elements: atomic numbers of the bases; those of all planned structures if None.
            start: what the model starts from; free atoms if None.
            metric: which one of each molecule to keep, 4 or 8 bytes times the square of its functions.

        Raises:
            StoreError: if the split is empty, or the store holds no density coefficients.
        """
        keys, records = read_split(store, split, progress=progress, unrestricted=True)
        elements = elements or sorted(store.atoms)
        method = store.spec.method
        orbital, basis = method.orbital_basis(elements), method.density_basis(elements)
        functions = atom_functions(basis)
        samples, references = [], {}
        kept = set() if split == "train" else set(spread_over(len(keys), MOLECULES_TO_CALIBRATE))
        for number, record in enumerate(records):
            if (coefficients := record.density_components) is None:
                raise StoreError(
                    f"store '{store.path}' holds no density coefficients; generate it with "
                    "targets.density_coefficients: true"
                )
            if number in kept:
                references[number] = record.structure, np.atleast_2d(coefficients)[0]
            structure, inputs = record.structure, None
            if start is not None:
                known = start.coefficients(structure, orbital, basis, unrestricted=method.unrestricted)
                inputs = orthonormal_rows(structure, known, basis, functions)
            samples.append(
                DensitySample(
                    settings.graph(structure, dtype),
                    orthonormal_rows(structure, coefficients, basis, functions),
                    inputs,
                    None if metric is None else molecular_metric(structure, basis, functions, metric).to(dtype),
                )
            )
        dataset = cls(samples, keys, orbital, settings)
        dataset.density_basis, dataset.functions = basis, functions
        dataset.n_components = 2 if method.unrestricted else 1
        dataset.start, dataset.references = start, references
        return dataset

    def batch(self, indices: Sequence[int]) -> DensityBatch:
        """The molecules with these indices, in this order."""
        chosen = [self.samples[i] for i in indices]
        return DensityBatch(
            collate([s.graph for s in chosen]),
            atom_rows_of(chosen),
            joined([s.inputs for s in chosen if s.inputs is not None]),
            tuple(s.metric for s in chosen if s.metric is not None),
        )

    def inputs_of_atoms(self, z: int) -> Tensor | None:
        """(n, n_components * n_functions) inputs of all atoms of one element, None without any."""
        return dict(joined([s.inputs for s in self.samples if s.inputs is not None])).get(z)


def joined(rows: Sequence[Mapping[int, Tensor]]) -> tuple[tuple[int, Tensor], ...]:
    """The rows of several molecules, for each element, ascending, in the order of the molecules."""
    return tuple((z, torch.cat([r[z] for r in rows if z in r])) for z in sorted({z for r in rows for z in r}))


def orthonormal_rows(
    structure: Structure, coefficients: NDArray[np.float64], basis: BasisSet, functions: Mapping[int, AtomFunctions]
) -> dict[int, Tensor]:
    """Coefficients in PySCF's order -> rows of atoms over orthonormal functions, internal order.

    Args:
        structure: the molecule.
        coefficients: (n_aux,), or (n_components, n_aux).
        basis, functions: auxiliary functions.

    Returns:
        For each element (n_atoms, n_components * n_functions), one component after the other.
    """
    components = np.atleast_2d(coefficients)
    starts = basis.offsets(structure.atomic_numbers)
    rows: dict[int, list[Tensor]] = {}
    for atom, z in enumerate(structure.atomic_numbers.tolist()):
        own = np.linalg.solve(functions[z].transform, components[:, starts[atom] : starts[atom + 1]].T)
        rows.setdefault(z, []).append(torch.as_tensor(own[basis[z].internal_order].T.ravel()))
    return {z: torch.stack(r) for z, r in sorted(rows.items())}


def molecular_metric(
    structure: Structure,
    basis: BasisSet,
    functions: Mapping[int, AtomFunctions],
    name: Literal["coulomb", "overlap"],
) -> Tensor:
    """(n_aux, n_aux) (P|Q) or <P|Q> of all functions that :func:`orthonormal_rows` counts, one row after the other."""
    numbers = structure.atomic_numbers
    starts = basis.offsets(numbers)
    transform = np.zeros((starts[-1], starts[-1]))
    first = 0
    for atom in np.argsort(numbers, kind="stable").tolist():
        z = int(numbers[atom])
        own = functions[z].transform[:, basis[z].internal_order]
        transform[starts[atom] : starts[atom + 1], first : first + len(own)] = own
        first += len(own)
    plain = basis.build_mol(structure).intor({"coulomb": "int2c2e_sph", "overlap": "int1e_ovlp_sph"}[name])
    return torch.as_tensor(transform.T @ plain @ transform)
