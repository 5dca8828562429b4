"""QM9 in each of the forms it is published in: the same numbers, in one unit each."""

from __future__ import annotations

import bz2
from pathlib import Path

import numpy as np
import pytest

from qcsurrogate.errors import SpecError, StructureError
from qcsurrogate.tables import qm9
from qcsurrogate.tables.opening import open_set
from qcsurrogate.tables.sets import find_targets
from qcsurrogate.tables.spec import TableSpec
from qcsurrogate.tables.table import Table, open_table
from qcsurrogate.units import ANGSTROM_PER_BOHR, DEBYE_PER_ATOMIC_UNIT, KCAL_PER_MOL_PER_HARTREE
from tests.tables import files

PYG_ORDER = [
    *("mu", "alpha", "homo", "lumo", "gap", "r2", "zpve", "U0", "U", "H", "G", "Cv"),
    *("U0_atom", "U_atom", "H_atom", "G_atom", "A", "B", "C"),
]
"""Of torch_geometric.datasets.QM9."""


def archive(folder: Path) -> Path:
    return files.write_archive(folder / "dsgdb9nsd.xyz.tar.bz2")


def xyz_folder(folder: Path) -> Path:
    for index, text in files.FILES.items():
        (folder / f"dsgdb9nsd_{index:06d}.xyz").write_text(text)
    return folder


def pyg_folder(folder: Path) -> Path:
    return files.write_pyg(folder / "raw")


def npz(folder: Path) -> Path:
    return files.write_npz(folder / "qm9.npz")


FORMS = [archive, xyz_folder, pyg_folder, npz]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_table(form, tmp_path):
    table = open_set(form(tmp_path))
    assert isinstance(table, Table)
    assert list(table.targets) == PYG_ORDER
    assert sorted(table.keys()) == sorted(f"gdb_{i}" for i in files.FILES)
    water = table.structure("gdb_3")
    assert water.atomic_numbers.tolist() == [8, 1, 1]
    assert water.positions[1, 2] * ANGSTROM_PER_BOHR == pytest.approx(1.5346341e-3, abs=6e-5)  # four digits in SDF
    values = {name: float(own[0]) for name, own in table.labels(PYG_ORDER, ["gdb_3"]).items()}
    assert values["mu"] == pytest.approx(1.8511 / DEBYE_PER_ATOMIC_UNIT, rel=1e-12)
    assert values["homo"] == -0.2928
    assert values["A"] == 799.58812
    assert values["Cv"] == 6.002
    assert values["r2"] == 19.0002
    atomisation = -76.404702 + 75.064579 + 2 * 0.500273
    assert values["U0_atom"] == pytest.approx(atomisation, abs=1e-9)
    assert atomisation * KCAL_PER_MOL_PER_HARTREE == pytest.approx(-213.087624, abs=2e-3)  # u0_atom as published
    assert (table.spec.level, table.spec.licence) == ("B3LYP/6-31G(2df,p)", "CC0-1.0")
    assert table.spec.method is None


def test_atoms_are_taken_away_from_energies_and_heat_capacity_alone():
    water = np.array([8, 1, 1])
    with_atoms = {name for name, target in qm9.TARGETS.items() if target.atom_references}
    assert with_atoms == {"U0", "U", "H", "G", "Cv"}
    assert qm9.TARGETS["U0"].of_atoms(water) == pytest.approx(-75.064579 - 2 * 0.500273, abs=1e-12)
    assert qm9.TARGETS["Cv"].of_atoms(water) == pytest.approx(3 * 2.981)
    assert qm9.TARGETS["gap"].of_atoms(water) == 0.0
    assert qm9.TARGETS["mu"].norm_only
    assert qm9.TARGETS["mu"].rank == "vector"


def test_what_ships_agrees_with_the_published_atoms():
    table = open_set("qm9_properties")
    assert len(table) == 2114
    assert max((s.atomic_numbers > 1).sum() for s in table.structures) == 8
    for name in ("U0", "U", "H", "G"):
        energy, atomisation = (table.columns[n] for n in (name, f"{name}_atom"))
        apart = np.array([table.targets[name].of_atoms(s.atomic_numbers) for s in table.structures])
        assert np.abs(energy - apart - atomisation).max() < 3e-6  # Hartree
    gap = table.columns["lumo"] - table.columns["homo"]
    assert np.abs(gap - table.columns["gap"]).max() < 2e-4  # printed to four digits
    assert np.abs(table.columns["H"] - table.columns["U"] - 0.000944).max() < 2e-6  # RT at 298.15 K


def test_the_uncharacterised_are_left_out_where_their_list_lies(tmp_path):
    path = archive(tmp_path)
    assert len(open_table(path)) == 5
    (tmp_path / "uncharacterized.txt").write_text(files.UNCHARACTERISED)
    table = open_table(path)
    assert sorted(table.keys()) == ["gdb_1", "gdb_2", "gdb_22", "gdb_3"]
    assert any("left out: uncharacterised: 1" in note for note in table.notes)
    named = {"kind": "file", "path": str(path), "leave_out": str(tmp_path / "uncharacterized.txt")}
    assert sorted(open_table(TableSpec(structures=named)).keys()) == sorted(table.keys())


def test_a_whole_qm9_without_the_list_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(qm9, "N_MOLECULES", 5)
    (note,) = open_table(archive(tmp_path)).notes
    assert "3,054 molecules of QM9 that its authors list as uncharacterised are not left out" in note


