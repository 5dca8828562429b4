"""Reading a store."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from qcsurrogate.errors import StoreError, suggestion
from qcsurrogate.reference.atoms import FreeAtoms
from qcsurrogate.reference.record import ReferenceRecord
from qcsurrogate.store.folder import STATES, Failure, Header, State, StoreFolder
from qcsurrogate.store.plan import Plan
from qcsurrogate.store.shards import RecordFile, read_records
from qcsurrogate.store.spec import SPLIT_NAMES, DataSpec, SplitName
from qcsurrogate.structures import Structure


@dataclass(frozen=True, eq=False)
class _Place:
    """Where a record lies."""

    path: Path
    keys: tuple[str, ...]
    digest: str | None


@dataclass(frozen=True, eq=False)
class Store:
    """A store as it was when it was opened; made by :meth:`open`, never written to."""

    folder: StoreFolder
    header: Header
    _states: dict[str, State]
    _places: dict[str, _Place]
    _last_read: dict[Path, RecordFile] = field(default_factory=dict)

    @classmethod
    def open(cls, path: str | Path) -> Store:
        """Open a store to read it; one that is still being generated too.

        Raises:
            StoreError: if the folder is no store, or a file of it is damaged.
        """
        folder = StoreFolder(Path(path))
        header = folder.read_header()
        places = {key: _Place(folder.pending_file(key), (key,), None) for key in folder.pending_keys(header.plan)}
        for shard in folder.manifests():
            place = _Place(shard.path, shard.keys, shard.digest)
            places.update((key, place) for key in shard.keys)
        states = folder.states(header.plan)
        # a record may have moved from its own file into a shard between the two looks
        states |= {key: "complete" for key in places if key in states}
        return cls(folder, header, states, places)

    @property
    def path(self) -> Path:
        """The folder."""
        return self.folder.path

    @property
    def spec(self) -> DataSpec:
        """The spec it was generated from."""
        return self.header.spec

    @property
    def plan(self) -> Plan:
        """All structures, complete or not."""
        return self.header.plan

    @property
    def atoms(self) -> FreeAtoms:
        """Free atoms of all its elements."""
        return self.header.atoms

    def __len__(self) -> int:
        """Number of complete records."""
        return len(self.keys())

    def counts(self) -> dict[State, int]:
        """How many structures are in which state."""
        counter = Counter(self._states.values())
        return {state: counter[state] for state in STATES}

    def keys(self, split: SplitName | None = None) -> list[str]:
        """Keys of the complete records, in planned order; all, or those of one part.

        Raises:
            StoreError: for a part that does not exist.
        """
        if split is not None and split not in SPLIT_NAMES:
            raise StoreError(f"no split '{split}'; expected one of {list(SPLIT_NAMES)}{suggestion(split, SPLIT_NAMES)}")
        return [
            key for key in self.plan.keys if key in self._places and (split is None or self.plan.split_of(key) == split)
        ]

    def structure(self, key: str) -> Structure:
        """The structure of a key, whether complete or not."""
        return self.plan.structures[self._index(key)]

    def split_of(self, key: str) -> SplitName:
        """The part that a key belongs to."""
        return self.plan.split_of(self.plan.keys[self._index(key)])

    def state_of(self, key: str) -> State:
        """``waiting``, ``running``, ``complete`` or ``error``."""
        return self._states[self.plan.keys[self._index(key)]]

    def read(self, key: str) -> ReferenceRecord:
        """One complete record; the file it lies in stays in memory for the next call.

        Raises:
            StoreError: if the record is not complete, or its file is damaged.
        """
        place = self._place(key)
        if place.path not in self._last_read:
            records = self._read(place, key)
            self._last_read.clear()
            self._last_read[place.path] = records
        return self._last_read[place.path].record(key)

    def read_many(self, keys: Sequence[str]) -> Iterator[ReferenceRecord]:
        """Records in the order of ``keys``; every file is read once.

        A file's packed arrays stay in memory until its last wanted record is out.

        Raises:
            StoreError: if a record is not complete, or a file is damaged.
        """
        places = [self._place(key) for key in keys]
        remaining = Counter(place.path for place in places)
        files: dict[Path, RecordFile] = {}
        for key, place in zip(keys, places, strict=True):
            if place.path not in files:
                files[place.path] = self._read(place, key)
            record = files[place.path].record(key)
            remaining[place.path] -= 1
            if not remaining[place.path]:
                del files[place.path]
            yield record

    def failures(self) -> list[Failure]:
        """Structures that could not be computed, and why."""
        return self.folder.failures(self.plan)

    def dataset_hash(self) -> str:
        """A hash of the spec and of the keys of all complete records."""
        content = {"spec": self.spec.identity(), "keys": sorted(self._places)}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def verify(self) -> int:
        """Read every file of records with all checks; returns the number of records.

        Raises:
            StoreError: naming the first damaged file.
        """
        return sum(1 for _ in self.read_many(self.keys()))

    def _index(self, key: str) -> int:
        try:
            return self.plan.index[key]
        except KeyError:
            raise StoreError(f"'{self.path}' has no structure with the key '{key}'") from None

    def _place(self, key: str) -> _Place:
        self._index(key)
        try:
            return self._places[key]
        except KeyError:
            raise StoreError(
                f"{self.structure(key).label} in '{self.path}' is not complete but '{self._states[key]}'; "
                "run `generate` again"
            ) from None

    def _read(self, place: _Place, key: str) -> RecordFile:
        if place.digest is None and not place.path.is_file():  # it moved into a shard since the store was opened
            place = Store.open(self.path)._place(key)
        return read_records(place.path, place.keys, self.plan, self.spec, place.digest)
