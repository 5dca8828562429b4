"""Writing files so that a process may die, or a disk fill up, at any moment.

A file appears under its name complete or not at all: it is written beside its place
under a name that ends in ``.tmp``, flushed to the disk, and moved into place; then the
folder is flushed too.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import secrets
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from qcsurrogate.errors import OutputError, StoreError

TEMPORARY_SUFFIX = ".tmp"

SEAL = "content_sha256"

_WITHOUT_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
_DISK_TROUBLE = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EIO,
    errno.EFBIG,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.ESTALE,
}


def temporary_for(path: Path) -> Path:
    """A name beside ``path`` that nobody else uses, on whatever node of a cluster they are."""
    return path.with_name(f"{path.name}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")


def write_atomically(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``, all or nothing, and make it survive a power cut.

    Raises:
        StoreError: if the disk is full or the folder cannot be written; whatever was
            at ``path`` before is then untouched.
    """
    with in_place_of(path) as temporary:
        temporary.write_bytes(data)


@contextlib.contextmanager
def in_place_of(path: Path, trouble: Callable[[Path, OSError], Exception] | None = None) -> Iterator[Path]:
    """A name for a new file, which is flushed and takes the place of ``path`` at the end, or goes if something fails.

    Trouble with the disk is raised as :func:`cannot_write` says it, or ``trouble``.
    """
    temporary = temporary_for(path)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        flush_folder(path.parent)
    except OSError as error:
        raise (trouble or cannot_write)(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_output(path: str | Path, content: bytes, what: str) -> None:
    """Write a result; an older file stays until the new one is complete.

    Raises:
        OutputError: if the folder is missing or not writable, or the disk is full.
    """

    def trouble(path: Path, error: OSError) -> OutputError:
        expected = f"an existing, writable folder with {max(1, round(len(content) / 1024)):,} KiB of free space"
        if path.is_dir():
            expected = "the name of a file"
        return OutputError(f"cannot write {what} '{path}' ({error.strerror or error}); expected {expected}")

    with in_place_of(Path(path), trouble) as temporary:
        temporary.write_bytes(content)


def move_into_place(temporary: Path, path: Path) -> None:
    """Rename a finished file, replacing what was there, and flush the folder."""
    try:
        os.replace(temporary, path)
        flush_folder(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error


def flush_folder(folder: Path) -> None:
    """Wait until the disk has the folder's list of names."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise  # some network file systems cannot flush a folder, and need not
    finally:
        os.close(descriptor)


def remove_quietly(path: Path) -> None:
    """Remove a file that may be gone already."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()


def check_writable(folder: Path, n_bytes: int = 2**16) -> None:
    """See whether a folder takes a file of some size."""
    trial = temporary_for(folder / "trial")
    write_atomically(trial, bytes(n_bytes))
    remove_quietly(trial)


def make_folder(path: Path) -> None:
    """Make a folder and its parents."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"cannot make the folder '{path}': {error.strerror or error}; expected a folder that can be written: "
            "choose another place or free this one"
        ) from error


def cannot_write(path: Path, error: OSError) -> StoreError:
    """The message for a failed write."""
    return StoreError(
        f"cannot write '{path}': {error.strerror or error}; free some space or make the folder writable, then start "
        "again: everything finished so far is kept"
    )


def is_disk_trouble(error: OSError) -> bool:
    """Whether an error speaks of the disk, and not of one structure."""
    return error.errno in _DISK_TROUBLE


def disk_trouble_behind(error: BaseException) -> OSError | None:
    """The trouble with the disk that an error came from, if it came from one."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and is_disk_trouble(seen):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None


def read_limited(path: Path, limit_bytes: int) -> bytes:
    """The bytes of a regular file.

    Raises:
        StoreError: if it is missing, is no regular file, or is larger than the limit.
    """
    try:
        if not path.is_file():
            raise StoreError(f"cannot find the file '{path}'; expected a regular file")
        size = path.stat().st_size
        if size > limit_bytes:
            raise StoreError(f"'{path}' has {size} bytes; expected at most {limit_bytes}")
        return path.read_bytes()
    except OSError as error:
        raise StoreError(f"cannot read '{path}': {error.strerror or error}") from error


def sha256(data: bytes) -> str:
    """The digest that manifests hold."""
    return hashlib.sha256(data).hexdigest()


def json_bytes(data: Any) -> bytes:
    """JSON as the store writes it: readable, one trailing newline, no NaN."""
    return (json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def read_json(path: Path, limit_bytes: int = 64 * 2**20) -> dict[str, Any]:
    """A JSON object."""
    try:
        data = json.loads(read_limited(path, limit_bytes))
    except (ValueError, RecursionError) as error:
        raise StoreError(f"'{path}' is damaged: {error}; expected a JSON object") from error
    if not isinstance(data, dict):
        raise StoreError(f"'{path}' is damaged: expected a JSON object, got {type(data).__name__}")
    return data


def sealed_json(data: dict[str, Any]) -> bytes:
    """A JSON object that carries a digest of itself, for :func:`read_sealed_json`."""
    return json_bytes({**data, SEAL: sha256(json_bytes(data))})


def read_sealed_json(path: Path, *, unsealed: bool = False) -> dict[str, Any]:
    """A JSON object that was written by :func:`sealed_json`, without its seal."""
    data = read_json(path)
    seal = data.pop(SEAL, None)
    try:
        found = sha256(json_bytes(data))
    except ValueError:  # NaN, or text that is no UTF-8
        found = ""
    if seal != found and not (unsealed and seal is None):
        raise StoreError(
            f"'{path}' is damaged: its {SEAL} is not that of its content; expected the file as it was written: "
            "take it from a copy"
        )
    return data


@contextlib.contextmanager
def exclusive_lock(path: Path, doing: str = "generating into", patience: float = 1.0) -> Iterator[None]:
    """Hold a lock that the system drops when the process dies, however it dies.

    On a file system without locks it is held in name only, with a warning. Whoever holds
    it is waited for with some patience (seconds), and said to be ``doing`` something.

    Raises:
        StoreError: if another process holds it, or the file cannot be written.
    """
    try:
        file = open(path, "a+b")  # noqa: SIM115 - closed below
    except OSError as error:
        raise cannot_write(path, error) from error
    with file:
        deadline = time.monotonic() + patience
        while not _locked_by_us(path, file.fileno()):
            if time.monotonic() > deadline:  # a reader holds its shared lock only for an instant
                raise StoreError(
                    f"another process is {doing} '{path.parent}'; wait for it or stop it, then start again"
                )
            time.sleep(0.05)
        if not _knows_locks(file.fileno()):
            warnings.warn(
                f"the file system of '{path.parent}' has no locks, so that nothing keeps two processes from writing "
                "there at once, and none sees another at work; make sure that this one is alone, or choose a folder "
                "on a disk with locks (on NFS or Lustre, one mounted with them)",
                stacklevel=3,
            )
        yield


def _locked_by_us(path: Path, descriptor: int) -> bool:
    try:
        return _try_lock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        raise cannot_write(path, error) from error


def is_locked(path: Path) -> bool:
    """Whether some living process holds the lock."""
    try:
        with open(path, "rb") as file:
            return not _try_lock(file.fileno(), fcntl.LOCK_SH)
    except OSError:
        return False


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
    return True  # got it, or nobody can be asked


def _knows_locks(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _WITHOUT_LOCKS
    return True
