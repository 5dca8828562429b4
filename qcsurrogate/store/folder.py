"""A store's folder: what lies where, and what state every structure is in.

::

    store.json           versions, free atoms, digests; written last, so a store has it or is none
    spec.yaml            the spec
    plan.h5              the structures, their keys and their parts of the split
    shards/*.h5, *.json  finished records, many to a file, each with its manifest
    pending/<key>.h5     a finished record that waits for its shard
    errors/<key>.json    a structure that failed: cause, message, attempts
    running/<key>        a structure that some worker computes now
    scratch/             temporary files of workers
    lock                 held by the process that generates

The state of a structure is read off these names alone, by any process at any time:
``complete`` if a shard's manifest lists it or a pending file carries its key, else
``running`` if it is marked so and the lock is held, else ``error``, else ``waiting``.
"""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from qcsurrogate.errors import BasisError, SpecError, StoreError
from qcsurrogate.reference.atoms import FreeAtoms, free_atoms_from_dict, free_atoms_to_dict
from qcsurrogate.store.files import (
    TEMPORARY_SUFFIX,
    is_locked,
    json_bytes,
    make_folder,
    move_into_place,
    read_json,
    read_limited,
    remove_quietly,
    sha256,
    write_atomically,
)
from qcsurrogate.store.hdf5 import MAXIMUM_FILE_BYTES, damaged
from qcsurrogate.store.plan import Plan, read_plan, write_plan
from qcsurrogate.store.shards import RecordFile, merge, read_records, write_packed
from qcsurrogate.store.sources import FileSource
from qcsurrogate.store.spec import DataSpec, parse_spec
from qcsurrogate.store.yaml_model import MAXIMUM_YAML_BYTES, dump_yaml
from qcsurrogate.versions import installed_versions

State = Literal["waiting", "running", "complete", "error"]
STATES: tuple[State, ...] = ("waiting", "running", "complete", "error")

FORMAT_VERSION = 1
_PACKAGES = ("qcsurrogate", "pyscf", "numpy", "scipy", "h5py", "ase", "dask", "distributed")


@dataclass(frozen=True)
class ShardManifest:
    """What a shard holds, beside it in JSON."""

    path: Path
    keys: tuple[str, ...]
    digest: str


@dataclass(frozen=True)
class Failure:
    """A structure that could not be computed."""

    key: str
    name: str
    cause: str
    message: str
    attempts: int


