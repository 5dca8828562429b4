"""Kills a store that grows at every change of the file system in turn; run by test_growth.

After each kill the store must open with every record it had, as the old store or the new;
a second start must make the new one, and leave nothing over.  Prints how many changes there
are, and after how many kills the store had grown.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

from qcsurrogate.files.atomic import exclusive_lock
from qcsurrogate.sources.kinds import FileSource
from qcsurrogate.store.folder import StoreFolder
from qcsurrogate.store.growth import resumed
from qcsurrogate.store.spec import DataSpec
from qcsurrogate.store.store import Store
from qcsurrogate.store.upkeep import clean
from qcsurrogate.store.verify import verify
from tests.store.killing import die_in_front_of

CHANGES = ("replace", "unlink")


def grow(path: Path, spec: DataSpec) -> None:
    folder = StoreFolder(path)
    with exclusive_lock(folder.lock_file):
        clean(folder)
        resumed(folder, spec, lambda text: None)


def grow_until(path: Path, spec: DataSpec, limit: int) -> None:
    """Grow, and die of SIGKILL in front of change number ``limit``."""
    die_in_front_of(limit, CHANGES)
    grow(path, spec)


def main(source: Path, file: Path, work: Path) -> tuple[int, int]:
    before = Store.open(source)
    spec = before.spec.model_copy(update={"structures": FileSource(kind="file", path=(str(file),))})
    had, n_grown = before.plan.keys, 0
    for kills in range(1000):
        shutil.rmtree(work, ignore_errors=True)
        store = Path(shutil.copytree(source, work))
        child = os.fork()
        if child == 0:
            grow_until(store, spec, kills)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        found = Store.open(store)
        assert found.plan.keys[: len(had)] == had, kills
        assert (found.plan.split[: len(had)] == before.plan.split).all(), kills
        assert found.verify() == len(before), kills
        n_grown += len(found.plan) > len(had)
        grow(store, spec)
        assert len(Store.open(store).plan) == len(had) + 3, kills
        assert Store.open(store).header.revision == 3, kills
        assert verify(store, quiet=True, records=0).problems == [], kills
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            return kills, n_grown
        assert os.WTERMSIG(status) == signal.SIGKILL
    raise AssertionError("a store that grows without an end")


if __name__ == "__main__":
    print(*main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])))
