"""Stores of one spec become one; what differs is refused with the difference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qcsurrogate import cli
from qcsurrogate.errors import SpecError, StoreError
from qcsurrogate.reference.record import ReferenceRecord
from qcsurrogate.store.consolidate import consolidate
from qcsurrogate.store.merge import merge
from qcsurrogate.store.store import Store
from tests.store import fakes
from tests.store.stores import make_store


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
    store = Store.open(tmp_path / "all", check_digests=True)
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
    with pytest.raises(SpecError, match="have different specs") as caught:
        merge(tmp_path / "out", [tmp_path / "a", tmp_path / "b"])
    assert "method.xc: 'lda' -> 'pbe'" in str(caught.value)
    assert "shard_size: 4 -> 3" in str(caught.value)


def test_other_structures_of_equal_specs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.store import stores

    make_store(tmp_path / "a", fakes.spec(5))
    plan = stores.make_plan
    monkeypatch.setattr(stores, "make_plan", lambda spec: plan(spec).part(plan(spec).keys[:4]))
    make_store(tmp_path / "b", fakes.spec(5))
    with pytest.raises(StoreError, match=r"equal specs but other plans \(5 and 4 structures, 4 in common"):
        merge(tmp_path / "out", [tmp_path / "a", tmp_path / "b"])


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