@dataclass(frozen=True, eq=False)
class Header:
    """The fixed part of a store: spec, plan, free atoms, versions."""

    spec: DataSpec
    plan: Plan
    atoms: FreeAtoms
    versions: Mapping[str, str]


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
    def running(self) -> Path:
        return self.path / "running"

    @cached_property
    def scratch(self) -> Path:
        return self.path / "scratch"

    @property
    def folders(self) -> tuple[Path, ...]:
        """Every folder inside."""
        return self.shards, self.pending, self.errors, self.running, self.scratch

    def pending_file(self, key: str) -> Path:
        return self.pending / f"{key}.h5"

    def error_file(self, key: str) -> Path:
        return self.errors / f"{key}.json"

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

    def write_header(self, spec: DataSpec, plan: Plan, atoms: FreeAtoms) -> None:
        """Make a planned store of the folder; ``store.json`` comes last.

        Raises:
            StoreError: if it cannot be written.
        """
        plan_digest = write_plan(self.plan_file, plan)
        spec_text = dump_yaml(spec.model_dump(mode="json")).encode()
        write_atomically(self.spec_file, spec_text)
        header = {
            "format_version": FORMAT_VERSION,
            "versions": installed_versions(_PACKAGES),
            "spec_sha256": sha256(spec_text),
            "plan_sha256": plan_digest,
            "source_sha256": source_digest(spec),
            "free_atoms": free_atoms_to_dict(atoms),
        }
        write_atomically(self.header_file, json_bytes(header))

    def read_header(self) -> Header:
        """The fixed part of the store.

        Raises:
            StoreError: if the folder is no store, or one of its files is damaged.
        """
        if not self.path.is_dir():
            raise StoreError(f"cannot find the store '{self.path}'; expected a folder made by `qcsurrogate generate`")
        if not self.is_planned:
            raise StoreError(f"'{self.path}' is no store: it has no store.json; expected a folder made by `generate`")
        header = read_json(self.header_file)
        if header.get("format_version") != FORMAT_VERSION:
            raise StoreError(
                f"'{self.path}' has store format {header.get('format_version')!r}; this version reads {FORMAT_VERSION}"
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
            versions = {str(k): str(v) for k, v in header["versions"].items()}
            plan = read_plan(self.plan_file, str(header["plan_sha256"]))
        except (SpecError, BasisError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(f"'{self.header_file}' is damaged: {error}") from error
        return Header(spec, plan, atoms, versions)

    def source_digest(self) -> str | None:
        """Digest of the structure file that was planned from, if there was one."""
        digest = read_json(self.header_file).get("source_sha256")
        return None if digest is None else str(digest)

    def manifests(self) -> list[ShardManifest]:
        """The finished shards, in order.

        Raises:
            StoreError: if a manifest is damaged, or a shard has none.
        """
        shards = []
        for path in sorted(self.shards.glob("*.h5")):
            try:
                data = read_json(path.with_suffix(".json"))
            except StoreError as error:
                raise damaged(path, f"its manifest cannot be read ({error})") from error
            keys, digest = data.get("keys"), data.get("sha256")
            if not isinstance(keys, list) or not isinstance(digest, str) or not all(isinstance(k, str) for k in keys):
                raise damaged(path, "its manifest lacks keys or sha256")
            shards.append(ShardManifest(path, tuple(keys), digest))
        return shards

    def pending_keys(self, plan: Plan) -> set[str]:
        """Keys of the finished records that wait for their shard."""
        return {p.stem for p in self.pending.glob("*.h5") if p.stem in plan.index}

    def states(self, plan: Plan) -> dict[str, State]:
        """The state of every structure, in planned order."""
        states: dict[str, State] = dict.fromkeys(plan.keys, "waiting")
        failed = {p.stem for p in self.errors.glob("*.json")}
        running = {p.name for p in self.running.glob("*")} if is_locked(self.lock_file) else set()
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

    def write_failure(self, key: str, cause: str, message: str) -> None:
        """Record that a structure failed once more.

        Raises:
            StoreError: if it cannot be written.
        """
        path = self.error_file(key)
        attempts = 1
        if path.is_file():
            attempts += self.failure(path, "").attempts
        write_atomically(path, json_bytes({"cause": cause, "message": message, "attempts": attempts}))

    def failure(self, path: Path, name: str) -> Failure:
        """One recorded failure."""
        data = read_json(path)
        attempts = data.get("attempts")
        return Failure(
            path.stem,
            name,
            str(data.get("cause", "unknown")),
            str(data.get("message", "")),
            attempts if isinstance(attempts, int) else 1,
        )

    def failures(self, plan: Plan) -> list[Failure]:
        """All structures in the state ``error``, in planned order."""
        failures = []
        for key, state in self.states(plan).items():
            path = self.error_file(key)
            if state == "error" and path.is_file():  # another process may just have cured it
                failures.append(self.failure(path, plan.structures[plan.index[key]].name))
        return failures

    def write_shard(self, keys: Iterable[str], plan: Plan, spec: DataSpec) -> Path:
        """Move pending records into a shard of their own.

        The shard is complete before the single files go, so a crash leaves at worst
        records that are there twice; :meth:`clean` removes the singles on the next start.

        Raises:
            StoreError: if a record is damaged or the shard cannot be written.
        """
        keys = tuple(keys)
        merged = merge([read_records(self.pending_file(key), [key], plan, spec) for key in keys])
        path = self.shards / f"shard_{self._next_number():05d}.h5"
        self._write_shard(path, merged)
        for key in keys:
            remove_quietly(self.pending_file(key))
        return path

    def _write_shard(self, path: Path, records: RecordFile) -> None:
        building = path.with_name(f"{path.name}.building{TEMPORARY_SUFFIX}")
        digest = write_packed(building, records)
        manifest = {"keys": list(records.keys), "sha256": digest, "versions": installed_versions(_PACKAGES)}
        write_atomically(path.with_suffix(".json"), json_bytes(manifest))
        move_into_place(building, path)

    def clean(self) -> None:
        """Sweep away what a process that died left behind; only under the lock.

        Unfinished files go, marks of running structures go, and single records that are
        in a shard already.
        """
        for folder in (self.path, *self.folders):
            for path in folder.glob(f"*{TEMPORARY_SUFFIX}"):
                remove_quietly(path)
        for path in self.running.glob("*"):
            remove_quietly(path)
        for shard in self.manifests():
            twice = [path for path in map(self.pending_file, shard.keys) if path.is_file()]
            if twice and sha256(read_limited(shard.path, MAXIMUM_FILE_BYTES)) != shard.digest:
                raise damaged(shard.path, "its SHA-256 is not the one in its manifest")
            for path in twice:
                remove_quietly(path)
        shutil.rmtree(self.scratch, ignore_errors=True)
        make_folder(self.scratch)

    def _next_number(self) -> int:
        numbers = [int(p.stem.removeprefix("shard_")) for p in self.shards.glob("shard_*.h5")]
        return max(numbers, default=-1) + 1


def source_digest(spec: DataSpec) -> str | None:
    """SHA-256 of the spec's structure file, if it has one and it is there."""
    if not isinstance(spec.structures, FileSource) or not Path(spec.structures.path).is_file():
        return None
    return sha256(Path(spec.structures.path).read_bytes())
