"""Thermal and random geometries against the formulas they are drawn from."""

from __future__ import annotations

import numpy as np
import pytest

from qcsurrogate.errors import StructureError
from qcsurrogate.reference.harmonic import HarmonicModes
from qcsurrogate.sources.samplers.vibrations import normal_coordinate_deviations, sample_displacements, sample_thermal
from qcsurrogate.structures import Structure
from qcsurrogate.units import BOHR_PER_ANGSTROM, ELECTRON_MASS_PER_DALTON, HARTREE_PER_KELVIN

WATER = Structure([8, 1, 1], [[0, 0, 0.2], [0, 1.43, -0.9], [0, -1.43, -0.9]], name="water")
REDUCED_MASS = 0.5 * 1.008 * ELECTRON_MASS_PER_DALTON


def hydrogen_stretch(angular_frequency: float) -> HarmonicModes:
    """The one mode of H2: each nucleus moves by half the change of the bond."""
    equilibrium = Structure([1, 1], [[0, 0, 0], [0, 0, 1.4]], name="h2")
    half = 0.5 / np.sqrt(REDUCED_MASS)
    return HarmonicModes(equilibrium, np.array([angular_frequency]), np.array([[[0, 0, -half], [0, 0, half]]]))


def bond_lengths(structures: list[Structure]) -> np.ndarray:
    return np.array([np.linalg.norm(s.positions[1] - s.positions[0]) for s in structures])


@pytest.mark.parametrize("temperature", [50.0, 500.0])
def test_classical_bond_fluctuation_is_kt_over_force_constant(temperature: float) -> None:
    modes = hydrogen_stretch(0.02)
    lengths = bond_lengths(sample_thermal(modes, temperature, 4000, seed=3))
    force_constant = REDUCED_MASS * 0.02**2
    expected = np.sqrt(temperature * HARTREE_PER_KELVIN / force_constant)
    assert lengths.std() == pytest.approx(expected, rel=0.05)
    assert lengths.mean() == pytest.approx(1.4, abs=4 * expected / np.sqrt(4000))


def test_quantum_statistics_end_in_zero_point_motion_and_in_the_classical_limit() -> None:
    frequencies = np.array([0.001, 0.02])
    zero_point = normal_coordinate_deviations(frequencies, 0.0, "quantum")
    np.testing.assert_allclose(zero_point**2, 0.5 / frequencies)
    np.testing.assert_allclose(normal_coordinate_deviations(frequencies, 1e-3, "quantum"), zero_point)
    hot = 1e7
    np.testing.assert_allclose(
        normal_coordinate_deviations(frequencies, hot, "quantum"),
        normal_coordinate_deviations(frequencies, hot, "classical"),
        rtol=1e-4,
    )
    assert (normal_coordinate_deviations(frequencies, 500.0, "quantum") >= zero_point).all()


def test_zero_kelvin_classical_is_the_equilibrium() -> None:
    (structure,) = sample_thermal(hydrogen_stretch(0.02), 0.0, 1, seed=0)
    np.testing.assert_array_equal(structure.positions, [[0, 0, 0], [0, 0, 1.4]])


def test_seeded_and_a_longer_run_begins_with_the_shorter() -> None:
    modes = hydrogen_stretch(0.02)
    short, long = (sample_thermal(modes, 500, n, seed=5) for n in (3, 8))
    assert [s.key for s in short] == [s.key for s in long[:3]]
    assert len({s.key for s in long}) == 8
    assert sample_thermal(modes, 500, 3, seed=6)[0].key != short[0].key
    assert long[3].name == "h2_3"


def test_sign_of_a_mode_does_not_matter() -> None:
    modes = hydrogen_stretch(0.02)
    flipped = HarmonicModes(modes.equilibrium, modes.angular_frequencies, -modes.displacements)
    assert sample_thermal(modes, 500, 1, seed=0)[0].key == sample_thermal(flipped, 500, 1, seed=0)[0].key


def test_displacements_have_the_given_width() -> None:
    structures = sample_displacements(WATER, 0.03, 500, seed=0)
    moved = np.array([s.positions - WATER.positions for s in structures])
    assert moved.std() == pytest.approx(0.03 * BOHR_PER_ANGSTROM, rel=0.05)
    assert structures[0].name == "water_000"


def test_atoms_too_close_are_drawn_again_and_at_last_refused() -> None:
    lengths = bond_lengths(sample_thermal(hydrogen_stretch(0.003), 500, 300, seed=0))
    assert lengths.min() >= 0.6  # many raw draws are below
    crowded = Structure([1] * 40, np.arange(40)[:, None] * np.array([0.62, 0, 0]), name="chain")
    modes = HarmonicModes(crowded, np.array([0.01]), np.random.default_rng(0).normal(size=(1, 40, 3)))
    with pytest.raises(StructureError, match=r"structure 'chain': 100 draws .* 8 K is too hot for it"):
        sample_thermal(modes, 8.0, 100, seed=0)
    with pytest.raises(StructureError, match=r"sigma = 0\.1 Angstrom is too large"):
        sample_displacements(crowded, 0.1, 1, seed=0)


def test_nonsense_is_refused() -> None:
    modes = hydrogen_stretch(0.02)
    with pytest.raises(StructureError, match="temperature nan K"):
        sample_thermal(modes, float("nan"), 1, seed=0)
    with pytest.raises(StructureError, match="temperature -1"):
        sample_thermal(modes, -1.0, 1, seed=0)
    with pytest.raises(StructureError, match="sigma -1"):
        sample_displacements(WATER, -1.0, 1, seed=0)
    with pytest.raises(StructureError, match="no minimum"):
        HarmonicModes(modes.equilibrium, np.array([-0.01]), modes.displacements)
    with pytest.raises(StructureError, match=r"expected mode displacements \(2, 2, 3\)"):
        HarmonicModes(modes.equilibrium, np.array([0.01, 0.02]), modes.displacements)
    with pytest.raises(StructureError, match="not finite"):
        HarmonicModes(modes.equilibrium, np.array([0.01]), np.full((1, 2, 3), np.nan))
