"""Upkeep of a store's folder: records gathered into shards, and what a crash left swept away.

Only the process that holds the store's lock, and the workers it gave batches to, do this.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from qcsurrogate.files.atomic import TEMPORARY_SUFFIX, make_folder, move_into_place, remove_quietly, temporary_for
from qcsurrogate.store.folder import StoreFolder, names_in, stems_in
from qcsurrogate.store.hdf5 import damaged
from qcsurrogate.store.header import PACKAGES, read_digests, revision_in
from qcsurrogate.store.manifest import ShardManifest, read_manifest, sorted_versions, write_manifest
from qcsurrogate.store.plan import Plan
from qcsurrogate.store.raw import RAW_SUFFIX
from qcsurrogate.store.shards import RecordFile, merge, read_records, write_packed
from qcsurrogate.store.spec import DataSpec
from qcsurrogate.store.streaming import file_digest
from qcsurrogate.versions import installed_versions


def write_shard(
    folder: StoreFolder,
    keys: Iterable[str],
    plan: Plan,
    spec: DataSpec,
    number: int | None = None,
    wanted: Callable[[], bool] = lambda: True,
) -> Path | None:
    """Move pending records into a shard of their own.

    The shard is complete before the single files go, so a crash leaves at worst
    records that are there twice; :meth:`clean` removes the singles on the next
    start, and the same call again finds the shard and does the rest.

    Args:
        keys: of pending records.
        plan: a plan that has them.
        spec: the store's spec.
        number: of the shard; by default the next one.
        wanted: asked right before the shard appears; nothing happens if it says no.

    Returns:
        The shard's path, None if it was not wanted any more.
    """
    keys = tuple(keys)
    path = folder.shard_file(next_shard_number(folder) if number is None else number)
    if not _holds(folder, path, keys):
        merged = merge([read_records(folder.pending_file(key), [key], plan, spec) for key in keys])
        if not _write_shard(path, merged, wanted):
            return None
    for key in keys:
        remove_quietly(folder.pending_file(key))
    return path


def _holds(folder: StoreFolder, path: Path, keys: tuple[str, ...]) -> bool:
    """Whether a shard is there already, sound, with exactly these records."""
    return path.is_file() and is_sound(read_manifest(path), keys)


def is_sound(shard: ShardManifest, keys: tuple[str, ...]) -> bool:
    """Whether a shard holds exactly these records, as they were written."""
    return shard.keys == keys and file_digest(shard.path) == shard.digest


def remove_shard(path: Path) -> None:
    """Remove a shard, then its manifest: a shard is never without one."""
    remove_quietly(path)
    remove_quietly(path.with_suffix(".json"))


def _write_shard(path: Path, records: RecordFile, wanted: Callable[[], bool]) -> bool:
    building = temporary_for(path)
    digest = write_packed(building, records)
    if not wanted():
        remove_quietly(building)
        return False
    write_manifest(path, records.keys, digest, sorted_versions(installed_versions(PACKAGES)))
    move_into_place(building, path)
    return True


def clean(folder: StoreFolder) -> tuple[set[str], int]:
    """Sweep away what a process that died left behind; only under the lock.

    Unfinished files go, batches and marks of an earlier run go, and records that lie
    in a later shard too.  Workers that outlived that run see their batch gone,
    and stop.

    Returns:
        Keys of the structures that somebody computed when it ended, and a shard number
        that none has, nor one that some worker may still write.
    """
    for place in (folder.path, *folder.folders):
        for name in names_in(place):
            if name.endswith(TEMPORARY_SUFFIX):
                remove_quietly(place / name)
    newest = len(read_digests(folder.path)) if folder.is_planned else 0
    for name in names_in(folder.path):
        if newest and (revision_in(name) or 0) > newest:  # of a store that died before it had grown
            remove_quietly(folder.path / name)
    given_out = [number for name in names_in(folder.batches) if (number := _shard_number(name)) is not None]
    for name in names_in(folder.batches):
        remove_quietly(folder.batches / name)
    interrupted = folder.marked()
    for key in interrupted:
        folder.unmark_running(key)
    drop_doubles(folder)
    shutil.rmtree(folder.scratch, ignore_errors=True)
    make_folder(folder.scratch)
    return interrupted, max([next_shard_number(folder), *(n + 1 for n in given_out)])


def drop_doubles(folder: StoreFolder) -> None:
    """Remove single records that are in a shard, and shards all of whose records are in later ones."""
    kept: dict[str, ShardManifest] = {}
    old: list[ShardManifest] = []
    for shard in reversed(folder.manifests()):
        if all(key in kept for key in shard.keys):
            old.append(shard)
        else:
            kept |= {key: shard for key in shard.keys if key not in kept}
    singles = [key for key in stems_in(folder.pending, RAW_SUFFIX) if key in kept]
    for shard in {kept[key].path: kept[key] for key in [*singles, *(key for s in old for key in s.keys)]}.values():
        if file_digest(shard.path) != shard.digest:
            raise damaged(shard.path, "its SHA-256 is not the one in its manifest")
    for key in singles:
        remove_quietly(folder.pending_file(key))
    for shard in old:
        remove_shard(shard.path)


def next_shard_number(folder: StoreFolder) -> int:
    """A number that no shard has had."""
    numbers = [number for name in names_in(folder.shards) if (number := _shard_number(name)) is not None]
    return max(numbers, default=-1) + 1


def _shard_number(name: str) -> int | None:
    """The number in the name of a shard, or of the batch from which a worker makes it."""
    match = re.match(r"shard_(\d{1,9})\b", name)
    return int(match[1]) if match else None
