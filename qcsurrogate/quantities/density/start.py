"""What is known of a density before a network is asked: that of the orbitals of H0, fitted as the labels are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from qcsurrogate.basis import BasisSet
from qcsurrogate.reference.atoms import FreeAtoms, free_atoms_from_dict, free_atoms_to_dict
from qcsurrogate.reference.density_fit import fit_densities, fit_density
from qcsurrogate.reference.orthogonal import StartingPoint
from qcsurrogate.reference.potentials import AtomicPotentials, potentials_from_dict, potentials_to_dict
from qcsurrogate.structures import Structure


@dataclass(frozen=True, eq=False)
class StartingDensity:
    """The density of H0's orbitals less that of the free atoms, in an auxiliary basis.

    Attributes:
        potentials: of H0.
        atoms: free atoms of the same elements.
    """

    potentials: AtomicPotentials
    atoms: FreeAtoms

    def coefficients(
        self, structure: Structure, orbital: BasisSet, auxiliary: BasisSet, *, unrestricted: bool = False
    ) -> NDArray[np.float64]:
        """(n_aux,) coefficients with the exact number of electrons, PySCF's order and normalisation.

        Unrestricted: (2, n_aux), these of alpha + beta, and those of alpha - beta with the exact number of unpaired
        electrons.

        Raises:
            BasisError: if orbital functions depend on each other, or an element is not known.
            RecordError: if auxiliary functions do.
        """
        start = StartingPoint.of(structure, orbital, self.potentials, unrestricted=unrestricted)
        density = start.inverse_root @ start.density @ start.inverse_root
        mol = orbital.build_mol(structure)
        if not unrestricted:
            return fit_density(mol, auxiliary, density, self.atoms).coefficients
        if not density[1].any():  # a closed shell
            found = fit_density(mol, auxiliary, density[0], self.atoms).coefficients
            return np.stack([found, np.zeros_like(found)])
        total, spin = fit_densities(mol, auxiliary, density[0], density[1], self.atoms)
        return np.stack([total.coefficients, spin.coefficients])

    def restricted_to(self, elements: tuple[int, ...]) -> Self:
        """The same for fewer elements."""
        return type(self)({z: self.potentials[z] for z in elements}, {z: self.atoms[z] for z in elements})

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"potentials": potentials_to_dict(self.potentials), "free_atoms": free_atoms_to_dict(self.atoms)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """From :meth:`to_dict`.

        Raises:
            BasisError: if something in it is no potential or no free atom.
        """
        return cls(potentials_from_dict(data["potentials"]), free_atoms_from_dict(data["free_atoms"]))
