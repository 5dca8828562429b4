"""How far a long job over structures has come, on a terminal or in a log."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from time import perf_counter
from typing import TypeVar

from tqdm import tqdm

LINE_EVERY_SECONDS = 10.0

T = TypeVar("T")


class Progress:
    """A bar on a terminal, a line every ten seconds elsewhere, or nothing."""

    def __init__(self, total: int, name: str, quiet: bool, clock: Callable[[], float] = perf_counter) -> None:
        self._n, self._failed, self._total, self._name = 0, 0, total, name
        self._clock, self._start = clock, clock()
        self._last = self._start
        self._left: float | None = None
        self._lines = not quiet and not sys.stderr.isatty()
        self._bar = tqdm(
            total=1.0,
            desc=name,
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {postfix}",
            disable=quiet or self._lines,
            dynamic_ncols=True,
        )

    def advance(self, *, failed: bool) -> None:
        """Count one structure."""
        self._n += 1
        self._failed += failed
        if self._left is None:
            self._draw()

    def show(self, expected_seconds: float | None = None) -> None:
        """Bring the bar up to date, or print a line if one is due.

        Args:
            expected_seconds: the time that is left, for callers who know better than by counting.
        """
        self._left = expected_seconds
        self._draw()
        self._bar.refresh()
        if self._lines and self._clock() - self._last >= LINE_EVERY_SECONDS:
            self._line()

    @property
    def fraction(self) -> float:
        """What is done of all, from 0 to 1: by time if the time left is known, else by counting."""
        if self._n >= self._total:
            return 1.0
        if self._left is None:
            return self._n / self._total
        elapsed = self._clock() - self._start
        return elapsed / (elapsed + self._left) if elapsed > 0 else 0.0

    def text(self) -> str:
        """Counts and times, in words."""
        seconds = self._clock() - self._start
        left = ""
        if self._n < self._total and (self._left is not None or self._n):
            by_count = (self._total - self._n) * seconds / max(self._n, 1)
            left = f", about {by_count if self._left is None else self._left:.0f} s left"
        failed = f", {self._failed} failed" if self._failed else ""
        return f"{self._n}/{self._total}{failed} in {seconds:.0f} s{left}"

    def _draw(self) -> None:
        if not self._bar.disable:
            self._bar.set_postfix_str(self.text(), refresh=False)
            self._bar.update(max(0.0, self.fraction - self._bar.n))

    def _line(self) -> None:
        self._last = self._clock()
        print(f"{self._name}: {self.text()}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the final state on the screen."""
        self._draw()
        self._bar.close()
        if self._lines:
            self._line()


def counted(items: Iterable[T], total: int, name: str, quiet: bool) -> Iterator[T]:
    """The items, while standard error tells how far the loop over them has come."""
    with closing(Progress(total, name, quiet)) as progress:
        for item in items:
            yield item
            progress.advance(failed=False)
            progress.show()
