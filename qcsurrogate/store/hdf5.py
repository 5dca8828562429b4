"""Flat arrays in HDF5, read only after everything that a file declares was checked.

Only one shape of file is accepted: hard links to datasets in the root group, each
chunked along its first axis with shuffle + gzip + fletcher32, of a dtype and shape that
the caller knows beforehand.  External links, external storage, virtual datasets, other
filters, user blocks, superblock extensions and variable-length types are refused.
Version 1.10 of the format is written, in which every piece of metadata carries a
checksum.

A small file (:func:`read_arrays`) is read in memory, so that it cannot change between
the check of its digest and the read.  From a large one (:class:`ArrayFile`) rows are
read where they lie.  In both cases HDF5 only finds the stored chunks;
:mod:`qcsurrogate.store.chunks` decodes them with known bounds.  Files are written by
:mod:`qcsurrogate.store.streaming`.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
from numpy.typing import NDArray

from qcsurrogate.errors import StoreError
from qcsurrogate.files.atomic import read_limited, sha256
from qcsurrogate.store.chunks import decoded_chunk, largest_stored_size
from qcsurrogate.store.links import Reader, check_root_group

MAXIMUM_FILE_BYTES = 8 * 2**30
"""Of a file that is read whole."""

CHUNK_BYTES = 2**18

_MAXIMUM_CHUNK_BYTES = 2**23
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_SUPERBLOCK = struct.Struct("<8sBBBBQQQQ")
_UNDEFINED = 2**64 - 1
_GZIP_LEVEL = 4
_LARGEST_GZIP_RATIO = 1040
_LIKELY_RATIO, _FREE_BYTES = 100, 2**26
"""What an array may declare whose length nobody knows beforehand."""
_FILTERS = (h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_FLETCHER32)
_LIBVER = ("v110", "v110")
_H5_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError, IndexError, ArithmeticError, MemoryError)


@dataclass(frozen=True)
class Declared:
    """What a dataset declares, or must declare before it is read; a length of None is free then."""

    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]
    units: str
    description: str = ""

    @property
    def lengths(self) -> tuple[int, ...]:
        """The shape; free lengths count as nothing."""
        return tuple(length or 0 for length in self.shape)


def create_file(target: RawIOBase) -> h5py.File:
    """A new HDF5 file whose bytes go to a Python file."""
    return h5py.File(target, "w", libver=_LIBVER)


def create_dataset(file: h5py.File, name: str, declared: Declared) -> h5py.Dataset:
    """An empty dataset as this module reads them: chunked, shuffle + gzip + fletcher32, with its meaning."""
    shape = declared.lengths
    dataset = file.create_dataset(
        name,
        shape,
        declared.dtype,
        chunks=(min(shape[0], rows_in_chunk(declared)), *shape[1:]),
        compression="gzip",
        compression_opts=_GZIP_LEVEL,
        shuffle=True,
        fletcher32=True,
        track_times=False,
    )
    dataset.attrs["units"] = np.bytes_(declared.units.encode())
    dataset.attrs["description"] = np.bytes_(declared.description.encode())
    return dataset


def rows_in_chunk(declared: Declared) -> int:
    """How many rows make a chunk of about 256 KiB."""
    return max(1, CHUNK_BYTES // (declared.dtype.itemsize * math.prod(declared.lengths[1:])))


def read_arrays(
    path: Path, expected: Mapping[str, Declared], digest: str | None = None
) -> dict[str, NDArray[np.generic]]:
    """Read every array of a file, after its declarations were checked.

    Args:
        path: the file.
        expected: what each of its datasets must be; there may be no others.
        digest: SHA-256 of the whole file, where known; checked before HDF5 sees a byte.
    """
    image = read_limited(path, MAXIMUM_FILE_BYTES)
    if digest is not None and sha256(image) != digest:
        raise damaged(path, "its SHA-256 is not the one in its manifest: it was truncated or altered")
    _check_start(path, lambda offset, length: image[offset : offset + length], len(image))
    try:
        file_id = h5py.h5f.open_file_image(image)
    except _H5_ERRORS as error:
        raise damaged(path, f"HDF5 cannot open it ({error})") from error
    with closing(ArrayFile(path, h5py.File(file_id), expected, len(image))) as file:
        return {name: file.read(name) for name in expected}


class ArrayFile:
    """A file of arrays whose declarations were checked; rows are read when they are asked for.

    The last chunk of every array stays decoded, so rows that are read in order are
    decoded once.  Made by :meth:`open`.
    """

    def __init__(self, path: Path, file: h5py.File, expected: Mapping[str, Declared], n_bytes: int) -> None:
        self.path = path
        self._file = file
        self._last: dict[str, tuple[int, NDArray[np.generic]]] = {}
        try:
            _check_names(path, file, expected)
            self._datasets = {name: _checked_dataset(path, file, name, e, n_bytes) for name, e in expected.items()}
        except _H5_ERRORS as error:
            file.close()
            raise damaged(path, f"HDF5 cannot read it ({type(error).__name__}: {error})") from error
        except StoreError:
            file.close()
            raise

    @classmethod
    def open(cls, path: Path, expected: Mapping[str, Declared]) -> ArrayFile:
        """Open a file where it lies; only what rows need is read from it."""
        try:
            if not path.is_file():  # a pipe or a device would block, or never end
                raise StoreError(f"cannot find the file '{path}'; expected a regular file")
            n_bytes = path.stat().st_size
            with open(path, "rb") as raw:
                _check_start(path, lambda offset, length: _piece(raw, min(offset, n_bytes), length), n_bytes)
        except OSError as error:
            raise StoreError(f"cannot read '{path}': {error.strerror or error}") from error
        try:
            file = h5py.File(path, "r", locking=False)
        except _H5_ERRORS as error:
            raise damaged(path, f"HDF5 cannot open it ({error})") from error
        return cls(path, file, expected, n_bytes)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Rows ``start`` to ``stop`` of an array."""
        dataset = self._datasets[name]
        length = dataset.shape[0]
        stop = length if stop is None else stop
        if not 0 <= start <= stop <= length:
            raise damaged(self.path, f"'{name}' has {length} rows; expected rows {start} to {stop}")
        try:
            found = np.empty((stop - start, *dataset.shape[1:]), dataset.dtype)
        except MemoryError as error:
            raise damaged(self.path, f"'{name}' does not fit into the memory ({error})") from error
        rows = dataset.chunk_rows
        for first in range(start // rows * rows, stop, rows):
            chunk = self._chunk(name, first)
            low, high = max(start, first), min(stop, first + rows)
            found[low - start : high - start] = chunk[low - first : high - first]
        return found

    def _chunk(self, name: str, first: int) -> NDArray[np.generic]:
        """The chunk that begins with row ``first``, as long as the array goes."""
        last = self._last.get(name)
        if last is not None and last[0] == first:
            return last[1]
        dataset = self._datasets[name]
        place = (first, *([0] * (len(dataset.shape) - 1)))
        try:
            info = dataset.id.get_chunk_info_by_coord(place)
            if info.byte_offset is None or info.size > largest_stored_size(dataset.chunk_bytes):
                raise damaged(self.path, f"'{name}' keeps {info.size} bytes for a chunk of {dataset.chunk_bytes}")
            mask, stored = dataset.id.read_direct_chunk(place)
        except _H5_ERRORS as error:
            raise damaged(self.path, f"HDF5 cannot read it ({type(error).__name__}: {error})") from error
        if mask:
            raise damaged(self.path, f"'{name}' has a chunk that went through other filters than declared")
        try:
            values = decoded_chunk(stored, dataset.dtype, dataset.chunk_bytes)
        except ValueError as error:
            raise damaged(self.path, f"a chunk of '{name}' {error}") from error
        chunk = values.reshape(dataset.chunk_rows, *dataset.shape[1:])
        self._last[name] = (first, chunk)
        return chunk

    def close(self) -> None:
        """Let go of the file."""
        self._last.clear()
        self._file.close()


def damaged(path: Path, what: str) -> StoreError:
    """The message for a file that must not be used."""
    return StoreError(
        f"'{path}' cannot be used: {what}. Remove it, and its manifest if it is a shard, and run `generate` again: "
        "only its records are recomputed"
    )


def _piece(file: BinaryIO, offset: int, length: int) -> bytes:
    file.seek(offset)
    return file.read(length)


def _check_start(path: Path, read: Reader, n_bytes: int) -> None:
    """Superblock and root group, before HDF5 follows any address in them."""
    head = read(0, _SUPERBLOCK.size)
    _check_superblock(path, head, n_bytes)
    try:
        check_root_group(read, _SUPERBLOCK.unpack(head)[-1], n_bytes)
    except ValueError as error:
        raise damaged(path, str(error)) from error


def _check_superblock(path: Path, head: bytes, n_bytes: int) -> None:
    if not head.startswith(_SIGNATURE):
        raise damaged(path, "it does not begin with the HDF5 signature (no HDF5 file, or one with a user block)")
    if head[8:9] < b"\x02":
        raise damaged(path, "its superblock has version 0 or 1, without checksums; expected 2 or 3")
    if len(head) < _SUPERBLOCK.size:
        raise damaged(path, f"it ends after {len(head)} bytes, within its superblock: it was truncated")
    _, version, offset_size, length_size, flags, base, extension, end, _ = _SUPERBLOCK.unpack(head)
    if version > 3 or (offset_size, length_size, flags, base) != (8, 8, 0, 0):
        raise damaged(path, "its superblock has an unknown version, unusual sizes, flags or a base address")
    if extension != _UNDEFINED:
        raise damaged(path, "its superblock has an extension (driver information, a cached image); expected none")
    if end != n_bytes:
        raise damaged(path, f"it has {n_bytes} bytes but says {end}: it was truncated or something was appended")


@dataclass(frozen=True, eq=False)
class _Dataset:
    """A dataset whose declaration was checked."""

    id: h5py.h5d.DatasetID
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]
    chunk_rows: int
    chunk_bytes: int


