"""Flat arrays in HDF5, written whole and read only after everything was checked.

The library never touches the disk: a file is made in memory and its bytes are written
by :mod:`qcsurrogate.store.files`; on the way back the bytes are read first, compared
with their digest where there is one, and opened in memory.  So a full disk cannot leave
HDF5 in a broken state, and a file cannot change between a check and a read.

Only one shape of file is accepted: hard links to datasets in the root group, each
chunked with shuffle + gzip + fletcher32, of a dtype and shape that the caller knows
beforehand.  External links, external storage, virtual datasets, other filters, user
blocks and variable-length types are refused.  Version 1.10 of the format is written,
in which every piece of metadata carries a checksum.
"""

from __future__ import annotations

import math
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from qcsurrogate.errors import StoreError
from qcsurrogate.store.files import (
    TEMPORARY_SUFFIX,
    move_into_place,
    read_limited,
    remove_quietly,
    sha256,
    write_durably,
)

MAXIMUM_FILE_BYTES = 8 * 2**30

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_CHUNK_BYTES = 2**18
_MAXIMUM_CHUNK_BYTES = 2**23
_GZIP_LEVEL = 4
_LARGEST_GZIP_RATIO = 1040
_FILTERS = (h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_FLETCHER32)
_H5_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError, IndexError, NotImplementedError, MemoryError)


@dataclass(frozen=True, eq=False)
class StoredArray:
    """An array and what it means."""

    values: NDArray[np.generic]
    units: str
    description: str


@dataclass(frozen=True)
class Expected:
    """What a dataset must declare before it is read; a length of None is free."""

    dtype: np.dtype[np.generic]
    shape: tuple[int | None, ...]
    units: str


def write_arrays(path: Path, arrays: Mapping[str, StoredArray]) -> str:
    """Write arrays as one HDF5 file, verify it, and move it into place.

    The same arrays give the same bytes.

    Returns:
        The SHA-256 of the file.

    Raises:
        StoreError: if the disk is full, the folder cannot be written, or what was
            written does not read back equal.
    """
    image = _image(arrays)
    temporary = path.with_name(f"{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
    try:
        write_durably(temporary, image)
        _verify(temporary, arrays)
        move_into_place(temporary, path)
    except BaseException:
        remove_quietly(temporary)
        raise
    return sha256(image)


def _image(arrays: Mapping[str, StoredArray]) -> bytes:
    name = uuid.uuid4().hex  # two threads may not write to files of one name, even in memory
    with h5py.File(name, "w", driver="core", backing_store=False, libver=("v110", "v110")) as file:
        for name, array in arrays.items():
            values = np.ascontiguousarray(array.values)
            dataset = file.create_dataset(
                name,
                data=values,
                chunks=_chunks(values),
                compression="gzip",
                compression_opts=_GZIP_LEVEL,
                shuffle=True,
                fletcher32=True,
                track_times=False,
            )
            dataset.attrs["units"] = np.bytes_(array.units.encode())
            dataset.attrs["description"] = np.bytes_(array.description.encode())
        file.flush()
        return bytes(file.id.get_file_image())


def _chunks(values: NDArray[np.generic]) -> tuple[int, ...]:
    row_bytes = values.itemsize * math.prod(values.shape[1:])
    return (min(len(values), max(1, _CHUNK_BYTES // row_bytes)), *values.shape[1:])


def _verify(path: Path, arrays: Mapping[str, StoredArray]) -> None:
    expected = {name: Expected(array.values.dtype, array.values.shape, array.units) for name, array in arrays.items()}
    found = read_arrays(path, expected)
    for name, array in arrays.items():
        if not np.array_equal(found[name], array.values):
            raise StoreError(f"'{path}' does not read back as written ('{name}' differs); check the disk, start again")


def read_arrays(
    path: Path, expected: Mapping[str, Expected], digest: str | None = None
) -> dict[str, NDArray[np.generic]]:
    """Read every array of a file, after its declarations were checked.

    Args:
        path: the file.
        expected: what each of its datasets must be; there may be no others.
        digest: SHA-256 of the whole file, where known; checked before HDF5 sees a byte.

    Raises:
        StoreError: if the file is missing, damaged, hostile or holds something else.
    """
    image = read_limited(path, MAXIMUM_FILE_BYTES)
    if digest is not None and sha256(image) != digest:
        raise damaged(path, "its SHA-256 is not the one in its manifest: it was truncated or altered")
    if not image.startswith(_SIGNATURE):
        raise damaged(path, "it does not begin with the HDF5 signature (no HDF5 file, or one with a user block)")
    if image[8:9] < b"\x02":
        raise damaged(path, "its superblock has version 0 or 1, without checksums; expected 2 or 3")
    try:
        file_id = h5py.h5f.open_file_image(image)
    except _H5_ERRORS as error:
        raise damaged(path, f"HDF5 cannot open it ({error})") from error
    try:
        with h5py.File(file_id) as file:
            _check_names(path, file, expected)
            datasets = {name: _checked_dataset(path, file, name, e, len(image)) for name, e in expected.items()}
            return {name: np.asarray(dataset[()]) for name, dataset in datasets.items()}
    except _H5_ERRORS as error:
        raise damaged(path, f"HDF5 cannot read it ({type(error).__name__}: {error})") from error


def damaged(path: Path, what: str) -> StoreError:
    """The message for a file that must not be used."""
    return StoreError(
        f"'{path}' cannot be used: {what}. Remove it, and its manifest if it is a shard, and run `generate` again: "
        "only its records are recomputed"
    )


def _check_names(path: Path, file: h5py.File, expected: Mapping[str, Expected]) -> None:
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


def _checked_dataset(path: Path, file: h5py.File, name: str, expected: Expected, file_bytes: int) -> h5py.Dataset:
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
    if n_bytes > _LARGEST_GZIP_RATIO * file_bytes or chunk_bytes > _MAXIMUM_CHUNK_BYTES:
        raise damaged(
            path, f"'{name}' declares {n_bytes} bytes in chunks of {chunk_bytes}, more than {file_bytes} bytes can hold"
        )
    n_chunks = math.prod(-(-length // chunk) for length, chunk in zip(shape, chunks, strict=True))
    if dataset_id.get_num_chunks() != n_chunks:
        raise damaged(path, f"'{name}' has {dataset_id.get_num_chunks()} chunks; expected {n_chunks}")
    _check_units(path, name, dataset_id, expected.units)
    return h5py.Dataset(dataset_id)


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
