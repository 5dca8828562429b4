"""Charge, spin, units and periodicity as people write them: understood, or refused in one line.

Each table holds what stands beside a water molecule, and what is read: (charge, unpaired
electrons), or the words of the refusal.
"""

from __future__ import annotations

import json
import sqlite3
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import ase.db
import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db.core import object_to_bytes
from pyscf import gto

from qcsurrogate.errors import StructureError
from qcsurrogate.metadata import comment_entries, molecular_state
from qcsurrogate.sources.readers import read_structures
from qcsurrogate.structures import Structure
from tests.structure_files.files import METHANE, write_tar

NEUTRAL, DICATION, DIANION, TRIPLET = (0, 0), (2, 0), (-2, 0), (0, 2)
WATER = Atoms("OHH", [[0, 0, 0.12], [0, 0.76, -0.47], [0, -0.76, -0.47]])
ROWS = ["O 0 0 0.12", "H 0 0.76 -0.47", "H 0 -0.76 -0.47"]
NOT_WHOLE = "expected an integer"

STATED: list[tuple[dict[str, Any], tuple[int, int] | str]] = [
    ({}, NEUTRAL),
    ({"energy": -76.3, "group": "a", "nuclear_charges": [8, 1, 1], "old_indices": 3}, NEUTRAL),
    ({"energy_unit": "hartree", "forces_units": "Ha/Bohr", "dipole": [0.0, 0.0, 0.7]}, NEUTRAL),
    ({"charge": 2}, DICATION),
    ({"CHARGE": "+2"}, DICATION),
    ({"charge": "2+"}, DICATION),
    ({"total_charge": "2-"}, DIANION),
    ({"charge": "\N{MINUS SIGN}2"}, DIANION),
    ({"charge": 2.0}, DICATION),
    ({"charge": "neutral"}, NEUTRAL),
    ({"q": -2}, DIANION),
    ({"Q": 2}, DICATION),
    ({"chrg": 2}, DICATION),
    ({"net-charge": 2, "molecular_charge": "2"}, DICATION),
    ({"REF_total_charge": 2}, DICATION),
    ({"charges": [-0.8, 0.4, 0.4]}, NEUTRAL),
    ({"charges": [-0.83, 0.4, 0.4], "charge": 0}, NEUTRAL),
    ({"charges": [0.6, 0.72, 0.66]}, DICATION),
    ({"charges": [0.6, 0.72, 0.66], "charge": 2}, DICATION),
    ({"charges": [0.0, 0.0, 0.0], "charge": 2}, DICATION),
    ({"initial_charges": [2, 0, 0]}, DICATION),
    ({"charge": [2, 0, 0]}, DICATION),
    ({"spin": 2}, TRIPLET),
    ({"uhf": 2}, TRIPLET),
    ({"Multiplicity": 3}, TRIPLET),
    ({"mult": "triplet"}, TRIPLET),
    ({"spin": "Triplet"}, TRIPLET),
    ({"charge": "triplet"}, f"charge=triplet; {NOT_WHOLE}"),
    ({"spin_multiplicity": 3, "nelec_diff": 2}, TRIPLET),
    ({"molecular_multiplicity": 3.0}, TRIPLET),
    ({"magmom": 1.98}, TRIPLET),
    ({"magmoms": [1.9, 0.04, 0.04]}, TRIPLET),
    ({"initial_magmoms": [-2, 0, 0]}, TRIPLET),
    ({"initial_magmoms": [1, -1, 0]}, NEUTRAL),
    ({"magmom": 0.0, "spin": 2}, TRIPLET),
    ({"total_spin": 0}, NEUTRAL),
    ({"total_spin": 1, "multiplicity": 3}, TRIPLET),
    ({"total_spin": 3, "spin": 2}, TRIPLET),
    ({"units": "Angstrom"}, NEUTRAL),
    ({"units": "eV, Angstrom"}, NEUTRAL),
    ({"length_unit": "Å", "unit": "kcal/mol"}, NEUTRAL),
    ({"distance_unit": "Ang"}, NEUTRAL),
    ({"pbc": [False, False, False], "cell": np.eye(3) * 9}, NEUTRAL),
    ({"periodic": "no", "cell": np.zeros((3, 3))}, NEUTRAL),
    ({"dimension": "3D", "ghosts": "no", "tags": [0, 1, 2]}, NEUTRAL),
    ({"charge": 0.5}, f"charge=0.5; {NOT_WHOLE}"),
    ({"charge": "two"}, f"charge=two; {NOT_WHOLE}"),
    ({"charge": "nan"}, f"charge=nan; {NOT_WHOLE}"),
    ({"charge": "1/2"}, f"charge=1/2; {NOT_WHOLE}"),
    ({"charge": [1, 1]}, f"charge=.*1.*1.*; {NOT_WHOLE}, or one number for each of 3 atoms"),
    ({"q": 0.4}, f"q=0.4; {NOT_WHOLE}"),
    ({"spin": -2}, "spin=-2; expected 0 or more"),
    ({"multiplicity": 0}, "multiplicity=0; expected 1 or more"),
    ({"spin": 1}, "10 electrons .* cannot have spin 1"),
    ({"charge": 2, "total_charge": 0}, "charge=2 and total_charge=0 contradict each other; expected one charge"),
    ({"spin": 2, "multiplicity": 1}, "spin=2 and multiplicity=1 contradict each other"),
    ({"charges": [-0.8, 0.4, 0.1]}, r"charges add up to -0\.3; expected an integer within 0\.05"),
    ({"charges": [0.6, 0.7, 0.7], "charge": 0}, "charge=0 .*contradict"),
    ({"charges": [0.6, 0.7, 0.3], "charge": 2}, r"charges add up to 1\.6; expected an integer within"),
    ({"initial_charges": [0.4, 0, 0]}, r"initial_charges add up to 0\.4; expected an integer"),
    ({"initial_charges": [1, 1]}, "initial_charges=.*; expected an integer, or one number for each of 3 atoms"),
    ({"magmoms": [1.2, 0.1, 0.1]}, r"magmoms add up to 1\.4; expected an integer within 0\.05"),
    ({"total_spin": 1}, r"total_spin=1 may mean S, 2S or 2S\+1; expected spin \(unpaired electrons\) or multiplicity"),
    ({"total_spin": 1, "spin": 0, "multiplicity": 3}, "spin=0 and multiplicity=3 contradict"),
    ({"total_spin": 2, "multiplicity": 1}, "total_spin=2 contradicts 0 unpaired electrons"),
    ({"units": "bohr"}, "units=bohr; expected Angstrom: convert the positions"),
    ({"unit": "a.u."}, r"unit=a\.u\.; expected Angstrom"),
    ({"units": "atomic units"}, "units=atomic units; expected Angstrom"),
    ({"length_unit": "nm"}, "length_unit=nm; expected Angstrom"),
    ({"distance_unit": "furlong"}, "distance_unit=furlong; expected Angstrom"),
    ({"_distance_unit": "Bohr"}, "_distance_unit=Bohr; expected Angstrom"),
    ({"distance_unit": 0.529}, r"distance_unit=0\.529; expected Angstrom"),
    ({"pbc": "yes"}, r"periodic \(pbc=yes\); expected a molecule: set pbc to False"),
    ({"pbc": [False, False, True]}, r"periodic \(pbc=.*\); expected a molecule"),
    ({"periodicity": 3}, "periodic"),
    ({"pbc": "xy"}, "pbc=xy; expected F or T"),
    ({"cell": np.eye(3) * 9}, r"periodic \(it has a cell and no pbc\)"),
    ({"lattice": [9, 9, 9]}, r"periodic \(it has a lattice and no pbc\)"),
    ({"dimension": "2D"}, "dimension=2D, a drawing; expected a geometry in three dimensions"),
    ({"ghost": [0, 1, 0]}, "marks ghost atoms; expected atoms only"),
    ({"tags": [0, 71, 0]}, "tag 71 marks a ghost atom; expected atoms only"),
]


