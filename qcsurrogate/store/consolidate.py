"""From many shards to few large files with an index, without a moment at which a record could be lost.

Everything new is written, read back and flushed before the catalog names it, and the
old files go only afterwards.  A process that dies leaves the old store or the new one,
and whole parts that the next start takes over.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qcsurrogate.errors import SpecError, StoreError
from qcsurrogate.files.atomic import (
    TEMPORARY_SUFFIX,
    exclusive_lock,
    read_limited,
    read_sealed_json,
    remove_quietly,
    sealed_json,
    sha256,
    write_atomically,
)
from qcsurrogate.reference.record import FieldShape
from qcsurrogate.store.catalog import (
    Catalog,
    MadeWith,
    Part,
    index_name,
    part_name,
    sweep_leftovers,
    write_catalog,
    write_leftovers,
)
from qcsurrogate.store.folder import StoreFolder
from qcsurrogate.store.header import Header, copy_plan_and_spec, write_header
from qcsurrogate.store.plan import Plan
from qcsurrogate.store.progress import Progress
from qcsurrogate.store.raw import RAW_SUFFIX
from qcsurrogate.store.shards import RecordFile, array_description, expected_arrays, frame_arrays, stored_fields
from qcsurrogate.store.spec import DataSpec
from qcsurrogate.store.store import Store
from qcsurrogate.store.streaming import Declared, file_digest, writing_arrays

DEFAULT_MAX_BYTES = 2 * 2**30

_SHARDS_BYTES = 2**27
"""What is kept of shards whose records are wanted in another order than they have."""

PackedRecords = Callable[[Sequence[str]], Iterator[RecordFile]]
"""Gives the records of keys, in order, one at a time."""


@dataclass(frozen=True)
class Consolidation:
    """What :func:`consolidate` has made.

    Attributes:
        path: the store that now has the large files.
        n_records: records in them.
        files: their paths.
        n_bytes: bytes that they take.
        bytes_before: bytes that the same records took.
    """

    path: Path
    n_records: int
    files: tuple[Path, ...]
    n_bytes: int
    bytes_before: int


def consolidate(
    path: str | Path, out: str | Path | None = None, *, max_bytes: int = DEFAULT_MAX_BYTES, quiet: bool = False
) -> Consolidation:
    """Put all complete records of a store into few large files, in planned order.

    Args:
        path: the store.
        out: folder of a new store; by default the store itself is changed.
        max_bytes: of one file's values before they are compressed.
        quiet: whether to keep silent about progress.

    Raises:
        StoreError: if a record is damaged, nothing is complete, another process writes
            to the store, or the disk is full; the store is then as it was.
        SpecError: if ``max_bytes`` is no positive number.
    """
    if max_bytes < 1:
        raise SpecError(f"max_bytes = {max_bytes}; expected 1 or more")
    source = StoreFolder(Path(path).absolute())
    source.read_header()
    if out is None or Path(out).absolute() == source.path:
        with exclusive_lock(source.lock_file):
            sweep_leftovers(source.path)
            return _in_place(source, Path(path), max_bytes, quiet)
    target = StoreFolder(Path(out).absolute())
    target.prepare()
    with exclusive_lock(target.lock_file), closing(Store.open(source.path)) as store:
        _require_records(store, store.keys())
        require_place_for(target, store.plan)
        copy_plan_and_spec(source.path, target.path, store.header)
        made_with = made_with_of(source, store.header)
        catalog = write_parts(
            target, store.plan, store.spec, store.keys(), _packed_of(store), max_bytes, made_with=made_with, quiet=quiet
        )
        write_catalog(catalog, store.header.plan_digest)
        copy_failures([source], target, [key for key in store.plan.keys if store.state_of(key) != "complete"])
        write_header(target.path, store.header)
        return _result(Path(out), catalog, _record_bytes(source))


def _in_place(folder: StoreFolder, path: Path, max_bytes: int, quiet: bool) -> Consolidation:
    with closing(Store.open(folder.path)) as store:
        keys = store.keys()
        _require_records(store, keys)
        before = _record_bytes(folder)
        old = folder.catalog(store.plan)
        if old is not None and all(old.present) and len(old.structures) == len(keys):
            return _result(path, old, before)
        generation = 1 if old is None else old.generation + 1
        catalog = write_parts(
            folder,
            store.plan,
            store.spec,
            keys,
            _packed_of(store),
            max_bytes,
            generation=generation,
            made_with=made_with_of(folder, store.header),
            quiet=quiet,
        )
        write_leftovers(folder.path, generation, _superfluous(folder, old, store.plan))
        write_catalog(catalog, store.header.plan_digest)
    sweep_leftovers(folder.path)
    return _result(path, catalog, before)


def _packed_of(store: Store) -> PackedRecords:
    return lambda keys: store.packed_many(keys, _SHARDS_BYTES)


def write_parts(
    folder: StoreFolder,
    plan: Plan,
    spec: DataSpec,
    keys: Sequence[str],
    packed: PackedRecords,
    max_bytes: int,
    *,
    generation: int = 1,
    made_with: tuple[MadeWith, ...],
    quiet: bool,
) -> Catalog:
    """Write the large files of a generation; those that are there already, whole, are taken over.

    Raises:
        StoreError: if a record is damaged, or a file cannot be written.
    """
    folder.consolidated.mkdir(exist_ok=True)
    for path in folder.consolidated.glob(f"*{TEMPORARY_SUFFIX}"):
        remove_quietly(path)
    rows = np.array([plan.index[key] for key in keys], np.int64)
    stops = _cut(_record_sizes(rows, plan, spec), max_bytes)
    parts: list[Part] = []
    progress = Progress(len(keys), "consolidating", quiet)
    with closing(progress):
        for number, (start, stop) in enumerate(zip([0, *stops[:-1]], stops, strict=True)):
            path = folder.consolidated / part_name(generation, number)
            part = _finished_part(path, keys[start:stop])
            if part is None:
                part = _write_part(path, plan, spec, keys[start:stop], packed, progress)
            else:
                for _ in range(start, stop):
                    progress.advance(failed=False)
            parts.append(part)
    return Catalog(folder.consolidated, generation, tuple(parts), rows, made_with)


def _write_part(
    path: Path, plan: Plan, spec: DataSpec, keys: Sequence[str], packed: PackedRecords, progress: Progress
) -> Part:
    empty = RecordFile(plan, stored_fields(spec), tuple(keys), {})
    declared = {
        name: Declared(
            e.dtype, tuple(length or 0 for length in e.shape), e.units, array_description(name, empty.fields)
        )
        for name, e in expected_arrays(empty).items()
    }
    with writing_arrays(path, declared) as writer:
        for name, values in frame_arrays(empty.keys, plan, empty.fields).items():
            writer.append(name, values)
        for record in packed(keys):
            for field in empty.fields:
                writer.append(field.name, record.arrays[field.name])
            progress.advance(failed=False)
            progress.show()
    part = Part(path.name, file_digest(path), path.stat().st_size, len(keys))
    manifest = {**part.to_dict(), "keys_sha256": _keys_digest(keys)}
    write_atomically(path.with_suffix(".json"), sealed_json(manifest))
    return part


def _finished_part(path: Path, keys: Sequence[str]) -> Part | None:
    """A part that an interrupted run has finished, if it holds these records and is sound."""
    manifest = path.with_suffix(".json")
    if not path.is_file() or not manifest.is_file():
        return None
    try:
        data = read_sealed_json(manifest)
    except StoreError:
        return None  # written anew
    part = Part(path.name, str(data.get("sha256")), path.stat().st_size, len(keys))
    wanted = {**part.to_dict(), "keys_sha256": _keys_digest(keys)}
    return part if data == wanted and file_digest(path) == part.digest else None


def _keys_digest(keys: Sequence[str]) -> str:
    return sha256("\n".join(keys).encode())


def _record_sizes(rows: NDArray[np.int64], plan: Plan, spec: DataSpec) -> NDArray[np.int64]:
    """(n,) bytes of every record as it is packed."""
    fields = stored_fields(spec)
    n_atoms, n_ao, n_aux = plan.structures.n_atoms[rows], plan.n_ao[rows], plan.n_aux[rows]
    triangle, one = n_ao * (n_ao + 1) // 2, np.ones_like(n_ao)
    lengths: dict[FieldShape, NDArray[np.int64]] = {
        "scalar": one,
        "vector3": 3 * one,
        "atom": n_atoms,
        "atom3": 3 * n_atoms,
        "ao": n_ao,
        "aux": n_aux,
        "triangle": triangle,
    }
    return np.asarray(8 * np.sum([lengths[field.shape] for field in fields], axis=0))


def _cut(sizes: NDArray[np.int64], max_bytes: int) -> list[int]:
    """Where parts end, so that none but one of a single record has more than ``max_bytes``."""
    ends = np.cumsum(sizes)
    stops: list[int] = []
    start = 0
    while start < len(sizes):
        before = int(ends[start - 1]) if start else 0
        start = max(start + 1, int(np.searchsorted(ends, before + max_bytes, side="right")))
        stops.append(start)
    return stops


def require_place_for(target: StoreFolder, plan: Plan) -> None:
    """Whether a folder is no store yet, or one of this plan.

    Raises:
        StoreError: if it is a store of something else.
    """
    there = target.read_header().plan if target.is_planned else plan
    if there.keys != plan.keys or not np.array_equal(there.split, plan.split):
        raise StoreError(f"'{target.path}' is a store of another plan; expected a new or empty folder")


def copy_failures(sources: Sequence[StoreFolder], target: StoreFolder, keys: Sequence[str]) -> None:
    """Copy what is known of the failures of some structures, from the first store that knows something.

    Raises:
        StoreError: if it cannot be written.
    """
    for key in keys:
        for source in sources:
            known = [path for path in (source.error_file(key), source.attempts_file(key)) if path.is_file()]
            for path in known:
                write_atomically(target.path / path.parent.name / path.name, read_limited(path, 2**24))
            if known:
                break


def made_with_of(folder: StoreFolder, header: Header) -> tuple[MadeWith, ...]:
    """Which packages the records of a store were computed with, most records first.

    Records that wait for their shard count with the versions that the store was planned with.

    Raises:
        StoreError: if a manifest or the catalog is damaged.
    """
    counts: Counter[tuple[tuple[str, str], ...]] = Counter()
    catalog = folder.catalog(header.plan)
    for made in catalog.made_with if catalog is not None else ():
        counts[tuple(sorted(made.versions.items()))] += made.n_records
    for shard in folder.manifests():
        counts[tuple(sorted(shard.versions.items()))] += len(shard.keys)
    pending = len(folder.pending_keys(header.plan))
    if pending:
        counts[tuple(sorted(header.versions.items()))] += pending
    return tuple(MadeWith(dict(versions), n) for versions, n in sorted(counts.items(), key=lambda e: (-e[1], e[0])))


def _superfluous(folder: StoreFolder, old: Catalog | None, plan: Plan) -> list[str]:
    names = [f"shards/{shard.path.with_suffix(end).name}" for shard in folder.manifests() for end in (".h5", ".json")]
    names += [f"pending/{folder.pending_file(key).name}" for key in sorted(folder.pending_keys(plan))]
    if old is not None:
        for part in old.parts:
            names += [f"consolidated/{Path(part.name).with_suffix(end)}" for end in (".h5", ".json")]
        names.append(f"consolidated/{index_name(old.generation)}")
    return names


def _require_records(store: Store, keys: Sequence[str]) -> None:
    if not keys:
        raise StoreError(f"'{store.path}' holds no complete record; expected some: run `generate` first")


def _record_bytes(folder: StoreFolder) -> int:
    """Bytes of all files of records."""
    places = (folder.shards, folder.pending, folder.consolidated)
    return sum(p.stat().st_size for place in places for p in place.iterdir() if p.suffix in (".h5", RAW_SUFFIX))


def _result(path: Path, catalog: Catalog, before: int) -> Consolidation:
    files = tuple(path / "consolidated" / part.name for part in catalog.parts)
    return Consolidation(path, len(catalog.structures), files, sum(part.n_bytes for part in catalog.parts), before)
