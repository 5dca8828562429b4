"""Tables: what is kept, how they are divided, and what cannot be one."""

from __future__ import annotations

import json

import numpy as np
import pytest

from qcsurrogate.cli import main
from qcsurrogate.errors import SpecError, StoreError, StructureError
from qcsurrogate.store.store import Store
from qcsurrogate.tables.opening import open_set
from qcsurrogate.tables.spec import TableSpec
from qcsurrogate.tables.table import open_table
from tests.tables import files

SHIPPED = {"kind": "packaged", "name": "qm9_properties"}


def shipped(**changes):
    return open_table(TableSpec(structures=SHIPPED, **changes))


def test_the_default_split_is_that_of_a_permutation():
    table = shipped()
    order = np.random.default_rng(420).permutation(2114)
    train, validation, test = (table.keys(part) for part in ("train", "validation", "test"))
    assert (len(train), len(validation), len(test)) == (1692, 211, 211)
    names = [s.name for s in table.structures]
    assert set(train) == {names[i] for i in order[:1692]}
    assert set(validation) == {names[i] for i in order[1692:1903]}
    assert len({*train, *validation, *test}) == 2114
    assert shipped().dataset_hash() == table.dataset_hash()
    other = shipped(split={"kind": "random", "train": 0.8, "validation": 0.1, "test": 0.1, "seed": 1})
    assert other.keys("train") != train
    assert other.dataset_hash() != table.dataset_hash()


def test_counts_are_met_and_the_rest_left_out():
    table = shipped(split={"kind": "random", "train": 1100, "validation": 100, "test": 108, "seed": 420})
    assert [len(table.keys(part)) for part in ("train", "validation", "test")] == [1100, 100, 108]
    assert len(table) == len(table.keys()) == 1308
    with pytest.raises(SpecError, match=r"train \+ validation \+ test = 130831; expected at most 2114"):
        shipped(split={"kind": "random", "train": 110_000, "validation": 10_000, "test": 10_831})


def test_filters():
    table = open_table(TableSpec(structures=SHIPPED | {"subset": {"max_heavy_atoms": 5, "elements": ["H", "C", "O"]}}))
    numbers = {int(z) for s in table.structures for z in s.atomic_numbers}
    assert numbers == {1, 6, 8}
    assert max((s.atomic_numbers > 1).sum() for s in table.structures) == 5
    for name in ("U0", "gap"):
        whole = shipped().labels([name], table.keys())[name]
        np.testing.assert_array_equal(whole, table.labels([name], table.keys())[name])
    with pytest.raises(SpecError, match="nothing is left"):
        open_table(TableSpec(structures=SHIPPED | {"subset": {"min_heavy_atoms": 9}}))


@pytest.mark.parametrize("ending", ["json", "npz", "lists"])
def test_explicit_parts(ending, tmp_path):
    parts = {"train": [14, 29, 40], "validation": [48], "test": [52]}
    split = {"kind": "explicit", **parts}
    if ending != "lists":
        path = tmp_path / f"parts.{ending}"
        split = {"kind": "explicit", "path": str(path)}
        np.savez(path, **parts) if ending == "npz" else path.write_text(json.dumps(parts))
    table = shipped(split=split)
    assert table.keys("train") == ["gdb_14", "gdb_29", "gdb_40"]
    assert (table.keys("validation"), table.keys("test")) == (["gdb_48"], ["gdb_52"])


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ({"train": [14], "test": [14]}, r"split\.test: 'gdb_14' is there twice"),
        ({"train": [814]}, r"split\.train: .* has no molecule 'gdb_814'; did you mean"),
        ({"test": [14]}, r"split\.train of the table '.*' is empty"),
        ({"path": "nowhere.json"}, r"split\.path: cannot read 'nowhere\.json'"),
        ({"path": "nowhere.json", "train": [14]}, r"path and lists are given"),
    ],
)
def test_explicit_parts_that_cannot_be(split, words):
    with pytest.raises(SpecError, match=words):
        shipped(split={"kind": "explicit", **split})


def test_a_file_of_parts_that_is_none(tmp_path):
    path = tmp_path / "parts.json"
    path.write_text('{"train": [1], "validation": []}')
    with pytest.raises(SpecError, match="has no three lists train, validation and test"):
        shipped(split={"kind": "explicit", "path": str(path)})
    path.write_text('{"train": [1.5], "validation": [], "test": []}')
    with pytest.raises(SpecError, match="holds other things than names"):
        shipped(split={"kind": "explicit", "path": str(path)})