def plain(value: object) -> str:
    return " ".join(map(str, np.ravel(value).tolist())) if isinstance(value, (list, np.ndarray)) else str(value)


def as_comment(entries: dict[str, Any], path: Path) -> Path:
    path = path / "a.xyz"
    path.write_text("\n".join(["3", " ".join(f'{k}="{plain(v)}"' for k, v in entries.items()), *ROWS, ""]))
    return path


def as_sdf_data(entries: dict[str, Any], path: Path) -> Path:
    path = path / "a.sdf"
    path.write_text(sdf(data="".join(f"> <{key}>\n{plain(value)}\n\n" for key, value in entries.items())))
    return path


def as_array_of_file(entries: dict[str, Any], path: Path) -> Path:
    np.savez(path / "a.npz", positions_angstrom=WATER.positions[None], atomic_numbers=WATER.numbers, **entries)
    return path / "a.npz"


def as_arrays_of_structures(entries: dict[str, Any], path: Path) -> Path:
    arrays = {key: np.array([value, value]) for key, value in entries.items()}
    positions = np.concatenate([WATER.positions, WATER.positions])
    np.savez(
        path / "a.npz",
        positions_angstrom=positions,
        atomic_numbers=np.tile(WATER.numbers, 2),
        num_atoms=np.array([3, 3]),
        **arrays,
    )
    return path / "a.npz"


def as_info(entries: dict[str, Any], path: Path) -> Atoms:
    return Atoms(WATER, info=entries)


def as_data_of_row(entries: dict[str, Any], path: Path) -> Path:
    return database(path, "UPDATE systems SET data = ?", object_to_bytes(entries))


def as_key_value_pairs(entries: dict[str, Any], path: Path) -> Path:
    """Written past ASE, which refuses lists and a few keys."""
    return database(path, "UPDATE systems SET key_value_pairs = ?", json.dumps(listed(entries)))


def as_metadata_of_database(entries: dict[str, Any], path: Path) -> Path:
    usual = {"title": "waters", "key_descriptions": {"charge": ["Charge", "total", "e"]}}
    return database(path, "INSERT INTO information VALUES ('metadata', ?)", json.dumps(usual | listed(entries)))


def listed(entries: dict[str, Any]) -> dict[str, Any]:
    return {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in entries.items()}


@cache
def one_water() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        ase.db.connect(f"{folder}/a.db").write(WATER)
        return Path(f"{folder}/a.db").read_bytes()


def database(path: Path, statement: str, value: object) -> Path:
    (path / "a.db").write_bytes(one_water())
    with sqlite3.connect(path / "a.db") as connection:
        connection.execute(statement, (value,))
    connection.close()
    return path / "a.db"


