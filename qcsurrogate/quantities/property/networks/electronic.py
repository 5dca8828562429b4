"""What H0 says of a molecule, as property networks are told it: blocks of its density, and its frontier levels.

H0 costs one set of integrals and two diagonalisations (:mod:`qcsurrogate.reference.orthogonal`).  Its
potentials come from a Hamiltonian model or a store of references: a table of properties has none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qcsurrogate.basis import BasisSet
from qcsurrogate.data.block_rows import BlockRows, block_rows, join_rows
from qcsurrogate.data.blocks import BlockLayouts
from qcsurrogate.data.graphs import Graph
from qcsurrogate.data.potentials import potentials_of
from qcsurrogate.errors import SpecError
from qcsurrogate.models.files import read_metadata
from qcsurrogate.reference.orthogonal import StartingPoint
from qcsurrogate.reference.potentials import AtomicPotentials, potentials_from_dict, potentials_to_dict
from qcsurrogate.store.store import Store
from qcsurrogate.structures import Structure
from qcsurrogate.training.outputs import MODEL_NAME

_WIDTH = 0.005
"""Hartree; levels this near to a frontier level belong to it too, so that degenerate ones are not told apart."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ElectronicRows:
    """What H0 says of a graph's molecules.

    Attributes:
        density: blocks of its density matrix in the orthogonalised basis, pair by pair and atom by atom.
        levels: (n_molecules, 2) energies of the highest filled and the lowest empty orbital, Hartree, float64.
        populations: (n_atoms, 2) share of every atom in these two orbitals.
    """

    density: BlockRows
    levels: Tensor
    populations: Tensor

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> ElectronicRows:
        """The same on another device; blocks and populations in another floating-point type."""
        return ElectronicRows(
            self.density.to(device, dtype), self.levels.to(device), self.populations.to(device=device, dtype=dtype)
        )

    @classmethod
    def joined(cls, rows: Sequence[ElectronicRows], graphs: Sequence[Graph]) -> ElectronicRows:
        """Those of several molecules in the order of their collated graph."""
        return cls(
            join_rows([one.density for one in rows], graphs),
            torch.cat([one.levels for one in rows]),
            torch.cat([one.populations for one in rows]),
        )


@dataclass(frozen=True, eq=False)
class ElectronicStart:
    """What H0 is made of.

    Attributes:
        basis: orbital basis.
        potentials: of H0, for all elements of the basis.
    """

    basis: BasisSet
    potentials: AtomicPotentials

    @classmethod
    def of(cls, path: str | Path, elements: Sequence[int]) -> Self:
        """From a Hamiltonian model (a file, or the folder of its run), or fitted to a store's references.

        Args:
            path: of either.
            elements: atomic numbers that it must know.

        Raises:
            SpecError: if there is neither at the path, or it lacks an element.
            ModelFileError, StoreError: if what is there cannot be used.
        """
        path = Path(path)
        if path.is_dir() and not (path / MODEL_NAME).exists():
            store = Store.open(path)
            known: set[int] = set(store.atoms)
            _check(path, known, elements)
            return cls(store.spec.method.orbital_basis(elements), potentials_of(store, elements))
        description = read_metadata(path / MODEL_NAME if path.is_dir() else path).description
        if not {"orbital_basis", "potentials"} <= description.keys():
            raise SpecError(
                f"'{path}' is a model without atomic potentials; expected a hamiltonian model or a store, whose H0 a "
                "property model with electronic inputs begins with"
            )
        basis = BasisSet.from_dict(description["orbital_basis"])
        potentials = potentials_from_dict(description["potentials"])
        _check(path, basis.elements.keys() & potentials.keys(), elements)
        return cls(basis.restricted_to(elements), {z: potentials[z] for z in elements})

    def rows(self, structure: Structure, graph: Graph) -> ElectronicRows:
        """Of one molecule, float64; its graph has pairs.

        Raises:
            BasisError: if functions of the basis depend on each other, or an element is not known.
        """
        start = StartingPoint.of(structure, self.basis, self.potentials)
        levels, populations = frontier(start, structure, self.basis)
        blocks = block_rows(start.density, graph, BlockLayouts(self.basis))
        return ElectronicRows(blocks, torch.as_tensor(levels[None]), torch.as_tensor(populations))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"orbital_basis": self.basis.to_dict(), "potentials": potentials_to_dict(self.potentials)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """From :meth:`to_dict`.

        Raises:
            BasisError, KeyError: if it is something else.
        """
        return cls(BasisSet.from_dict(data["orbital_basis"]), potentials_from_dict(data["potentials"]))


def frontier(start: StartingPoint, structure: Structure, basis: BasisSet) -> tuple[Array, Array]:
    """Energies (2,) of H0's highest filled and lowest empty orbital, and the share (n_atoms, 2) of every atom.

    Orbitals within a few millihartree of each count, weighted smoothly, so that both are
    functions of the geometry without jumps.

    Raises:
        SpecError: if no orbital is empty.
    """
    energies, orbitals = np.linalg.eigh(start.inverse_root @ start.baseline @ start.inverse_root)
    n_filled = (structure.n_electrons + 1) // 2
    if not 0 < n_filled < len(energies):
        raise SpecError(
            f"{structure.label} has {structure.n_electrons} electrons in {len(energies)} functions of '{basis.name}': "
            "it has no highest filled and lowest empty orbital"
        )
    weights = np.zeros((len(energies), 2))
    weights[:n_filled, 0] = np.exp((energies[:n_filled] - energies[n_filled - 1]) / _WIDTH)
    weights[n_filled:, 1] = np.exp((energies[n_filled] - energies[n_filled:]) / _WIDTH)
    weights /= weights.sum(axis=0)
    starts = basis.offsets(structure.atomic_numbers)[:-1]
    return weights.T @ energies, np.asarray(np.add.reduceat(orbitals**2 @ weights, starts, axis=0))


def _check(path: Path, known: set[int], elements: Sequence[int]) -> None:
    from ase.data import chemical_symbols

    missing = sorted({*elements} - known)
    if missing:
        have, lack = (", ".join(chemical_symbols[z] for z in sorted(numbers)) for numbers in (known, missing))
        raise SpecError(
            f"'{path}' knows {have}, but not {lack}; expected a hamiltonian model or a store with every element of the "
            "molecules: leave those molecules out, or make one"
        )
