"""Writing a result file: whole, or not at all."""

from __future__ import annotations

from pathlib import Path

from qcsurrogate.errors import OutputError, StoreError
from qcsurrogate.files.atomic import write_atomically


def write_output(path: str | Path, content: bytes, what: str) -> None:
    """Write a result; an older file stays until the new one is complete.

    Raises:
        OutputError: if the folder is missing or not writable, or the disk is full.
    """
    path = Path(path)
    try:
        write_atomically(path, content)
    except StoreError as error:
        reason = error.__cause__.strerror if isinstance(error.__cause__, OSError) else error
        expected = f"an existing, writable folder with {max(1, round(len(content) / 1024)):,} KiB of free space"
        if path.is_dir():
            expected = "the name of a file"
        raise OutputError(f"cannot write {what} '{path}' ({reason}); expected {expected}") from error