WAYS = [
    as_comment,
    as_sdf_data,
    as_array_of_file,
    as_arrays_of_structures,
    as_info,
    as_key_value_pairs,
    as_data_of_row,
    as_metadata_of_database,
]


def check(read: Callable[[], list[Structure]], expected: tuple[int, int] | str) -> None:
    if isinstance(expected, str):
        with pytest.raises(StructureError, match=expected) as caught:
            read()
        assert "\n" not in str(caught.value)
        return
    assert {(s.charge, s.spin) for s in read()} == {expected}


def read(source: Path | Atoms) -> list[Structure]:
    return [Structure.from_ase(source)] if isinstance(source, Atoms) else read_structures(source)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("entries", "expected"), STATED, ids=[str(entries)[:60] for entries, _ in STATED])
def test_one_rule_for_every_reader(tmp_path, way, entries, expected):
    check(lambda: read(way(entries, tmp_path)), expected)


PROSE: list[tuple[dict[str, Any], tuple[int, int] | str]] = [
    ({"comment": "charged residue, energy=-76 dipole=0.7"}, NEUTRAL),
    ({"title": "charge 2"}, DICATION),
    ({"description": "triplet"}, TRIPLET),
    ({"note": "geometry in bohr"}, "units=bohr; expected Angstrom"),
    ({"metadata": '{"charge": 2, "units": "angstrom"}'}, DICATION),
    ({"metadata": '{"units": "bohr"}'}, "units=bohr; expected Angstrom"),
]


@pytest.mark.parametrize("way", [as_info, as_key_value_pairs, as_data_of_row, as_sdf_data, as_arrays_of_structures])
@pytest.mark.parametrize(("entries", "expected"), PROSE)
def test_prose_about_a_structure(tmp_path, way, entries, expected):
    check(lambda: read(way(entries, tmp_path)), expected)


@pytest.mark.parametrize("way", [as_metadata_of_database, as_array_of_file])
def test_prose_about_a_whole_file_says_nothing_of_its_structures(tmp_path, way):
    entries = {"description": "molecules of charge -1, 0 and 1", "title": "waters"}
    if way is as_array_of_file:
        np.savez(
            tmp_path / "a.npz",
            positions_angstrom=np.stack([WATER.positions] * 2),
            atomic_numbers=WATER.numbers,
            **entries,
        )
        check(lambda: read_structures(tmp_path / "a.npz"), NEUTRAL)
    else:
        check(lambda: read(way(entries, tmp_path)), NEUTRAL)


@pytest.mark.parametrize("way", [as_info, as_key_value_pairs, as_data_of_row])
def test_a_dictionary_in_metadata(tmp_path, way):
    check(lambda: read(way({"metadata": {"charge": 2, "basis": "x"}}, tmp_path)), DICATION)
    check(lambda: read(way({"info": {"units": "bohr"}, "charge": 2}, tmp_path)), "units=bohr; expected Angstrom")


@pytest.mark.parametrize("way", [as_info, as_key_value_pairs, as_data_of_row, as_metadata_of_database])
@pytest.mark.parametrize("key", ["charge", "total_charge", "spin", "multiplicity", "units", "pbc"])
def test_none_is_no_answer(tmp_path, way, key):
    check(lambda: read(way({key: None}, tmp_path)), f"{key}=None; expected")
    if key != "units":  # by quantity
        check(lambda: read(way({key: {"a": 1}}, tmp_path)), f"{key}={{'a': 1}}; expected")


def test_true_is_no_charge(tmp_path):
    check(lambda: read(as_info({"charge": True}, tmp_path)), "charge=True; expected an integer")
    check(lambda: read(as_info({"charge": np.True_}, tmp_path)), "charge=True; expected an integer")
    check(
        lambda: read(as_array_of_file({"charge": np.array([True])}, tmp_path)),
        r"charge=\[?True\]?; expected an integer",
    )
    check(lambda: read(as_array_of_file({"charge": np.array(None)}, tmp_path)), "charge.npy holds Python objects")


