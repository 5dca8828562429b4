"""Orbitals: what a Hamiltonian and an overlap matrix say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pyscf.scf import hf

from qcsurrogate.reference.kohn_sham import spin_square
from qcsurrogate.structures import Structure


@dataclass(frozen=True, eq=False)
class Orbitals:
    """Solution of H C = S C e: the orbitals that both spins share, or those of one spin.

    Attributes:
        energies: (n_ao,) Hartree, ascending.
        coefficients: (n_ao, n_ao), C^T S C = 1; the largest one of each orbital is positive.
        n_occupied: how many of the lowest are occupied.
        filling: electrons in each of these.
    """

    energies: NDArray[np.float64]
    coefficients: NDArray[np.float64]
    n_occupied: int
    filling: float = 2.0

    @classmethod
    def of(
        cls, hamiltonian: NDArray[np.float64], overlap: NDArray[np.float64], n_occupied: int, filling: float = 2.0
    ) -> Orbitals:
        """Diagonalise (n_ao, n_ao) matrices."""
        energies, coefficients = hf.eig(hamiltonian, overlap)
        return cls(np.asarray(energies), np.asarray(coefficients), n_occupied, filling)

    @property
    def occupations(self) -> NDArray[np.float64]:
        """(n_ao,) ``filling`` for the lowest orbitals and 0 above."""
        return np.where(np.arange(len(self.energies)) < self.n_occupied, self.filling, 0.0)

    @property
    def homo(self) -> float:
        """Energy of the highest occupied orbital, Hartree; NaN without electrons."""
        return float(self.energies[self.n_occupied - 1]) if self.n_occupied else float("nan")

    @property
    def lumo(self) -> float:
        """Energy of the lowest empty orbital, Hartree; NaN where the basis has none."""
        return float(self.energies[self.n_occupied]) if self.n_occupied < len(self.energies) else float("nan")

    @property
    def density_matrix(self) -> NDArray[np.float64]:
        """(n_ao, n_ao) one-particle density matrix, tr(D S) = number of electrons."""
        occupied = self.coefficients[:, : self.n_occupied]
        return np.asarray(self.filling * occupied @ occupied.T)


@dataclass(frozen=True, eq=False)
class MolecularOrbitals:
    """The orbitals of a molecule: one set for both spins, or one for alpha and one for beta.

    Arrays are what PySCF has: those of the one set, or both along a first axis of length 2.
    """

    sets: tuple[Orbitals, ...]

    @classmethod
    def of(
        cls, hamiltonian: NDArray[np.float64], overlap: NDArray[np.float64], structure: Structure
    ) -> MolecularOrbitals:
        """From an (n_ao, n_ao) Hamiltonian, or those of alpha and beta (2, n_ao, n_ao)."""
        n, spin = structure.n_electrons, structure.spin
        if hamiltonian.ndim == 2:
            return cls((Orbitals.of(hamiltonian, overlap, n // 2),))
        counts = (n + spin) // 2, (n - spin) // 2
        return cls(tuple(Orbitals.of(h, overlap, k, 1.0) for h, k in zip(hamiltonian, counts, strict=True)))

    @property
    def energies(self) -> NDArray[np.float64]:
        """([2,] n_ao) Hartree, ascending."""
        return _joined([s.energies for s in self.sets])

    @property
    def coefficients(self) -> NDArray[np.float64]:
        """([2,] n_ao, n_ao), C^T S C = 1."""
        return _joined([s.coefficients for s in self.sets])

    @property
    def occupations(self) -> NDArray[np.float64]:
        """([2,] n_ao) electrons in each orbital."""
        return _joined([s.occupations for s in self.sets])

    @property
    def density_matrix(self) -> NDArray[np.float64]:
        """([2,] n_ao, n_ao) one-particle density matrix."""
        return _joined([s.density_matrix for s in self.sets])

    @property
    def total_density_matrix(self) -> NDArray[np.float64]:
        """(n_ao, n_ao) of both spins."""
        return np.asarray(sum(s.density_matrix for s in self.sets))

    @property
    def spin_density_matrix(self) -> NDArray[np.float64]:
        """(n_ao, n_ao) alpha less beta: zero where they share their orbitals."""
        first, last = self.sets[0].density_matrix, self.sets[-1].density_matrix
        return first - last

    def spin_square(self, overlap: NDArray[np.float64]) -> float:
        """<S^2> of the determinant; 0 where the spins share their orbitals."""
        total, spin = self.total_density_matrix, self.spin_density_matrix
        return spin_square(0.5 * (total + spin), 0.5 * (total - spin), overlap)

    @property
    def homo(self) -> float:
        """Energy of the highest occupied orbital of either spin, Hartree; NaN without electrons."""
        return max((s.homo for s in self.sets if s.n_occupied), default=float("nan"))

    @property
    def lumo(self) -> float:
        """Energy of the lowest empty orbital of either spin, Hartree; NaN where the basis has none."""
        return min((s.lumo for s in self.sets if s.n_occupied < len(s.energies)), default=float("nan"))

    @property
    def gap(self) -> float:
        """LUMO less HOMO energy, Hartree."""
        return self.lumo - self.homo


def _joined(arrays: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    return arrays[0] if len(arrays) == 1 else np.stack(arrays)
