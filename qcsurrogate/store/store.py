"""Reading a store, whether its records lie in many small shards, in few large ones, or singly."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcsurrogate.errors import StoreError, suggestion
from qcsurrogate.reference.atoms import FreeAtoms
from qcsurrogate.reference.record import ReferenceRecord
from qcsurrogate.store.failures import Failure
from qcsurrogate.store.folder import STATES, State, StoreFolder
from qcsurrogate.store.hdf5 import damaged
from qcsurrogate.store.header import Header
from qcsurrogate.store.plan import Plan
from qcsurrogate.store.shards import RecordFile, RecordSlices, read_records, record_sizes
from qcsurrogate.store.spec import DESCRIPTIVE, SPLIT_NAMES, DataSpec, SplitName
from qcsurrogate.store.streaming import file_digest
from qcsurrogate.structures import Structure

WHOLE_FILES_BYTES = 2**29
"""What :meth:`Store.read_many` keeps of files that it reads whole, unless told otherwise."""

LARGE_FILE_BYTES = 2**26
"""Records of a shard of more than that, unpacked, are read one by one where they lie."""

_OPEN_FILES = 8


@dataclass(frozen=True, eq=False)
class _Place:
    """The file of a record: a shard, or a single record that waits for its shard."""

    path: Path
    keys: tuple[str, ...]
    digest: str | None
    n_bytes: int

    @property
    def is_large(self) -> bool:
        return self.n_bytes > LARGE_FILE_BYTES


@dataclass(eq=False)
class _Slices:
    """Files that are read record by record; the least recently used is closed when there are too many."""

    open_files: OrderedDict[Path, RecordSlices] = field(default_factory=OrderedDict)
    checked: set[Path] = field(default_factory=set)

    def of(self, place: _Place, header: Header) -> RecordSlices:
        """The open file of these records; the digest of one that is not large is compared the first time."""
        path = place.path
        if path in self.open_files:
            self.open_files.move_to_end(path)
            return self.open_files[path]
        if place.digest is not None and not place.is_large and path not in self.checked:
            check_digest(path, place.digest)
            self.checked.add(path)
        while len(self.open_files) >= _OPEN_FILES:
            self.open_files.popitem(last=False)[1].close()
        self.open_files[path] = RecordSlices(path, place.keys, header.plan, header.spec)
        return self.open_files[path]


@dataclass(frozen=True, eq=False)
class Store:
    """A store as it was when it was opened; made by :meth:`open`, never written to."""

    folder: StoreFolder
    header: Header
    _states: dict[str, State]
    _places: dict[str, _Place]
    _last_read: dict[Path, RecordFile] = field(default_factory=dict)
    _slices: _Slices = field(default_factory=_Slices)

    @classmethod
    def open(cls, path: str | Path) -> Store:
        """Open a store to read it; one that is still being generated too.

        The SHA-256 of a shard is compared when it is read whole; damage of one of more
        than :data:`LARGE_FILE_BYTES` is noticed where it is read, by the checksum of each
        chunk. :meth:`verify` compares all.

        Raises:
            StoreError: if the folder is no store, or a file of it is damaged.
        """
        folder = StoreFolder(Path(path))
        header = folder.read_header()
        sizes = record_sizes(header.plan, header.spec)

        def place(path: Path, keys: tuple[str, ...], digest: str | None) -> _Place:
            rows = [header.plan.index[key] for key in keys if key in header.plan.index]
            return _Place(path, keys, digest, int(sizes[rows].sum()))

        pending = folder.pending_keys(header.plan)  # first: what leaves it meanwhile is in a shard
        places = {key: place(folder.pending_file(key), (key,), None) for key in pending}
        for shard in folder.manifests():
            places |= dict.fromkeys(shard.keys, place(shard.path, shard.keys, shard.digest))
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
        return int(self._complete.sum())

    def training_on(self, keys: Iterable[str]) -> Store:
        """The same store as if of its training split only these records were complete.

        Raises:
            StoreError: for a key that is not of a complete record of the training split.
        """
        wanted, own = set(keys), set(self.keys("train"))
        if foreign := sorted(wanted - own):
            raise StoreError(
                f"'{self.path}' has no complete record with the key '{foreign[0]}' in its training split; expected "
                "keys that `keys('train')` gives"
            )
        places = {key: place for key, place in self._places.items() if key in wanted or key not in own}
        return replace(self, _places=places, _states=self._states | dict.fromkeys(own - wanted, "waiting"))

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
        wanted = self._complete if split is None else self._complete & (self.plan.split == SPLIT_NAMES.index(split))
        return [self.plan.keys[i] for i in np.flatnonzero(wanted)]

    def keys_in(self, path: Path) -> list[str]:
        """Keys of the records that are read from a file, in its order; none for a file that is not the store's."""
        wanted = path.resolve()
        found = (place for place in self._places.values() if place.path.name == wanted.name)
        return next((list(place.keys) for place in found if place.path.resolve() == wanted), [])

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
        """One complete record.

        A shard is read whole and stays in memory for the next call; from a large one
        only the chunks of this record are read.

        Raises:
            StoreError: if the record is not complete, or its file is damaged.
        """
        place = self._place(key)
        if place.path not in self._last_read:
            if place.is_large or not place.path.is_file():
                return self._packed(key).record(key)
            records = self._read(place)
            self._last_read.clear()
            self._last_read[place.path] = records
        return self._last_read[place.path].record(key)

    def read_many(self, keys: Sequence[str], memory_bytes: int = WHOLE_FILES_BYTES) -> Iterator[ReferenceRecord]:
        """Records in the order of ``keys``.

        A shard is read once and whole, and kept until its last wanted record is out,
        while the shards that are kept fit into ``memory_bytes``. Where the records of
        many shards are wanted in mixed order they do not all fit; from the rest, and from
        large ones, single records are read where they lie.

        Raises:
            StoreError: if a record is not complete, or a file is damaged.
        """
        return (file.record(key) for key, file in self._files_of(keys, memory_bytes))

    def packed_many(self, keys: Sequence[str], memory_bytes: int = WHOLE_FILES_BYTES) -> Iterator[RecordFile]:
        """The same, one record at a time as it is packed, for those who copy it."""
        return (file.part(key) for key, file in self._files_of(keys, memory_bytes))

    def _files_of(self, keys: Sequence[str], memory_bytes: int) -> Iterator[tuple[str, RecordFile]]:
        """Every key with a file in memory that holds its record."""
        places = [self._place(key) for key in keys]
        remaining = Counter(place.path for place in places)
        files: dict[Path, RecordFile] = {}
        n_bytes = 0
        for key, place in zip(keys, places, strict=True):
            if place.path not in files:
                full = files and n_bytes + place.n_bytes > memory_bytes
                if place.is_large or full or not place.path.is_file():
                    remaining[place.path] -= 1
                    yield key, self._packed(key)
                    continue
                files[place.path] = self._read(place)
                n_bytes += place.n_bytes
            yield key, files[place.path]
            remaining[place.path] -= 1
            if not remaining[place.path]:
                del files[place.path]
                n_bytes -= place.n_bytes

    def _packed(self, key: str) -> RecordFile:
        """One record, read where it lies."""
        return self._slices_of(key).part(key)

    def _slices_of(self, key: str) -> RecordSlices:
        """The open file of a record."""
        place = self._place(key)
        if place.path not in self._slices.open_files and not place.path.is_file():
            return Store.open(self.path)._slices_of(key)  # its record moved since the store was opened
        return self._slices.of(place, self.header)

    def scalars(self, names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Quantities that a record has once, of all complete records, in planned order.

        Only these arrays are read from the files.

        Args:
            names: of fields of the shapes ``scalar`` and ``vector3``, such as ``energy``.

        Raises:
            StoreError: if a file is damaged.
        """
        keys = self.keys()
        rows = {key: row for row, key in enumerate(keys)}
        found: dict[str, NDArray[Any]] = {}
        done: set[str] = set()
        for key in keys:
            if key in done:
                continue
            slices = self._slices_of(key)
            inside = [(i, rows[k]) for i, k in enumerate(slices.keys) if k in rows and k not in done]
            own, planned = (list(part) for part in zip(*inside, strict=True))
            for name in names:
                values = slices.rows(name)
                column = found.setdefault(name, np.empty((len(keys), *values.shape[1:]), values.dtype))
                column[planned] = values[own]
            done.update(slices.keys)
        return found

    def close(self) -> None:
        """Let go of the files that single records were read from."""
        while self._slices.open_files:
            self._slices.open_files.popitem()[1].close()

    def failures(self) -> list[Failure]:
        """Structures that could not be computed, and why."""
        return self.folder.failures(self.plan)

    def dataset_hash(self) -> str:
        """A hash of the spec, but for what only describes it, and of the keys of all complete records."""
        spec = {key: value for key, value in self.spec.identity().items() if key not in DESCRIPTIVE}
        content = {"spec": spec, "keys": sorted(self.keys())}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def has_been(self, dataset_hash: str) -> bool:
        """Whether this is its :meth:`dataset_hash`, or was before it grew, which moved no structure to another part."""
        return dataset_hash == self.dataset_hash() or self.size_before(dataset_hash) is not None

    def size_before(self, dataset_hash: str) -> int | None:
        """How many structures the store had when its :meth:`dataset_hash` was this one, if it has grown since."""
        sizes = {extent.dataset_hash: extent.n_structures for extent in self.header.earlier}
        return None if dataset_hash == self.dataset_hash() else sizes.get(dataset_hash)

    def verify(self) -> int:
        """Read every file of records with all checks; returns the number of records.

        Raises:
            StoreError: naming the first damaged file.
        """
        for place in {place.path: place for place in self._places.values() if place.is_large}.values():
            check_digest(place.path, place.digest or "")
        return sum(1 for _ in self.read_many(self.keys()))

    @cached_property
    def _complete(self) -> NDArray[np.bool_]:
        """(n_planned,) whether there is a record."""
        complete = np.zeros(len(self.plan), np.bool_)
        complete[[self.plan.index[key] for key in self._places if key in self.plan.index]] = True
        return complete

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
                f"{self.plan.label(key)} in '{self.path}' is not complete but '{self._states[key]}'; "
                "run `generate` again"
            ) from None

    def _read(self, place: _Place) -> RecordFile:
        return read_records(place.path, place.keys, self.plan, self.spec, place.digest)


def check_digest(path: Path, digest: str) -> None:
    """Compare a file of any size with the digest that its manifest has."""
    if file_digest(path) != digest:
        raise damaged(path, "its SHA-256 is not the one in its manifest: it was truncated or altered")