COMMENTS: list[tuple[str, tuple[int, int] | str]] = [
    ("", NEUTRAL),
    ("random water geometry No. 1", NEUTRAL),
    (" Ord_Energy   -15.9416428    ", NEUTRAL),
    ("gdb 814 of QM9", NEUTRAL),
    ("charged residue 2, charge transfer complex 2", NEUTRAL),
    ("Q=3 run", NEUTRAL),
    ("energy=-76 dipole=0.7", NEUTRAL),
    ("energy: -5.070 gnorm: 0.0003 xtb: 6.4.1 (conda)", NEUTRAL),
    ("Coordinates from ORCA-job water E -76.323", NEUTRAL),
    ("i =       12, time =        6.000, E =       -17.1643", NEUTRAL),
    ("CSD_code = WIXKOE | q = 0 | S = 0 | Stoichiometry = H2O | MND = 2", NEUTRAL),
    ("E = -76.4 a.u., R = 1.81 bohr, dipole 0.7 e*bohr, alpha 9.6 bohr^3", NEUTRAL),
    ("R(bohr)=1.81, UV at 320 nm, r/bohr 1.8", NEUTRAL),
    ("Born-Oppenheimer, Bohr-like; PM3 geometry PM7; Au surface", NEUTRAL),
    ("au", "units=au; expected Angstrom"),
    ("spin density 0.5, singlet", NEUTRAL),
    ("partial charges: -0.8 0.4 0.4", NEUTRAL),
    ("multiplicity unknown, periodic table, unit cell of charge", NEUTRAL),
    ("2 3", (2, 2)),
    ("charge=2", DICATION),
    ("charge = +2", DICATION),
    ("charge=2, mult=3", (2, 2)),
    ("charge=2,mult=3", (2, 2)),
    ("charge=2|mult=3;", (2, 2)),
    ("q=2 run", DICATION),
    ("charge=2 charge=2", DICATION),
    ("charge=2 charge=0", "charge=2 and charge=0 contradict each other"),
    ("charge: 2", DICATION),
    ("charge 2", DICATION),
    ("water, Charge: +2, Multiplicity: 3", (2, 2)),
    ("total charge of -2", DIANION),
    ("the charge is 2+.", DICATION),
    ("a 2- charge", DIANION),
    ("charge minus 2", DIANION),
    ("Charge -2/Mult 3", (-2, 2)),
    ("charge - 2", "charge=- 2; expected an integer"),
    ("net_charge: \N{MINUS SIGN}2", DIANION),
    ('{"charge": 2, "multiplicity": 3}', (2, 2)),
    ("charge/mult 2 3", (2, 2)),
    ("charge and multiplicity: 2 3", (2, 2)),
    ("charge, spin multiplicity = 2, 3", (2, 2)),
    ("multiplicity, charge: 3, 2", (2, 2)),
    ("charge (e): 2", DICATION),
    ("charge state 2", DICATION),
    ("q: 2", DICATION),
    ("0, 3", TRIPLET),
    ("(charge=2) [mult=3]", (2, 2)),
    ("energy=-76 charge=", "charge=; expected an integer"),
    ("charge= mult=", "charge=mult=; expected an integer"),
    ("triplet water", TRIPLET),
    ("unpaired electrons = 2", TRIPLET),
    ("2S=2", TRIPLET),
    ("total spin = 2", "total_spin=2 may mean S, 2S"),
    ("spin multiplicity 3", TRIPLET),
    ("spin: 2", TRIPLET),
    ("2S+1=3", TRIPLET),
    ("2 unpaired electrons", TRIPLET),
    ("multiplicity=1 triplet geometry", "multiplicity=1 and multiplicity=triplet contradict"),
    ("charge=0 (charge 2)", "charge=0 and charge=2 contradict"),
    ("charge 0.5", "charge=0.5; expected an integer"),
    ("spin 1/2", "spin=1/2; expected an integer"),
    ("charge-2", "charge=charge-2; expected an integer"),
    ("total spin 1", "total_spin=1 may mean S, 2S"),
    ("in bohr", "units=bohr; expected Angstrom: convert"),
    ("units bohr", "units=bohr"),
    ("coordinates in a.u.", r"units=a\.u\.; expected Angstrom"),
    ("geometry (atomic units)", "units=atomic unit"),
    ("xyz/bohr", "units=bohr"),
    ("coords=bohr energy=Ha", "units=bohr"),
    ("distance unit = nm", "distance unit=nm"),
    ("[a.u.]", r"units=a\.u\."),
    ("positions in Angstrom, forces in hartree/bohr", NEUTRAL),
    ("positions are given in nm", "units=nm"),
    ("Water [Bohr]", "units=Bohr"),
    ("water in Angstrom", NEUTRAL),
    ("name=water in bohr", "units=bohr"),
    ("distance_unit=bohr", "distance_unit=bohr"),
    ("pbc=yes", r"periodic \(pbc=yes\)"),
    ("pbc: T T T", "periodic"),
    ("periodic 10 10 10", "periodic"),
    ("cell: 10 10 10", "periodic"),
    ("pbc=[F, F, T]", r"periodic \(pbc=F, F, T\)"),
    ("pbc=(False, False, False)", NEUTRAL),
    ("lattice=[[0, 0, 9], [9, 0, 0], [0, 9, 0]]", "periodic"),
    ('{"pbc": [true, true, true]}', "periodic"),
    ("2D structure", "dimension=2D, a drawing"),
    ("Dimension: 2D", "dimension=2D, a drawing"),
    ("dimension 3D, dimensions of a box", NEUTRAL),
    ("SO4 2-, a dianion of sulfur", NEUTRAL),  # formulae and names of ions are not read
    ("lattice constants of 9 crystals, 2D-NMR", NEUTRAL),
    ('lattice="9 0 0 0 9 0 0 0 9"', r"line 2: the structure is periodic \(it has a lattice and no pbc\)"),
    ("cell={9 9 9}", "periodic"),
    ('Lattice="9 0 0 0 9 0 0 0 9" PBC="F F F"', NEUTRAL),
    ('title="charge 2"', DICATION),
    ("comment=comment=comment=charge=2", NEUTRAL),
]


@pytest.mark.parametrize(("comment", "expected"), COMMENTS)
def test_comments_of_xyz(tmp_path, comment, expected):
    (tmp_path / "a.xyz").write_text("\n".join(["3", comment, *ROWS, ""]), encoding="utf-8")
    check(lambda: read_structures(tmp_path / "a.xyz"), expected)


