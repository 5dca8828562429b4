"""What runs on the workers: compute a batch, gather records into a shard.

A batch is a small plan of its own in the store's folder, so that a worker reads what it
needs and no more, and the scheduler sees only the batch's name.  Every record is
committed as soon as it is finished.
"""

from __future__ import annotations

import gc
import os
import time
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, Protocol

from distributed import get_worker

from qcsurrogate.errors import SpecError, StoreError
from qcsurrogate.files.atomic import is_disk_trouble
from qcsurrogate.generation.guard import Resources, guarded
from qcsurrogate.reference.atoms import FreeAtoms
from qcsurrogate.reference.record import ReferenceRecord
from qcsurrogate.reference.settings import Method, Targets
from qcsurrogate.store.failures import Cause, cause_of, read_failure
from qcsurrogate.store.folder import StoreFolder
from qcsurrogate.store.header import read_method
from qcsurrogate.store.plan import Plan, read_plan
from qcsurrogate.store.shards import write_records
from qcsurrogate.store.spec import DataSpec
from qcsurrogate.store.upkeep import write_shard
from qcsurrogate.structures import Structure

OutcomeKind = Literal["complete", "error", "again"]


class Calculator(Protocol):
    """What computes a record: :func:`qcsurrogate.reference.compute.compute_reference`."""

    def __call__(
        self,
        structure: Structure,
        method: Method,
        targets: Targets,
        atoms: FreeAtoms,
        *,
        threads: int = 1,
        max_memory_mb: int = 4000,
        seconds: float | None = None,
    ) -> ReferenceRecord: ...


@dataclass(frozen=True)
class Outcome:
    """What became of one structure.

    Attributes:
        key: of the structure.
        kind: ``complete``; ``error`` if it was put aside; ``again`` if it failed and is
            to be tried once more, alone.
        seconds: wall time of its calculation, None if it was not made here and now.
    """

    key: str
    kind: OutcomeKind
    seconds: float | None = None


@dataclass(frozen=True)
class Orders:
    """What all batches of a run have in common."""

    path: str
    calculator: Calculator
    limits: dict[Cause, int]
    time_limit: float | None = None
    threads: int | None = None


def compute_batch(orders: Orders, name: str) -> list[Outcome]:
    """Compute the structures of a batch and commit each as soon as it is finished.

    A structure that fails, for whatever reason, is recorded.  When the run that gave
    the batch out has ended (its file is gone), the rest is left alone.

    Raises:
        SpecError: if no structure can be computed here, for example for lack of a GPU.
    """
    folder = StoreFolder(Path(orders.path))
    file = folder.batches / f"{name}.h5"
    if not file.is_file():
        return []
    plan = read_plan(file)
    spec, atoms = _method(orders.path, folder.header_file.stat().st_mtime_ns)
    work = _Work(orders, folder, spec, atoms, plan, worker_resources(orders))
    outcomes = []
    for key in plan.keys:
        if not file.is_file():
            break
        outcomes.append(work.compute(key))
    return outcomes


def gather_records(path: str, name: str, number: int) -> int:
    """Move the pending records of a batch of keys into shard ``number``; returns how many.

    A record that is not there any more was moved by a worker that outlived an earlier run.
    """
    folder = StoreFolder(Path(path))
    file = folder.batches / f"{name}.h5"
    if not file.is_file():
        return 0
    plan = read_plan(file)
    spec, _ = _method(path, folder.header_file.stat().st_mtime_ns)
    if not folder.shard_file(number).is_file():  # else Dask ran this before, and some records may be moved already
        plan = plan.part(key for key in plan.keys if folder.pending_file(key).is_file())
    if len(plan):
        write_shard(folder, plan.keys, plan, spec, number, file.is_file)
    return len(plan)


@lru_cache(maxsize=2)
def _method(path: str, _modified: int) -> tuple[DataSpec, FreeAtoms]:
    return read_method(Path(path))


