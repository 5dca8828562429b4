"""Decoding one chunk of an HDF5 dataset: checksum, inflate, unshuffle.

HDF5's own gzip filter grows its buffer for as long as a stream goes on, so that a few
megabytes of a hostile file fill the memory.  Here nothing grows beyond the size that
the chunk was declared with.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

_CHECKSUM_BYTES = 4


def largest_stored_size(chunk_bytes: int) -> int:
    """Bytes that a chunk can take on the disk: what zlib needs for incompressible data, and the checksum."""
    return chunk_bytes + chunk_bytes // 1000 + 64 + _CHECKSUM_BYTES


def decoded_chunk(stored: bytes, dtype: np.dtype[np.generic], chunk_bytes: int) -> NDArray[np.generic]:
    """The values of a stored chunk, flat.

    Raises:
        ValueError: if the checksum or the length is another.
    """
    body, checksum = stored[:-_CHECKSUM_BYTES], stored[-_CHECKSUM_BYTES:]
    if int.from_bytes(checksum, "little") != fletcher32(body):
        raise ValueError("is damaged: its fletcher32 checksum is not that of its content")
    stream = zlib.decompressobj()
    try:
        values = stream.decompress(body, chunk_bytes)
        # a stream that ends exactly here may still have its trailing checksum to read
        more = b"" if stream.eof else stream.decompress(stream.unconsumed_tail, 1)
    except zlib.error as error:
        raise ValueError(f"is damaged: {error}") from error
    if len(values) != chunk_bytes or more or not stream.eof or stream.unused_data:
        raise ValueError(f"does not inflate to the {chunk_bytes} bytes that it was declared with")
    return np.frombuffer(values, np.uint8).reshape(dtype.itemsize, -1).T.copy().view(dtype).reshape(-1)


def fletcher32(data: bytes) -> int:
    """HDF5's Fletcher checksum: two running sums of big-endian 16-bit words, modulo 65535."""
    words = np.frombuffer(data, ">u2", count=len(data) // 2).astype(np.uint64)
    first = int(words.sum())
    second = int((words * np.arange(len(words), 0, -1, dtype=np.uint64)).sum())
    if len(data) % 2:
        first += data[-1] << 8
        second += first
    return _folded(second) << 16 | _folded(first)


def _folded(total: int) -> int:
    """Folding carries gives 65535 where the remainder is zero, except for nothing but zeros."""
    return total % 65535 or (65535 if total else 0)
