"""Molecules with nothing to sample: atoms, linear and rigid ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.data import atomic_masses

from qcsurrogate.errors import SpecError
from qcsurrogate.reference.normal_modes import _internal_space, harmonic_modes
from qcsurrogate.sources.collect import collect
from qcsurrogate.sources.samplers.torsions import rotatable_dihedrals, scan_torsions
from qcsurrogate.sources.samplers.vibrations import sample_thermal
from qcsurrogate.structures import Structure
from qcsurrogate.units import ELECTRON_MASS_PER_DALTON
from tests.molecules import WATER, random_orthogonal
from tests.store import fakes
from tests.store.test_collect import spec

HELIUM = Structure(np.array([2]), np.zeros((1, 3)), name="he")
PEROXIDE = "4\nname=hooh\nO 0 0.734 -0.0528\nO 0 -0.734 -0.0528\nH 0.839 0.880 0.422\nH -0.839 -0.880 0.422\n"
ATOM, HYDROGEN = "1\nname=he\nHe 0 0 0\n", "2\nname=h2\nH 0 0 0\nH 0 0 0.74\n"
SOURCES: dict[str, dict[str, Any]] = {
    "thermal": {"temperature_kelvin": 300, "count": 2},
    "displacement": {"sigma_angstrom": 0.02, "count": 2},
    "torsion": {"steps": 3},
    "md": {"calculator": "emt", "temperature_kelvin": 300, "burn_in": 0, "every": 1, "count": 2},
}


def molecules(path: Path, text: str) -> dict[str, Any]:
    path.write_text(text)
    return {"kind": "file", "path": str(path)}


@pytest.mark.parametrize("kind", SOURCES)
def test_a_molecule_with_nothing_to_sample_is_left_out_and_counted(kind: str, tmp_path: Path) -> None:
    other, why = (PEROXIDE, "no rotatable bond") if kind == "torsion" else (HYDROGEN, "an atom, nothing to move")
    source = {"kind": kind, "molecules": molecules(tmp_path / "a.xyz", ATOM + other), **SOURCES[kind]}
    found = collect(spec(source))
    assert list(found.report) == ["molecules read", f"molecules left out: {why}", "molecules", "sampled"]
    assert list(found.report.values()) == [2, 1, 1, len(found.structures)]
    assert set(found.groups or ()) == {"hooh" if kind == "torsion" else "h2"}


@pytest.mark.parametrize("kind", SOURCES)
def test_nothing_left_is_one_line(kind: str, tmp_path: Path) -> None:
    helium = {"name": "he", "symbols": ["He"], "positions_angstrom": [[0, 0, 0]]}
    for start in ({"equilibrium": helium}, {"molecules": molecules(tmp_path / "a.xyz", ATOM)}):
        with pytest.raises(SpecError, match=r"nothing is left \(.*molecules left out: .*: 1.*\); loosen") as caught:
            collect(spec({"kind": kind, **start, **SOURCES[kind]}))
        assert caught.value.exit_code == 2
        assert "\n" not in str(caught.value)


def test_a_rigid_molecule_has_no_torsions(tmp_path: Path) -> None:
    assert rotatable_dihedrals(WATER) == []
    for grid in (False, True):
        scan = scan_torsions(WATER, [], 4, grid=grid)
        assert [s.key for s in scan.structures] == [WATER.key]
        assert scan.angles.shape == (1, 0)
    with pytest.raises(SpecError, match="no rotatable bond: 1"):
        collect(spec({"kind": "torsion", "molecules": molecules(tmp_path / "a.xyz", HYDROGEN), "steps": 4}))


def test_an_atom_has_no_modes_and_a_diatomic_one() -> None:
    atom = harmonic_modes(HELIUM, fakes.CHEAP)
    assert atom.displacements.shape == (0, 1, 3)
    assert [s.key for s in sample_thermal(atom, 300.0, 1, 0)] == [HELIUM.key]
    hydrogen = harmonic_modes(fakes.HYDROGEN.structure(0, 0), fakes.CHEAP)
    assert hydrogen.displacements.shape == (1, 2, 3)


@pytest.mark.parametrize(("bend", "modes"), [(0.0, 4), (1e-6, 4), (2e-3, 4), (0.3, 3)])
def test_a_molecule_that_is_linear_but_for_noise_keeps_both_its_bends(bend: float, modes: int) -> None:
    positions = np.array([[bend, 0, 0], [0, 0, 2.2], [0, 0, -2.2]]) @ random_orthogonal(5, improper=False)
    structure = Structure(np.array([6, 8, 8]), positions)
    masses = atomic_masses[structure.atomic_numbers] * ELECTRON_MASS_PER_DALTON
    assert _internal_space(structure, masses).shape == (9, modes)
