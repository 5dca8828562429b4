"""Few large shards: the same records, read by slices, and no moment at which one could be lost."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tracemalloc
from contextlib import closing
from pathlib import Path

import h5py
import numpy as np
import pytest
from distributed import Client

from qcsurrogate import cli
from qcsurrogate.errors import SpecError, StoreError
from qcsurrogate.files.atomic import exclusive_lock, sealed_json
from qcsurrogate.generation import generate
from qcsurrogate.inspection import inspect
from qcsurrogate.reference.record import FIELDS, ReferenceRecord
from qcsurrogate.store.consolidate import consolidate
from qcsurrogate.store.folder import StoreFolder
from qcsurrogate.store.hdf5 import ArrayFile, Declared, read_arrays
from qcsurrogate.store.manifest import count_versions, read_manifest
from qcsurrogate.store.shards import RecordSlices
from qcsurrogate.store.store import Store
from qcsurrogate.store.streaming import file_digest, writing_arrays
from tests.store import fakes
from tests.store.arrays import StoredArray
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
    assert sorted(p.name for p in folder.shards.iterdir()) == ["shard_00003.h5", "shard_00003.json"]
    assert list(folder.pending.iterdir()) == []
    assert_same_store(store_copy, mixed)
    assert consolidate(store_copy, quiet=True).files == result.files  # nothing to do

    spec = fakes.spec(16)
    assert generate(spec, store_copy, client=client, quiet=True, calculator=fakes.pretend).computed == 2
    assert len(list(folder.shards.glob("*.h5"))) == 2
    store = Store.open(store_copy)
    assert len(store) == store.verify() == 16
    assert sorted(store.keys()) == sorted(store.plan.keys)

    second = consolidate(store_copy, quiet=True)
    assert (second.n_records, [p.name for p in second.files]) == (16, ["shard_00005.h5"])
    assert sorted(p.name for p in folder.shards.iterdir()) == ["shard_00005.h5", "shard_00005.json"]
    assert len(Store.open(store_copy)) == 16
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
    files[1].write_bytes(files[1].read_bytes()[:-1])
    stamps = [path.stat().st_mtime_ns for path in files]
    again = consolidate(mixed, out, max_bytes=4000, quiet=True).files
    assert again == (files[0], out / "shards" / "shard_00003.h5", files[2])  # the damaged one is written anew
    assert [again[i].stat().st_mtime_ns == stamps[i] for i in (0, 2)] == [True, True]
    assert not files[1].exists()
    assert_same_store(out, mixed)


def test_a_new_store_leaves_alone_what_only_it_has(mixed: Path, tmp_path: Path) -> None:
    """Somebody consolidates a store of 14 into one of the same plan that has 16."""
    full = make_store(tmp_path / "full", fakes.spec(16))
    consolidate(mixed, full.path, quiet=True)
    assert Store.open(full.path).verify() == 16


def test_a_consolidation_that_adds_to_large_shards_keeps_those_that_stay(tmp_path: Path, client: Client) -> None:
    path = make_store(tmp_path / "store", fakes.spec(16), rows=range(12)).path
    first = consolidate(path, max_bytes=4000, quiet=True).files
    generate(fakes.spec(16), path, client=client, quiet=True, calculator=fakes.pretend)
    second = consolidate(path, max_bytes=4000, quiet=True).files
    assert second[:2] == first[:2]
    assert Store.open(path).verify() == 16


def test_a_shard_all_of_whose_records_are_in_later_ones_goes_with_the_next_start(
    store_copy: Path, client: Client
) -> None:
    """A consolidation died while it removed the old shards."""
    folder = StoreFolder(store_copy)
    old = {path: path.read_bytes() for path in [*folder.shards.iterdir(), *folder.pending.iterdir()]}
    (new,) = consolidate(store_copy, quiet=True).files
    for path, data in old.items():
        path.write_bytes(data)
    store = Store.open(store_copy)
    assert len(list(store.read_many(store.keys()))) == 14
    sound = new.read_bytes()
    new.write_bytes(sound[:-1])
    with pytest.raises(StoreError, match=rf"{new.name}' cannot be used: its SHA-256"):
        generate(fakes.spec(16), store_copy, client=client, quiet=True, calculator=fakes.pretend)
    assert all(path.is_file() for path in old)
    new.write_bytes(sound)
    generate(fakes.spec(16), store_copy, client=client, quiet=True, calculator=fakes.pretend, limit=0)
    assert [path.name for path in folder.shards.glob("*.h5")] == [new.name]
    assert list(folder.pending.iterdir()) == []


def test_a_store_of_the_former_form_is_refused(store_copy: Path) -> None:
    (store_copy / "consolidated").mkdir()
    (store_copy / "consolidated" / "catalog.json").write_text("{}")
    with pytest.raises(StoreError, match=r"was consolidated by a development version before 0\.1"):
        Store.open(store_copy)


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
    with closing(ArrayFile.open(tmp_path / "large.h5", {"x": Declared(values.dtype, (n,), "1")})) as file:
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
    declared = {n: a.declared for n, a in arrays.items()}
    for file in ("first.h5", "second.h5"):
        with writing_arrays(tmp_path / file, declared) as writer:
            for name, array in arrays.items():
                for start in range(0, len(array.values), 9_999):
                    writer.append(name, array.values[start : start + 9_999])
    expected = {n: Declared(a.values.dtype, a.values.shape, a.units) for n, a in arrays.items()}
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
from qcsurrogate.store.hdf5 import Declared
from qcsurrogate.store.streaming import writing_arrays
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
    assert len(list((store_copy / "shards").glob("*.h5"))) == 3


@pytest.mark.parametrize(
    "change",
    [
        {"keys": None},
        {"keys": "abc"},
        {"keys": [1]},
        {"sha256": 3},
        {"versions": None},
        {"versions": [3]},
        {"versions": []},
        {"computed_with": [0]},
        {"computed_with": [1] * 14},
        {"computed_with": [-1] * 14},
        {"computed_with": ["0"] * 14},
    ],
)
def test_an_odd_manifest_is_refused(store_copy: Path, change: dict[str, object]) -> None:
    (file,) = consolidate(store_copy, quiet=True).files
    path = file.with_suffix(".json")
    good = json.loads(path.read_text())
    path.write_text(json.dumps(good | change))
    with pytest.raises(StoreError, match="its content_sha256 is not that of its content"):
        Store.open(store_copy)
    good.pop("content_sha256")
    path.write_bytes(sealed_json(good | change))
    with pytest.raises(StoreError, match="its manifest lacks keys, sha256 or versions of every record"):
        Store.open(store_copy)


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


def test_large_shards_are_read_record_by_record(store_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = list(Store.open(store_copy).read_many(Store.open(store_copy).keys()))
    (file,) = consolidate(store_copy, quiet=True).files
    monkeypatch.setattr("qcsurrogate.store.store.LARGE_FILE_BYTES", 100)
    monkeypatch.setattr("qcsurrogate.store.store.read_records", None)  # which reads whole shards
    store = Store.open(store_copy)
    assert_same(store.read(store.keys()[3]), expected[3])
    for record, other in zip(store.read_many(store.keys()), expected, strict=True):
        assert_same(record, other)
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(StoreError, match="its SHA-256 is not the one in its manifest"):
        Store.open(store_copy).verify()


def test_every_record_keeps_the_versions_it_was_computed_with(store_copy: Path) -> None:
    folder = StoreFolder(store_copy)
    header = folder.read_header()
    path = sorted(folder.shards.glob("*.json"))[1]
    data = json.loads(path.read_text())
    data.pop("content_sha256")
    path.write_bytes(sealed_json(data | {"versions": [{"pyscf": "1.0"}]}))
    before = folder.versions_of(header)
    assert count_versions(before.values())[1] == ({"pyscf": "1.0"}, len(data["keys"]))
    consolidate(store_copy, quiet=True)
    assert folder.versions_of(header) == before
    consolidate(store_copy, store_copy.with_name("out"), max_bytes=4000, quiet=True)
    assert StoreFolder(store_copy.with_name("out")).versions_of(header) == before


def test_scalars_come_in_planned_order(mixed: Path, store_copy: Path) -> None:
    consolidate(store_copy, max_bytes=4000, quiet=True)
    for path in (mixed, store_copy):
        store = Store.open(path)
        found = store.scalars(["energy", "dipole", "cycles"])
        records = list(store.read_many(store.keys()))
        np.testing.assert_array_equal(found["energy"], [r.energy for r in records])
        np.testing.assert_array_equal(found["dipole"], [r.dipole for r in records])
        assert found["cycles"].tolist() == [7] * 14


def test_a_shard_that_goes_while_the_store_is_opened(store_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process consolidates between the look at the folder and the look at the manifests."""

    def consolidated_meanwhile(path: Path) -> object:
        monkeypatch.setattr("qcsurrogate.store.folder.read_manifest", read_manifest)
        consolidate(store_copy, quiet=True)
        return read_manifest(path)

    monkeypatch.setattr("qcsurrogate.store.folder.read_manifest", consolidated_meanwhile)
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
    shutil.copy(files[0], store_copy / "batches" / "other.h5")
    with pytest.raises(StoreError, match="is no finished shard and no pending record"):
        inspect(store_copy / "batches" / "other.h5")
