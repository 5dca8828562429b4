"""Writing a result file: whole, or not at all."""

from __future__ import annotations

from pathlib import Path

from qcsurrogate.errors import OutputError
from qcsurrogate.files.atomic import in_place_of


def write_output(path: str | Path, content: bytes, what: str) -> None:
    """Write a result; an older file stays until the new one is complete.

    Raises:
        OutputError: if the folder is missing or not writable, or the disk is full.
    """

    def trouble(path: Path, error: OSError) -> OutputError:
        return OutputError(
            f"cannot write {what} '{path}' ({error.strerror or error}); expected an existing, writable folder with "
            f"{len(content) / 2**20:.1f} MiB of free space"
        )

    with in_place_of(Path(path), trouble) as temporary:
        temporary.write_bytes(content)