@pytest.mark.parametrize(
    ("comment", "expected"),
    [c for c in COMMENTS if c[0] in {"Q=3 run", "charge: 2", "2 3", "in bohr", "pbc=yes", "charge 0.5"}],
)
def test_the_rule_holds_in_archives_and_folders(tmp_path, comment, expected):
    member = "\n".join(["3", comment, *ROWS, ""])
    for ending in ("tar", "tar.gz"):
        mode = "w:gz" if ending == "tar.gz" else "w"
        path = write_tar(tmp_path / f"a.{ending}", {"m.xyz": member.encode()}, mode)
        check(lambda path=path: read_structures(path), expected)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "m.xyz").write_text(member)
    check(lambda: read_structures(tmp_path / "folder"), expected)


def test_refusals_name_the_file_in_an_archive(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"m.xyz": "\n".join(["3", "", *ROWS, "3", "units=bohr", *ROWS]).encode()}, "w")
    with pytest.raises(StructureError, match=r"a\.tar/m\.xyz', line 7: units=bohr; expected Angstrom: convert the"):
        read_structures(path)


def test_archives_that_are_not_read_are_refused(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"PK")
    with pytest.raises(StructureError, match=r"expected the ending .*, got '\.zip'"):
        read_structures(tmp_path / "a.zip")


@pytest.mark.parametrize(
    ("column", "values", "comment", "expected"),
    [
        ("initial_charges:R:1", "2 0 0", "", DICATION),
        ("charge:R:1", "2 0 0", "", DICATION),
        ("q:R:1", "2 0 0", "", DICATION),
        ("charges:R:1", "-0.8 0.4 0.41", "", NEUTRAL),
        ("charges:R:1", "-0.8 0.4 0.41", "charge=0", NEUTRAL),
        ("charges:R:1", "-0.8 0.4 0.41", "charge=2", "contradict"),
        ("charges:R:1", "-0.8 0.4 0.1", "charge=0", r"charges add up to -0\.3"),
        ("charges:R:1", "0 0 0", "charge=2", DICATION),
        ("initial_magmoms:R:1", "1 1 0", "", TRIPLET),
        ("magmoms:R:1", "1.98 0 0.01", "multiplicity=3", TRIPLET),
        ("magmoms:R:1", "1.98 0 0.01", "multiplicity=1", "contradict"),
        ("magmoms:R:1", "x 0 0", "", "magmoms add up to nan"),
        ("tags:I:1", "0 71 0", "", "tag 71 marks a ghost atom"),
        ("ghost:L:1", "F T F", "", "marks ghost atoms"),
        ("mulliken:R:1", "0.5 0 0", "", NEUTRAL),
    ],
)
def test_columns_of_extended_xyz(tmp_path, column, values, comment, expected):
    rows = [f"{row} {value}" for row, value in zip(ROWS, values.split(), strict=True)]
    (tmp_path / "a.xyz").write_text("\n".join(["3", f"Properties=species:S:1:pos:R:3:{column} {comment}", *rows, ""]))
    check(lambda: read_structures(tmp_path / "a.xyz"), expected)


def test_columns_in_lower_case(tmp_path):
    rows = "O 9 9 9 0 0 0 2\nH 9 9 9 0 0 0.96 0\nH 9 9 9 0 0.93 -0.24 0\n"
    (tmp_path / "a.xyz").write_text(f"3\nproperties=species:S:1:forces:R:3:pos:R:3:charge:R:1\n{rows}")
    (water,) = read_structures(tmp_path / "a.xyz")
    assert (water.charge, water.positions[0].tolist()) == (2, [0, 0, 0])


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ({"energy": -76.0, "charges": np.array([-0.8, 0.4, 0.4]), "magmom": 0.0}, NEUTRAL),
        ({"charges": np.array([0.6, 0.7, 0.7])}, DICATION),
        ({"magmom": 2.0, "magmoms": np.array([2.0, 0, 0])}, TRIPLET),
        ({"charges": np.array([-0.8, 0.4, 0.1])}, "add up to"),
    ],
)
def test_results_of_a_calculator_in_atoms_databases_and_files(tmp_path, results, expected):
    atoms = WATER.copy()
    atoms.calc = SinglePointCalculator(atoms, **results)
    check(lambda: read(atoms), expected)
    ase.io.write(tmp_path / "a.extxyz", atoms)
    check(lambda: read_structures(tmp_path / "a.extxyz"), expected)
    ase.db.connect(tmp_path / "a.db").write(atoms)
    check(lambda: read_structures(tmp_path / "a.db"), expected)


def test_parameters_of_a_calculator_count(tmp_path):
    atoms = WATER.copy()
    atoms.calc = SinglePointCalculator(atoms)
    atoms.calc.parameters = {"charge": 2, "multiplicity": None, "spin": "collinear", "label": "x"}
    assert Structure.from_ase(atoms).charge == 2
    ase.db.connect(tmp_path / "a.db").write(atoms)
    assert read_structures(tmp_path / "a.db")[0].charge == 2
    atoms.info["charge"] = 0
    with pytest.raises(StructureError, match="charge=0 and charge=2 contradict"):
        Structure.from_ase(atoms)


def test_words_that_ase_reads_as_flags():
    for words, expected in ((("in", "bohr"), "units=bohr"), (("charge", "2"), "charge=True"), (("triplet",), TRIPLET)):
        check(lambda words=words: read(Atoms(WATER, info=dict.fromkeys(words, True))), expected)


