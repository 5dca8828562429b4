"""Few large files: the same records, read by slices, and no moment at which one could be lost."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
from distributed import Client

from qcsurrogate import cli
from qcsurrogate.errors import SpecError, StoreError
from qcsurrogate.files.atomic import exclusive_lock, read_sealed_json, sealed_json
from qcsurrogate.generation import generate
from qcsurrogate.inspection import inspect
from qcsurrogate.reference.record import FIELDS, ReferenceRecord
from qcsurrogate.store.catalog import sweep_leftovers, write_leftovers
from qcsurrogate.store.consolidate import consolidate
from qcsurrogate.store.folder import StoreFolder
from qcsurrogate.store.hdf5 import ArrayFile, Expected, StoredArray, read_arrays
from qcsurrogate.store.slices import RecordSlices
from qcsurrogate.store.store import Store
from qcsurrogate.store.streaming import Declared, file_digest, writing_arrays
from tests.store import fakes
from tests.store.stores import make_store

ROOT = Path(__file__).parents[2]
NAMES = [field.name for field in FIELDS]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """14 of 16 records: 12 in three shards in mixed order, 2 single ones."""
    spec = fakes.spec(16)
    return make_store(tmp_path_factory.mktemp("mixed") / "store", spec, rows=range(14), pending=2, shuffled=True).path


@pytest.fixture
def store_copy(mixed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(mixed, tmp_path / "store"))


def assert_same(found: ReferenceRecord, expected: ReferenceRecord) -> None:
    assert found.structure.key == expected.structure.key
    for name in NAMES:
        np.testing.assert_array_equal(found.value(name), expected.value(name), err_msg=name)


def assert_same_store(path: Path, expected: Path) -> None:
    one, other = Store.open(path), Store.open(expected)
    assert one.counts() == other.counts()
    assert one.keys() == other.keys()
    assert one.dataset_hash() == other.dataset_hash()
    for split in ("train", "validation", "test"):
        assert one.keys(split) == other.keys(split)
    for key, record in zip(one.keys(), one.read_many(one.keys()), strict=True):
        assert_same(record, other.read(key))
        assert_same(one.read(key), record)
    assert one.verify() == len(other)


def test_a_new_store_of_large_files(mixed: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in mixed.rglob("*") if path.is_file()}
    result = consolidate(mixed, tmp_path / "out", max_bytes=4000, quiet=True)
    assert {path: path.read_bytes() for path in mixed.rglob("*") if path.is_file()} == before
    assert (result.n_records, len(result.files)) == (14, 3)
    assert result.n_bytes == sum(path.stat().st_size for path in result.files) < result.bytes_before
    assert_same_store(tmp_path / "out", mixed)
    with h5py.File(result.files[0]) as file:  # in planned order
        keys = Store.open(mixed).keys()
        assert [key.decode() for key in file["keys"]] == keys[: len(file["keys"])]
    again = consolidate(mixed, tmp_path / "out", max_bytes=4000, quiet=True)
    assert again.n_records == 14


def test_a_store_changes_in_place_and_can_be_added_to(store_copy: Path, mixed: Path, client: Client) -> None:
    result = consolidate(store_copy, max_bytes=10**9, quiet=True)
    assert len(result.files) == 1
    folder = StoreFolder(store_copy)
    assert list(folder.shards.iterdir()) == list(folder.pending.iterdir()) == []
    assert_same_store(store_copy, mixed)
    assert consolidate(store_copy, quiet=True).files == result.files  # nothing to do

    spec = fakes.spec(16)
    assert generate(spec, store_copy, client=client, quiet=True, calculator=fakes.pretend).computed == 2
    assert len(list(folder.shards.glob("*.h5"))) == 1
    store = Store.open(store_copy)
    assert len(store) == store.verify() == 16
    assert sorted(store.keys()) == sorted(store.plan.keys)

    second = consolidate(store_copy, quiet=True)
    assert (second.n_records, [p.name for p in second.files]) == (16, ["part_002_00000.h5"])
    assert sorted(p.name for p in folder.consolidated.iterdir()) == [
        "catalog.json",
        "index_002.h5",
        "part_002_00000.h5",
        "part_002_00000.json",
    ]
    assert list(folder.shards.iterdir()) == []
    assert len(Store.open(store_copy, check_digests=True)) == 16
    # a store that was open all the while finds the records where they are now
    assert_same(store.read(store.keys()[3]), Store.open(store_copy).read(store.keys()[3]))
    assert len(list(store.read_many(store.keys()))) == 16


@pytest.mark.parametrize(
    ("where", "step"),
    [
        ("here", 5),
        pytest.param("here", 1, marks=pytest.mark.slow),
        pytest.param("beside", 1, marks=pytest.mark.slow),
    ],
)
def test_sigkill_at_any_change_loses_nothing(mixed: Path, tmp_path: Path, where: str, step: int) -> None:
    script = [sys.executable, "-m", "tests.store.kill_consolidation"]
    arguments = [str(mixed), str(tmp_path / "work"), str(step), where]
    done = subprocess.run([*script, *arguments], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 8


def test_an_interrupted_consolidation_takes_over_finished_parts(mixed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    files = consolidate(mixed, out, max_bytes=4000, quiet=True).files
    (out / "store.json").unlink()  # as if it had been killed in front of its end
    (out / "consolidated" / "catalog.json").unlink()
    files[1].write_bytes(files[1].read_bytes()[:-1])
    stamps = [path.stat().st_mtime_ns for path in files]
    assert consolidate(mixed, out, max_bytes=4000, quiet=True).files == files
    assert [path.stat().st_mtime_ns == stamp for path, stamp in zip(files, stamps, strict=True)] == [True, False, True]
    assert_same_store(out, mixed)


def test_records_of_a_part_that_was_removed_count_as_not_computed(store_copy: Path, client: Client) -> None:
    files = consolidate(store_copy, max_bytes=4000, quiet=True).files
    files[1].unlink()
    store = Store.open(store_copy)
    assert 0 < len(store) < 14
    assert store.counts()["waiting"] == 16 - len(store)
    summary = generate(fakes.spec(16), store_copy, client=client, quiet=True, calculator=fakes.pretend)
    assert summary.computed == 16 - len(store)
    assert Store.open(store_copy).verify() == 16


def test_memory_stays_small_however_large_the_file(tmp_path: Path) -> None:
    n = 4_000_000
    values = np.arange(n, dtype=np.float64)
    tracemalloc.start()
    with writing_arrays(tmp_path / "large.h5", {"x": Declared(values.dtype, (n,), "1", "x")}) as writer:
        for start in range(0, n, 10_000):
            writer.append("x", values[start : start + 10_000])
    writing = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    with ArrayFile.open(tmp_path / "large.h5", {"x": Expected(values.dtype, (n,), "1")}) as file:
        np.testing.assert_array_equal(file.read("x", 3_000_000, 3_000_100), values[3_000_000:3_000_100])
    reading = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert max(writing, reading) < 3 * 2**20  # of 32 MB


def test_streamed_files_are_like_those_made_in_memory(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    arrays = {
        "x": StoredArray(generator.normal(size=(70_001, 3)), "bohr", "positions"),
        "keys": StoredArray(np.array([b"a" * 32, b"b" * 32]), "1", "keys"),
        "flag": StoredArray(np.ones(300_000, np.uint8), "1", "flags"),
    }
    declared = {n: Declared(a.values.dtype, a.values.shape, a.units, a.description) for n, a in arrays.items()}
    for file in ("first.h5", "second.h5"):
        with writing_arrays(tmp_path / file, declared) as writer:
            for name, array in arrays.items():
                for start in range(0, len(array.values), 9_999):
                    writer.append(name, array.values[start : start + 9_999])
    expected = {n: Expected(a.values.dtype, a.values.shape, a.units) for n, a in arrays.items()}
    found = read_arrays(tmp_path / "first.h5", expected, file_digest(tmp_path / "second.h5"))
    with h5py.File(tmp_path / "first.h5") as opened:  # and as HDF5 itself decodes it
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array.values)
            np.testing.assert_array_equal(opened[name][()], array.values)
            assert opened[name].attrs["description"].decode() == array.description
            assert (opened[name].compression, opened[name].shuffle, opened[name].fletcher32) == ("gzip", True, True)


def test_a_streamed_file_must_become_full_and_not_fuller(tmp_path: Path) -> None:
    declared = {"x": Declared(np.dtype("<f8"), (5,), "1", "x")}
    with (
        pytest.raises(StoreError, match="3 rows of 'x' came, expected 5"),
        writing_arrays(tmp_path / "a.h5", declared) as writer,
    ):
        writer.append("x", np.zeros(3))
    with (
        pytest.raises(StoreError, match="more rows of 'x' came than the 5 that were planned"),
        writing_arrays(tmp_path / "a.h5", declared) as writer,
    ):
        writer.append("x", np.zeros(6))
    assert list(tmp_path.iterdir()) == []


FULL_DISK = """
import resource, sys
from pathlib import Path
import numpy as np
from qcsurrogate.errors import StoreError
from qcsurrogate.store.streaming import Declared, writing_arrays
values = np.random.default_rng(0).normal(size=100_000)
for limit in (0, 100, 2500, 300_000, 700_000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        with writing_arrays(Path(sys.argv[1]), {"x": Declared(values.dtype, values.shape, "1", "x")}) as writer:
            for start in range(0, len(values), 1000):
                writer.append("x", values[start : start + 1000])
    except StoreError as error:
        assert "File too large; free some space" in str(error), error
    else:
        raise AssertionError(limit)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""


def test_a_full_disk_is_an_error_and_no_crash(tmp_path: Path) -> None:
    """HDF5 that cannot flush its metadata takes the interpreter down at exit; it must not notice."""
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / "a.h5")], capture_output=True, text=True, cwd=ROOT
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_consolidated(store_copy: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="max_bytes = 0"):
        consolidate(store_copy, max_bytes=0)
    with pytest.raises(StoreError, match="cannot find the store"):
        consolidate(tmp_path / "nothing")
    empty = make_store(tmp_path / "empty", fakes.spec(5), rows=[])
    with pytest.raises(StoreError, match="holds no complete record; expected some: run `generate` first"):
        consolidate(empty.path, quiet=True)
    with exclusive_lock(StoreFolder(store_copy).lock_file), pytest.raises(StoreError, match="another process"):
        consolidate(store_copy, quiet=True)
    with pytest.raises(StoreError, match="is a store of another plan"):
        consolidate(store_copy, empty.path, quiet=True)
    shard = next((store_copy / "shards").glob("*.h5"))
    shard.write_bytes(shard.read_bytes()[:-9])
    with pytest.raises(StoreError, match=rf"{shard.name}' cannot be used"):
        consolidate(store_copy, quiet=True)
    assert not (store_copy / "consolidated" / "catalog.json").exists()
    assert len(list((store_copy / "shards").glob("*.h5"))) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"catalog_version": 7}, "has version 7; this version reads 1"),
        ({"plan_sha256": "0"}, "belongs to another plan"),
        ({"parts": []}, "lists 0 records; expected 1 to 16"),
        ({"parts": [{"name": "../x", "sha256": "0", "bytes": 1, "records": 14}]}, "its parts have other names"),
        ({"parts": [{"name": "part_001_00000.h5", "sha256": "0", "bytes": 1, "records": 99}]}, "lists 99 records"),
        ({"parts": [{"name": "part_001_00000.h5", "sha256": "0", "bytes": True, "records": 14}]}, "a whole number"),
        ({"index_sha256": "0"}, "its SHA-256 is not the one in its manifest"),
        ({"made_with": 3}, r"catalog\.json' is damaged"),
    ],
)
def test_an_odd_catalog_is_refused(store_copy: Path, change: dict[str, object], message: str) -> None:
    consolidate(store_copy, quiet=True)
    path = store_copy / "consolidated" / "catalog.json"
    good = read_sealed_json(path)
    path.write_text(json.dumps(good | change))
    with pytest.raises(StoreError, match="its content_sha256 is not that of its content"):
        Store.open(store_copy)
    path.write_bytes(sealed_json(good | change))
    with pytest.raises(StoreError, match=message):
        Store.open(store_copy)


