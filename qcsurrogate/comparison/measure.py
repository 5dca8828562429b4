"""All figures of one molecule: the reference computed once, then each prediction against it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from pyscf.gto import Mole

from qcsurrogate.basis import BasisSet
from qcsurrogate.comparison.metrics import nmae
from qcsurrogate.density.densities import ElectronDensity, GaussianDensity, OrbitalDensity, free_atom_density
from qcsurrogate.density.grid import IntegrationGrid
from qcsurrogate.density.moments import ChargeMoments, Moments, charge_moments
from qcsurrogate.reference.atoms import FreeAtoms
from qcsurrogate.reference.calibration import EnergyCalibration
from qcsurrogate.reference.evaluation import ScfRun, evaluate_once
from qcsurrogate.reference.kohn_sham import build_molecule
from qcsurrogate.reference.orbitals import MolecularOrbitals
from qcsurrogate.reference.record import ReferenceRecord
from qcsurrogate.reference.settings import Method
from qcsurrogate.store.store import Store
from qcsurrogate.structures import Structure
from qcsurrogate.tables.records import RECORD_TARGETS
from qcsurrogate.tables.table import Table

Array = NDArray[np.float64]
Values = dict[str, float]
"""Figures of one molecule by name (:mod:`qcsurrogate.comparison.figures`)."""


class Measured(Protocol):
    """What is known of a molecule: one record of a store, or one row of a table."""

    @property
    def structure(self) -> Structure: ...
    @property
    def figures(self) -> dict[str, float]:
        """A few numbers that stand beside every molecule in ``metrics.json``."""

    def label(self, name: str) -> Array:
        """The value of a target, see :class:`qcsurrogate.tables.sets.LabelledSet`."""


@dataclass(frozen=True, eq=False)
class LabelReference:
    """One row of a table."""

    structure: Structure
    values: Mapping[str, Array]

    @property
    def figures(self) -> dict[str, float]:
        return {name: float(value) for name, value in self.values.items() if value.ndim == 0}

    def label(self, name: str) -> Array:
        return self.values[name]


@dataclass(frozen=True, eq=False)
class Reference:
    """One record and what is derived from it, each on first use."""

    record: ReferenceRecord
    method: Method
    atoms: FreeAtoms
    density_basis: BasisSet | None

    @property
    def structure(self) -> Structure:
        return self.record.structure

    @property
    def figures(self) -> dict[str, float]:
        found = {"energy": self.record.energy, "homo": self.orbitals.homo}
        if np.isfinite(self.orbitals.lumo):
            found |= {"lumo": self.orbitals.lumo, "gap": self.orbitals.gap}
        return found | {"dipole": float(np.linalg.norm(self.record.dipole))}

    def label(self, name: str) -> Array:
        return RECORD_TARGETS[name].of(self.record, self.method)

    @property
    def n_electrons(self) -> int:
        return self.structure.n_electrons

    @cached_property
    def mol(self) -> Mole:
        return build_molecule(self.structure, self.method)

    @cached_property
    def orbitals(self) -> MolecularOrbitals:
        """Orbitals of the stored Hamiltonian."""
        return self.orbitals_of(self.record.fock)

    def orbitals_of(self, hamiltonian: Array) -> MolecularOrbitals:
        """Orbitals of another ([2,] n_ao, n_ao) Hamiltonian in the overlap of the record."""
        return MolecularOrbitals.of(hamiltonian, self.record.overlap, self.structure)

    @cached_property
    def grid(self) -> IntegrationGrid:
        return IntegrationGrid.for_molecule(self.mol, self.method.grid_level)

    @cached_property
    def density(self) -> MeasuredDensity:
        """The Kohn-Sham density."""
        return MeasuredDensity(OrbitalDensity(self.mol, self.record.density_matrix), self.structure)

    @cached_property
    def spin_density(self) -> MeasuredDensity:
        """Kohn-Sham density of alpha less that of beta; zero of a restricted record."""
        matrix = self.record.spin_density_matrix
        matrix = np.zeros_like(self.record.density_matrix) if matrix is None else matrix
        return MeasuredDensity(OrbitalDensity(self.mol, matrix), self.structure)

    @cached_property
    def fitted_spin_density(self) -> MeasuredDensity | None:
        """The store's fit of the same; None where there is none."""
        if self.density_basis is None or self.record.spin_density_coefficients is None:
            return None
        mol = self.density_basis.build_mol(self.structure)
        return MeasuredDensity(GaussianDensity(mol, self.record.spin_density_coefficients), self.structure)

    @cached_property
    def fitted_density(self) -> MeasuredDensity | None:
        """The store's fit; None where there is none."""
        if self.density_basis is None or self.record.density_coefficients is None:
            return None
        fit = GaussianDensity.from_fit(self.structure, self.density_basis, self.record.density_coefficients, self.atoms)
        return MeasuredDensity(fit, self.structure)

    @cached_property
    def nmae_of_free_atoms(self) -> float:
        """Percent of electrons that the free atoms alone put in the wrong place."""
        free = MeasuredDensity(free_atom_density(self.structure, self.atoms), self.structure)
        return free.nmae(self.density, self.grid)


