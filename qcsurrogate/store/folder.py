"""A store's folder: what lies where, and what state every structure is in.

::

    store.json           versions, free atoms, digests; written last, so a store has it or is none
    spec.yaml            the spec
    plan.h5              the structures, their keys and their parts of the split
    spec_002.yaml, plan_002.h5  those of a store that has grown, see :mod:`qcsurrogate.store.header`
    shards/*.h5, *.json  finished records, few or many to a file, each with its manifest
    pending/<key>.record a finished record that waits for its shard
    errors/<key>.json    a structure that was put aside: cause, message, attempts
    attempts/<key>.json  a structure that failed, and is to be tried again
    running/<key>        a structure that some worker computes now
    batches/*.h5         structures that were given to workers of the present run; gone, it is called off
    scratch/             temporary files of workers
    journal.json         throughput, slowest structures and the cost model, for `status`
    lock                 held by the process that generates

The state of a structure is read off these names alone, by any process at any time:
``complete`` if a shard's manifest lists it or a pending file carries its key, else ``running``
if it is marked so and the lock is held, else ``error``, else ``waiting``.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from qcsurrogate.errors import StoreError
from qcsurrogate.files.atomic import (
    TEMPORARY_SUFFIX,
    is_locked,
    json_bytes,
    make_folder,
    remove_quietly,
)
from qcsurrogate.reference.atoms import FreeAtoms
from qcsurrogate.store.failures import Cause, Failure, forgive, read_failure, record_failure
from qcsurrogate.store.header import (
    HEADER_NAME,
    PACKAGES,
    Header,
    read_header,
    revision_in,
    source_digest,
    write_header,
    write_plan_and_spec,
)
from qcsurrogate.store.manifest import ShardManifest, Versions, read_manifest, sorted_versions
from qcsurrogate.store.plan import Plan
from qcsurrogate.store.raw import RAW_SUFFIX
from qcsurrogate.store.spec import DataSpec
from qcsurrogate.versions import installed_versions

State = Literal["waiting", "running", "complete", "error"]
STATES: tuple[State, ...] = ("waiting", "running", "complete", "error")


class StoreFolder:
    """Paths of a store, and the operations on them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.header_file, self.lock_file, self.journal_file = path / HEADER_NAME, path / "lock", path / "journal.json"
        names = ("shards", "pending", "errors", "attempts", "running", "batches", "scratch")
        self.folders = tuple(path / name for name in names)
        self.shards, self.pending, self.errors, self.attempts, self.running, self.batches, self.scratch = self.folders

    def pending_file(self, key: str) -> Path:
        return self.pending / f"{key}{RAW_SUFFIX}"

    def error_file(self, key: str) -> Path:
        return self.errors / f"{key}.json"

    def attempts_file(self, key: str) -> Path:
        return self.attempts / f"{key}.json"

    def shard_file(self, number: int) -> Path:
        return self.shards / f"shard_{number:05d}.h5"

    @property
    def is_planned(self) -> bool:
        """Whether the folder is a store."""
        return self.header_file.is_file()

    def prepare(self) -> None:
        """Make the folders."""
        if self.path.is_dir() and not self.is_planned:
            ours = {p.name for p in (self.lock_file, *self.folders)}
            found = {p.name for p in self.path.iterdir() if not p.name.endswith(TEMPORARY_SUFFIX)} - ours
            foreign = sorted(name for name in found if revision_in(name) is None)
            if foreign:
                raise StoreError(
                    f"'{self.path}' is no store and holds other files ({', '.join(foreign[:3])}); expected a store, an "
                    "empty folder or a new name"
                )
        for folder in (self.path, *self.folders):
            make_folder(folder)

    def write_header(
        self, spec: DataSpec, plan: Plan, atoms: FreeAtoms, collected: Mapping[str, int] | None = None
    ) -> None:
        """Make a planned store of the folder; ``store.json`` comes last."""
        versions, digest = installed_versions(PACKAGES), source_digest(spec)
        header = Header(spec, plan, atoms, versions, collected or {}, digest)
        write_header(self.path, write_plan_and_spec(self.path, header))

    def read_header(self) -> Header:
        """The fixed part of the store."""
        return read_header(self.path)

    def manifests(self) -> list[ShardManifest]:
        """The finished shards, in order."""
        while True:
            paths = [self.shards / f"{stem}.h5" for stem in sorted(stems_in(self.shards, ".h5"))]
            try:
                return [read_manifest(path) for path in paths]
            except StoreError:
                if all(path.is_file() for path in paths):
                    raise  # else one was consolidated a moment ago, and its records are in a new one

    def versions_of(self, header: Header) -> dict[str, Versions]:
        """Which packages every complete record was computed with, by key.

        Records that wait for their shard count with the versions that the store was planned with.
        """
        versions = dict.fromkeys(self.pending_keys(header.plan), sorted_versions(header.versions))
        for shard in self.manifests():
            versions.update(shard.versions_of())
        return versions

    def pending_keys(self, plan: Plan) -> set[str]:
        """Keys of the finished records that wait for their shard."""
        return {key for key in stems_in(self.pending, RAW_SUFFIX) if key in plan.index}

    def states(self, plan: Plan) -> dict[str, State]:
        """The state of every structure, in planned order."""
        states: dict[str, State] = dict.fromkeys(plan.keys, "waiting")
        failed = stems_in(self.errors, ".json")
        running = stems_in(self.running) if is_locked(self.lock_file) else set()
        complete = self.pending_keys(plan).union(*(m.keys for m in self.manifests()))
        found: tuple[tuple[State, set[str]], ...] = (("error", failed), ("running", running), ("complete", complete))
        for state, keys in found:
            states.update((key, state) for key in keys if key in states)
        return states

    def mark_running(self, key: str) -> None:
        """Say that this process computes a structure."""
        mark = {"host": socket.gethostname(), "pid": os.getpid(), "started": round(time.time())}
        try:
            (self.running / key).write_bytes(json_bytes(mark))
        except OSError as error:
            raise StoreError(
                f"cannot write into '{self.running}': {error.strerror or error}; free some space or make it writable"
            ) from error

    def unmark_running(self, key: str) -> None:
        """Take the mark away."""
        remove_quietly(self.running / key)

    def marked(self) -> set[str]:
        """Keys of the structures that are marked as running, by whomever."""
        return stems_in(self.running)

    def write_failure(self, key: str, cause: Cause, message: str, limit: int = 1) -> bool:
        """Record that a structure failed once more; returns whether it is now put aside."""
        files = self.attempts_file(key), self.error_file(key)
        return record_failure(*files, cause, message, limit, socket.gethostname())

    def tried_before(self) -> set[str]:
        """Keys of the structures that failed, and are to be tried again."""
        return stems_in(self.attempts, ".json")

    def forgive(self, key: str) -> None:
        """Let a structure that was put aside be tried again."""
        forgive(self.attempts_file(key), self.error_file(key))

    def forget_failures(self, key: str) -> None:
        """A structure that is complete has not failed."""
        remove_quietly(self.error_file(key))
        remove_quietly(self.attempts_file(key))

    def failures(self, plan: Plan) -> list[Failure]:
        """All structures in the state ``error``, in planned order."""
        return self._failures(plan, self.error_file, "error")

    def earlier_attempts(self, plan: Plan) -> list[Failure]:
        """Structures that failed, and are to be tried again; in planned order."""
        return [f for f in self._failures(plan, self.attempts_file, "waiting") if f.attempts]

    def _failures(self, plan: Plan, file_of: Callable[[str], Path], wanted: State) -> list[Failure]:
        failures = []
        for key, state in self.states(plan).items():
            path = file_of(key)
            if state == wanted and path.is_file():  # another process may just have cured it
                failures.append(read_failure(path, plan.structures.name(plan.index[key])))
        return failures


def names_in(folder: Path) -> list[str]:
    """Names in a folder; one listing, however many there are."""
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries]
    except FileNotFoundError:  # a store of an earlier version, which had fewer folders
        return []


def stems_in(folder: Path, suffix: str = "") -> set[str]:
    return {name.removesuffix(suffix) for name in names_in(folder) if name.endswith(suffix)}