def test_leftovers_name_nothing_but_files_of_records(store_copy: Path) -> None:
    consolidate(store_copy, quiet=True)
    for name in ("../store.json", "store.json", "shards/../plan.h5", "consolidated/catalog.json", "/etc/passwd"):
        write_leftovers(store_copy, 1, [name])
        with pytest.raises(StoreError, match="it lists other files than those of records"):
            sweep_leftovers(store_copy)
    write_leftovers(store_copy, 2, ["shards/shard_00000.h5"])
    sweep_leftovers(store_copy)  # of a consolidation that did not come to its end
    assert (store_copy / "consolidated" / "leftovers.json").is_file()
    assert len(Store.open(store_copy)) == 14


def test_many_shards_in_mixed_order_are_not_all_held(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(mixed)
    expected = list(store.read_many(store.keys()))
    held: list[int] = []
    part = RecordSlices.part

    def counting(self: RecordSlices, key: str) -> object:
        held.append(1)
        return part(self, key)

    monkeypatch.setattr(RecordSlices, "part", counting)
    for record, other in zip(store.read_many(store.keys(), memory_bytes=1), expected, strict=True):
        assert_same(record, other)
    assert 0 < len(held) < 14  # the first file whole, from the others record by record
    held.clear()
    assert len(list(store.read_many(store.keys()))) == 14
    assert not held
    store.close()


def test_scalars_come_in_planned_order_from_both_layouts(mixed: Path, store_copy: Path) -> None:
    consolidate(store_copy, max_bytes=4000, quiet=True)
    for path in (mixed, store_copy):
        store = Store.open(path)
        found = store.scalars(["energy", "dipole", "cycles"])
        records = list(store.read_many(store.keys()))
        np.testing.assert_array_equal(found["energy"], [r.energy for r in records])
        np.testing.assert_array_equal(found["dipole"], [r.dipole for r in records])
        assert found["cycles"].tolist() == [7] * 14


def test_a_damaged_index_says_what_to_do(store_copy: Path) -> None:
    consolidate(store_copy, quiet=True)
    (store_copy / "consolidated" / "index_001.h5").unlink()
    with pytest.raises(StoreError, match=r"the index of .* take it from a copy, or remove that folder and run"):
        Store.open(store_copy)


def test_a_shard_that_goes_while_the_store_is_opened(store_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process consolidates between the look at the folder and the look at the manifests."""
    listed = StoreFolder.shard_manifest

    def consolidated_meanwhile(self: StoreFolder, path: Path) -> object:
        monkeypatch.setattr(StoreFolder, "shard_manifest", listed)
        consolidate(store_copy, quiet=True)
        return listed(self, path)

    monkeypatch.setattr(StoreFolder, "shard_manifest", consolidated_meanwhile)
    store = Store.open(store_copy)
    assert len(list(store.read_many(store.keys()))) == 14


def test_the_command(store_copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert cli.main(["consolidate", str(store_copy), "--out", str(out), "--max-bytes", "4000"]) == 0
    assert f"{out}: 14 records in 3 files, " in capsys.readouterr().out
    assert cli.main(["consolidate", str(store_copy), "--max-bytes", "1 MiB", "--json", "--quiet"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["records"], len(data["files"])) == (14, 1)
    assert data["bytes"] == Path(data["files"][0]).stat().st_size
    with pytest.raises(SystemExit) as stopped:
        cli.main(["consolidate", str(store_copy), "--max-bytes", "0"])
    assert stopped.value.code == 2
    assert "'0' is not a number of bytes such as 2GiB" in capsys.readouterr().err


def test_keys_of_a_file(mixed: Path, store_copy: Path) -> None:
    files = consolidate(store_copy, max_bytes=4000, quiet=True).files
    for path in (mixed, store_copy):
        store = Store.open(path)
        found = [key for file in [*path.rglob("*.h5"), *path.rglob("*.record")] for key in store.keys_in(file)]
        assert sorted(found) == sorted(store.keys())
        assert store.keys_in(path / "plan.h5") == []
    assert inspect(files[1])["records"]["count"] == len(Store.open(store_copy).keys_in(files[1]))
    with pytest.raises(StoreError, match="is no finished shard, no consolidated file"):
        inspect(store_copy / "consolidated" / "index_001.h5")