def test_units_by_quantity(tmp_path):
    units = {"energy": "Ha", "forces": "Ha/Bohr", "positions": "Angstrom"}
    for way in (as_info, as_data_of_row, as_metadata_of_database):
        folder = tmp_path / way.__name__
        folder.mkdir()
        check(lambda way=way, folder=folder: read(way({"units": units}, folder)), NEUTRAL)
        wrong = units | {"positions": "Bohr"}
        check(
            lambda way=way, folder=folder, wrong=wrong: read(way({"units": wrong}, folder)),
            "units of positions=Bohr; expected Angstrom",
        )


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"charge": [0, 2]}, [NEUTRAL, DICATION]),
        ({"total_charge": [[0.0], [2.0]]}, [NEUTRAL, DICATION]),
        ({"charge": 2}, [DICATION, DICATION]),
        ({"Q": [2]}, [DICATION, DICATION]),
        ({"initial_charges": [2, 0, 0]}, [DICATION, DICATION]),
        ({"charges": [[-0.8, 0.4, 0.4], [0.6, 0.7, 0.7]]}, [NEUTRAL, DICATION]),
        ({"charges": [-0.8, 0.4, 0.4, 0.6, 0.7, 0.7]}, [NEUTRAL, DICATION]),
        ({"multiplicity": [1, 3], "charge": [2, 0]}, [DICATION, TRIPLET]),
        ({"charge": [0, 2], "total_charge": [0, 0]}, "a_1': charge=2 and total_charge=0 contradict"),
        ({"charge": [0, 2, 0, 1]}, "a_0': charge=.*; expected an integer, or one number for each of 3 atoms"),
        ({"charge": [0, 0.5]}, r"a_1': charge=0\.5; expected an integer"),
        ({"cell": [[9, 0, 0], [0, 9, 0], [0, 0, 9]]}, "periodic"),
        ({"pbc": [[False] * 3, [True] * 3]}, "a_1': the structure is periodic"),
        ({"units": ["angstrom", "bohr"]}, "a_1': units=bohr"),
    ],
)
def test_arrays_of_npz(tmp_path, arrays, expected):
    path = tmp_path / "a.npz"
    arrays = {key: np.array(value) for key, value in arrays.items()}
    np.savez(path, positions_angstrom=np.stack([WATER.positions] * 2), atomic_numbers=WATER.numbers, **arrays)
    if isinstance(expected, str):
        check(lambda: read_structures(path), expected)
    else:
        assert [(s.charge, s.spin) for s in read_structures(path)] == expected


def test_an_array_for_atoms_or_structures_is_refused_where_both_fit(tmp_path):
    three = np.stack([WATER.positions] * 3)
    np.savez(
        tmp_path / "a.npz", positions_angstrom=three, atomic_numbers=WATER.numbers, initial_charges=np.array([2, 0, 0])
    )
    with pytest.raises(
        StructureError, match=r"initial_charges has shape \(3,\), for 3 structures or 3 atoms; expected"
    ):
        read_structures(tmp_path / "a.npz")


def sdf(name="a", program="", comment="", symbols="OHH", codes="000", properties="M  END\n", data="") -> str:
    atoms = "".join(
        f"{x:10.4f}{y:10.4f}{z:10.4f} {symbol:<3} 0  {code}\n"
        for (x, y, z), symbol, code in zip(WATER.positions, symbols, codes, strict=True)
    )
    head = f"{name}\n{program}\n{comment}\n  3  2  0  0  0  0  0  0  0  0999 V2000\n"
    return f"{head}{atoms}  1  2  1  0\n  1  3  1  0\n{properties}{data}$$$$\n"


