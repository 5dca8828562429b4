"""Single records of a file of many, read where they lie."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcsurrogate.reference.record import ReferenceRecord
from qcsurrogate.store.hdf5 import ArrayFile, damaged
from qcsurrogate.store.plan import Plan
from qcsurrogate.store.raw import RAW_SUFFIX, RawArrays
from qcsurrogate.store.shards import (
    DIMENSION,
    RecordFile,
    check_contents,
    expected_arrays,
    frame_arrays,
    stored_fields,
)
from qcsurrogate.store.spec import DataSpec


class RecordSlices:
    """An open file of records, of which is known whose records it holds.

    What the file declares is checked when it is opened; every chunk that a record needs
    is checked by its fletcher32 checksum, and every record as in a file that is read
    whole.  Memory: a chunk of every array, and the keys and offsets of the file.
    """

    def __init__(self, path: Path, keys: tuple[str, ...], plan: Plan, spec: DataSpec) -> None:
        """Open a file."""
        empty = RecordFile(plan, stored_fields(spec), keys, {})
        self.path, self.plan, self.fields, self.keys = path, plan, empty.fields, keys
        expected = expected_arrays(empty)
        raw = path.suffix == RAW_SUFFIX
        self._file = RawArrays(path, expected) if raw else ArrayFile.open(path, expected)
        self._frame = frame_arrays(keys, plan, empty.fields)
        self._row = {key: row for row, key in enumerate(keys)}

    def record(self, key: str) -> ReferenceRecord:
        """One record."""
        return self.part(key).record(key)

    def part(self, key: str) -> RecordFile:
        """One record as it is packed."""
        row = self._row[key]
        for name, value in self._frame.items():
            stop = row + (2 if name.endswith("_offsets") else 1)
            if not np.array_equal(self._file.read(name, row, stop), value[row:stop]):
                raise damaged(self.path, f"'{name}' is not what the plan says")
        arrays: dict[str, NDArray[Any]] = frame_arrays((key,), self.plan, self.fields)
        for field in self.fields:
            dimension = DIMENSION[field.shape][0]
            start, stop = row, row + 1
            if dimension != "record":
                start, stop = (int(i) for i in self._frame[f"{dimension}_offsets"][row : row + 2])
            arrays[field.name] = self._file.read(field.name, start, stop)
        found = RecordFile(self.plan, self.fields, (key,), arrays)
        check_contents(self.path, arrays, found)
        return found

    def scalars(self, name: str) -> NDArray[Any]:
        """(n_records, ...) one quantity that every record has once, of all records."""
        return self._file.read(name)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def __enter__(self) -> RecordSlices:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
