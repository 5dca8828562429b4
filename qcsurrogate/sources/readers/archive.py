"""Tar archives read as a stream: nothing is unpacked, nothing large is held."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Final

from qcsurrogate.errors import StructureError

ARCHIVE_ENDINGS: Final = (".tar", ".tar.bz2", ".tbz2", ".tar.gz", ".tgz", ".tar.xz", ".txz")

MAXIMUM_UNPACKED_BYTES: Final = 4 * 2**30
"""Bytes of a whole archive after decompression; QM9 has 0.5 GiB."""

_BLOCK: Final = 512
_MAXIMUM_HEADER_BYTES: Final = 2**16
_CHUNK: Final = 2**16
_REGULAR: Final = (tarfile.REGTYPE, tarfile.AREGTYPE)
_PAX: Final = (tarfile.XHDTYPE, tarfile.XGLTYPE)
_MEANINGFUL_PAX: Final = (b" path=", b" linkpath=", b" size=", b" GNU.sparse")
_BROKEN: Final = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError)


class Member(io.RawIOBase):
    """One file of an archive, readable once, forwards, while the archive stands on it."""

    def __init__(self, stream: _Bounded, name: str, size: int) -> None:
        super().__init__()
        self.member_name, self.size, self._left, self._stream = name, size, size, stream

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill a buffer with the next bytes."""
        data = self._stream.take(min(len(buffer), self._left))
        self._left -= len(data)
        buffer[: len(data)] = data
        return len(data)

    def finish(self) -> None:
        """Pass over what was not read, and the padding."""
        self._stream.skip(self._left + -self.size % _BLOCK)
        self._left = 0


class _Bounded:
    """A decompressed stream that refuses to go on for ever."""

    def __init__(self, file: IO[bytes], source: str, limit: int) -> None:
        self._file, self._source, self._limit, self._passed = file, source, limit, 0

    def take(self, size: int) -> bytes:
        try:
            data = self._file.read(size)
        except _BROKEN as error:
            raise StructureError(f"cannot read the archive '{self._source}': {error}") from error
        self._passed += len(data)
        if self._passed > self._limit:
            raise StructureError(
                f"'{self._source}' unpacks to more than {self._limit} bytes; expected an archive of structures"
            )
        if len(data) < size:
            raise StructureError(f"cannot read the archive '{self._source}': it ends early; is it whole?")
        return data

    def skip(self, size: int) -> None:
        while size > 0:
            size -= len(self.take(min(size, _CHUNK)))


def tar_members(path: Path, limit: int = MAXIMUM_UNPACKED_BYTES) -> Iterator[Member]:
    """The regular files of a tar archive (plain, gz, bz2, xz), in its order.

    Each has to be read before the next is asked for. Folders are passed over.

    Raises:
        StructureError: on links, devices, sparse files, names too long for a plain
            header, damage, or more than ``limit`` bytes after decompression.
    """
    with _decompressed(path) as file:
        stream = _Bounded(file, str(path), limit)
        while (header := stream.take(_BLOCK)) != b"\0" * _BLOCK:
            try:
                info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
            except tarfile.TarError as error:
                raise StructureError(f"cannot read the archive '{path}': {error}") from error
            yield from _member(info, stream, path)


def _member(info: tarfile.TarInfo, stream: _Bounded, path: Path) -> Iterator[Member]:
    name = PurePosixPath(info.name).name
    if info.type in _PAX and 0 <= info.size <= _MAXIMUM_HEADER_BYTES:
        records = stream.take(info.size)
        stream.skip(-info.size % _BLOCK)
        if any(key in records for key in _MEANINGFUL_PAX):
            raise StructureError(f"the archive '{path}' has a file with a long name or size; expected plain names")
        return
    if info.type == tarfile.DIRTYPE and info.size == 0:
        return
    if info.type not in _REGULAR or info.size < 0:
        raise StructureError(
            f"the archive '{path}' holds '{name}', which is no ordinary file (a link, a device, or the like); expected "
            "only files: it is refused"
        )
    member = Member(stream, name, info.size)
    yield member
    member.finish()


def _decompressed(path: Path) -> IO[bytes]:
    name = path.name.lower()
    if name.endswith(("bz2", "tbz2")):
        return bz2.open(path, "rb")
    if name.endswith(("gz", "tgz")):
        return gzip.open(path, "rb")  # type: ignore[return-value]
    if name.endswith("xz"):
        return lzma.open(path, "rb")
    return path.open("rb")