def test_a_table_in_yaml(tmp_path):
    files.write_archive(tmp_path / "dsgdb9nsd.xyz.tar.bz2")
    (tmp_path / "gone.txt").write_text("21\n")
    spec = tmp_path / "small.yaml"
    spec.write_text(
        "structures: {kind: file, path: dsgdb9nsd.xyz.tar.bz2, leave_out: gone.txt}\n"
        "split: {kind: random, train: 0.5, validation: 0.25, test: 0.25, seed: 3}\n"
    )
    table = open_set(spec)
    assert table.spec.name == "small"
    assert [len(table.keys(part)) for part in ("train", "validation", "test")] == [2, 1, 1]
    assert set(table.keys()) == {"gdb_1", "gdb_2", "gdb_3", "gdb_22"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("split: {kind: random, train: 0.8, validation: 0.1, test: 0.2}", r"three fractions that add up to 1"),
        ("splitt: {}", r"unknown key 'splitt'; did you mean 'split'"),
        ("method: {xc: pbe}", r"is a data spec: its references are yet to be computed; expected a store"),
        ("duplicates: keep", r"duplicates: .*'refuse' or 'leave_out'"),
    ],
)
def test_yaml_that_does_not_fit(text, words, tmp_path):
    spec = tmp_path / "a.yaml"
    spec.write_text(f"structures: {{kind: packaged, name: qm9_properties}}\n{text}\n")
    with pytest.raises(SpecError, match=words) as caught:
        open_set(spec)
    assert len(str(caught.value).splitlines()) == 1


def test_the_schema_is_printed(capsys):
    assert main(["schema", "table"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert {"structures", "split", "duplicates", "level"} <= schema["properties"].keys()


def test_a_table_is_inspected(capsys):
    assert main(["inspect", "qm9_properties", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["kind"], found["structures"], found["elements"]) == ("table", 2114, ["H", "C", "N", "O"])
    assert found["splits"] == {"train": 1692, "validation": 211, "test": 211}
    assert found["targets"]["gap (hartree)"]["mean"] == pytest.approx(0.26, abs=0.01)
    assert found["targets"]["r2 (bohr^2)"]["max_of"].startswith("gdb_")


def test_structures_alone_are_a_table_without_labels(tmp_path):
    table = open_set("qm9_small")
    assert len(table) == 759
    assert not table.targets
    path = tmp_path / "two.xyz"
    path.write_text("1\nname=a\nHe 0 0 0\n1\nname=b\nNe 0 0 0\n")
    assert open_set(path).keys() == ["a", "b"]
    path.write_text("1\nname=a\nHe 0 0 0\n1\nname=a\nNe 0 0 0\n")
    assert open_set(path).keys() == ["a", "a_2"]
    assert open_set(path).spec.licence == ""


def test_what_can_be_opened(tmp_path, tiny_store):
    assert isinstance(open_set(tiny_store), Store)
    with pytest.raises(
        StoreError, match=r"cannot find the store or table 'qm9_propertie'; .*did you mean 'qm9_properties'\?"
    ):
        open_set("qm9_propertie")
    (tmp_path / "a.pdf").write_text("")
    with pytest.raises(StoreError, match=r"cannot learn from '.*a\.pdf'; expected the folder of a store"):
        open_set(tmp_path / "a.pdf")
    with pytest.raises(StoreError, match=r"is no store: it has no store\.json"):
        open_set(tmp_path)
    (tmp_path / "a.npz").write_bytes(b"PK")
    with pytest.raises(StructureError, match="as npz"):
        open_set(tmp_path / "a.npz")


def test_training_on_a_part():
    table = shipped()
    some = table.keys("train")[:5]
    part = table.training_on(some)
    assert part.keys("train") == some
    assert part.keys("test") == table.keys("test")
    assert part.dataset_hash() != table.dataset_hash()
    assert table.has_been(table.dataset_hash())
    assert not table.has_been(part.dataset_hash())
    with pytest.raises(StoreError, match="no structure 'x' in its training split"):
        table.training_on(["x"])
    with pytest.raises(StoreError, match=r"no split 'tests'; .*did you mean 'test'"):
        table.keys("tests")
    with pytest.raises(StoreError, match="no structure with the key 'gdb_1'"):
        table.structure("gdb_1")


def test_files_with_other_labels_make_no_table(tmp_path):
    files.write_npz(tmp_path / "a.npz")
    files.write_npz(tmp_path / "b.npz", {9: files.WATER}, targets=None, target_names=None)
    source = {"kind": "file", "path": [str(tmp_path / "a.npz"), str(tmp_path / "b.npz")]}
    with pytest.raises(StructureError, match="have other labels than each other"):
        open_table(TableSpec(structures=source))
