"""Kills a consolidation at every change of the file system in turn; run by test_consolidate.

After each kill the store must open and give every record, and a second start must
finish.  Prints how many changes there are; with a step larger than one, some are left out.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np

from qcsurrogate.store.consolidate import consolidate
from qcsurrogate.store.store import Store
from tests.store.killing import die_in_front_of

CHANGES = ("replace", "unlink", "mkdir")


def records(path: Path) -> list[tuple[str, np.ndarray]]:
    store = Store.open(path)
    keys = store.keys()
    return [(key, store.read(key).hamiltonian) for key in keys]


def consolidate_until(path: Path, out: Path | None, limit: int) -> None:
    """Consolidate, and die of SIGKILL in front of change number ``limit``."""
    die_in_front_of(limit, CHANGES)
    consolidate(path, out, max_bytes=4000, quiet=True)


def main(source: Path, work: Path, step: int, *, beside: bool) -> int:
    expected = records(source)
    for kills in range(0, 1000, step):
        shutil.rmtree(work, ignore_errors=True)
        store = Path(shutil.copytree(source, work / "store"))
        out = work / "out" if beside else None
        child = os.fork()
        if child == 0:
            consolidate_until(store, out, kills)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        for found in (records(store), records(consolidate(store, out, max_bytes=4000, quiet=True).path)):
            assert [key for key, _ in found] == [key for key, _ in expected], kills
            assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(found, expected, strict=True)), kills
        target = out or store
        assert len(list(target.glob("shards/*.h5"))) == 3, kills  # every record once
        assert not list(target.glob("shards/*.tmp")), kills
        assert not list(target.glob("pending/*")), kills
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            return kills
        assert os.WTERMSIG(status) == signal.SIGKILL
    raise AssertionError("a consolidation without an end")


if __name__ == "__main__":
    print(main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), beside=sys.argv[4] == "beside"))
