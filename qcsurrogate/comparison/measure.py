"""All figures of one molecule: the reference computed once, then each prediction against it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from pyscf.gto import Mole

from qcsurrogate.basis import BasisSet
from qcsurrogate.comparison.densities import (
    ChargeMoments,
    ElectronDensity,
    GaussianDensity,
    IntegrationGrid,
    Moments,
    OrbitalDensity,
    charge_moments,
    free_atom_density,
    nmae,
)
from qcsurrogate.comparison.metrics import (
    closed_shell_density_matrix,
    matrix_error,
    occupied_subspace_defect,
    orbital_cosine_defects,
    orbital_error,
    solve_orbitals,
)
from qcsurrogate.comparison.scf import ScfRun, evaluate_once
from qcsurrogate.reference.atoms import FreeAtoms
from qcsurrogate.reference.kohn_sham import build_molecule
from qcsurrogate.reference.record import ReferenceRecord
from qcsurrogate.reference.settings import Method
from qcsurrogate.structures import Structure

Array = NDArray[np.float64]
Values = dict[str, float]
"""Figures of one molecule by name (:mod:`qcsurrogate.comparison.figures`)."""


@dataclass(frozen=True, eq=False)
class Reference:
    """One record and what is derived from it, each on first use.

    Attributes:
        record: the converged calculation.
        method: level of theory of the record.
        atoms: free atoms of the store.
        density_basis: auxiliary basis of the record's fit; None where it holds none.
    """

    record: ReferenceRecord
    method: Method
    atoms: FreeAtoms
    density_basis: BasisSet | None

    @property
    def structure(self) -> Structure:
        return self.record.structure

    @property
    def n_electrons(self) -> int:
        return self.structure.n_electrons

    @property
    def n_occupied(self) -> int:
        return self.n_electrons // 2

    @cached_property
    def mol(self) -> Mole:
        return build_molecule(self.structure, self.method)

    @cached_property
    def orbitals(self) -> tuple[Array, Array]:
        """Orbital energies (n_ao,) and coefficients (n_ao, n_ao) of the stored Hamiltonian."""
        return solve_orbitals(self.record.hamiltonian, self.record.overlap)

    @cached_property
    def density(self) -> ElectronDensity:
        return OrbitalDensity(self.mol, self.record.density_matrix)

    @cached_property
    def moments(self) -> ChargeMoments:
        return charge_moments(self.structure, self.density.moments())

    @cached_property
    def hartree_energy(self) -> float:
        return self.density.hartree_energy()

    @cached_property
    def grid(self) -> IntegrationGrid:
        return IntegrationGrid.for_molecule(self.mol, self.method.grid_level)

    @cached_property
    def density_on_grid(self) -> Array:
        return self.density.on_points(self.grid.points)

    @cached_property
    def fitted_density(self) -> GaussianDensity | None:
        """The store's fit; None where there is none."""
        if self.density_basis is None or self.record.density_coefficients is None:
            return None
        return GaussianDensity.from_fit(
            self.structure, self.density_basis, self.record.density_coefficients, self.atoms
        )

    def nmae_of(self, density: ElectronDensity) -> float:
        """Percent of electrons by which a density differs from the Kohn-Sham one."""
        values = density.on_points(self.grid.points)
        return nmae(values, self.density_on_grid, self.grid.weights, self.n_electrons)

    @cached_property
    def nmae_of_free_atoms(self) -> float:
        return self.nmae_of(free_atom_density(self.structure, self.atoms))


@dataclass(frozen=True, eq=False)
class PredictedOrbitals:
    """Orbitals and density matrix of a predicted Hamiltonian, solved with the reference's overlap."""

    energies: Array
    coefficients: Array
    density_matrix: Array

    @classmethod
    def of(cls, hamiltonian: Array, reference: Reference) -> PredictedOrbitals:
        energies, coefficients = solve_orbitals(hamiltonian, reference.record.overlap)
        return cls(energies, coefficients, closed_shell_density_matrix(coefficients, reference.n_occupied))


@dataclass
class Parity:
    """Reference and predicted orbital energies, Hartree, of one model; lists over molecules."""

    occupied_reference: list[Array] = field(default_factory=list)
    occupied_predicted: list[Array] = field(default_factory=list)
    gap_reference: list[float] = field(default_factory=list)
    gap_predicted: list[float] = field(default_factory=list)

    def add(self, orbitals: PredictedOrbitals, reference: Reference) -> None:
        """Add one molecule; a gap only where there is an empty orbital."""
        n, (energies, _) = reference.n_occupied, reference.orbitals
        self.occupied_reference.append(energies[:n])
        self.occupied_predicted.append(orbitals.energies[:n])
        if n < len(energies):
            self.gap_reference.append(float(energies[n] - energies[n - 1]))
            self.gap_predicted.append(float(orbitals.energies[n] - orbitals.energies[n - 1]))


