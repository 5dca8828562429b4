"""Labels of density models: coefficients over atom-orthonormal functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qcsurrogate.basis import BasisSet
from qcsurrogate.data.datasets import InMemoryDataset, Sample, atom_rows_of, read_split
from qcsurrogate.data.graphs import Graph, GraphSettings, collate
from qcsurrogate.errors import StoreError
from qcsurrogate.models.uncertainty import spread_over
from qcsurrogate.reference.density_fit import atom_orthonormal_transform, charges
from qcsurrogate.reference.record import ReferenceRecord
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
        atom_rows: for each element, ascending, (n_atoms, n_functions) coefficients over
            atom-orthonormal functions, internal order, e^(1/2)-like Coulomb units.
    """

    graph: Graph
    atom_rows: tuple[tuple[int, Tensor], ...]

    def to(self, device: torch.device | str) -> DensityBatch:
        """The same batch on another device."""
        return replace(
            self, graph=self.graph.to(device), atom_rows=tuple((z, rows.to(device)) for z, rows in self.atom_rows)
        )


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


class DensityDataset(InMemoryDataset[Sample]):
    """Density coefficients of the molecules of a store, over atom-orthonormal functions."""

    density_basis: BasisSet
    functions: dict[int, AtomFunctions]
    references: Mapping[int, tuple[Structure, NDArray[np.float64]]]
    """Structure and coefficients of some molecules by index, from which expected errors are calibrated."""

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
    ) -> DensityDataset:
        """Read every complete record of a split.

        Raises:
            StoreError: if the split is empty, or the store is unrestricted or holds no density
                coefficients.
        """
        keys, records = read_split(store, split, progress=progress)
        elements = elements or sorted(store.atoms)
        method = store.spec.method
        basis = method.density_basis(elements)
        functions = atom_functions(basis)
        inverse = {z: np.asarray(np.linalg.inv(f.transform), dtype=np.float64) for z, f in functions.items()}
        samples, references = [], {}
        kept = set() if split == "train" else set(spread_over(len(keys), MOLECULES_TO_CALIBRATE))
        for number, record in enumerate(records):
            if record.density_coefficients is None:
                raise StoreError(
                    f"store '{store.path}' holds no density coefficients; generate it with "
                    "targets.density_coefficients: true"
                )
            if number in kept:
                references[number] = record.structure, np.asarray(record.density_coefficients)
            samples.append(_density_sample(record, basis, inverse, settings, dtype))
        dataset = cls(samples, keys, method.orbital_basis(elements), settings)
        dataset.density_basis, dataset.functions, dataset.references = basis, functions, references
        return dataset

    def batch(self, indices: Sequence[int]) -> DensityBatch:
        """The molecules with these indices, in this order."""
        chosen = [self.samples[i] for i in indices]
        return DensityBatch(collate([s.graph for s in chosen]), atom_rows_of(chosen))


def _density_sample(
    record: ReferenceRecord,
    basis: BasisSet,
    inverse: Mapping[int, NDArray[np.float64]],
    settings: GraphSettings,
    dtype: torch.dtype,
) -> Sample:
    numbers = record.structure.atomic_numbers
    starts = basis.offsets(numbers)
    coefficients = np.asarray(record.density_coefficients)
    rows: dict[int, list[NDArray[np.float64]]] = {}
    for atom, z in enumerate(numbers.tolist()):
        own = inverse[z] @ coefficients[starts[atom] : starts[atom + 1]]
        rows.setdefault(z, []).append(own[basis[z].internal_order])
    graph = settings.graph(record.structure, dtype)
    return Sample(graph, {z: torch.as_tensor(np.stack(r)) for z, r in sorted(rows.items())})
