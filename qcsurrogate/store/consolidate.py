"""From many shards to few large ones in planned order, without a moment at which a record could be lost.

Every large shard is written, read back and flushed beside the old ones, which go only
when all are there.  A process that dies leaves records that lie in two shards, of which
readers take the later; the next start takes over what is finished, and removes the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qcsurrogate.errors import SpecError, StoreError
from qcsurrogate.files.atomic import (
    TEMPORARY_SUFFIX,
    exclusive_lock,
    move_into_place,
    read_limited,
    remove_quietly,
    temporary_for,
    write_atomically,
)
from qcsurrogate.store.folder import StoreFolder, stems_in
from qcsurrogate.store.header import copy_plan_and_spec, write_header
from qcsurrogate.store.manifest import Versions, write_manifest
from qcsurrogate.store.plan import Plan
from qcsurrogate.store.progress import Progress
from qcsurrogate.store.raw import RAW_SUFFIX
from qcsurrogate.store.shards import (
    RecordFile,
    expected_arrays,
    frame_arrays,
    record_sizes,
    stored_fields,
)
from qcsurrogate.store.spec import DataSpec
from qcsurrogate.store.store import Store
from qcsurrogate.store.streaming import file_digest, writing_arrays
from qcsurrogate.store.upkeep import is_sound, next_shard_number, remove_shard

DEFAULT_MAX_BYTES = 2 * 2**30

_MOST_RECORDS = 500_000
"""Of one shard, so that its manifest stays readable."""

_SUFFIXES = (".h5", RAW_SUFFIX)

_SHARDS_BYTES = 2**27
"""What is kept of shards whose records are wanted in another order than they have."""

PackedRecords = Callable[[Sequence[str]], Iterator[RecordFile]]
"""Gives the records of keys, in order, one at a time."""


@dataclass(frozen=True)
class Consolidation:
    """What :func:`consolidate` has made."""

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
    target = StoreFolder(Path(out).absolute()) if out is not None else source
    in_place = target.path == source.path
    source.read_header()
    if not in_place:
        target.prepare()
    with exclusive_lock(target.lock_file), closing(Store.open(source.path)) as store:
        keys = store.keys()
        if not keys:
            raise StoreError(f"'{store.path}' holds no complete record; expected some: run `generate` first")
        if not in_place:
            require_place_for(target, store.plan)
            copy_plan_and_spec(source.path, target.path, store.header)
        before = _record_bytes(source)
        versions = source.versions_of(store.header)
        files = write_shards(target, store.plan, store.spec, keys, _packed_of(store), versions, max_bytes, quiet=quiet)
        _remove_superseded(target, files, set(keys))
        if not in_place:
            copy_failures([source], target, [key for key in store.plan.keys if store.state_of(key) != "complete"])
            write_header(target.path, store.header)
    folder = Path(path if in_place or out is None else out)
    n_bytes = sum(file.stat().st_size for file in files)
    return Consolidation(folder, len(keys), tuple(folder / "shards" / f.name for f in files), n_bytes, before)


def _packed_of(store: Store) -> PackedRecords:
    return lambda keys: store.packed_many(keys, _SHARDS_BYTES)


def write_shards(
    folder: StoreFolder,
    plan: Plan,
    spec: DataSpec,
    keys: Sequence[str],
    packed: PackedRecords,
    versions: Mapping[str, Versions],
    max_bytes: int,
    *,
    quiet: bool,
) -> list[Path]:
    """Write large shards of some records, in order; those that are there already, whole, are taken over."""
    for path in folder.shards.glob(f"*{TEMPORARY_SUFFIX}"):
        remove_quietly(path)
    there = {shard.keys: shard for shard in folder.manifests()}
    rows = np.array([plan.index[key] for key in keys], np.int64)
    stops = _cut(record_sizes(plan, spec)[rows], max_bytes)
    files: list[Path] = []
    progress = Progress(len(keys), "consolidating", quiet)
    with closing(progress):
        for start, stop in zip([0, *stops[:-1]], stops, strict=True):
            part = tuple(keys[start:stop])
            shard = there.get(part)
            if shard is not None and is_sound(shard, part):
                files.append(shard.path)
                for _ in part:
                    progress.advance(failed=False)
            else:
                files.append(folder.shard_file(next_shard_number(folder)))
                _write_shard(files[-1], plan, spec, part, packed, versions, progress)
    return files


def _write_shard(
    path: Path,
    plan: Plan,
    spec: DataSpec,
    keys: tuple[str, ...],
    packed: PackedRecords,
    versions: Mapping[str, Versions],
    progress: Progress,
) -> None:
    empty = RecordFile(plan, stored_fields(spec), keys, {})
    building = temporary_for(path)
    with writing_arrays(building, expected_arrays(empty)) as writer:
        for name, values in frame_arrays(keys, plan, empty.fields).items():
            writer.append(name, values)
        for record in packed(keys):
            for field in empty.fields:
                writer.append(field.name, record.arrays[field.name])
            progress.advance(failed=False)
            progress.show()
    write_manifest(path, keys, file_digest(building), versions)
    move_into_place(building, path)


def _remove_superseded(folder: StoreFolder, files: Sequence[Path], keys: set[str]) -> None:
    """Remove what has nothing that the new shards do not have."""
    for shard in folder.manifests():
        if shard.path not in files and keys.issuperset(shard.keys):
            remove_shard(shard.path)
    for key in stems_in(folder.pending, RAW_SUFFIX) & keys:
        remove_quietly(folder.pending_file(key))


def _cut(sizes: NDArray[np.int64], max_bytes: int) -> list[int]:
    """Where parts end, so that none but one of a single record has more than ``max_bytes``."""
    ends = np.cumsum(sizes)
    stops: list[int] = []
    start = 0
    while start < len(sizes):
        before = int(ends[start - 1]) if start else 0
        stop = int(np.searchsorted(ends, before + max_bytes, side="right"))
        start = max(start + 1, min(stop, start + _MOST_RECORDS))
        stops.append(start)
    return stops


def require_place_for(target: StoreFolder, plan: Plan) -> None:
    """Whether a folder is no store yet, or one of this plan."""
    there = target.read_header().plan if target.is_planned else plan
    if there.keys != plan.keys or not np.array_equal(there.split, plan.split):
        raise StoreError(f"'{target.path}' is a store of another plan; expected a new or empty folder")


def copy_failures(sources: Sequence[StoreFolder], target: StoreFolder, keys: Sequence[str]) -> None:
    """Copy what is known of the failures of some structures, from the first store that knows something."""
    for key in keys:
        for source in sources:
            known = [path for path in (source.error_file(key), source.attempts_file(key)) if path.is_file()]
            for path in known:
                write_atomically(target.path / path.parent.name / path.name, read_limited(path, 2**24))
            if known:
                break


def _record_bytes(folder: StoreFolder) -> int:
    """Bytes of all files of records."""
    return sum(p.stat().st_size for q in (folder.shards, folder.pending) for p in q.iterdir() if p.suffix in _SUFFIXES)
