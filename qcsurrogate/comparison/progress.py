"""Progress of a loop: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")

_SECONDS_BETWEEN_LINES = 15.0


def progress(items: Iterable[T], total: int, title: str, unit: str, *, quiet: bool) -> Iterator[T]:
    """The items, while standard error tells how far the loop has come."""
    if quiet:
        yield from items
    elif sys.stderr.isatty():
        yield from tqdm(items, total=total, desc=title, unit=f" {unit}", dynamic_ncols=True)
    else:
        yield from _lines(items, total, title, unit)


def _lines(items: Iterable[T], total: int, title: str, unit: str) -> Iterator[T]:
    start = last = time.monotonic()
    for i, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if i == total or now - last > _SECONDS_BETWEEN_LINES:
            last = now
            print(f"{title}: {i} of {total} {unit}, {now - start:.0f} s", file=sys.stderr, flush=True)
