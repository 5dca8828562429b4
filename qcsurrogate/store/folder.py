"""A store's folder: what lies where, and what state every structure is in.

::

    store.json           versions, free atoms, digests; written last, so a store has it or is none
    spec.yaml            the spec
    plan.h5              the structures, their keys and their parts of the split
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
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from qcsurrogate.errors import BasisError, SpecError, StoreError
from qcsurrogate.files.atomic import (
    TEMPORARY_SUFFIX,
    is_locked,
    json_bytes,
    make_folder,
    read_json,
    read_limited,
    read_sealed_json,
    remove_quietly,
    sealed_json,
    sha256,
    write_atomically,
)
from qcsurrogate.files.yaml_model import MAXIMUM_YAML_BYTES, dump_yaml
from qcsurrogate.reference.atoms import FreeAtoms, free_atoms_from_dict, free_atoms_to_dict
from qcsurrogate.sources.kinds import source_files
from qcsurrogate.store.failures import Cause, Failure, forgive, read_failure, record_failure
from qcsurrogate.store.manifest import ShardManifest, Versions, read_manifest, sorted_versions
from qcsurrogate.store.plan import Plan, read_plan, write_plan
from qcsurrogate.store.raw import RAW_SUFFIX
from qcsurrogate.store.spec import DataSpec, parse_spec
from qcsurrogate.versions import installed_versions

State = Literal["waiting", "running", "complete", "error"]
STATES: tuple[State, ...] = ("waiting", "running", "complete", "error")

FORMAT_VERSION = 1
PACKAGES = ("qcsurrogate", "pyscf", "libxc", "pyscf-dispersion", "numpy", "scipy", "h5py", "ase", "dask", "distributed")


@dataclass(frozen=True, eq=False)
class Header:
    """The fixed part of a store: spec, plan, free atoms, versions, what was collected."""

    spec: DataSpec
    plan: Plan
    atoms: FreeAtoms
    versions: Mapping[str, str]
    collected: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class StoreFolder:
    """Paths of a store, and the operations on them."""

    path: Path

    @cached_property
    def header_file(self) -> Path:
        return self.path / "store.json"

    @cached_property
    def spec_file(self) -> Path:
        return self.path / "spec.yaml"

    @cached_property
    def plan_file(self) -> Path:
        return self.path / "plan.h5"

    @cached_property
    def lock_file(self) -> Path:
        return self.path / "lock"

    @cached_property
    def shards(self) -> Path:
        return self.path / "shards"

    @cached_property
    def pending(self) -> Path:
        return self.path / "pending"

    @cached_property
    def errors(self) -> Path:
        return self.path / "errors"

    @cached_property
    def attempts(self) -> Path:
        return self.path / "attempts"

    @cached_property
    def running(self) -> Path:
        return self.path / "running"

    @cached_property
    def batches(self) -> Path:
        return self.path / "batches"

    @cached_property
    def journal_file(self) -> Path:
        return self.path / "journal.json"

    @cached_property
    def scratch(self) -> Path:
        return self.path / "scratch"

    @property
    def folders(self) -> tuple[Path, ...]:
        """Every folder inside."""
        return self.shards, self.pending, self.errors, self.attempts, self.running, self.batches, self.scratch

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
        """Make the folders.

        Raises:
            StoreError: if that is impossible, or if something else lies there.
        """
        if self.path.is_dir() and not self.is_planned:
            ours = {p.name for p in (self.spec_file, self.plan_file, self.lock_file, *self.folders)}
            foreign = sorted(
                p.name for p in self.path.iterdir() if p.name not in ours and not p.name.endswith(TEMPORARY_SUFFIX)
            )
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
        """Make a planned store of the folder; ``store.json`` comes last.

        Args:
            spec: the spec.
            plan: made from it.
            atoms: free atoms of all elements.
            collected: how many structures were read or sampled, left out and why.

        Raises:
            StoreError: if it cannot be written.
        """
        plan_digest = write_plan(self.plan_file, plan)
        spec_text = dump_yaml(spec.model_dump(mode="json")).encode()
        write_atomically(self.spec_file, spec_text)
        header = {
            "format_version": FORMAT_VERSION,
            "versions": installed_versions(PACKAGES),
            "spec_sha256": sha256(spec_text),
            "plan_sha256": plan_digest,
            "source_sha256": source_digest(spec),
            "free_atoms": free_atoms_to_dict(atoms),
            "collected": dict(collected or {}),
        }
        write_atomically(self.header_file, sealed_json(header))

    def read_header(self) -> Header:
        """The fixed part of the store.

        Raises:
            StoreError: if the folder is no store, or one of its files is damaged.
        """
        header, spec, atoms = self._read_fixed()
        try:
            versions = {str(k): str(v) for k, v in header["versions"].items()}
            digest = str(header["plan_sha256"])
            collected = {str(k): int(n) for k, n in header.get("collected", {}).items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StoreError(f"'{self.header_file}' is damaged: {error}") from error
        return Header(spec, read_plan(self.plan_file, digest), atoms, versions, collected)

    def read_method(self) -> tuple[DataSpec, FreeAtoms]:
        """The spec and the free atoms: what a worker needs beside its batch.

        Raises:
            StoreError: as :meth:`read_header`.
        """
        return self._read_fixed()[1:]

    def _read_fixed(self) -> tuple[dict[str, Any], DataSpec, FreeAtoms]:
        if not self.path.is_dir():
            raise StoreError(f"cannot find the store '{self.path}'; expected a folder made by `qcsurrogate generate`")
        if not self.is_planned:
            raise StoreError(f"'{self.path}' is no store: it has no store.json; expected a folder made by `generate`")
        header = read_sealed_json(self.header_file, unsealed=True)
        if header.get("format_version") != FORMAT_VERSION:
            raise StoreError(
                f"'{self.path}' has store format {header.get('format_version')!r}; this version reads {FORMAT_VERSION}"
            )
        if (self.path / "consolidated" / "catalog.json").is_file():
            raise StoreError(
                f"'{self.path}' was consolidated by a development version before 0.1, into another form; expected all "
                "records in 'shards'; read it with that version, or generate it again"
            )
        text = read_limited(self.spec_file, MAXIMUM_YAML_BYTES)
        if sha256(text) != header.get("spec_sha256"):
            raise StoreError(
                f"'{self.spec_file}' was changed after the store was planned; expected it untouched: put it back, or "
                "generate the new spec into another folder"
            )
        try:
            spec = parse_spec(text.decode(), str(self.spec_file))
            atoms = free_atoms_from_dict(header["free_atoms"])
        except (SpecError, BasisError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(f"'{self.header_file}' is damaged: {error}") from error
        return header, spec, atoms

    def source_digest(self) -> str | None:
        """Digest of the structure file that was planned from, if there was one."""
        digest = read_json(self.header_file).get("source_sha256")
        return None if digest is None else str(digest)

    def manifests(self) -> list[ShardManifest]:
        """The finished shards, in order.

        Raises:
            StoreError: if a manifest is damaged, or a shard has none.
        """
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

        Raises:
            StoreError: if a manifest is damaged.
        """
        versions = dict.fromkeys(self.pending_keys(header.plan), sorted_versions(header.versions))
        for shard in self.manifests():
            versions.update(shard.versions_of())
        return versions

    def plan_digest(self) -> str:
        """SHA-256 of the plan's file, as the header has it."""
        return str(read_sealed_json(self.header_file, unsealed=True).get("plan_sha256"))

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
        """Record that a structure failed once more; returns whether it is now put aside.

        Raises:
            StoreError: if it cannot be written.
        """
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


def stems_in(folder: Path, suffix: str = "", prefix: str = "") -> set[str]:
    return {name.removesuffix(suffix) for name in names_in(folder) if name.endswith(suffix) and name.startswith(prefix)}


def source_digest(spec: DataSpec) -> str | None:
    """SHA-256 of the spec's structure files, if it has some and they are there.

    Of several files, the digest of their names and digests.
    """
    files = source_files(spec.structures)
    if not files or not all(path.is_file() for path in files):
        return None
    digests = [sha256(path.read_bytes()) for path in files]
    if len(digests) == 1:
        return digests[0]
    return sha256("\n".join(f"{path.name} {digest}" for path, digest in zip(files, digests, strict=True)).encode())
