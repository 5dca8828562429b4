"""Writing a file of arrays, whole or piece by piece with the memory of a few chunks.

The file grows beside its place under a name that ends in ``.tmp``; when every array is
full it is closed, read back, compared with what was written, flushed to the disk and
only then moved into place.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcsurrogate.errors import StoreError
from qcsurrogate.files.atomic import in_place_of
from qcsurrogate.store.hdf5 import ArrayFile, Declared, create_dataset, create_file, rows_in_chunk


class _Sink(io.RawIOBase):
    """The file that HDF5 writes to; a failed write is remembered and hidden from HDF5.

    A full disk leaves HDF5 with metadata that it cannot flush, and it then takes the
    interpreter down with it at exit.  So it is told that all is well, and
    :meth:`check` says what was.
    """

    def __init__(self, path: Path) -> None:
        self._file = open(path, "wb+", buffering=0)  # noqa: SIM115 - closed in close
        self._position = self._length = 0
        self._error: OSError | None = None

    def check(self) -> None:
        """Raise the first error that was met."""
        if self._error is not None:
            raise self._error

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + (0, self._position, self._length)[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        self._file.seek(self._position)
        count = self._file.readinto(view)
        view[count:] = bytes(len(view) - count)
        self._position += len(view)
        return len(view)

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        if self._error is None:
            try:
                self._file.seek(self._position)
                done = 0
                while done < len(view):
                    done += self._file.write(view[done:])
            except OSError as error:
                self._error = error
        self._position += len(view)
        self._length = max(self._length, self._position)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        self._length = self._position if size is None else size
        if self._error is None:
            try:
                self._file.truncate(self._length)
            except OSError as error:
                self._error = error
        return self._length

    def close(self) -> None:
        self._file.close()
        super().close()


class ArrayWriter:
    """Takes the rows of every array in order; made by :func:`writing_arrays`."""

    def __init__(self, path: Path, declared: Mapping[str, Declared]) -> None:
        self._path = path
        self._declared = declared
        self._sink = _Sink(path)
        self._file = create_file(self._sink)
        self._datasets = {name: create_dataset(self._file, name, d) for name, d in declared.items()}
        self._waiting: dict[str, list[NDArray[Any]]] = {name: [] for name in declared}
        self._n_waiting = dict.fromkeys(declared, 0)
        self._written = dict.fromkeys(declared, 0)
        self._hashes = {name: hashlib.sha256() for name in declared}

    def append(self, name: str, rows: NDArray[Any]) -> None:
        """Add rows to an array; whole chunks go to the file, the rest waits."""
        declared = self._declared[name]
        rows = np.ascontiguousarray(rows, declared.dtype)
        if self._written[name] + self._n_waiting[name] + len(rows) > declared.lengths[0]:
            raise StoreError(
                f"'{self._path}': more rows of '{name}' came than the {declared.lengths[0]} that were planned"
            )
        self._hashes[name].update(rows.tobytes())
        self._waiting[name].append(rows)
        self._n_waiting[name] += len(rows)
        chunk = rows_in_chunk(declared)
        if self._n_waiting[name] >= chunk:
            self._flush(name, self._n_waiting[name] // chunk * chunk)

    def _flush(self, name: str, count: int) -> None:
        waiting = np.concatenate(self._waiting[name])
        start = self._written[name]
        self._datasets[name][start : start + count] = waiting[:count]
        self._written[name] += count
        self._waiting[name] = [waiting[count:].copy()]
        self._n_waiting[name] -= count
        self._sink.check()

    def complete(self, name: str) -> None:
        """Write what waits of an array; nothing more may come."""
        if self._n_waiting[name]:
            self._flush(name, self._n_waiting[name])

    def finish(self) -> None:
        """Write what waits, close the file, and compare what the disk has with what came."""
        for name, declared in self._declared.items():
            self.complete(name)
            if self._written[name] != declared.lengths[0]:
                raise StoreError(
                    f"'{self._path}': {self._written[name]} rows of '{name}' came, expected {declared.lengths[0]}"
                )
        self._file.close()
        self._sink.check()
        self._sink.close()
        with contextlib.closing(ArrayFile.open(self._path, self._declared)) as file:
            for name, declared in self._declared.items():
                found = hashlib.sha256()
                step = rows_in_chunk(declared)
                for start in range(0, declared.lengths[0], step):
                    found.update(file.read(name, start, min(start + step, declared.lengths[0])).tobytes())
                if found.digest() != self._hashes[name].digest():
                    raise StoreError(f"'{self._path}' does not read back as written ('{name}' differs); check the disk")

    def close(self) -> None:
        """Let go of the file, finished or not."""
        self._file.close()
        self._sink.close()


@contextlib.contextmanager
def writing_arrays(path: Path, declared: Mapping[str, Declared]) -> Iterator[ArrayWriter]:
    """Write a file of arrays; it appears under its name complete and verified, or not at all.

    The same rows in the same order give the same bytes.
    """
    with in_place_of(path) as temporary, contextlib.closing(ArrayWriter(temporary, declared)) as writer:
        yield writer
        writer.finish()


def write_arrays(path: Path, declared: Mapping[str, Declared], arrays: Mapping[str, NDArray[Any]]) -> str:
    """Write arrays that are there as one file; returns its SHA-256."""
    with writing_arrays(path, declared) as writer:
        for name in declared:
            writer.append(name, arrays[name])
    return file_digest(path)


def file_digest(path: Path) -> str:
    """SHA-256 of a file of any size."""
    try:
        if not path.is_file():
            raise StoreError(f"cannot find the file '{path}'; expected a regular file")
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise StoreError(f"cannot read '{path}': {error.strerror or error}") from error