SDF: list[tuple[str, tuple[int, int] | str]] = [
    (sdf(), NEUTRAL),
    (sdf() + sdf(), NEUTRAL),
    (sdf().replace("$$$$\n", ""), NEUTRAL),
    (sdf(properties="").replace("  2  0  0", "  2  0  0"), NEUTRAL),
    (sdf(codes="200"), DICATION),
    (sdf(codes="177"), "charge"),
    (sdf(codes="440"), TRIPLET),
    (sdf(codes="400"), "10 electrons .* cannot have spin 1"),
    (sdf(codes="900"), "where an atom stands"),
    (sdf(properties="M  CHG  1   1   2\nM  END\n"), DICATION),
    (sdf(properties="M  CHG  2   1   1   2   1\nM  END\n"), DICATION),
    (sdf(properties="M  CHG  2   1   1\nM  END\n"), "M CHG 2 1 1'; expected a number of pairs, and integers"),
    (sdf(properties="M  CHG  1   1   x\nM  END\n"), "expected a number of pairs, and integers"),
    (sdf(properties="M  RAD  1   1   3\nM  END\n"), TRIPLET),
    (sdf(properties="M  RAD  2   1   2   2   2\nM  END\n"), TRIPLET),
    (sdf(properties="M  RAD  1   1   1\nM  END\n"), NEUTRAL),
    (sdf(properties="M  RAD  1   1   7\nM  END\n"), "expected a number of pairs, and integers"),
    (sdf(codes="200", properties="M  RAD  1   1   3\nM  END\n"), TRIPLET),
    (sdf(data="> <charge>\n2\n\n"), DICATION),
    (sdf(data=">  <PUBCHEM_TOTAL_CHARGE>  (1)\n2\n\n> <ID>\n9\n\n"), DICATION),
    (sdf(data="> <spin_multiplicity>\n3\n\n", codes="200"), (2, 2)),
    (sdf(data="> <multiplicity>\n3\n\n", properties="M  CHG  1   1   2\nM  END\n"), (2, 2)),
    (sdf(data="> <charge>\n0\n\n", codes="200"), "charge=2 and charge=0 contradict"),
    (sdf(data="> <charge>\n0\n\n", properties="M  CHG  1   1   2\nM  END\n"), "M  CHG=2 and charge=0 contradict"),
    (sdf(data="> <charge>\n0.5\n\n"), r"charge=0\.5; expected an integer"),
    (sdf(data="> <PARTIAL>\n3\n1 -0.8\n\n> <ENERGY>\n-76\n\n"), NEUTRAL),
    (sdf(data="> <charges>\n-0.8\n0.4\n0.4\n\n"), NEUTRAL),
    (sdf(data="> <units>\nbohr\n\n"), "line 1, molecule 'a': units=bohr; expected Angstrom"),
    (sdf(comment="charge 2"), DICATION),
    (sdf(name="water charge=2"), DICATION),
    (sdf(name="2244"), NEUTRAL),
    (sdf(program="     RDKit          2D"), "marked 2D, a drawing"),
    (sdf(program="  -OEChem-09072315382D"), "marked 2D, a drawing"),
    (sdf(program="Mrv2014 01012020 2D"), "marked 2D, a drawing"),
    (sdf(program="     RDKit          3D"), NEUTRAL),
    (sdf().replace("$$$$\n", "") + sdf(), "found 'a' after the end of a molecule; expected '\\$\\$\\$\\$' before it"),
    (sdf(data="> <ID>\n9\n\n").replace("$$$$\n", "") + sdf(), "found 'a' after the end of a molecule"),
    (sdf(data="> <ID>\n9\n").replace("$$$$\n", "") + sdf(program="p", comment="c"), "after the end of a molecule"),
    (sdf(properties="").replace("$$$$\n", "") + sdf(), "V2000' after the end of a molecule"),
    (sdf(symbols=["Du", "H", "H"]), "line 5: 'Du' is a dummy or ghost atom; expected atoms only"),
]


@pytest.mark.parametrize(("text", "expected"), SDF)
def test_sdf(tmp_path, text, expected):
    (tmp_path / "a.sdf").write_text(text)
    check(lambda: read_structures(tmp_path / "a.sdf"), expected)
    check(lambda: read_structures(write_tar(tmp_path / "a.tar", {"a.sdf": text.encode()}, "w")), expected)


def test_what_says_nothing_is_as_the_caller_says(tmp_path):
    (tmp_path / "a.sdf").write_text(sdf())
    (tmp_path / "a.xyz").write_text("\n".join(["3", "", *ROWS, ""]))
    as_array_of_file({}, tmp_path)
    as_data_of_row({}, tmp_path)
    for ending in ("sdf", "xyz", "npz", "db"):
        (water,) = read_structures(tmp_path / f"a.{ending}", charge=-2, spin=2)
        assert (water.charge, water.spin) == (-2, 2)
    assert Structure.from_ase(molecule("H2O"), 1, 1).charge == 1
    for bad in (None, True, 0.5):
        with pytest.raises(StructureError, match=f"the arguments: charge={bad}; expected an integer"):
            read_structures(tmp_path / "a.xyz", charge=bad)


@pytest.mark.parametrize(
    "symbol", ["X", "xx", "Q", "Bq", "@H", "H:", "H :", "Gh(O)", "gh", "GHOST-H", "BqH", "H-Bq", "0"]
)
def test_ghosts_are_called_so(tmp_path, symbol):
    path = tmp_path / "dummy.xyz"
    path.write_text(f"2\n\nHe 0 0 0\n{symbol} 0 0 1\n")
    with pytest.raises(StructureError, match=r"line 4: '.*' is a dummy or ghost atom; expected atoms only: remove it"):
        read_structures(path)


def test_ghosts_in_atoms_arrays_and_databases(tmp_path):
    ghost = Atoms("HeX", [[0, 0, 0], [0, 0, 2]])
    with pytest.raises(StructureError, match="0 is no atomic number but a ghost or dummy atom; expected 1 to 118"):
        Structure.from_ase(ghost)
    np.savez(tmp_path / "a.npz", positions_angstrom=ghost.positions[None], atomic_numbers=ghost.numbers)
    with pytest.raises(StructureError, match=r"a\.npz': structure 'a_0': 0 is no atomic number but a ghost or dummy"):
        read_structures(tmp_path / "a.npz")
    ase.db.connect(tmp_path / "a.db").write(ghost)
    with pytest.raises(StructureError, match=r"row 1: expected atomic numbers from 1 to 118 \(0 is a ghost or dummy"):
        read_structures(tmp_path / "a.db")
    tagged = Atoms(WATER, tags=[0, 0, 71])
    with pytest.raises(StructureError, match="tag 71 marks a ghost atom"):
        Structure.from_ase(tagged)
    ase.db.connect(tmp_path / "b.db").write(tagged)
    with pytest.raises(StructureError, match="row 1: tag 71 marks a ghost atom"):
        read_structures(tmp_path / "b.db")