def worker_resources(orders: Orders) -> Resources:
    """What the process that runs this task may use, from Dask's settings of it."""
    threads = orders.threads or int(os.environ.get("OMP_NUM_THREADS") or 1)
    try:
        worker = get_worker()
    except ValueError:  # called outside of a worker
        return Resources(threads, None, orders.time_limit)
    memory = worker.memory_manager.memory_limit
    has_nanny = worker.nanny is not None
    return Resources(threads, int(memory) if memory else None, orders.time_limit, may_exit=has_nanny)


@dataclass(frozen=True)
class _Work:
    """Everything that the structures of a batch need."""

    orders: Orders
    folder: StoreFolder
    spec: DataSpec
    atoms: FreeAtoms
    plan: Plan
    resources: Resources

    def compute(self, key: str) -> Outcome:
        folder = self.folder
        if folder.pending_file(key).is_file():  # Dask ran this task before, and lost the answer
            return Outcome(key, "complete")
        if folder.error_file(key).is_file():
            return Outcome(key, "error")
        if (folder.running / key).exists():  # the worker that tried it before is gone
            put_aside = blame_for_lost_worker(folder, key, self.plan.label(key), self.orders.limits)
            if put_aside or len(self.plan) > 1:
                return Outcome(key, "error" if put_aside else "again")
        folder.mark_running(key)
        start = time.perf_counter()
        try:
            record = self._record(key)
            write_records(folder.pending_file(key), [(key, record)], self.plan, self.spec)
            folder.forget_failures(key)
            return Outcome(key, "complete", time.perf_counter() - start)
        except (StoreError, SpecError):  # trouble of the disk or of the whole run, not of this structure
            raise
        except Exception as error:
            if isinstance(error, OSError) and is_disk_trouble(error):
                where = error.filename or folder.path
                raise StoreError(f"cannot work in '{where}': {error}; free some space") from error
            return self._failed(key, error, time.perf_counter() - start)
        finally:
            folder.unmark_running(key)

    def _failed(self, key: str, error: Exception, seconds: float) -> Outcome:
        cause = cause_of(error)
        name = type(error).__name__
        text = str(error) or name
        message = f"{self.plan.label(key)}: {name}: {text}" if cause in ("unexpected", "memory") else text
        put_aside = self.folder.write_failure(key, cause, message, self.orders.limits[cause])
        gc.collect()  # the traceback held the calculation's arrays
        return Outcome(key, "error" if put_aside else "again", seconds)

    def _record(self, key: str) -> ReferenceRecord:
        resources, label = self.resources, self.plan.label(key)

        def record_failure(cause: Cause, message: str) -> None:
            self.folder.write_failure(key, cause, message, self.orders.limits[cause])
            self.folder.unmark_running(key)

        with warnings.catch_warnings(), guarded(resources, label, record_failure):
            warnings.simplefilter("ignore")
            return self.orders.calculator(
                self.plan.structures[self.plan.index[key]],
                self.spec.method,
                self.spec.targets,
                self.atoms,
                threads=resources.threads,
                max_memory_mb=resources.pyscf_memory_mb // 2 ** self._memory_failures(key),
                seconds=resources.seconds,
            )

    def _memory_failures(self, key: str) -> int:
        path = self.folder.attempts_file(key)
        return read_failure(path, "").by_cause.get("memory", 0) if path.is_file() else 0


def blame_for_lost_worker(folder: StoreFolder, key: str, label: str, limits: dict[Cause, int]) -> bool:
    """Record that a worker ended while it computed a structure; returns whether that is now put aside."""
    message = (
        f"{label}: its worker process ended without a word, perhaps killed for lack of memory or by the queue; give a "
        "worker more memory, or leave the structure out"
    )
    put_aside = folder.write_failure(key, "worker_lost", message, limits["worker_lost"])
    folder.unmark_running(key)
    return put_aside
