"""Charge, spin and units as people write them: understood, or refused in one line."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import molecule

from qcsurrogate.errors import StructureError
from qcsurrogate.metadata import molecular_state
from qcsurrogate.sources.readers import read_structures
from qcsurrogate.structures import Structure


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ({}, (None, None)),
        ({"energy": "-76.3", "q": "0.4"}, (None, None)),
        ({"charge": "+1"}, (1, None)),
        ({"total_charge": -2}, (-2, None)),
        ({"Net-Charge": "1.0", "charge": np.int64(1)}, (1, None)),
        ({"spin": 2}, (None, 2)),
        ({"Multiplicity": "3"}, (None, 2)),
        ({"spin_multiplicity": 2, "nelec_diff": 1}, (None, 1)),
        ({"units": "Angstrom", "charge": 0}, (0, None)),
    ],
)
def test_usual_spellings_are_understood(entries, expected):
    assert molecular_state(entries, "here") == expected


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"charge": 0.5}, "here: charge=0.5; expected an integer"),
        ({"charge": None}, "here: charge=None; expected an integer"),
        ({"charge": True}, "here: charge=True; expected an integer"),
        ({"charge": float("nan")}, "here: charge=nan; expected an integer"),
        ({"charge": "two"}, "here: charge=two; expected an integer"),
        ({"charge": [1]}, "here: charge=.*; expected an integer"),
        ({"spin": -1}, "here: spin=-1; expected 0 or more"),
        ({"multiplicity": 0}, "here: multiplicity=0; expected 1 or more"),
        ({"charge": 1, "total_charge": 2}, "charge=1 and total_charge=2 contradict each other"),
        ({"spin": 1, "multiplicity": 1}, "spin=1 and multiplicity=1 contradict each other"),
        ({"units": "bohr"}, "here: units=bohr; expected Angstrom: convert the positions"),
    ],
)
def test_what_is_recognised_but_not_understood_is_refused(entries, words):
    with pytest.raises(StructureError, match=words):
        molecular_state(entries, "here")


def test_an_xyz_comment_says_charge_and_spin(tmp_path):
    path = tmp_path / "ions.xyz"
    path.write_text(
        "2\ntotal_charge=-1 name=hydroxide\nO 0 0 0\nH 0 0 0.97\n2\n0 3\nO 0 0 0\nO 0 0 1.21\n", encoding="utf-8-sig"
    )
    hydroxide, oxygen = read_structures(path)
    assert (hydroxide.charge, hydroxide.spin, hydroxide.name) == (-1, 0, "hydroxide")
    assert (oxygen.charge, oxygen.spin) == (0, 2)


@pytest.mark.parametrize("symbol", ["X", "xx", "Q", "Bq"])
def test_dummy_atoms_are_called_so(tmp_path, symbol):
    path = tmp_path / "dummy.xyz"
    path.write_text(f"2\n\nHe 0 0 0\n{symbol} 0 0 1\n")
    with pytest.raises(StructureError, match=f"line 4: '{symbol}' is a dummy or ghost atom; expected atoms only"):
        read_structures(path)


def test_a_drawing_is_no_geometry(tmp_path):
    path = tmp_path / "drawn.sdf"
    atoms = "    0.0000    0.0000    0.0000 C   0  0\n    1.2990    0.7500    0.0000 O   0  0\n"
    head = "drawn\n     RDKit          {}\n\n  2  1  0  0  0  0  0  0  0  0999 V2000\n"
    path.write_text(head.format("2D") + atoms + "  1  2  2  0\nM  END\n$$$$\n")
    with pytest.raises(StructureError, match="molecule 'drawn' is marked 2D, a drawing; expected a geometry in three"):
        read_structures(path)
    path.write_text(head.format("3D") + atoms + "  1  2  2  0\nM  END\n$$$$\n")
    assert read_structures(path)[0].formula == "CO"


def test_atoms_say_charge_and_spin_where_ase_looks():
    dication = molecule("H2O")
    dication.set_initial_charges([2, 0, 0])
    assert Structure.from_ase(dication).charge == 2
    triplet = molecule("H2O")
    triplet.set_initial_magnetic_moments([2, 0, 0])
    assert Structure.from_ase(triplet).spin == 2
    assert Structure.from_ase(molecule("H2O"), 1, 1).charge == 1


@pytest.mark.parametrize("value", [0.5, None])
def test_atoms_with_a_charge_of_nonsense_are_refused(value):
    atoms = molecule("H2O")
    atoms.info["charge"] = value
    with pytest.raises(StructureError, match=f"structure 'H2O': charge={value}; expected an integer"):
        Structure.from_ase(atoms)


def test_atoms_that_contradict_themselves_are_refused():
    atoms = molecule("H2O")
    atoms.info["charge"] = 0
    atoms.set_initial_charges([1, 0, 0])
    with pytest.raises(StructureError, match="charge=0 and the sum of initial_charges contradict each other"):
        Structure.from_ase(atoms)
    atoms.set_initial_charges([0.4, 0, 0])
    with pytest.raises(StructureError, match=r"initial_charges add up to 0\.4; expected an integer"):
        Structure.from_ase(atoms)


def test_a_periodic_cell_is_no_molecule():
    from pyscf.pbc import gto

    cell = gto.M(atom="He 0 0 0", a=np.eye(3) * 5, basis="sto-3g", verbose=0)
    with pytest.raises(StructureError, match="a PySCF Cell is periodic; expected a molecule"):
        Structure.from_pyscf(cell)
