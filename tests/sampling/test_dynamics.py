"""Langevin trajectories against the statistics of a harmonic oscillator."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT

from qcsurrogate.errors import StructureError
from qcsurrogate.sources.kinds import DynamicsSource
from qcsurrogate.sources.samplers.dynamics import sample_dynamics
from qcsurrogate.structures import Structure
from qcsurrogate.units import ANGSTROM_PER_BOHR, BOHR_PER_ANGSTROM, EV_PER_HARTREE, HARTREE_PER_KELVIN

HYDROGEN = Structure([1, 1], [[0, 0, 0], [0, 0, 1.4]], name="h2")
FORCE_CONSTANT = 0.37  # Hartree/bohr^2, that of H2
USUAL: dict[str, Any] = {
    "temperature_kelvin": 600.0,
    "timestep_fs": 0.5,
    "friction_per_ps": 50.0,
    "burn_in": 200,
    "every": 10,
    "count": 5,
    "seed": 3,
}


def settings(**changes: Any) -> DynamicsSource:
    start = {"name": "h2", "symbols": ["H"], "positions_angstrom": [[0, 0, 0]]}
    return DynamicsSource.model_validate({"kind": "md", "calculator": "emt", "equilibrium": start} | USUAL | changes)


class Spring(Calculator):
    """Two atoms and a spring."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def __init__(self, force_constant: float = FORCE_CONSTANT, length: float = 1.4) -> None:
        super().__init__()
        self.force_constant, self.length = force_constant, length

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        bond = (self.atoms.positions[1] - self.atoms.positions[0]) * BOHR_PER_ANGSTROM
        distance = np.linalg.norm(bond)
        pull = self.force_constant * (distance - self.length) * bond / distance
        self.results = {
            "energy": 0.5 * self.force_constant * (distance - self.length) ** 2 * EV_PER_HARTREE,
            "forces": np.array([pull, -pull]) * EV_PER_HARTREE / ANGSTROM_PER_BOHR,
        }


def test_the_bond_swings_as_equipartition_says() -> None:
    """<(r - r0)^2> = kT/k; 0.15 is three times the statistical error, found from twelve seeds."""
    frames = sample_dynamics(HYDROGEN, Spring(), settings(**{"count": 2000, "every": 8, "friction_per_ps": 300.0}))
    lengths = np.array([np.linalg.norm(s.positions[1] - s.positions[0]) for s in frames])
    thermal = USUAL["temperature_kelvin"] * HARTREE_PER_KELVIN
    assert lengths.var() == pytest.approx(thermal / FORCE_CONSTANT, rel=0.15)
    # the mean lies beyond r0 by the centrifugal 2 kT / (k r0)
    assert lengths.mean() - 1.4 == pytest.approx(2 * thermal / (FORCE_CONSTANT * 1.4), abs=0.003)


@pytest.mark.slow
def test_the_temperature_is_that_of_the_bath() -> None:
    cold, hot = (
        np.var([np.linalg.norm(s.positions[1] - s.positions[0]) for s in frames])
        for frames in (
            sample_dynamics(HYDROGEN, Spring(), settings(**{"count": 800, "temperature_kelvin": t}))
            for t in (200.0, 800.0)
        )
    )
    assert hot / cold == pytest.approx(4.0, rel=0.3)


def test_seeded_and_a_longer_run_begins_with_the_shorter() -> None:
    short, long = (sample_dynamics(HYDROGEN, Spring(), settings(**{"count": n})) for n in (3, 6))
    assert [s.key for s in short] == [s.key for s in long[:3]]
    assert len({s.key for s in long}) == 6
    assert long[0].key != sample_dynamics(HYDROGEN, Spring(), settings(**{"seed": 4}))[0].key
    assert [s.name for s in long] == [f"h2_{i}" for i in range(6)]


def test_frames_stay_where_they_were() -> None:
    for frame in sample_dynamics(HYDROGEN, Spring(), settings()):
        np.testing.assert_allclose(frame.positions.mean(axis=0), [0, 0, 0.7], atol=1e-9)


def test_a_calculator_of_ase_moves_water() -> None:
    water = Structure([8, 1, 1], [[0, 0, 0.2], [0, 1.43, -0.9], [0, -1.43, -0.9]], name="water")
    frames = sample_dynamics(water, EMT(), settings(**{"temperature_kelvin": 300.0, "burn_in": 50, "every": 5}))
    assert len({s.key for s in frames}) == 5
    assert all(s.charge == 0 for s in frames)


@pytest.mark.parametrize(
    ("calculator", "changes", "words"),
    [
        (
            Spring(force_constant=400.0),
            {"timestep_fs": 5.0},
            r"structure 'h2': the trajectory exploded in step \d+ .*at 600 K",
        ),
        (Spring(force_constant=float("nan")), {}, r"exploded in step 1 .* take a shorter timestep_fs"),
        (Spring(length=0.3), {"every": 1, "burn_in": 0, "count": 200}, r"the trajectory (went astray|exploded)"),
    ],
)
def test_explosions_are_clear(calculator: Calculator, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(StructureError, match=words), np.errstate(all="ignore"):
        sample_dynamics(HYDROGEN, calculator, settings(**changes))
