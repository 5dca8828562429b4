"""The symmetrically orthogonalised basis, in which errors of a Hamiltonian are errors of its eigenvalues.

With the overlap S, X = S^(-1/2) commutes with rotations (P.-O. Löwdin, J. Chem. Phys. 1950,
18, 365), so D = X (H - H0) X has the same blocks and irreps as H - H0, and an error of D moves
no eigenvalue by more than its own norm.  In the basis itself that error is divided by the
smallest eigenvalue of S, 1e-4 and less in molecules of a dozen atoms.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from qcsurrogate.basis import BasisSet
from qcsurrogate.errors import BasisError
from qcsurrogate.reference.potentials import (
    AtomicPotentials,
    charge_hamiltonian,
    potential_hamiltonian,
    response_hamiltonian,
)
from qcsurrogate.structures import Structure

SMALLEST_OVERLAP = 1e-9
"""Smallest eigenvalue of an overlap that is taken apart."""

SCREENING = 0.35
"""How much of the Coulomb potential of moved charge is felt: the charge that has moved itself moves some back."""

SMEARING = 0.01
"""Width of the occupation of H0's orbitals, Hartree: a smooth function of the energy keeps their density smooth."""

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class StartingPoint:
    """What is known of a molecule before a network is asked; PySCF AO order.

    Attributes:
        baseline: (n_ao, n_ao) H0, Hartree; of an ion with the charge where its levels were emptied or filled.
        root: (n_ao, n_ao) S^(1/2).
        inverse_root: (n_ao, n_ao) S^(-1/2).
        density: (n_ao, n_ao) density matrix of H0's orbitals in the orthogonalised basis; its trace is the number of
            electrons.  Unrestricted: (2, n_ao, n_ao), alpha + beta and alpha - beta.  The levels filled are those of
            neutral atoms: what a charge shifts must not move electrons to a far molecule.
    """

    baseline: Array
    root: Array
    inverse_root: Array
    density: Array

    @classmethod
    def of(
        cls, structure: Structure, basis: BasisSet, potentials: AtomicPotentials, *, unrestricted: bool = False
    ) -> StartingPoint:
        """For a molecule.

        Args:
            structure: a closed shell unless ``unrestricted``.
            basis: of all matrices.
            potentials: of H0.
            unrestricted: whether alpha and beta fill levels of their own.

        Raises:
            BasisError: if functions of the basis nearly depend on each other, or an element has no potential.
        """
        mol = basis.build_mol(structure)
        values, vectors = np.linalg.eigh(mol.intor_symmetric("int1e_ovlp"))
        if not values[0] > SMALLEST_OVERLAP:
            raise BasisError(
                f"{structure.label}: the smallest eigenvalue of the overlap is {values[0]:.1e}, expected more than "
                f"{SMALLEST_OVERLAP:g}: functions of '{basis.name}' depend on each other at this geometry; choose a "
                "basis with fewer diffuse functions, or check the geometry"
            )
        root, inverse_root = ((vectors * values**power) @ vectors.T for power in (0.5, -0.5))
        baseline = potential_hamiltonian(mol, potentials)
        neutral = structure.n_electrons + structure.charge
        energies, orbitals = np.linalg.eigh(inverse_root @ baseline @ inverse_root)
        moved = _filled(energies, orbitals, neutral, inverse_root)
        baseline = baseline + SCREENING * response_hamiltonian(mol, potentials, moved)
        energies, orbitals = np.linalg.eigh(inverse_root @ baseline @ inverse_root)
        if structure.charge:
            starts = basis.offsets(structure.atomic_numbers)
            charges = _charges_of_atoms(energies, orbitals**2, structure, starts)
            baseline = baseline + charge_hamiltonian(mol, charges)  # its levels are filled as those of neutral atoms
        n, spin = structure.n_electrons, structure.spin if unrestricted else 0
        if n + spin > 2 * len(energies):
            raise BasisError(
                f"{structure.label}: {(n + spin) // 2} electrons of one spin do not fit into the {len(energies)} "
                f"functions of '{basis.name}'; choose a larger basis, or check charge and spin"
            )
        counts = (n + spin, n - spin) if unrestricted else (n,)
        filled = [_filled(energies, orbitals, count) for count in counts]
        density = 0.5 * np.stack([filled[0] + filled[1], filled[0] - filled[1]]) if unrestricted else filled[0]
        return cls(baseline, root, inverse_root, density)

    def correction(self, hamiltonian: Array) -> Array:
        """X (H - H0) X of a Hamiltonian H.

        Args:
            hamiltonian: (n_ao, n_ao), or (2, n_ao, n_ao): the mean of alpha and beta, and half their difference,
                of which H0 knows nothing.
        """
        return _symmetric(self.inverse_root @ (hamiltonian - self._known(hamiltonian)) @ self.inverse_root)

    def hamiltonian(self, correction: Array) -> Array:
        """The inverse of :meth:`correction`."""
        return self._known(correction) + _symmetric(self.root @ correction @ self.root)

    def _known(self, like: Array) -> Array:
        return self.baseline if like.ndim == 2 else np.stack([self.baseline, np.zeros_like(self.baseline)])


def _filled(energies: Array, orbitals: Array, n_electrons: int, inverse_root: Array | None = None) -> Array:
    """(n_ao, n_ao) density matrix of orthonormal orbitals, smoothly occupied; with S^(-1/2) in the basis itself."""
    occupations = smooth_occupations(energies, n_electrons)
    held = occupations > 0.0  # all but those that are exactly empty
    occupied = orbitals[:, held] if inverse_root is None else inverse_root @ orbitals[:, held]
    return np.asarray((occupied * occupations[held]) @ occupied.T)


def _charges_of_atoms(energies: Array, weights: Array, structure: Structure, starts: NDArray[np.int64]) -> Array:
    """(n_atoms,) together the charge: the electrons that each loses when levels of neutral atoms are filled for an ion.

    Args:
        energies: (n_ao,) of the levels, Hartree.
        weights: (n_ao, n_ao) of functions in levels.
        structure: the ion.
        starts: (n_atoms + 1,) first function of every atom.
    """
    n = structure.n_electrons
    neutral, ion = (smooth_occupations(energies, count) for count in (n + structure.charge, n))
    return np.asarray(np.add.reduceat(weights @ (neutral - ion), starts[:-1]))


def each_spin(components: Array) -> Array:
    """(2, n, n) mean and half difference -> alpha and beta; (n, n) stays as it is."""
    return (
        components if components.ndim == 2 else np.stack([components[0] + components[1], components[0] - components[1]])
    )


def smooth_occupations(energies: Array, n_electrons: int, width: float = SMEARING) -> Array:
    """(n,) Fermi occupations, 0 to 2, that add up to the number of electrons.

    Args:
        energies: (n,) Hartree, ascending.
        n_electrons: at most 2 n.
        width: Hartree.
    """
    if n_electrons in (0, 2 * len(energies)):
        return np.full(len(energies), 2.0 if n_electrons else 0.0)

    def occupations(level: float) -> Array:
        return 1.0 - np.tanh((energies - level) / (2.0 * width))

    low, high = energies[0] - 100.0 * width, energies[-1] + 100.0 * width
    level = brentq(lambda x: float(occupations(x).sum()) - n_electrons, low, high, xtol=1e-14, rtol=1e-14)
    found = occupations(level)
    return found * (n_electrons / found.sum())


def _symmetric(matrix: Array) -> Array:
    return 0.5 * (matrix + matrix.swapaxes(-1, -2))