class References:
    """What is known of the molecules of a data set.

    Args:
        data: a store or a table.
        elements: atomic numbers that will occur.
    """

    def __init__(self, data: Store | Table, elements: Sequence[int]) -> None:
        self._data = data
        self._density_basis = data.spec.method.density_basis(elements) if isinstance(data, Store) else None

    def one(self, key: str) -> Measured:
        """Of one molecule."""
        return next(self.many([key]))

    def many(self, keys: Sequence[str]) -> Iterator[Measured]:
        """Of several, in their order."""
        data = self._data
        if isinstance(data, Store):
            for record in data.read_many(keys) if len(keys) > 1 else [data.read(keys[0])]:
                yield Reference(record, data.spec.method, data.atoms, self._density_basis)
            return
        labels = data.labels(list(data.targets), keys)
        for i, key in enumerate(keys):
            yield LabelReference(data.structure(key), {name: values[i] for name, values in labels.items()})


@dataclass(eq=False)
class MeasuredDensity:
    """A density of a molecule, and what is asked of it, each computed on first use."""

    density: ElectronDensity
    structure: Structure

    @cached_property
    def moments(self) -> Moments:
        return self.density.moments()

    @cached_property
    def charges(self) -> ChargeMoments:
        return charge_moments(self.structure, self.moments)

    @cached_property
    def hartree_energy(self) -> float:
        return self.density.hartree_energy()

    _values: Array | None = None

    def on_grid(self, grid: IntegrationGrid) -> Array:
        """(n_points,) values on the one grid of its molecule."""
        if self._values is None:
            self._values = self.density.on_points(grid.points)
        return self._values

    def nmae(self, other: MeasuredDensity, grid: IntegrationGrid) -> float:
        """Percent of the electrons by which two densities differ."""
        return nmae(self.on_grid(grid), other.on_grid(grid), grid.weights, self.structure.n_electrons)

    def errors(self, other: MeasuredDensity, grid: IntegrationGrid | None) -> Values:
        """How far this density is from another; NMAE and Hartree energy only with a grid."""
        values = {
            "dipole_error": float(np.linalg.norm(self.charges.dipole - other.charges.dipole)),
            "quadrupole_error": float(np.linalg.norm(self.charges.quadrupole - other.charges.quadrupole)),
        }
        if grid is not None:
            values["density_nmae"] = self.nmae(other, grid)
            values["hartree_energy_error"] = abs(self.hartree_energy - other.hartree_energy)
        return values


def density_values(density: MeasuredDensity, reference: Reference, *, on_grid: bool) -> Values:
    """Figures of a predicted density that every quantity with a density has."""
    values = density.errors(reference.density, reference.grid if on_grid else None)
    values["electron_count_error"] = abs(density.moments.count - reference.n_electrons)
    values["reference_time"] = reference.record.wall_time
    if on_grid:
        values["density_nmae_free_atoms"] = reference.nmae_of_free_atoms
    return values


def energy_values(
    orbitals: MolecularOrbitals, reference: Reference, calibration: EnergyCalibration | None, threads: int
) -> Values:
    """Figures that cost one Fock build: energies without an SCF, and what tells of their errors without a reference."""
    once = evaluate_once(reference.structure, reference.method, orbitals.density_matrix, threads=threads)
    once = replace(once, calibration=calibration)
    values = {
        "one_shot_energy_error": abs(once.energy - reference.record.energy),
        "commutator_norm": once.commutator,
    }
    if np.isfinite(once.remaining_energy):
        values["remaining_energy"] = once.remaining_energy
        values["corrected_energy_error"] = abs(once.corrected_energy - reference.record.energy)
    return values


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
