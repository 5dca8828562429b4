"""Molecular dynamics at a temperature, with the forces of an ASE calculator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from ase.data import atomic_masses
from numpy.typing import NDArray

from qcsurrogate.errors import StructureError
from qcsurrogate.structures import Structure
from qcsurrogate.units import (
    ANGSTROM_PER_BOHR,
    ATOMIC_TIME_PER_FEMTOSECOND,
    BOHR_PER_ANGSTROM,
    ELECTRON_MASS_PER_DALTON,
    HARTREE_PER_EV,
    HARTREE_PER_KELVIN,
)

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

    from qcsurrogate.sources.kinds import DynamicsSource

_HOTTEST: Final = 50.0
"""A kinetic energy of so many times its mean is an explosion, not a fluctuation."""


def sample_dynamics(structure: Structure, calculator: Calculator, settings: DynamicsSource) -> list[Structure]:
    """Geometries of a Langevin trajectory.

    The BAOAB integrator (B. Leimkuhler and C. Matthews, J. Chem. Phys. 138, 174102
    (2013)), whose positions are those of the temperature to high order in the time step.
    Velocities start from the Maxwell-Boltzmann distribution. Frames are centred at the
    start's centre of mass. The same seed gives the same trajectory where the calculator
    gives the same forces, and a larger ``count`` begins with the frames of a smaller one.

    Args:
        structure: where to start; all its atoms move.
        calculator: gives energies in eV and forces in eV/Angstrom.
        settings: temperature, steps, heat bath, frames and seed; of the calculator nothing is read.

    Raises:
        StructureError: if the trajectory explodes or puts atoms on top of each other.
    """
    burn_in, every, count = settings.burn_in, settings.every, settings.count
    generator = np.random.default_rng(settings.seed)
    masses = atomic_masses[structure.atomic_numbers][:, None] * ELECTRON_MASS_PER_DALTON
    thermal = settings.temperature_kelvin * HARTREE_PER_KELVIN
    step = settings.timestep_fs * ATOMIC_TIME_PER_FEMTOSECOND
    kept = np.exp(-settings.friction_per_ps * 1e-3 * settings.timestep_fs)
    deviation = np.sqrt(thermal / masses)
    atoms = structure.to_ase()
    atoms.calc = calculator
    positions = structure.positions.copy()
    velocities = deviation * generator.standard_normal(positions.shape)
    centre = _centre_of_mass(positions, masses)
    hottest = _HOTTEST * max(thermal, 1e-6) * 1.5 * len(structure)
    forces = _forces(atoms, positions)
    frames: list[Structure] = []
    stem, width = structure.name or structure.formula, len(str(max(count - 1, 0)))
    for number in range(1, burn_in + every * count + 1):
        velocities = velocities + 0.5 * step * forces / masses
        positions = positions + 0.5 * step * velocities
        velocities = kept * velocities + np.sqrt(1.0 - kept**2) * deviation * generator.standard_normal(positions.shape)
        positions = positions + 0.5 * step * velocities
        forces = _forces(atoms, positions)
        velocities = velocities + 0.5 * step * forces / masses
        kinetic = 0.5 * float((masses * velocities**2).sum())
        if not (np.isfinite(forces).all() and kinetic <= hottest):
            raise StructureError(
                f"{structure.label}: the trajectory exploded in step {number} (kinetic energy {kinetic:.3g} Hartree at "
                f"{settings.temperature_kelvin:g} K); take a shorter timestep_fs, start nearer to a minimum, or choose "
                "a calculator that knows these elements"
            )
        if number > burn_in and (number - burn_in) % every == 0:
            shift = centre - _centre_of_mass(positions, masses)
            try:
                frames.append(structure.moved(positions + shift, f"{stem}_{len(frames):0{width}d}"))
            except StructureError as error:
                raise StructureError(
                    f"{structure.label}: the trajectory went astray before step {number} ({error}); take a shorter "
                    "settings.timestep_fs or another calculator"
                ) from error
    return frames


def _forces(atoms: Atoms, positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Hartree/bohr."""
    atoms.positions = positions * ANGSTROM_PER_BOHR
    return np.asarray(atoms.get_forces(), dtype=np.float64) * (HARTREE_PER_EV / BOHR_PER_ANGSTROM)


def _centre_of_mass(positions: NDArray[np.float64], masses: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray((masses * positions).sum(axis=0) / masses.sum())
