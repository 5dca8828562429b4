"""From every kind of source to a plan."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import ase.db
import ase.io
import numpy as np
import pytest
from pydantic import TypeAdapter

from qcsurrogate.errors import SpecError, StructureError
from qcsurrogate.files.yaml_model import dump_yaml
from qcsurrogate.reference.settings import Method
from qcsurrogate.sources.chosen import Collected
from qcsurrogate.sources.collect import collect
from qcsurrogate.sources.kinds import Source
from qcsurrogate.sources.readers import read_structures
from qcsurrogate.sources.selection.duplicates import geometric_duplicates
from qcsurrogate.store.header import source_digest
from qcsurrogate.store.plan import make_plan
from qcsurrogate.store.spec import DataSpec, MoleculeSplit, RandomSplit, differences, load_spec, parse_spec
from qcsurrogate.structures import Structure
from qcsurrogate.units import ANGSTROM_PER_BOHR
from tests.molecules import random_orthogonal
from tests.store import fakes
from tests.structure_files.files import qm9_text, write_tar

QM9 = list(collect(load_spec("qm9_small")).structures)
BUTANE = load_spec("butane_torsion").structures.equilibrium  # type: ignore[union-attr]
HYDROGEN = fakes.HYDROGEN.model_dump()


def spec(structures: dict[str, Any], **changes: Any) -> DataSpec:
    """A cheap spec of a source given as plain data."""
    return fakes.spec(structures=TypeAdapter(Source).validate_python(structures), **changes)


def collected(**structures: Any) -> Collected:
    return collect(spec(structures))


def names(**structures: Any) -> list[str]:
    return [s.name for s in collected(**structures).structures]


def write_many(folder: Path, structures: list[Structure]) -> dict[str, Path]:
    """The same structures in every format."""
    atoms = [s.to_ase() for s in structures]
    paths = {ending: folder / f"all.{ending}" for ending in ("xyz", "extxyz", "npz", "db", "tar.bz2")}
    ase.io.write(paths["xyz"], atoms, format="xyz")
    ase.io.write(paths["extxyz"], atoms, format="extxyz")
    np.savez(
        paths["npz"],
        positions_angstrom=np.concatenate([s.positions for s in structures]) * ANGSTROM_PER_BOHR,
        atomic_numbers=np.concatenate([s.atomic_numbers for s in structures]),
        num_atoms=np.array([len(s) for s in structures]),
        names=np.array([s.name for s in structures]),
    )
    database = ase.db.connect(paths["db"])
    members = {}
    for one, structure in zip(atoms, structures, strict=True):
        database.write(one, name=structure.name)
        ase.io.write(folder / "one.xyz", one, format="xyz")
        members[f"{structure.name}.xyz"] = (folder / "one.xyz").read_bytes()
    write_tar(paths["tar.bz2"], members)
    return paths


def test_every_format_plans_the_same_molecules(tmp_path: Path) -> None:
    structures = QM9[:12]
    for ending, path in write_many(tmp_path, structures).items():
        plan = make_plan(spec({"kind": "file", "path": str(path)}))[0]
        assert len(plan) == 12
        for planned, structure in zip(plan.structures, structures, strict=True):
            np.testing.assert_allclose(planned.positions, structure.positions, atol=2e-7)
            assert planned.name == structure.name or ending == "xyz"


def test_several_files_a_pattern_and_a_folder(tmp_path: Path) -> None:
    for name, shift in (("b1", 0.0), ("b2", 0.1), ("a", 0.2)):
        (tmp_path / f"{name}.xyz").write_text(f"2\n\nH 0 0 0\nH 0 0 {0.7 + shift}\n")
    assert names(kind="file", path=str(tmp_path / "b*.xyz")) == ["b1", "b2"]
    assert names(kind="file", path=[str(tmp_path / "b*.xyz"), str(tmp_path / "a.xyz")]) == ["b1", "b2", "a"]
    assert names(kind="file", path=str(tmp_path)) == ["a", "b1", "b2"]
    with pytest.raises(SpecError, match=r"structures\.path: no file fits the pattern '.*c\*\.xyz'"):
        collected(kind="file", path=str(tmp_path / "c*.xyz"))


def test_the_list_of_uncharacterised_molecules_is_left_out(tmp_path: Path) -> None:
    archive = write_tar(
        tmp_path / "dsgdb9nsd.xyz.tar.bz2",
        {f"dsgdb9nsd_{i:06d}.xyz": qm9_text(i, 0.001 * i).encode() for i in (1, 21, 22, 58, 3054)},
    )
    listed = tmp_path / "uncharacterized.txt"
    listed.write_text(
        "Molecules that failed\n\n# Index  SMILES\n---\n    21  C#C  CC\n    58  CO  OC\n---\n3054 compounds\n"
    )
    found = collected(kind="file", path=str(archive), leave_out=str(listed))
    assert [s.name for s in found.structures] == ["gdb_1", "gdb_22", "gdb_3054"]
    assert found.report == {"read": 5, "left out: listed": 2}
    listed.write_text("gdb_7\nother\n")
    with pytest.raises(SpecError, match=r"none of the 2 names in .* whose first is 'gdb_1'; expected the first word"):
        collected(kind="file", path=str(archive), leave_out=str(listed))
    with pytest.raises(SpecError, match=r"leave_out: cannot read '.*nothing': No such file"):
        collected(kind="file", path=str(archive), leave_out=str(tmp_path / "nothing"))


def test_a_bad_geometry_is_an_error_or_left_out_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.xyz"
    path.write_text("2\n\nH 0 0 0\nH 0 0 .74\n2\n\nH 0 0 0\nH 0 0 .01\n1\n\nHe 0 0 0\n")
    words = r"a\.xyz': structure 'a_1': atoms 0 \(H\) .* \(number 2 of 3; a spec's `skip_bad"
    with pytest.raises(StructureError, match=words):
        make_plan(spec({"kind": "file", "path": str(path)}))[0]
    found = collected(kind="file", path=str(path), skip_bad=True, limit=1)
    assert found.report == {"read": 3, "left out: bad geometry": 1, "left out: limit": 1}
    assert found.summary() == "read: 3, left out: bad geometry: 1, left out: limit: 1"


@pytest.mark.parametrize(
    ("subset", "keep"),
    [
        ({"max_atoms": 6}, lambda s: len(s) <= 6),
        ({"min_atoms": 10, "max_atoms": 12}, lambda s: 10 <= len(s) <= 12),
        ({"max_heavy_atoms": 3}, lambda s: (s.atomic_numbers > 1).sum() <= 3),
        ({"min_heavy_atoms": 6}, lambda s: (s.atomic_numbers > 1).sum() >= 6),
        ({"elements": ["H", "C"]}, lambda s: set(s.symbols) <= {"H", "C"}),
        ({"required_elements": ["N", "O"]}, lambda s: set(s.symbols) >= {"N", "O"}),
        ({"elements": ["C", "H", "O"], "required_elements": ["O"], "max_atoms": 9}, None),
        ({"charges": [0], "spins": [0]}, lambda s: True),
    ],
)
def test_conditions(subset: dict[str, Any], keep: Any) -> None:
    found = collected(kind="packaged", name="qm9_small", subset=subset)
    if keep is None:
        keep = lambda s: set(s.symbols) <= {"C", "H", "O"} and "O" in s.symbols and len(s) <= 9  # noqa: E731
    expected = [s.name for s in QM9 if keep(s)]
    assert [s.name for s in found.structures] == expected
    assert found.report.get("left out: outside the subset", 0) == 759 - len(expected)


def test_nothing_left_is_an_error() -> None:
    with pytest.raises(SpecError, match=r"nothing is left \(read: 759, left out: outside the subset: 759\); loosen"):
        collected(kind="packaged", name="qm9_small", subset={"charges": [1]})
    with pytest.raises(SpecError, match="nothing is left"):
        collected(kind="packaged", name="qm9_small", subset={"max_atoms": 1, "diverse": 3})


def test_limit_and_diversity_come_last() -> None:
    found = collected(kind="packaged", name="qm9_small", limit=50, subset={"required_elements": ["O"], "diverse": 7})
    assert len(found.structures) == 7
    assert all("O" in s.symbols for s in found.structures)
    assert list(found.report) == ["read", "left out: outside the subset", "left out: limit", "left out: less diverse"]
    assert found.report["left out: less diverse"] == 43
    again = collected(kind="packaged", name="qm9_small", limit=50, subset={"required_elements": ["O"], "diverse": 7})
    assert [s.key for s in again.structures] == [s.key for s in found.structures]


def test_duplicates_are_dropped_and_counted(tmp_path: Path) -> None:
    molecules = QM9[:8]
    turned = [
        s.moved(s.positions @ random_orthogonal(i, improper=bool(i % 2)), f"copy_{i}") for i, s in enumerate(molecules)
    ]
    ase.io.write(tmp_path / "a.extxyz", [s.to_ase() for s in [*molecules, *turned]], format="extxyz")
    source = {"kind": "file", "path": str(tmp_path / "a.extxyz")}
    assert len(make_plan(spec(source))[0]) == 16
    found = collect(spec(source | {"deduplicate": {"tolerance_angstrom": 0.01}}))
    assert [s.name for s in found.structures] == [s.name for s in molecules]
    assert found.report == {"read": 16, "left out: duplicate": 8}


class TestSamplers:
    def test_displaced_copies_of_every_molecule_of_a_file(self) -> None:
        inner = {"kind": "packaged", "name": "qm9_small", "subset": {"max_atoms": 5}}
        found = collected(kind="displacement", molecules=inner, sigma_angstrom=0.02, count=3, seed=1)
        starts = [s for s in QM9 if len(s) <= 5]
        assert found.groups == [s.name for s in starts for _ in range(3)]
        assert [s.name for s in found.structures] == [f"{s.name}_{k}" for s in starts for k in range(3)]
        assert found.report["molecules"] == len(starts)
        assert found.report["molecules left out: outside the subset"] == 759 - len(starts)
        assert found.report["sampled"] == 3 * len(starts)
        fewer = collected(
            kind="displacement", molecules=inner | {"subset": {"max_atoms": 4}}, sigma_angstrom=0.02, count=3, seed=1
        )
        assert {s.key for s in fewer.structures} <= {s.key for s in found.structures}

    def test_two_molecules_do_not_get_the_same_noise(self, tmp_path: Path) -> None:
        (tmp_path / "a.xyz").write_text("2\n\nH 0 0 0\nH 0 0 .74\n2\n\nH 0 0 0\nH 0 0 .75\n")
        inner = {"kind": "file", "path": str(tmp_path / "a.xyz")}
        found = collected(kind="displacement", molecules=inner, sigma_angstrom=0.02, count=1)
        one, other = (
            s.positions - t.positions for s, t in zip(found.structures, read_structures(inner["path"]), strict=True)
        )
        assert np.abs(one - other).max() > 1e-3

    def test_torsions(self) -> None:
        plan = make_plan(load_spec("butane_torsion"))[0]
        assert len(plan) == 36
        angles = sorted(s.to_ase().get_dihedral(0, 1, 2, 3) for s in plan.structures)
        np.testing.assert_allclose(np.diff(angles), 10.0, atol=1e-3)
        found = collected(kind="torsion", equilibrium=BUTANE.model_dump(), steps=6, grid=True)
        assert found.report["sampled"] == 6**3
        assert set(found.groups or ()) == {"butane"}

    def test_dynamics_with_ase(self) -> None:
        source = {
            "kind": "md",
            "equilibrium": HYDROGEN,
            "calculator": "emt",
            "temperature_kelvin": 300.0,
            "burn_in": 20,
            "every": 5,
            "count": 10,
        }
        plan = make_plan(spec(source))[0]
        assert len(plan) == 10
        assert plan.keys == make_plan(spec(source))[0].keys
        with pytest.raises(StructureError, match=r"structure 'sodium': the calculator 'emt' failed .*; choose another"):
            collected(
                **source
                | {
                    "equilibrium": {
                        "name": "sodium",
                        "symbols": ["Na", "H"],
                        "positions_angstrom": [[0, 0, 0], [0, 0, 1.9]],
                    }
                }
            )

    def test_dynamics_with_the_specs_own_method(self) -> None:
        plan = make_plan(
            spec(
                {
                    "kind": "md",
                    "equilibrium": HYDROGEN,
                    "calculator": "method",
                    "temperature_kelvin": 300.0,
                    "burn_in": 0,
                    "every": 1,
                    "count": 5,
                },
                split=RandomSplit(kind="random", train=3, validation=1, test=1),
            )
        )[0]
        lengths = [float(np.linalg.norm(s.positions[1] - s.positions[0])) for s in plan.structures]
        assert len(set(lengths)) == 5
        assert all(abs(x * ANGSTROM_PER_BOHR - 0.74) < 0.2 for x in lengths)

    def test_xtb_is_named_with_its_command(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "tblite.ase", None)
        with pytest.raises(SpecError, match=r"'gfn2-xtb' needs tblite; install it with: pip install tblite"):
            collected(kind="md", equilibrium=HYDROGEN, calculator="gfn2-xtb", temperature_kelvin=300.0, count=1)

    def test_conformers_displaced(self) -> None:
        found = collect(load_spec("conformers_shaken"))
        assert len(set(found.groups or ())) == 12
        assert found.report["sampled"] == 5 * found.report["molecules"] == len(found.structures)
        assert not geometric_duplicates(found.structures[::5], 0.05).any()

    def test_conformers_of_an_ion_and_a_radical(self) -> None:
        found = collected(kind="conformers", smiles=["[NH4+]", "[CH3]", "CCO"], count=3, rmsd_angstrom=0.2)
        assert {(s.charge, s.spin) for s in found.structures} == {(1, 0), (0, 1), (0, 0)}
        closed = collected(kind="conformers", smiles=["[NH4+]", "[CH3]", "CCO"], count=3, subset={"spins": [0]})
        assert set(closed.groups or ()) == {"[NH4+]", "CCO"}

    def test_thermal_of_every_molecule(self) -> None:
        source = {
            "kind": "thermal",
            "temperature_kelvin": 300.0,
            "count": 4,
            "molecules": {"kind": "conformers", "smiles": "[H][H]", "count": 1},
        }
        split = RandomSplit(kind="random", train=2, validation=1, test=1)
        assert len(make_plan(spec(source, split=split))[0]) == 4

    def test_groups_of_molecules_without_different_names(self, tmp_path: Path) -> None:
        (tmp_path / "a.extxyz").write_text(
            "".join(f"2\nname=h2 Properties=species:S:1:pos:R:3\nH 0 0 0\nH 0 0 {d}\n" for d in (0.7, 0.8))
        )
        inner = {"kind": "file", "path": str(tmp_path / "a.extxyz")}
        found = collected(kind="displacement", molecules=inner, sigma_angstrom=0.01, count=2)
        assert found.groups == ["h2#0", "h2#0", "h2#1", "h2#1"]


def several(*sources: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"kind": "several", "sources": list(sources), **changes}


def test_several_sources_one_after_the_other(tmp_path: Path) -> None:
    for name, lengths in (("a", (0.7, 0.8)), ("b", (0.8, 0.9))):
        (tmp_path / f"{name}.extxyz").write_text("".join(f"2\ngroup={name}\nH 0 0 0\nH 0 0 {d}\n" for d in lengths))
    a, b = ({"kind": "file", "path": str(tmp_path / f"{name}.extxyz")} for name in "ab")
    sampler = {"kind": "displacement", "equilibrium": HYDROGEN, "sigma_angstrom": 0.01, "count": 2}
    found = collect(spec(several(a, sampler, b)))
    assert [s.name for s in found.structures][::5] == ["a_0", "b_1"]
    assert found.groups == ["a", "a", "hydrogen", "hydrogen", "b", "b"]
    assert found.report == {"read": 4, "sampled": 2}
    packaged = {"kind": "packaged", "name": "qm9_small", "limit": 1}
    assert collect(spec(several(a, packaged))).groups == ["a", "a", ""]
    assert collect(spec(several(packaged, packaged))).groups is None
    nested = several(several(a, deduplicate={"tolerance_angstrom": 0.06}), b)
    assert [s.name for s in collect(spec(nested)).structures] == ["a_0", "b_0", "b_1"]
    assert len(collect(spec(several(a, b, subset={"diverse": 3}))).structures) == 3
    everything = RandomSplit(kind="random", train=1.0, validation=0, test=0)
    plan, report = make_plan(spec(several(a, b), split=everything))
    assert [s.name for s in plan.structures] == ["a_0", "a_1", "b_1"]
    assert report == {"read": 4, "left out: the same geometry again": 1, "planned": 3}
    assert source_digest(spec(several(a, b))) == source_digest(spec(several(several(a), b))) is not None


def test_paths_of_several_sources_are_relative_to_the_spec(tmp_path: Path) -> None:
    inner = {
        "kind": "displacement",
        "sigma_angstrom": 0.1,
        "count": 1,
        "molecules": {"kind": "file", "path": "c/c.xyz"},
    }
    source = several({"kind": "file", "path": "b.xyz"}, several(inner))
    (tmp_path / "spec.yaml").write_text(dump_yaml(fakes.spec().model_dump(mode="json") | {"structures": source}))
    loaded = load_spec(tmp_path / "spec.yaml")
    first, second = loaded.structures.sources  # type: ignore[union-attr]
    assert (first.path, second.sources[0].molecules.path) == (f"{tmp_path}/b.xyz", f"{tmp_path}/c/c.xyz")
    moved = loaded.model_copy(update={"structures": type(loaded.structures).model_validate(source)})
    assert loaded.identity()["structures"]["sources"][1]["sources"][0]["molecules"]["path"] == "c.xyz"
    assert differences(loaded, moved) == []
    other = source | {"sources": [{"kind": "file", "path": "d.xyz"}, source["sources"][1]]}
    moved = loaded.model_copy(update={"structures": type(loaded.structures).model_validate(other)})
    assert differences(loaded, moved) == ["structures.sources.0.path: 'b.xyz' -> 'd.xyz'"]


def test_groups_of_extended_xyz_reach_the_split(tmp_path: Path) -> None:
    lines = [f"2\ngroup=g{i % 5}\nH 0 0 0\nH 0 0 {0.7 + 0.01 * i}\n" for i in range(20)]
    (tmp_path / "a.extxyz").write_text("".join(lines))
    split = MoleculeSplit(kind="by_molecule", identity="group", train=3, validation=1, test=1)
    plan = make_plan(spec({"kind": "file", "path": str(tmp_path / "a.extxyz")}, split=split))[0]
    groups = {s.name: int(s.name.rpartition("_")[2]) % 5 for s in plan.structures}
    parts = {(groups[s.name], int(code)) for s, code in zip(plan.structures, plan.split, strict=True)}
    assert len(parts) == 5


@pytest.mark.parametrize(
    ("structures", "words"),
    [
        ({"kind": "torsion", "steps": 6}, r"structures: expected either equilibrium .* or molecules .*, got none"),
        (
            {"kind": "torsion", "steps": 6, "equilibrium": HYDROGEN, "molecules": {"kind": "packaged", "name": "a"}},
            r"expected either equilibrium \(a molecule\) or molecules \(a source\), got both",
        ),
        (
            {"kind": "torsion", "steps": 1, "equilibrium": HYDROGEN},
            r"structures\.steps: expected greater than or equal to 2",
        ),
        (
            {"kind": "md", "equilibrium": HYDROGEN, "calculator": "os.system", "temperature_kelvin": 3, "count": 1},
            r"structures\.calculator: expected 'method', 'gfn1-xtb', 'gfn2-xtb' or 'emt', got 'os\.system'",
        ),
        (
            {"kind": "packaged", "name": "qm9_small", "subset": {"elements": ["C", "Hx"]}},
            r"structures\.subset\.elements: expected chemical symbols, got 'Hx'; did you mean 'H",
        ),
        (
            {"kind": "packaged", "name": "qm9_small", "subset": {"max_atom": 3}},
            r"max_atom'; did you mean 'max_atoms'\?",
        ),
        (
            {"kind": "packaged", "name": "a", "deduplicate": {"tolerance_angstrom": 0}},
            r"structures\.deduplicate\.tolerance_angstrom: expected greater than 0, got 0",
        ),
        (
            {"kind": "displacement", "sigma_angstrom": 0.1, "count": 1, "molecules": {"kind": "thermal"}},
            r"structures\.molecules\.kind: expected one of \['file', 'packaged', 'conformers'\], got 'thermal'",
        ),
        (several(), r"structures\.sources: expected at least one source, got none"),
        ({"kind": "several"}, r"structures\.sources: missing; expected a value"),
        (
            several({"kind": "file", "path": "a"}, {"kind": "fil", "path": "b"}),
            r"structures\.sources\.1\.kind: expected one of \['file', .*'several'\], got 'fil'; did you mean 'file'",
        ),
        (
            several({"kind": "file", "path": "a"}, several({"kind": "file", "pth": "b"})),
            r"structures\.sources\.1\.sources\.0\.pth: unknown key 'pth'; did you mean 'path'\?",
        ),
    ],
)
def test_mistakes_are_named(structures: dict[str, Any], words: str) -> None:
    data = fakes.spec().model_dump(mode="json") | {"structures": structures}
    with pytest.raises(SpecError, match=words):
        parse_spec(dump_yaml(data), "spec.yaml")


def test_paths_inside_are_relative_to_the_spec_and_no_part_of_its_identity(tmp_path: Path) -> None:
    source = {
        "kind": "displacement",
        "sigma_angstrom": 0.1,
        "count": 1,
        "molecules": {"kind": "file", "path": ["a.xyz", "more/*.xyz"], "leave_out": "bad.txt"},
    }
    (tmp_path / "spec.yaml").write_text(dump_yaml(fakes.spec().model_dump(mode="json") | {"structures": source}))
    loaded = load_spec(tmp_path / "spec.yaml")
    inner = loaded.structures.molecules  # type: ignore[union-attr]
    assert inner.path == (str(tmp_path / "a.xyz"), str(tmp_path / "more/*.xyz"))
    assert inner.leave_out == str(tmp_path / "bad.txt")
    assert loaded.identity()["structures"]["molecules"]["path"] == ["a.xyz", "*.xyz"]
    assert loaded.identity()["structures"]["molecules"]["leave_out"] == "bad.txt"


def test_a_changed_file_changes_the_digest(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.xyz").write_text("1\n\nHe 0 0 0\n")
    digests = []
    for path in (str(tmp_path / "a.xyz"), [str(tmp_path / "a.xyz"), str(tmp_path / "b.xyz")], str(tmp_path)):
        digests.append(source_digest(spec({"kind": "file", "path": path})))
    assert digests[1] == digests[2] != digests[0]
    (tmp_path / "b.xyz").write_text("1\n\nHe 0 0 1\n")
    assert source_digest(spec({"kind": "file", "path": str(tmp_path)})) != digests[1]
    assert source_digest(spec({"kind": "file", "path": str(tmp_path / "absent.xyz")})) is None
    assert source_digest(fakes.spec()) is None


def test_charge_and_spin_of_the_method_are_those_of_silent_files(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_text("2\n\nO 0 0 0\nH 0 0 .97\n2\ncharge=1\nO 0 0 0\nH 0 0 .98\n")
    ions = spec({"kind": "file", "path": str(tmp_path / "a.xyz")}, method=Method(charge=-1))
    assert [s.charge for s in collect(ions).structures] == [-1, 1]
