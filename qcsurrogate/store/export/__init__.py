"""Stores in the formats of others. Nothing here is pickled."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from qcsurrogate.errors import OutputError
from qcsurrogate.files import atomic
from qcsurrogate.store.spec import SPLIT_NAMES, SplitName
from qcsurrogate.store.store import Store


def exported_keys(store: Store, split: SplitName | None) -> list[str]:
    """Keys of the records to export, in planned order."""
    keys = store.keys(split)
    if not keys:
        where = "" if split is None else f" in the split '{split}' (of {', '.join(SPLIT_NAMES)})"
        raise OutputError(f"'{store.path}' holds no complete record{where}; nothing was written")
    return keys


@contextlib.contextmanager
def in_place_of(path: Path) -> Iterator[Path]:
    """A temporary file beside ``path`` that takes its place when it is complete."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(path, error) from error
    with atomic.in_place_of(path, _cannot_write) as temporary:
        yield temporary


def _cannot_write(path: Path, error: OSError) -> OutputError:
    return OutputError(f"cannot write '{path}': {error.strerror or error}; free some space or choose another place")


@contextlib.contextmanager
def text_in_place_of(path: Path) -> Iterator[IO[str]]:
    """An open text file that takes the place of ``path`` when it is complete."""
    with in_place_of(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
        yield file


def splits_of(store: Store, keys: Sequence[str]) -> dict[SplitName, list[int]]:
    """Positions among ``keys`` of each part of the split."""
    found: dict[SplitName, list[int]] = {name: [] for name in SPLIT_NAMES}
    for position, key in enumerate(keys):
        found[store.split_of(key)].append(position)
    return found
