"""Single records of a file of many, read where they lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcsurrogate.reference.record import ReferenceRecord
from qcsurrogate.store.hdf5 import ArrayFile, damaged
from qcsurrogate.store.plan import Plan
from qcsurrogate.store.raw import RAW_SUFFIX, read_raw
from qcsurrogate.store.shards import (
    RecordFile,
    check_contents,
    expected_arrays,
    frame_arrays,
    one_record,
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
        self.path, self.keys, self._empty = path, keys, RecordFile(plan, stored_fields(spec), keys, {})
        expected = expected_arrays(self._empty)
        self._file = None if path.suffix == RAW_SUFFIX else ArrayFile.open(path, expected)
        self._single = {} if self._file else read_raw(path, expected)
        self._frame = frame_arrays(keys, plan, self._empty.fields)
        self._row = {key: row for row, key in enumerate(keys)}

    def record(self, key: str) -> ReferenceRecord:
        """One record."""
        return self.part(key).record(key)

    def part(self, key: str) -> RecordFile:
        """One record as it is packed."""
        row = self._row[key]
        for name, value in self._frame.items():
            stop = row + (2 if name.endswith("_offsets") else 1)
            if not np.array_equal(self.rows(name, row, stop), value[row:stop]):
                raise damaged(self.path, f"'{name}' is not what the plan says")
        found = one_record(self._empty, key, row, self._frame, self.rows)
        check_contents(self.path, found.arrays, found)
        return found

    def rows(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Rows of an array of the file; all of one that every record has once are its values of all records."""
        return self._file.read(name, start, stop) if self._file else self._single[name][start:stop].copy()

    def close(self) -> None:
        """Let go of the file."""
        if self._file:
            self._file.close()