def test_data_of_databases(tmp_path):
    statement = "UPDATE systems SET data = ?"
    for good in (
        object_to_bytes({"charge": np.array([2]), "forces": np.zeros((3, 3))}),
        '{"charge": {"__ndarray__": [[1], "float64", [2.0]]}}',  # as older versions of ASE write it
    ):
        assert read_structures(database(tmp_path, statement, good))[0].charge == 2
    for bad in (b"\0", b"\xff" * 8 + b"{}", "[", "[1]", 7, "[" * 100_000):
        with pytest.raises(StructureError, match="row 1: its data are no JSON as ASE writes it"):
            read_structures(database(tmp_path, statement, bad))
    for array in ('[[9],"float64",0]', '[[1],"object",0]', '[[1],"nonsense",0]', '[[-1],"float64",0]', "3"):
        text = '{"charge":{"__ndarray__":' + array + "}}"
        with pytest.raises(StructureError, match=r"row 1: (its data are no JSON|charge=)"):
            read_structures(database(tmp_path, statement, (8).to_bytes(8, "little") + text.encode()))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"charge": None}, "structure 'x': charge=None; expected an integer"),
        ({"charge": True}, "charge=True; expected an integer"),
        ({"charge": 0.5}, r"charge=0\.5; expected an integer"),
        ({"spin": None}, "spin=None; expected an integer"),
        ({"charge": np.array([0])}, r"charge=\[0\]; expected an integer"),
        ({"atomic_numbers": [8.5]}, r"the atomic numbers are no integers: \[8\.5\]"),
        ({"atomic_numbers": [np.inf]}, "the atomic numbers are no integers"),
        ({"atomic_numbers": [np.nan]}, "the atomic numbers are no integers"),
        ({"atomic_numbers": ["O"]}, "the atomic numbers are no integers"),
        ({"atomic_numbers": [None]}, "the atomic numbers are no integers"),
        ({"atomic_numbers": [True]}, "the atomic numbers are no integers"),
        ({"positions": [["x", 0, 0]]}, "the positions are no numbers"),
        ({"positions": [[0, 0, 0], [1]]}, "the positions are no numbers"),
        ({"positions": [[0, 0, 1j]]}, "the positions are no numbers"),
    ],
)
def test_a_structure_takes_whole_numbers_only(arguments, words):
    with pytest.raises(StructureError, match=words):
        Structure(**{"atomic_numbers": [8], "positions": [[0, 0, 0]], "name": "x"} | arguments)


def test_a_structure_keeps_plain_integers():
    oxide = Structure(np.array([8.0]), np.zeros((1, 3)), np.int8(-2), np.float64(0))
    assert (type(oxide.charge), type(oxide.spin), oxide.atomic_numbers.dtype) == (int, int, np.int64)


def test_a_periodic_cell_is_no_molecule():
    from pyscf.pbc import gto as periodic

    cell = periodic.M(atom="He 0 0 0", a=np.eye(3) * 5, basis="sto-3g", verbose=0)
    with pytest.raises(StructureError, match="a PySCF Cell is periodic; expected a molecule"):
        Structure.from_pyscf(cell)


def test_a_mole_with_a_core_potential_or_changed_nuclei_is_refused():
    with pytest.raises(StructureError, match="core potential or another nuclear charge on I0; expected all electrons"):
        Structure.from_pyscf(gto.M(atom="I 0 0 0; H 0 0 1.6", basis="def2-svp", ecp="def2-svp", verbose=0))
    changed = gto.M(atom="He 0 0 0", basis="sto-3g", verbose=0)
    changed._atm[0, 0] = 1
    with pytest.raises(StructureError, match="another nuclear charge on He0"):
        Structure.from_pyscf(changed)


def test_moments_of_a_mole_count():
    oxygen = gto.M(atom="O 0 0 0; O 0 0 1.2", basis="sto-3g", verbose=0, spin=2)
    assert Structure.from_pyscf(oxygen).spin == 2
    oxygen.magmom = np.array([1, 1])
    assert Structure.from_pyscf(oxygen).spin == 2
    oxygen.magmom = [1, -1]
    with pytest.raises(StructureError, match="a PySCF Mole: spin=2 and the sum 0 of magmom contradict each other"):
        Structure.from_pyscf(oxygen)


def test_qm9_and_rmd17_are_read_as_they_are(tmp_path):
    (tmp_path / "m.xyz").write_text(METHANE)
    assert (read_structures(tmp_path / "m.xyz")[0].charge, read_structures(tmp_path / "m.xyz")[0].name) == (0, "gdb_1")
    extra = {
        "nuclear_charges": WATER.numbers,
        "coords": WATER.positions[None],
        "energies": np.zeros(1),
        "forces": np.zeros((1, 3, 3)),
        "old_indices": np.zeros(1, int),
        "old_energies": np.zeros(1),
    }
    check(lambda: read(as_array_of_file(extra, tmp_path)), NEUTRAL)


def test_long_comments_take_linear_time():
    for comment in ("coord" * 40_000, "charge," * 30_000, "charge,mult" * 20_000, "spin 1 " * 30_000):
        start = time.monotonic()
        comment_entries(comment)
        assert time.monotonic() - start < 2.0
    with pytest.raises(StructureError, match="here: units=bohr"):
        molecular_state(comment_entries("unit " * 40_000 + "bohr"), "here")