def hamiltonian_values(hamiltonian: Array, orbitals: PredictedOrbitals, reference: Reference) -> Values:
    """Figures of a predicted (n_ao, n_ao) Hamiltonian that need neither a grid nor an SCF."""
    record, n_occupied = reference.record, reference.n_occupied
    matrix = matrix_error(hamiltonian, record.hamiltonian, reference.n_electrons)
    energies, coefficients = reference.orbitals
    levels = orbital_error(orbitals.energies, energies, n_occupied)
    values = {
        "hamiltonian_mae": matrix.mae,
        "hamiltonian_largest_error": matrix.largest,
        "hamiltonian_frobenius_per_sqrt_n": matrix.frobenius_per_sqrt_n,
        "occupied_energy_mae": levels.occupied_mae,
        "homo_error": levels.homo,
        "occupied_subspace_defect": occupied_subspace_defect(
            coefficients, orbitals.coefficients, record.overlap, n_occupied
        ),
        "orbital_cosine_defect": float(
            orbital_cosine_defects(coefficients, orbitals.coefficients, record.overlap, n_occupied).mean()
        ),
        "reference_time": record.wall_time,
    }
    if levels.lumo is not None and levels.gap is not None:
        values |= {"lumo_error": levels.lumo, "gap_error": levels.gap}
    if record.baseline is not None:
        values["baseline_mae"] = float(np.abs(record.baseline - record.hamiltonian).mean())
    density = OrbitalDensity(reference.mol, orbitals.density_matrix)
    return values | _moment_values(density.moments(), reference)


def orbital_density_values(orbitals: PredictedOrbitals, reference: Reference) -> Values:
    """Density figures of a predicted Hamiltonian: on the grid, and the Hartree energy."""
    density = OrbitalDensity(reference.mol, orbitals.density_matrix)
    return {
        "density_nmae": reference.nmae_of(density),
        "density_nmae_free_atoms": reference.nmae_of_free_atoms,
        "hartree_energy_error": abs(density.hartree_energy() - reference.hartree_energy),
    }


def energy_values(orbitals: PredictedOrbitals, reference: Reference, threads: int) -> Values:
    """Figures that cost one Fock build: the one-shot energy and the commutator."""
    once = evaluate_once(reference.structure, reference.method, orbitals.density_matrix, threads=threads)
    return {
        "one_shot_energy_error": abs(once.energy - reference.record.energy),
        "commutator_norm": once.commutator,
    }


def scf_values(surrogate: ScfRun, minao: ScfRun, prediction_time: float) -> Values:
    """Figures of two SCFs of one molecule that both converged."""
    return {
        "scf_cycles": float(surrogate.cycles),
        "scf_cycles_minao": float(minao.cycles),
        "scf_cycle_ratio": surrogate.cycles / minao.cycles,
        "scf_fock_builds": float(surrogate.fock_builds),
        "scf_fock_builds_minao": float(minao.fock_builds),
        "scf_wall_time": surrogate.wall_time + prediction_time,
        "scf_wall_time_minao": minao.wall_time,
        "scf_energy_difference": abs(surrogate.energy - minao.energy),
    }


def fitted_density_values(density: GaussianDensity, reference: Reference) -> Values:
    """Figures of a predicted expansion that need no grid; split into fit floor and network."""
    moments = density.moments()
    values = _moment_values(moments, reference) | {"reference_time": reference.record.wall_time}
    fit = reference.fitted_density
    if fit is None:
        return values
    fitted = charge_moments(reference.structure, fit.moments())
    predicted = charge_moments(reference.structure, moments)
    return values | {
        "dipole_error_fit_floor": _norm(fitted.dipole - reference.moments.dipole),
        "dipole_error_network": _norm(predicted.dipole - fitted.dipole),
        "quadrupole_error_fit_floor": _norm(fitted.quadrupole - reference.moments.quadrupole),
        "quadrupole_error_network": _norm(predicted.quadrupole - fitted.quadrupole),
    }


def fitted_density_grid_values(density: GaussianDensity, reference: Reference) -> Values:
    """Figures of a predicted expansion on the grid, and of its Hartree energy."""
    grid, exact = reference.grid, reference.density_on_grid
    predicted = density.on_points(grid.points)
    hartree_energy = density.hartree_energy()
    values = {
        "density_nmae": nmae(predicted, exact, grid.weights, reference.n_electrons),
        "density_nmae_free_atoms": reference.nmae_of_free_atoms,
        "hartree_energy_error": abs(hartree_energy - reference.hartree_energy),
    }
    fit = reference.fitted_density
    if fit is None:
        return values
    fitted = fit.on_points(grid.points)
    floor = nmae(fitted, exact, grid.weights, reference.n_electrons)
    fitted_hartree_energy = fit.hartree_energy()
    return values | {
        "density_nmae_fit_floor": floor,
        "density_nmae_network": nmae(predicted, fitted, grid.weights, reference.n_electrons),
        "density_nmae_over_fit_floor": values["density_nmae"] / floor,
        "hartree_energy_error_fit_floor": abs(fitted_hartree_energy - reference.hartree_energy),
        "hartree_energy_error_network": abs(hartree_energy - fitted_hartree_energy),
    }


def _moment_values(moments: Moments, reference: Reference) -> Values:
    predicted = charge_moments(reference.structure, moments)
    return {
        "electron_count_error": abs(moments.count - reference.n_electrons),
        "dipole_error": _norm(predicted.dipole - reference.moments.dipole),
        "quadrupole_error": _norm(predicted.quadrupole - reference.moments.quadrupole),
    }


def _norm(array: Array) -> float:
    return float(np.linalg.norm(array))
