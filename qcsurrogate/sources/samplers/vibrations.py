"""Geometries drawn around an equilibrium: thermal vibrations, random displacements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from qcsurrogate.errors import StructureError
from qcsurrogate.reference.harmonic import HarmonicModes
from qcsurrogate.structures import Structure
from qcsurrogate.units import BOHR_PER_ANGSTROM, HARTREE_PER_KELVIN

Statistics = Literal["classical", "quantum"]

MAXIMUM_DRAWS = 100
"""Draws for one geometry before the distribution is called too wide."""


def normal_coordinate_deviations(
    angular_frequencies: NDArray[np.float64], temperature_kelvin: float, statistics: Statistics
) -> NDArray[np.float64]:
    """Standard deviation of every mass-weighted normal coordinate at a temperature.

    Classical: <q^2> = kT / w^2.  Quantum: <q^2> = 1/(2 w) coth(w / 2kT), which keeps
    the zero-point motion (L. D. Landau and E. M. Lifshitz, Statistical Physics, 3rd
    ed., eq. 29.4 ff., with hbar = 1).

    Args:
        angular_frequencies: (n_modes,) in Hartree.
        temperature_kelvin: at least 0.
        statistics: ``classical`` or ``quantum``.

    Returns:
        (n_modes,) in electron mass^1/2 bohr.
    """
    thermal_energy = temperature_kelvin * HARTREE_PER_KELVIN
    if statistics == "classical":
        return np.asarray(np.sqrt(thermal_energy) / angular_frequencies)
    if thermal_energy == 0:
        return np.asarray(np.sqrt(0.5 / angular_frequencies))
    return np.asarray(np.sqrt(0.5 / angular_frequencies / np.tanh(0.5 * angular_frequencies / thermal_energy)))


def sample_thermal(
    modes: HarmonicModes,
    temperature_kelvin: float,
    count: int,
    seed: int,
    statistics: Statistics = "classical",
) -> list[Structure]:
    """Geometries of a harmonic molecule at a temperature.

    The same seed gives the same geometries, and a larger ``count`` begins with those of
    a smaller one.

    Raises:
        StructureError: if the temperature is not a number from 0, or so high that atoms
            keep falling on top of each other.
    """
    if not (np.isfinite(temperature_kelvin) and temperature_kelvin >= 0):
        raise StructureError(f"{modes.equilibrium.label}: temperature {temperature_kelvin} K; expected at least 0")
    deviations = normal_coordinate_deviations(modes.angular_frequencies, temperature_kelvin, statistics)
    directions = _fixed_signs(modes.displacements)

    def draw(generator: np.random.Generator) -> NDArray[np.float64]:
        amplitudes = deviations * generator.standard_normal(len(deviations))
        return np.einsum("m,mac->ac", amplitudes, directions)

    return _sample(modes.equilibrium, draw, count, seed, f"{temperature_kelvin:g} K is too hot for it")


def sample_displacements(equilibrium: Structure, sigma_angstrom: float, count: int, seed: int) -> list[Structure]:
    """Geometries with every coordinate moved by an independent normal deviate.

    Raises:
        StructureError: if sigma is not a number from 0, or so large that atoms keep
            falling on top of each other.
    """
    if not (np.isfinite(sigma_angstrom) and sigma_angstrom >= 0):
        raise StructureError(f"{equilibrium.label}: sigma {sigma_angstrom} Angstrom; expected at least 0")
    sigma = sigma_angstrom * BOHR_PER_ANGSTROM

    def draw(generator: np.random.Generator) -> NDArray[np.float64]:
        return sigma * generator.standard_normal(equilibrium.positions.shape)

    return _sample(equilibrium, draw, count, seed, f"sigma = {sigma_angstrom:g} Angstrom is too large for it")


def _sample(
    equilibrium: Structure,
    draw: Callable[[np.random.Generator], NDArray[np.float64]],
    count: int,
    seed: int,
    reason: str,
) -> list[Structure]:
    generator = np.random.default_rng(seed)
    stem = equilibrium.name or equilibrium.formula
    width = len(str(max(count - 1, 0)))
    return [_draw_apart(equilibrium, draw, generator, f"{stem}_{index:0{width}d}", reason) for index in range(count)]


def _draw_apart(
    equilibrium: Structure,
    draw: Callable[[np.random.Generator], NDArray[np.float64]],
    generator: np.random.Generator,
    name: str,
    reason: str,
) -> Structure:
    for _ in range(MAXIMUM_DRAWS):
        try:
            return equilibrium.moved(equilibrium.positions + draw(generator), name)
        except StructureError as error:
            last = error
    raise StructureError(
        f"{equilibrium.label}: {MAXIMUM_DRAWS} draws in a row put atoms on top of each other; {reason} ({last})"
    )


def _fixed_signs(displacements: NDArray[np.float64]) -> NDArray[np.float64]:
    """Modes with their largest component positive: a diagonaliser is free in the sign."""
    if displacements.size == 0:
        return displacements
    flat = displacements.reshape(len(displacements), -1)
    largest = np.take_along_axis(flat, np.argmax(np.abs(flat).round(6), axis=1)[:, None], axis=1)
    return displacements * np.where(largest < 0, -1.0, 1.0)[:, :, None]
