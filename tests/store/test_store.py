"""A finished store: what comes back, what a crash may leave, what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from distributed import Client

from qcsurrogate.errors import RecordError, StoreError
from qcsurrogate.files.atomic import exclusive_lock, sealed_json, sha256
from qcsurrogate.generation import generate
from qcsurrogate.reference.record import FIELDS, ReferenceRecord
from qcsurrogate.reference.settings import Targets
from qcsurrogate.store import store as store_module
from qcsurrogate.store.folder import StoreFolder
from qcsurrogate.store.manifest import sorted_versions, write_manifest
from qcsurrogate.store.plan import make_plan
from qcsurrogate.store.shards import (
    pack_triangle,
    read_records,
    unpack_triangle,
    write_packed,
    write_records,
)
from qcsurrogate.store.store import Store
from qcsurrogate.store.upkeep import write_shard
from qcsurrogate.versions import installed_versions
from tests.store import fakes
from tests.store.arrays import StoredArray, write_arrays


def computed(store: Store, key: str) -> ReferenceRecord:
    return fakes.pretend(store.structure(key), store.spec.method, store.spec.targets, {})


def assert_same_record(found: ReferenceRecord, expected: ReferenceRecord, names: set[str]) -> None:
    assert found.structure.key == expected.structure.key
    assert found.structure.name == expected.structure.name
    for name in names:
        value = found.value(name)
        np.testing.assert_array_equal(value, expected.value(name), err_msg=name)
        if not isinstance(value, np.ndarray):
            assert type(value) is type(expected.value(name)), name


def test_every_field_comes_back_as_it_was(client: Client, tmp_path: Path) -> None:
    spec = fakes.spec(5, targets=Targets(density_coefficients=True, core_hamiltonian=True, forces=True))
    generate(spec, tmp_path / "store", client=client, quiet=True, calculator=fakes.pretend)
    store = Store.open(tmp_path / "store")
    assert len(store) == 5
    for record in store.read_many(store.keys()):
        assert_same_record(record, computed(store, spec.record_key(record.structure)), {f.name for f in FIELDS})


def test_optional_fields_only_where_asked(client: Client, tmp_path: Path) -> None:
    spec = fakes.spec(5, targets=Targets(density_coefficients=False))
    generate(spec, tmp_path / "store", client=client, quiet=True, calculator=fakes.pretend)
    store = Store.open(tmp_path / "store")
    record = store.read(store.keys()[0])
    absent = {f.name for f in FIELDS if f.optional}
    assert all(record.value(name) is None for name in absent)
    assert_same_record(record, computed(store, store.keys()[0]), {f.name for f in FIELDS} - absent)


def test_triangles() -> None:
    matrix = np.arange(9.0).reshape(3, 3)
    matrix = matrix + matrix.T
    assert pack_triangle(matrix).tolist() == [0, 4, 8, 8, 12, 16]
    np.testing.assert_array_equal(unpack_triangle(pack_triangle(matrix), 3), matrix)


def test_what_a_store_says_about_itself(finished: Path) -> None:
    store = Store.open(finished)
    assert store.counts() == {"waiting": 0, "running": 0, "complete": 10, "error": 0}
    assert store.spec == fakes.spec()
    assert set(store.atoms) == {1}
    assert store.failures() == []
    assert store.verify() == 10
    parts = {name: store.keys(name) for name in ("train", "validation", "test")}
    assert [len(keys) for keys in parts.values()] == [5, 2, 3]
    assert sorted(key for keys in parts.values() for key in keys) == sorted(store.keys())
    for name, keys in parts.items():
        assert all(store.split_of(key) == name for key in keys)
    assert store.keys() == list(store.plan.keys)
    assert [store.structure(key).name for key in store.keys()[:2]] == ["hydrogen_0", "hydrogen_1"]
    assert {"python", "pyscf", "numpy", "h5py"} <= store.header.versions.keys()
    with pytest.raises(StoreError, match=r"no split 'tset'; expected one of .*; did you mean 'test'\?"):
        store.keys("tset")  # type: ignore[arg-type]
    with pytest.raises(StoreError, match="no structure with the key 'abc'"):
        store.read("abc")


def test_reading_many_keeps_the_order_and_opens_each_file_once(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []

    def counting(path: Path, *arguments: object) -> object:
        opened.append(path)
        return read_records(path, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(store_module, "read_records", counting)
    store = Store.open(finished)
    keys = store.keys()[::-1] + store.keys()[:3]
    assert [store.spec.record_key(r.structure) for r in store.read_many(keys)] == keys
    assert len(opened) == len(set(opened)) == 3
    opened.clear()
    for key in store.keys()[:4]:
        store.read(key)
    assert len(opened) == 1


def test_records_cannot_be_changed_through_what_was_read(finished: Path) -> None:
    store = Store.open(finished)
    key = store.keys()[0]
    store.read(key).dipole[:] = 0
    store.read(key).mo_energy[:] = 0
    store.read(key).hamiltonian[:] = 0
    assert_same_record(store.read(key), computed(store, key), {"dipole", "mo_energy", "hamiltonian"})


def test_hash_follows_the_spec_and_the_complete_records(client: Client, finished: Path, tmp_path: Path) -> None:
    full = Store.open(finished).dataset_hash()
    assert full == Store.open(finished).dataset_hash()
    half = tmp_path / "half"
    generate(fakes.spec(), half, client=client, quiet=True, limit=5, calculator=fakes.pretend)
    assert Store.open(half).dataset_hash() != full
    generate(fakes.spec(), half, client=client, quiet=True, calculator=fakes.pretend)
    assert Store.open(half).dataset_hash() == full


def test_a_store_in_the_making_can_be_read(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "store"
    generate(fakes.spec(), path, client=client, quiet=True, limit=6, calculator=fakes.pretend)
    folder = StoreFolder(path)
    assert len(list(folder.shards.glob("*.h5"))) == 1
    assert len(list(folder.pending.glob("*.record"))) == 2
    store = Store.open(path)
    assert store.counts() == {"waiting": 4, "running": 0, "complete": 6, "error": 0}
    records = list(store.read_many(store.keys()))
    for key, record in zip(store.keys(), records, strict=True):
        assert_same_record(record, computed(store, key), {"hamiltonian", "energy"})
    complete = store.keys()
    waiting = next(key for key in store.plan.keys if key not in complete)
    with pytest.raises(StoreError, match=r"hydrogen_\d' in .* is not complete but 'waiting'; run `generate` again"):
        store.read(waiting)
    # another process moves the pending records into a shard while the store is open
    pending = [p.stem for p in folder.pending.glob("*.record")]
    write_shard(folder, pending, store.plan, store.spec)
    assert_same_record(store.read(pending[0]), computed(store, pending[0]), {"hamiltonian"})


def test_running_counts_only_while_somebody_generates(store_path: Path, client: Client) -> None:
    folder = StoreFolder(store_path)
    header = folder.read_header()
    (folder.shards / "shard_00000.h5").unlink()
    key = next(k for k, state in folder.states(header.plan).items() if state == "waiting")
    folder.mark_running(key)
    assert Store.open(store_path).state_of(key) == "waiting"
    with exclusive_lock(folder.lock_file):
        assert Store.open(store_path).state_of(key) == "running"
        with pytest.raises(StoreError, match="another process is generating into"):
            generate(fakes.spec(), store_path, client=client, quiet=True, calculator=fakes.pretend)
    assert Store.open(store_path).state_of(key) == "waiting"


def crash_before_the_singles_go(folder: StoreFolder, singles: Path) -> None:
    shutil.copytree(singles, folder.pending, dirs_exist_ok=True)


def crash_before_the_shard_moves(folder: StoreFolder, singles: Path) -> None:
    crash_before_the_singles_go(folder, singles)
    (folder.shards / "shard_00000.h5").rename(folder.shards / "shard_00000.h5.building.tmp")


def crash_before_the_manifest(folder: StoreFolder, singles: Path) -> None:
    crash_before_the_shard_moves(folder, singles)
    (folder.shards / "shard_00000.json").unlink()


def crash_while_writing_anything(folder: StoreFolder, singles: Path) -> None:
    for place in (folder.path / "plan.h5", folder.shards / "shard_00003.h5", folder.pending / "abc.h5"):
        place.with_name(f"{place.name}.4711.tmp").write_bytes(b"half of it")
    folder.mark_running("abc")
    (folder.scratch / "tmpabc").write_bytes(b"PySCF's")


@pytest.mark.parametrize(
    "crash",
    [
        crash_before_the_singles_go,
        crash_before_the_shard_moves,
        crash_before_the_manifest,
        crash_while_writing_anything,
    ],
)
def test_a_crash_at_any_point_loses_nothing(
    client: Client, tmp_path: Path, crash: Callable[[StoreFolder, Path], None]
) -> None:
    path, spec = tmp_path / "store", fakes.spec(shard_size=10)
    generate(spec, path, client=client, quiet=True, limit=9, calculator=fakes.pretend)
    folder = StoreFolder(path)
    singles = Path(shutil.copytree(folder.pending, tmp_path / "singles"))
    header = folder.read_header()
    write_shard(folder, [p.stem for p in folder.pending.glob("*.record")], header.plan, spec)
    crash(folder, singles)

    assert Store.open(path).counts()["complete"] == 9
    summary = generate(spec, path, client=client, quiet=True, calculator=fakes.pretend)
    assert summary.computed == 1
    store = Store.open(path)
    assert store.counts()["complete"] == store.verify() == 10
    assert list(folder.pending.iterdir()) == list(folder.running.iterdir()) == list(folder.scratch.iterdir()) == []
    assert not list(path.rglob("*.tmp"))
    keys = [key for manifest in folder.manifests() for key in manifest.keys]
    assert sorted(keys) == sorted(store.keys())


def test_a_damaged_shard_is_named_and_only_its_records_are_computed_again(store_path: Path, client: Client) -> None:
    shard = store_path / "shards" / "shard_00001.h5"
    shard.write_bytes(shard.read_bytes()[:-7])
    store = Store.open(store_path)
    with pytest.raises(StoreError, match=r"shard_00001\.h5' cannot be used: its SHA-256 .* run `generate` again"):
        store.verify()
    shard.unlink()
    shard.with_suffix(".json").unlink()
    summary = generate(fakes.spec(), store_path, client=client, quiet=True, calculator=fakes.pretend)
    assert summary.computed == 4
    assert Store.open(store_path).verify() == 10


def test_a_damaged_pending_record_is_computed_again(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "store"
    generate(fakes.spec(), path, client=client, quiet=True, limit=3, calculator=fakes.pretend)
    single = next((path / "pending").iterdir())
    single.write_bytes(single.read_bytes()[:-9])
    with pytest.raises(StoreError, match=f"{single.name}' cannot be used"):
        Store.open(path).verify()
    assert generate(fakes.spec(), path, client=client, quiet=True, calculator=fakes.pretend).computed == 8
    assert Store.open(path).verify() == 10


def rewritten(store: Store, **changes: np.ndarray) -> None:
    """Replace arrays of the first shard and make its manifest agree."""
    manifest = store.folder.manifests()[0]
    records = read_records(manifest.path, manifest.keys, store.plan, store.spec)
    digest = write_packed(manifest.path, replace(records, arrays=records.arrays | changes))
    write_manifest(manifest.path, manifest.keys, digest, sorted_versions(installed_versions(["pyscf"])))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "hamiltonian",
            lambda a: np.where(np.arange(len(a)) == 3, np.nan, a),
            "'hamiltonian' holds values that are not",
        ),
        ("positions", lambda a: a + 0.1, "'positions' is not that of the planned structures"),
        ("atomic_numbers", lambda a: a + 1, "'atomic_numbers' is not that of the planned structures"),
        ("charge", lambda a: a + 1, "'charge' is not that of the planned structures"),
        ("converged", lambda a: a * 0, "holds a record that is not converged"),
        ("keys", lambda a: a[::-1], "'keys' is not what the plan says"),
        ("ao_offsets", lambda a: a[::-1], "'ao_offsets' is not what the plan says"),
        ("triangle_offsets", lambda a: a + 2**40, "'triangle_offsets' is not what the plan says"),
    ],
)
def test_a_shard_with_other_contents_is_refused(
    store_path: Path, name: str, change: Callable[[np.ndarray], np.ndarray], message: str
) -> None:
    store = Store.open(store_path)
    manifest = store.folder.manifests()[0]
    array = read_records(manifest.path, manifest.keys, store.plan, store.spec).arrays[name]
    if name == "hamiltonian":  # the writer itself would notice that NaN is not equal to NaN
        array = np.where(np.isnan(change(array)), np.inf, array)
        rewritten(store, **{name: array})
    else:
        rewritten(store, **{name: np.ascontiguousarray(change(array))})
    with pytest.raises(StoreError, match=message):
        Store.open(store_path).verify()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is damaged"),
        (b"[]", "expected a JSON object, got list"),
        (b"{}", "content_sha256"),
        (b"[" * 100_000, "is damaged"),
        (sealed_json({}), "its manifest lacks keys"),
        (sealed_json({"keys": [], "sha256": "0", "versions": [{}]}), "its manifest lacks keys"),
        (
            sealed_json({"keys": ["../../x"], "sha256": "0", "versions": [{}]}),
            r"said to hold the records \['\.\./\.\./x'\], which are not planned",
        ),
    ],
)
def test_odd_manifests_are_refused(store_path: Path, content: bytes, message: str) -> None:
    (store_path / "shards" / "shard_00000.json").write_bytes(content)
    with pytest.raises(StoreError, match=message):  # noqa: PT012 - opening or reading may be what refuses
        store = Store.open(store_path)
        shard = store.folder.manifests()[0]
        read_records(shard.path, shard.keys, store.plan, store.spec, shard.digest)


def test_a_folder_that_is_no_store(tmp_path: Path, store_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot find the store"):
        Store.open(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreError, match=r"is no store: it has no store\.json"):
        Store.open(tmp_path / "empty")
    header = json.loads((store_path / "store.json").read_text())
    del header["content_sha256"]  # unsealed, so that the change itself is met
    for change, message in (
        ({"format_version": 2}, "store format 2; this version reads 1"),
        ({"free_atoms": {"H": {}}}, r"store\.json' is damaged: a free atom is"),
        ({"free_atoms": 3}, r"store\.json' is damaged"),
        ({"plan_sha256": "0"}, r"plan\.h5' cannot be used: its SHA-256"),
        ({"spec_sha256": "0"}, r"spec\.yaml' was changed after the store was planned"),
    ):
        (store_path / "store.json").write_text(json.dumps(header | change))
        with pytest.raises(StoreError, match=message):
            Store.open(store_path)
    (store_path / "store.json").write_text(json.dumps(header))
    (store_path / "plan.h5").unlink()
    with pytest.raises(StoreError, match=r"cannot find the file '.*plan\.h5'"):
        Store.open(store_path)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "keys",
            lambda a: np.array([b"../" * 10] * len(a), a.dtype),
            "keys are not different strings of 32 hexadecimal",
        ),
        ("n_atoms", lambda a: a - 3, "arrays do not fit together"),
        ("n_atoms", lambda a: a * 2, "arrays do not fit together"),
        ("split", lambda a: a + 7, "holds an unknown split"),
        ("positions", lambda a: a * np.inf, "its positions or atomic numbers are no molecule's"),
        ("atomic_numbers", lambda a: a + 118, "its positions or atomic numbers are no molecule's"),
        ("names", lambda a: np.array([b"\xff"] * len(a), a.dtype), "its names are no UTF-8"),
        ("charge", lambda a: a[:-1], "arrays do not fit together"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(
    store_path: Path, name: str, change: Callable[[np.ndarray], np.ndarray], message: str
) -> None:
    import h5py

    with h5py.File(store_path / "plan.h5") as file:
        arrays = {n: StoredArray(d[()], d.attrs["units"].decode(), "") for n, d in file.items()}
    arrays[name] = StoredArray(change(arrays[name].values), arrays[name].units, "")
    digest = write_arrays(store_path / "plan.h5", arrays)
    header = json.loads((store_path / "store.json").read_text())
    del header["content_sha256"]  # unsealed, so that the change itself is met
    (store_path / "store.json").write_text(json.dumps(header | {"plan_sha256": digest}))
    with pytest.raises(StoreError, match=message):
        Store.open(store_path)


def test_a_planned_geometry_that_is_impossible_is_refused_when_it_is_asked_for(finished: Path) -> None:
    plan = Store.open(finished).plan
    assert plan.structures[-1].name == "hydrogen_9"
    assert [s.name for s in plan.structures[2:4]] == ["hydrogen_2", "hydrogen_3"]
    assert [s.key for s in plan.part(plan.keys[3:1:-1]).structures] == [plan.structures[i].key for i in (3, 2)]
    assert plan.label(plan.keys[0]) == plan.structures[0].label == "structure 'hydrogen_0'"
    folded = replace(plan.structures, positions=plan.structures.positions * 0)
    with pytest.raises(StoreError, match="the store's plan is damaged: structure 'hydrogen_1': atoms 0"):
        folded[1]


def test_plan_dimensions_that_do_not_match_the_shards_are_refused_before_reading(store_path: Path) -> None:
    store = Store.open(store_path)
    manifest = store.folder.manifests()[0]
    wrong = replace(store.plan, n_ao=store.plan.n_ao + 1)
    with pytest.raises(StoreError, match=r"declares the shape \(12,\); expected \(24,\)"):
        read_records(manifest.path, manifest.keys, wrong, store.spec, manifest.digest)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"converged": False}, "structure 'hydrogen_0': the record is not converged"),
        ({"hamiltonian": np.eye(3)}, r"hamiltonian has shape \(3, 3\); expected \(2, 2\)"),
        ({"hamiltonian": np.array([[0.0, 1.0], [0.0, 0.0]])}, "hamiltonian differs from its transpose by 1.0e"),
        ({"energy": float("inf")}, "energy holds values that are not finite"),
        ({"density_coefficients": None}, "the record has no density_coefficients"),
        ({"density_coefficients": np.zeros(3)}, r"density_coefficients has shape \(3,\)"),
    ],
)
def test_a_bad_record_is_never_written(
    finished: Path, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    store = Store.open(finished)
    key = store.keys()[0]
    record = replace(computed(store, key), **changes)  # type: ignore[arg-type]
    with pytest.raises(RecordError, match=message):
        write_records(tmp_path / "a.h5", [(key, record)], store.plan, store.spec)
    other = computed(store, store.keys()[1])
    with pytest.raises(RecordError, match="belongs to another geometry"):
        write_records(tmp_path / "a.h5", [(key, other)], store.plan, store.spec)
    assert list(tmp_path.iterdir()) == []


def test_a_plan_is_made_alike_twice() -> None:
    first, second = make_plan(fakes.spec())[0], make_plan(fakes.spec())[0]
    assert first.keys == second.keys
    np.testing.assert_array_equal(first.split, second.split)


def test_digest_of_the_spec_is_that_of_its_bytes(finished: Path) -> None:
    header = json.loads((finished / "store.json").read_text())
    assert header["spec_sha256"] == sha256((finished / "spec.yaml").read_bytes())
