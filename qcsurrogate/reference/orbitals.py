"""Orbitals of a closed shell: what a Hamiltonian and an overlap matrix say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pyscf.scf import hf


@dataclass(frozen=True, eq=False)
class Orbitals:
    """Solution of H C = S C e.

    Attributes:
        energies: (n_ao,) Hartree, ascending.
        coefficients: (n_ao, n_ao), C^T S C = 1; the largest one of each orbital is positive.
        n_occupied: how many of the lowest hold two electrons.
    """

    energies: NDArray[np.float64]
    coefficients: NDArray[np.float64]
    n_occupied: int

    @classmethod
    def of(cls, hamiltonian: NDArray[np.float64], overlap: NDArray[np.float64], n_occupied: int) -> Orbitals:
        """Diagonalise (n_ao, n_ao) matrices."""
        energies, coefficients = hf.eig(hamiltonian, overlap)
        return cls(np.asarray(energies), np.asarray(coefficients), n_occupied)

    @property
    def occupations(self) -> NDArray[np.float64]:
        """(n_ao,) 2 for the lowest orbitals and 0 above."""
        return np.where(np.arange(len(self.energies)) < self.n_occupied, 2.0, 0.0)

    @property
    def homo(self) -> float:
        """Energy of the highest occupied orbital, Hartree; NaN without electrons."""
        return float(self.energies[self.n_occupied - 1]) if self.n_occupied else float("nan")

    @property
    def lumo(self) -> float:
        """Energy of the lowest empty orbital, Hartree; NaN where the basis has none."""
        return float(self.energies[self.n_occupied]) if self.n_occupied < len(self.energies) else float("nan")

    @property
    def gap(self) -> float:
        """LUMO less HOMO energy, Hartree."""
        return self.lumo - self.homo

    @property
    def density_matrix(self) -> NDArray[np.float64]:
        """(n_ao, n_ao) one-particle density matrix, tr(D S) = number of electrons."""
        occupied = self.coefficients[:, : self.n_occupied]
        return np.asarray(2.0 * occupied @ occupied.T)
