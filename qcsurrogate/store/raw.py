"""A finished record on its way into a shard: raw numbers behind their SHA-256.

Single records live for minutes and are written by the thousand, where HDF5 takes longer
for its own books than for the numbers.  What a file must hold follows from the plan, so
it says nothing about itself: a mark, the digest of what follows, and the arrays in the
order in which they are expected, little-endian.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qcsurrogate.errors import StoreError
from qcsurrogate.files.atomic import in_place_of, read_limited
from qcsurrogate.store.hdf5 import Declared, damaged

RAW_SUFFIX = ".record"

_MARK = b"qcrecord"
_DIGEST_BYTES = 32


def write_raw(path: Path, declared: Mapping[str, Declared], arrays: Mapping[str, NDArray[np.generic]]) -> str:
    """Write arrays, verify the file, move it into place; returns the digest of its contents."""
    payload = b"".join(np.ascontiguousarray(arrays[name]).tobytes() for name in declared)
    digest = hashlib.sha256(payload)
    image = _MARK + digest.digest() + payload
    with in_place_of(path) as temporary:
        temporary.write_bytes(image)
        if read_limited(temporary, len(image)) != image:
            raise StoreError(f"'{temporary}' does not read back as written; check the disk, start again")
    return digest.hexdigest()


def read_raw(path: Path, expected: Mapping[str, Declared]) -> dict[str, NDArray[np.generic]]:
    """Read arrays whose dtypes and shapes are known."""
    sizes = {name: math.prod(array.lengths) * array.dtype.itemsize for name, array in expected.items()}
    start = len(_MARK) + _DIGEST_BYTES
    n_bytes = start + sum(sizes.values())
    image = read_limited(path, n_bytes)
    if len(image) != n_bytes or not image.startswith(_MARK):
        raise damaged(path, f"it has {len(image)} bytes; expected {n_bytes} of a record")
    if hashlib.sha256(image[start:]).digest() != image[len(_MARK) : start]:
        raise damaged(path, "its SHA-256 is not the one that it says: it was truncated or altered")
    arrays: dict[str, NDArray[np.generic]] = {}
    for name, array in expected.items():
        count = math.prod(expected[name].lengths)
        arrays[name] = np.frombuffer(image, array.dtype, count, start).reshape(expected[name].lengths).copy()
        start += sizes[name]
    return arrays