def _check_names(path: Path, file: h5py.File, expected: Mapping[str, Declared]) -> None:
    if file.userblock_size:
        raise damaged(path, f"it has a user block of {file.userblock_size} bytes; expected none")
    count = file.id.get_num_objs()
    names = {name.decode(errors="replace") for name in file.id} if count <= 2 * len(expected) else set()
    if names != set(expected):
        missing, extra = sorted(set(expected) - names), sorted(names - set(expected))
        raise damaged(path, f"expected the datasets {sorted(expected)}; missing {missing}, not expected {extra}")
    for name in expected:
        if file.id.links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
            raise damaged(path, f"'{name}' is a soft or external link; expected the dataset itself")
        if h5py.h5o.get_info(file.id, name.encode()).type != h5py.h5o.TYPE_DATASET:
            raise damaged(path, f"'{name}' is no dataset")


def _checked_dataset(path: Path, file: h5py.File, name: str, expected: Declared, file_bytes: int) -> _Dataset:
    dataset_id = h5py.h5d.open(file.id, name.encode())
    properties = dataset_id.get_create_plist()
    if properties.get_external_count():
        raise damaged(path, f"'{name}' keeps its values in an external file; expected them inside")
    if properties.get_layout() != h5py.h5d.CHUNKED:
        raise damaged(path, f"'{name}' is not chunked (a virtual or contiguous dataset); expected chunks")
    filters = tuple(properties.get_filter(i)[0] for i in range(min(properties.get_nfilters(), 8)))
    if filters != _FILTERS:
        raise damaged(path, f"'{name}' went through the filters {filters}; expected shuffle, gzip, fletcher32")
    stored_type = dataset_id.get_type()
    if not stored_type.equal(h5py.h5t.py_create(expected.dtype, logical=True)):
        raise damaged(path, f"'{name}' has another dtype than expected ({expected.dtype})")
    shape = tuple(dataset_id.shape)
    if len(shape) != len(expected.shape) or any(
        wanted is not None and length != wanted for length, wanted in zip(shape, expected.shape, strict=True)
    ):
        raise damaged(path, f"'{name}' declares the shape {shape}; expected {expected.shape}")
    chunks = properties.get_chunk()
    if any(length < 1 for length in (*shape, *chunks)):
        raise damaged(path, f"'{name}' declares the shape {shape} in chunks {chunks}; expected no empty ones")
    n_bytes, chunk_bytes = (expected.dtype.itemsize * math.prod(s) for s in (shape, chunks))
    largest = _LARGEST_GZIP_RATIO * file_bytes
    if None in expected.shape:
        largest = _LIKELY_RATIO * file_bytes + _FREE_BYTES
    if n_bytes > largest or chunk_bytes > _MAXIMUM_CHUNK_BYTES:
        raise damaged(
            path, f"'{name}' declares {n_bytes} bytes in chunks of {chunk_bytes}, more than {file_bytes} bytes can hold"
        )
    if chunks[1:] != shape[1:]:
        raise damaged(path, f"'{name}' has chunks {chunks} of the shape {shape}; expected chunks of whole rows")
    n_chunks = -(-shape[0] // chunks[0])
    if dataset_id.get_num_chunks() != n_chunks:
        raise damaged(path, f"'{name}' has {dataset_id.get_num_chunks()} chunks; expected {n_chunks}")
    _check_units(path, name, dataset_id, expected.units)
    return _Dataset(dataset_id, expected.dtype, shape, chunks[0], chunk_bytes)


def _check_units(path: Path, name: str, dataset_id: h5py.h5d.DatasetID, units: str) -> None:
    if not h5py.h5a.exists(dataset_id, b"units"):
        raise damaged(path, f"'{name}' has no attribute 'units'; expected '{units}'")
    attribute = h5py.h5a.open(dataset_id, b"units")
    wanted = np.array(np.bytes_(units.encode()))
    if attribute.shape != () or not attribute.get_type().equal(h5py.h5t.py_create(wanted.dtype, logical=True)):
        raise damaged(path, f"'{name}' has units of another type or length than '{units}'")
    found = np.zeros((), wanted.dtype)
    attribute.read(found)
    if found != wanted:
        raise damaged(path, f"'{name}' is in '{found.item().decode(errors='replace')}'; expected '{units}'")
