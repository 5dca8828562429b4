"""Stores of one method become one; what differs is refused with the difference."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client

from qcsurrogate import cli
from qcsurrogate.errors import SpecError, StoreError
from qcsurrogate.generation import generate
from qcsurrogate.reference.record import ReferenceRecord
from qcsurrogate.sources.kinds import FileSource
from qcsurrogate.store import merge as merging
from qcsurrogate.store.card import data_card
from qcsurrogate.store.consolidate import consolidate
from qcsurrogate.store.folder import StoreFolder
from qcsurrogate.store.merge import merge
from qcsurrogate.store.spec import MoleculeSplit, RandomSplit, Split
from qcsurrogate.store.store import Store
from qcsurrogate.store.verify import verify
from qcsurrogate.structures import Structure
from tests.store import fakes
from tests.store.stores import make_store
from tests.store.test_consolidate import assert_same
from tests.store.test_growth import BY_HASH, frames, molecules, spec_of, write_xyz


def contents(path: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_the_union_of_three_stores(tmp_path: Path) -> None:
    spec = fakes.spec(12)
    a = make_store(tmp_path / "a", spec, rows=[0, 1, 2, 3, 4], pending=1, shuffled=True)
    b = make_store(tmp_path / "b", spec, rows=[3, 4, 5, 6, 7])
    c = make_store(tmp_path / "c", spec, rows=[9, 10])
    consolidate(b.path, quiet=True)
    keys = Store.open(a.path).plan.keys
    a.write_failure(keys[8], "not_converged", "SCF did not converge")
    b.write_failure(keys[8], "time", "too slow")
    a.write_failure(keys[9], "memory", "cured by the third store")
    before = [contents(folder.path) for folder in (a, b, c)]

    result = merge(tmp_path / "all", [a.path, b.path, c.path], quiet=True)
    assert (result.n_records, result.taken, result.repeated, result.missing) == (10, (5, 3, 2), 2, 2)
    assert [contents(folder.path) for folder in (a, b, c)] == before
    store = Store.open(tmp_path / "all")
    assert store.keys() == [keys[i] for i in (0, 1, 2, 3, 4, 5, 6, 7, 9, 10)]
    assert store.counts() == {"waiting": 1, "running": 0, "complete": 10, "error": 1}
    assert [(f.key, f.cause) for f in store.failures()] == [(keys[8], "not_converged")]
    assert store.verify() == 10
    sources = [Store.open(folder.path) for folder in (a, b, c)]
    for key in store.keys():  # noqa: SIM118 - no mapping
        source = next(s for s in sources if key in s.keys())  # noqa: SIM118
        np.testing.assert_array_equal(store.read(key).hamiltonian, source.read(key).hamiltonian)
        assert store.split_of(key) == source.split_of(key)
    again = merge(tmp_path / "all", [a.path, b.path, c.path], quiet=True)
    assert again == result


def shifted(amount: float) -> object:
    def change(record: ReferenceRecord) -> ReferenceRecord:
        return replace(record, energy=record.energy + amount) if record.structure.name.endswith("_1") else record

    return change


def test_records_that_several_have_must_agree(tmp_path: Path) -> None:
    spec = fakes.spec(6)
    make_store(tmp_path / "a", spec, rows=[0, 1, 2])
    make_store(tmp_path / "b", spec, rows=[1, 2, 3], record=shifted(1e-9))  # type: ignore[arg-type]
    make_store(tmp_path / "c", spec, rows=[1, 2, 3], record=shifted(1e-3))  # type: ignore[arg-type]
    assert merge(tmp_path / "near", [tmp_path / "a", tmp_path / "b"], quiet=True).repeated == 2
    with pytest.raises(StoreError, match=r"1 records lie in several stores and differ") as caught:
        merge(tmp_path / "far", [tmp_path / "a", tmp_path / "c"], quiet=True)
    text = str(caught.value)
    assert (
        f"structure 'hydrogen_1' in '{tmp_path / 'a'}' and '{tmp_path / 'c'}': energy differs by 1.0e-03 hartree"
        in text
    )
    assert not (tmp_path / "far").exists()


def test_other_specs_are_refused_with_the_difference(tmp_path: Path) -> None:
    make_store(tmp_path / "a", fakes.spec(5))
    other = fakes.spec(5, method=fakes.CHEAP.model_copy(update={"xc": "pbe"}), shard_size=3)
    make_store(tmp_path / "b", other)
    with pytest.raises(SpecError, match="have different methods or targets") as caught:
        merge(tmp_path / "out", [tmp_path / "a", tmp_path / "b"])
    assert str(caught.value).splitlines()[1:] == ["  method.xc: 'lda' -> 'pbe'"]


def file_store(folder: Path, structures: list[Structure], split: Split = BY_HASH, **changes: Any) -> StoreFolder:
    """A store of a file that lies beside it."""
    folder.mkdir()
    return make_store(folder / "store", spec_of(write_xyz(folder / "a.extxyz", structures), split=split, **changes))


def parts_of(path: Path) -> dict[str, str]:
    store = Store.open(path)
    return {key: store.split_of(key) for key in store.plan.keys}


def test_stores_of_different_structures(tmp_path: Path, client: Client) -> None:
    found = molecules()
    a = file_store(tmp_path / "a", found[:12], licence="CC0-1.0", citation="one", name="first")
    b = file_store(tmp_path / "b", found[10:20], licence="CC-BY-4.0", citation="one", shard_size=3)
    c = file_store(tmp_path / "c", [*frames("gdb_3", 3, seed=5), found[0]])
    consolidate(b.path, quiet=True)
    sources = [folder.path for folder in (a, b, c)]
    before = [contents(path) for path in sources]
    out = tmp_path / "all"
    result = merge(out, sources, quiet=True)
    assert (result.n_records, result.taken, result.repeated, result.missing) == (23, (12, 8, 3), 3, 0)
    assert [contents(path) for path in sources] == before
    assert merge(out, sources, quiet=True) == result
    store = Store.open(out)
    assert store.plan.keys[:12] == Store.open(a.path).plan.keys
    assert parts_of(out) == parts_of(a.path) | parts_of(b.path) | parts_of(c.path)
    assert set(store.atoms) == set().union(*(Store.open(path).atoms for path in sources))
    spec = store.spec
    assert (spec.name, spec.licence, spec.citation, spec.split) == ("first", "CC0-1.0; CC-BY-4.0", "one", BY_HASH)
    assert [s.path for s in spec.structures.sources] == [(str(p.parent / "a.extxyz"),) for p in sources]  # type: ignore[union-attr]
    assert store.has_been(Store.open(a.path).dataset_hash())
    for path in sources:
        source = Store.open(path)
        for key in source.keys():  # noqa: SIM118 - no mapping
            assert_same(store.read(key), source.read(key))
    assert verify(out, quiet=True, records=0).problems == []
    assert "| stores merged |" in data_card(out)

    write_xyz(tmp_path / "c" / "a.extxyz", [*frames("gdb_3", 5, seed=5), found[0]])
    assert generate(spec, out, client=client, quiet=True, calculator=fakes.pretend).computed == 2
    one = tmp_path / "one"
    generate(spec, one, client=client, quiet=True, calculator=fakes.pretend)
    assert parts_of(out) == parts_of(one)


def test_a_grown_store_and_what_it_was(tmp_path: Path, client: Client) -> None:
    found = molecules()
    file = write_xyz(tmp_path / "a.extxyz", found[:8])
    small = make_store(tmp_path / "small", spec_of(file), rows=range(8)).path
    grown = Path(shutil.copytree(small, tmp_path / "grown"))
    write_xyz(file, found[:14])
    generate(spec_of(file), grown, client=client, quiet=True, calculator=fakes.pretend)
    for paths in ([small, grown], [grown, small]):
        out = tmp_path / paths[0].name.upper()
        assert merge(out, paths, quiet=True).repeated == 8
        store = Store.open(out)
        assert store.plan.keys == Store.open(grown).plan.keys
        assert isinstance(store.spec.structures, FileSource)
        assert store.has_been(Store.open(small).dataset_hash())
        assert len(store) == store.verify() == 14


def test_a_structure_in_two_parts_is_refused(tmp_path: Path) -> None:
    random = RandomSplit(kind="random", train=0.5, validation=0, test=0.5)
    a = file_store(tmp_path / "a", frames("gdb_3", 8), random)
    b = file_store(tmp_path / "b", frames("gdb_3", 8), random.model_copy(update={"seed": 1}))
    one, other = parts_of(a.path), parts_of(b.path)
    different = [key for key in other if one[key] != other[key]]
    name = Store.open(a.path).structure(different[0]).name
    with pytest.raises(StoreError) as caught:
        merge(tmp_path / "out", [a.path, b.path], quiet=True)
    assert str(caught.value) == (
        f"structure '{name}' is in {one[different[0]]} of '{a.path}' and in {other[different[0]]} of '{b.path}'; "
        f"{len(different) - 1} more differ; expected equal parts: generate both with equal splits, such as 'by_hash'"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("identity", ["connectivity", "formula"])
def test_a_molecule_in_two_parts_is_refused_where_a_store_divides_by_molecule(tmp_path: Path, identity: str) -> None:
    water = frames("gdb_3", 4)
    stretched = [frame.moved(frame.positions * 4, f"far_{i}") for i, frame in enumerate(water)]
    split = MoleculeSplit(kind="by_molecule", identity=identity, train=1, validation=0, test=1)  # type: ignore[arg-type]
    for seed in range(20):
        for folder in (tmp_path / "a", tmp_path / "b"):
            shutil.rmtree(folder, ignore_errors=True)
        a = file_store(tmp_path / "a", [*water, *frames("gdb_1", 4)], split)
        b = file_store(
            tmp_path / "b", [*frames("gdb_2", 4), *stretched], split.model_copy(update={"seed": seed}), name="b"
        )
        part = Store.open(a.path).split_of(Store.open(a.path).plan.keys[0])
        if part != Store.open(b.path).split_of(Store.open(b.path).plan.keys[-1]):
            break
    else:
        raise AssertionError
    other = "train" if part == "test" else "test"
    with pytest.raises(StoreError) as caught:
        merge(tmp_path / "out", [a.path, b.path], quiet=True)
    assert str(caught.value) == (
        f"structure 'gdb_3_0' in {part} of '{a.path}' and structure 'far_0' in {other} of '{b.path}' may be the same "
        f"molecule (by {identity}); expected molecules undivided: generate both with equal splits 'by_hash'"
    )


def test_counts_become_fractions_and_other_splits_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = file_store(tmp_path / "a", frames("gdb_3", 10), RandomSplit(kind="random", train=5, validation=1, test=3))
    b = file_store(tmp_path / "b", frames("gdb_1", 7), RandomSplit(kind="random", train=1, validation=1, test=5))
    merge(tmp_path / "ab", [a.path, b.path])
    assert "split:" not in capsys.readouterr().err
    store = Store.open(tmp_path / "ab")
    assert store.spec.split.values == (6 / 16, 2 / 16, 8 / 16)  # type: ignore[union-attr]
    groups = MoleculeSplit(kind="by_molecule", identity="group", train=0.5, validation=0, test=0.5)
    (tmp_path / "c").mkdir()
    file = write_xyz(tmp_path / "c" / "a.extxyz", frames("gdb_4", 6))
    lines = [line + f" group=g{i}" if "name=" in line else line for i, line in enumerate(file.read_text().splitlines())]
    file.write_text("\n".join(lines) + "\n")
    c = make_store(tmp_path / "c" / "store", spec_of(file, split=groups))
    merge(tmp_path / "abc", [a.path, c.path])
    said = capsys.readouterr().err
    assert "split: the stores divide 'random' and 'by_molecule'; every structure keeps its part, and the new" in said
    assert "split: stores do not hold groups, so that none stands in two parts was not checked" in said
    assert parts_of(tmp_path / "abc") == parts_of(a.path) | parts_of(c.path)


def test_an_interrupted_union_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = molecules()
    a, b = file_store(tmp_path / "a", found[:4]).path, file_store(tmp_path / "b", found[4:9]).path
    with monkeypatch.context() as patch:
        patch.setattr(merging, "write_header", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            merge(tmp_path / "out", [a, b], quiet=True)
    assert not (tmp_path / "out" / "store.json").exists()
    assert merge(tmp_path / "out", [a, b], quiet=True).n_records == 9
    assert Store.open(tmp_path / "out").verify() == 9
    with pytest.raises(StoreError, match="is a store of another plan; expected a new or empty folder"):
        merge(tmp_path / "out", [b, a], quiet=True)
    assert Store.open(tmp_path / "out").verify() == 9


def test_what_cannot_be_merged(tmp_path: Path) -> None:
    a = make_store(tmp_path / "a", fakes.spec(5), rows=[0]).path
    for paths in ([], [a], [a, tmp_path / "." / "a"]):
        with pytest.raises(SpecError, match="expected two or more different stores"):
            merge(tmp_path / "out", paths)
    b = make_store(tmp_path / "b", fakes.spec(5), rows=[]).path
    with pytest.raises(SpecError, match="is one of the stores to merge"):
        merge(b, [a, b])
    c = make_store(tmp_path / "c", fakes.spec(5), rows=[]).path
    with pytest.raises(StoreError, match="none of the stores holds a complete record"):
        merge(tmp_path / "out", [b, c])
    shard = next((a / "shards").glob("*.h5"))
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(StoreError, match=shard.name):
        merge(tmp_path / "out", [a, b], quiet=True)
    assert not (tmp_path / "out" / "store.json").exists()


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = (make_store(tmp_path / n, fakes.spec(5), rows=r).path for n, r in (("a", [0, 1]), ("b", [1, 4])))
    assert cli.main(["merge", str(tmp_path / "out"), str(a), str(b), "--max-bytes", "1MiB"]) == 0
    out = capsys.readouterr().out
    assert f"3 records (2 from {a}, 1 from {b}); 1 were in several stores and agree; 2 are missing everywhere" in out
