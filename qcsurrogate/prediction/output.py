"""Writing a result file: whole, or not at all."""

from __future__ import annotations

from pathlib import Path

from qcsurrogate.errors import QCSurrogateError
from qcsurrogate.models.files import replace_file


class OutputError(QCSurrogateError):
    """A result that cannot be written where it was asked for."""

    exit_code = 9


def write_output(path: str | Path, content: bytes, what: str) -> None:
    """Write a result whole or not at all; an older file stays until then.

    Raises:
        OutputError: if the folder is missing or not writable, or the disk is full.
    """
    path = Path(path)
    try:
        replace_file(path, content)
    except OSError as error:
        raise OutputError(
            f"cannot write {what} '{path}' ({error.strerror or error}); expected an existing, writable folder with "
            f"{len(content) / 2**20:.1f} MiB of free space"
        ) from error
