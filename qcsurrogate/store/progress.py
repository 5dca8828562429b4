"""How far a long job over structures has come, on a terminal or in a log."""

from __future__ import annotations

import sys
from time import perf_counter

from tqdm import tqdm

LINE_EVERY_SECONDS = 10.0


class Progress:
    """A bar on a terminal, a line every ten seconds elsewhere, or nothing."""

    def __init__(self, total: int, name: str, quiet: bool) -> None:
        self._n, self._failed, self._total, self._name = 0, 0, total, name
        self._start = self._last = perf_counter()
        self._lines = not quiet and not sys.stderr.isatty()
        self._bar = tqdm(total=total, desc=name, unit="record", disable=quiet or self._lines, dynamic_ncols=True)

    def advance(self, *, failed: bool) -> None:
        """Count one structure."""
        self._n += 1
        self._failed += failed
        if failed:
            self._bar.set_postfix(failed=self._failed, refresh=False)
        self._bar.update()

    def show(self, expected_seconds: float | None = None) -> None:
        """Print a line if one is due.

        Args:
            expected_seconds: the time that is left, for callers who know better than by counting.
        """
        if self._lines and perf_counter() - self._last >= LINE_EVERY_SECONDS:
            self._line(expected_seconds)

    def _line(self, expected_seconds: float | None = None) -> None:
        self._last = perf_counter()
        seconds = self._last - self._start
        left = ""
        if 0 < self._n < self._total:
            by_count = (self._total - self._n) * seconds / self._n
            left = f", about {by_count if expected_seconds is None else expected_seconds:.0f} s left"
        failed = f", {self._failed} failed" if self._failed else ""
        print(f"{self._name}: {self._n}/{self._total}{failed} in {seconds:.0f} s{left}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the final state on the screen."""
        self._bar.close()
        if self._lines:
            self._line()