def test_an_archive_that_ends_early(tmp_path):
    path = archive(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StructureError, match=r"cannot read the archive '.*bz2'") as caught:
        open_table(path)
    assert len(str(caught.value).splitlines()) == 1
    path.write_bytes(bz2.compress(bz2.decompress(whole)[:700]))
    with pytest.raises(StructureError, match="it ends early; is it whole"):
        open_table(path)


def test_a_comment_line_that_is_no_number(tmp_path):
    broken = files.FILES | {2: files.AMMONIA.replace("-0.257", "-0.2.57")}
    path = files.write_archive(tmp_path / "dsgdb9nsd.xyz.tar.bz2", broken)
    with pytest.raises(StructureError, match=r"dsgdb9nsd_000002.xyz', line 2: found 'gdb 2.*expected 'gdb', an index"):
        open_table(path)


def test_a_molecule_that_is_there_twice(tmp_path):
    path = files.write_npz(tmp_path / "a.npz", gdb_index=np.array([1, 2, 3, 21, 3]))
    with pytest.raises(StructureError, match="the molecule 'gdb_3' is there twice; expected every name once"):
        open_table(path)
    again = files.FILES | {77: files.WATER.replace("gdb 3\t", "gdb 77\t")}
    path = files.write_archive(tmp_path / "b.tar.bz2", again)
    with pytest.raises(StructureError, match="'gdb_77' has the same atoms at the same places as 'gdb_3'"):
        open_table(path)
    source = {"kind": "file", "path": str(path)}
    assert len(open_table(TableSpec(structures=source, duplicates="leave_out"))) == 5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda csv: csv.replace("gdb_2,", "gdb_7,"), r"line 3, is about 'gdb_7' where '.*gdb9\.sdf' has 'gdb_2'"),
        (lambda csv: csv[: csv.index("gdb_21")], r"ends after 3 of 5 molecules"),
        (lambda csv: csv.replace(",293.60975,", ",,"), r"line 3 \('gdb_2'\): expected 19 numbers"),
        (lambda csv: csv.replace("mol_id,A,B", "mol_id,B,A"), r"begins with 'mol_id,B,A.*; expected 'mol_id,A,B,C,mu"),
        (lambda csv: csv + "gdb_99,1\n", r"line 7, is about 'gdb_99' where .* has the end of the file"),
    ],
)
def test_columns_that_do_not_fit_the_structures(change, words, tmp_path):
    folder = pyg_folder(tmp_path)
    csv = folder / "gdb9.sdf.csv"
    csv.write_text(change(csv.read_text()))
    with pytest.raises(StructureError, match=words):
        open_table(folder)


def test_columns_that_are_missing(tmp_path):
    folder = pyg_folder(tmp_path)
    (folder / "gdb9.sdf.csv").unlink()
    with pytest.raises(StructureError, match=r"cannot read the labels '.*gdb9\.sdf\.csv'.*No such file"):
        open_table(folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"targets": np.zeros((4, 19))}, r"targets are float64 of shape \(4, 19\).*expected \(5, n_targets\)"),
        ({"target_names": np.array(["a"] * 19)}, r"a name in target_names is there twice"),
        ({"target_names": np.array([f"x{i}" for i in range(19)])}, r"the unit of the target 'x0' is not known"),
        ({"gdb_index": np.zeros(4, int)}, r"gdb_index is int64 of shape \(4,\); expected 5 integers"),
        ({"targets": np.full((5, 19), np.nan)}, r"the mu of 'gdb_1' is not finite"),
        ({"target_names": None}, r"target_names <U1 of shape \(0,\)"),
        ({"targets": np.zeros((5, 2)), "target_names": np.array(["a/b", "c"]), "target_units": np.array(["1", "1"])},
         r"'a/b' is no name of a target"),
    ],
)  # fmt: skip
def test_arrays_that_do_not_fit(changes, words, tmp_path):
    with pytest.raises(StructureError, match=words):
        open_table(files.write_npz(tmp_path / "a.npz", **changes))


def test_labels_of_ones_own(tmp_path):
    changes = {
        "targets": np.arange(10.0).reshape(5, 2),
        "target_names": np.array(["logP", "mass"]),
        "target_units": np.array(["1", "dalton"]),
        "target_extensive": np.array([False, True]),
    }
    table = open_table(files.write_npz(tmp_path / "own.npz", **changes))
    assert [(t.name, t.unit, t.extensive) for t in table.targets.values()] == [
        ("logP", "1", False),
        ("mass", "dalton", True),
    ]
    assert table.labels(["mass"], ["gdb_2"])["mass"][0] == 3.0
    assert table.spec.level == ""
    with pytest.raises(SpecError, match=r"holds no target 'masse'; expected some of logP, mass; did you mean 'mass'\?"):
        find_targets(table, ["masse"])


def test_unknown_targets_have_a_suggestion():
    table = open_set("qm9_properties")
    with pytest.raises(SpecError, match=r"holds no target 'u0'; .*did you mean 'U0'\?"):
        find_targets(table, ["u0"])
    with pytest.raises(SpecError, match="the target 'gap' is named twice"):
        find_targets(table, ["gap", "gap"])
    with pytest.raises(SpecError, match="no target was named; expected some of mu, alpha"):
        find_targets(table, [])
