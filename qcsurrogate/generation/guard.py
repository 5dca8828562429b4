"""A guard beside the calculation that stops what takes too long or too much memory.

A calculation that runs in C cannot be interrupted from Python.  So the guard, a thread, records
why, and ends the worker process; Dask's nanny starts another.  What the time or the
memory was used for is then known, which a process killed by the system could not tell.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psutil

from qcsurrogate.store.failures import Cause

EXIT_CODE = 70
MEMORY_FRACTION = 0.9
"""Of the worker's limit; Dask's nanny kills at 0.95, without a word to the store."""

_LOOK_EVERY_SECONDS = 0.05
_GRACE_FACTOR, _GRACE_SECONDS = 1.25, 20.0


@dataclass(frozen=True)
class Resources:
    """What one worker process may use.

    Attributes:
        threads: OpenMP threads of a calculation.
        memory_bytes: of the whole process, None where nobody set a limit.
        seconds: wall time of one structure, None for no limit.
        may_exit: whether a nanny starts a new process when this one ends.
    """

    threads: int = 1
    memory_bytes: int | None = None
    seconds: float | None = None
    may_exit: bool = False

    @property
    def pyscf_memory_mb(self) -> int:
        """For PySCF's ``max_memory``: what it plans with, which it may exceed."""
        total = psutil.virtual_memory().total if self.memory_bytes is None else self.memory_bytes
        return max(500, int(0.7 * total / 2**20))


@contextlib.contextmanager
def guarded(resources: Resources, label: str, record: Callable[[Cause, str], None]) -> Iterator[None]:
    """Watch a calculation.

    Calculations have a soft limit of their own, ``resources.seconds``; this one lies a
    little above it.

    Args:
        resources: what it may use.
        label: of the structure, for messages.
        record: writes a failure down; called right before the process ends.
    """
    if not resources.may_exit or (resources.seconds is None and resources.memory_bytes is None):
        yield
        return
    finished = threading.Event()
    thread = threading.Thread(target=_watch, args=(resources, label, record, finished), daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()


def _watch(resources: Resources, label: str, record: Callable[[Cause, str], None], finished: threading.Event) -> None:
    start = time.monotonic()
    process = psutil.Process()
    while not finished.wait(_LOOK_EVERY_SECONDS):
        trouble = _trouble(resources, label, time.monotonic() - start, process.memory_info().rss)
        if trouble is not None:
            record(*trouble)
            os._exit(EXIT_CODE)


def _trouble(resources: Resources, label: str, elapsed: float, memory: int) -> tuple[Cause, str] | None:
    if resources.seconds is not None and elapsed > _GRACE_FACTOR * resources.seconds + _GRACE_SECONDS:
        return "time", (
            f"{label}: still not finished after {elapsed:.0f} s, with a limit of {resources.seconds:.0f} s, and its "
            "worker process was ended; raise --time-limit or leave it out"
        )
    if resources.memory_bytes is not None and memory > MEMORY_FRACTION * resources.memory_bytes:
        limit = resources.memory_bytes / 2**20
        return "memory", (
            f"{label}: its worker process used {memory / 2**20:.0f} MiB of {limit:.0f} MiB and was ended; "
            "give a worker more memory, use fewer workers on a node, or leave it out"
        )
    return None
