"""The loop that keeps workers busy and notes what they did.

In flight are a bounded number of batches, so that neither the scheduler nor this
process grows with the number of structures.  Workers do all the work on files, the
gathering of records into shards included.
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from distributed import Client, Future, KilledWorker, wait

from qcsurrogate.clusters.watch import Connection
from qcsurrogate.errors import ClusterError
from qcsurrogate.files.atomic import remove_quietly
from qcsurrogate.generation.batches import CostModel, Queue, seconds_left, size_measures
from qcsurrogate.generation.worker import Orders, Outcome, blame_for_lost_worker, compute_batch, gather_records
from qcsurrogate.interrupts import Interrupts
from qcsurrogate.store.folder import StoreFolder
from qcsurrogate.store.header import Header
from qcsurrogate.store.journal import SLOWEST_KEPT, Journal, SlowStructure, now, read_journal, write_journal
from qcsurrogate.store.plan import write_plan
from qcsurrogate.store.progress import Progress
from qcsurrogate.store.upkeep import write_shard

JOURNAL_EVERY_SECONDS: Final = 10.0
SHARD_BYTES: Final = 256 * 2**20
"""A shard is closed at this estimated size, if it does not reach its number of records before."""

_LOOK_EVERY_SECONDS: Final = 0.5
_MATRICES: Final = 4.0


@dataclass(frozen=True)
class _Task:
    """What was given to a worker."""

    kind: Literal["compute", "gather"]
    name: str
    keys: tuple[str, ...]


class Driver:
    """One run over the structures that are to be computed."""

    def __init__(
        self, folder: StoreFolder, header: Header, orders: Orders, pending: Collection[str], next_shard: int
    ) -> None:
        self.folder, self.header, self.orders = folder, header, orders
        self.n_complete = 0
        plan = header.plan
        self._pending = set(pending)
        self._noted: set[str] = set()
        self._sizes = size_measures(plan.structures.n_atoms, plan.n_ao)
        self._record_bytes = 8.0 * _MATRICES * plan.n_ao * (plan.n_ao + 1) / 2 + 16.0 * plan.n_aux
        self._shard_number = next_shard
        before = read_journal(folder.journal_file)
        self.model = CostModel.from_moments(before.cost)
        self._journal = Journal(started=now(), updated=now(), slowest=before.slowest)
        self._last_journal = 0.0
        self._last_done = time.monotonic()
        self._tasks: dict[Future[Any], _Task] = {}
        self._alone: deque[str] = deque()

    def compute(
        self,
        todo: Sequence[str],
        alone: Collection[str],
        connection: Connection,
        progress: Progress,
    ) -> None:
        """Compute structures.

        Raises:
            StoreError: if a worker cannot write.
            SpecError: if a worker can compute nothing, for example for lack of a GPU.
            ClusterError: if the scheduler is lost, or workers cannot be kept up.
        """
        client = connection.client
        index = self.header.plan.index
        self._alone.extend(key for key in todo if key in alone)
        untried = Queue(self._sizes, np.array([index[key] for key in todo if key not in alone], np.int64))
        try:
            with Interrupts() as interrupts:  # raised inside a callback of h5py's, Ctrl-C would be swallowed
                while (len(untried) or self._alone or self._tasks) and interrupts.received is None:
                    workers, slots = _workers(connection)
                    while (len(untried) or self._alone) and self._n_computing() < 2 * slots:
                        self._submit(client, "compute", self._next_keys(untried, slots))
                    self._gather(client)
                    self._finish_done(progress)
                    connection.tend()
                    expected = self._seconds_left(untried, slots)
                    progress.show(expected)
                    self._write_journal(workers, len(untried) + len(self._alone), expected)
            if interrupts.received is not None:
                interrupts.raise_received()
        finally:
            self._call_off(client)
            self._write_journal(0, len(untried) + len(self._alone), None, always=True)

    def _call_off(self, client: Client) -> None:
        """Let workers that outlive this run stop after the structure they are at."""
        for task in self._tasks.values():
            remove_quietly(self.folder.batches / f"{task.name}.h5")
        if self._tasks and client.status == "running":
            client.cancel(list(self._tasks))

    def finish(self) -> None:
        """Move records that wait into full shards, and into a last one if nothing is left to compute."""
        finished = "waiting" not in self.folder.states(self.header.plan).values()
        self._pending.intersection_update(self.folder.pending_keys(self.header.plan))
        while keys := self._shard_keys(everything=finished):
            self._shard_number += 1
            write_shard(self.folder, keys, self.header.plan, self.header.spec, self._shard_number - 1)
            self._pending.difference_update(keys)

    def _seconds_left(self, untried: Queue, slots: int) -> float | None:
        """None while no time was measured: the cost model knows nothing yet."""
        if not self.model.measured:
            return None
        index = self.header.plan.index
        given_out = [task.keys for task in self._tasks.values() if task.kind == "compute"]
        batches = [*given_out, *((key,) for key in self._alone)]
        in_work = [self._sizes[[index[key] for key in keys]] for keys in batches]
        return seconds_left(self.model, untried, in_work, slots, time.monotonic() - self._last_done)

    def _n_computing(self) -> int:
        return sum(task.kind == "compute" for task in self._tasks.values())

    def _next_keys(self, untried: Queue, slots: int) -> tuple[str, ...]:
        if self._alone:
            return (self._alone.popleft(),)
        keys = self.header.plan.keys
        return tuple(keys[row] for row in untried.take(self.model, slots))

    def _submit(self, client: Client, kind: Literal["compute", "gather"], keys: tuple[str, ...]) -> None:
        number, name = self._shard_number, secrets.token_hex(8)
        if kind == "gather":
            self._shard_number, name = number + 1, f"{self.folder.shard_file(number).stem}-{name}"
        write_plan(self.folder.batches / f"{name}.h5", self.header.plan.part(keys))
        future: Future[Any]
        if kind == "compute":
            future = client.submit(compute_batch, self.orders, name, key=f"compute-{name}", pure=False)
        else:
            arguments = str(self.folder.path), name, number
            future = client.submit(gather_records, *arguments, key=f"gather-{name}", pure=False, priority=10)
        self._tasks[future] = _Task(kind, name, keys)

    def _gather(self, client: Client) -> None:
        while keys := self._shard_keys(everything=False):
            self._pending.difference_update(keys)
            self._submit(client, "gather", keys)

    def _shard_keys(self, *, everything: bool) -> tuple[str, ...]:
        """Records for the next shard, in planned order; none if they do not fill one."""
        size, index = self.header.spec.shard_size, self.header.plan.index
        n_bytes = sum(self._record_bytes[index[key]] for key in self._pending)
        if not self._pending or not (everything or len(self._pending) >= size or n_bytes >= SHARD_BYTES):
            return ()
        ordered = sorted(self._pending, key=index.__getitem__)[:size]
        filled = np.cumsum([self._record_bytes[index[key]] for key in ordered])
        return tuple(ordered[: max(1, int(np.searchsorted(filled, SHARD_BYTES, side="right")))])

    def _finish_done(self, progress: Progress) -> None:
        """Note what is done, and keep no future: a result that is held keeps its worker from retiring in peace."""
        for future in _first_done(self._tasks):
            if future.status not in ("lost", "pending"):  # else its worker died with the result: it is run again
                self._finish(self._tasks.pop(future), future, progress)

    def _finish(self, task: _Task, future: Future[Any], progress: Progress) -> None:
        outcomes = _result_or_death(future)
        if task.kind == "gather":
            if isinstance(outcomes, KilledWorker):  # what is still single is gathered once more
                self._pending.update(self.folder.pending_keys(self.header.plan).intersection(task.keys))
        else:
            self._last_done = time.monotonic()
            died = isinstance(outcomes, KilledWorker)
            self._note(self._after_death(task.keys) if died else outcomes, task.keys, progress)
        remove_quietly(self.folder.batches / f"{task.name}.h5")

    def _after_death(self, keys: tuple[str, ...]) -> list[Outcome]:
        """What a batch left behind whose worker died; only the structure at work is to blame."""
        folder, plan = self.folder, self.header.plan
        outcomes = []
        for key in keys:
            if folder.pending_file(key).is_file():
                outcomes.append(Outcome(key, "complete"))
            elif (folder.running / key).exists():
                put_aside = blame_for_lost_worker(folder, key, plan.label(key), self.orders.limits)
                outcomes.append(Outcome(key, "error" if put_aside else "again"))
            else:
                outcomes.append(Outcome(key, "error" if folder.error_file(key).is_file() else "again"))
        return outcomes

    def _note(self, outcomes: Iterable[Outcome], keys: tuple[str, ...], progress: Progress) -> None:
        missing = dict.fromkeys(keys)
        for outcome in outcomes:
            missing.pop(outcome.key, None)
            if outcome.key in self._noted:
                continue
            if outcome.kind == "again":
                self._alone.append(outcome.key)
                continue
            self._noted.add(outcome.key)
            if outcome.kind == "complete":
                self.n_complete += 1
                self._pending.add(outcome.key)
                self._learn(outcome)
            progress.advance(failed=outcome.kind == "error")
            failed = self._journal.failed + (outcome.kind == "error")
            self._journal = self._journal.model_copy(update={"failed": failed})
        self._alone.extend(missing)

    def _learn(self, outcome: Outcome) -> None:
        if outcome.seconds is None:
            return
        plan = self.header.plan
        row = plan.index[outcome.key]
        self.model.learn(float(self._sizes[row]), outcome.seconds)
        slow = SlowStructure(
            name=plan.structures.name(row), seconds=round(outcome.seconds, 3), n_ao=int(plan.n_ao[row])
        )
        slowest = sorted((*self._journal.slowest, slow), key=lambda s: -s.seconds)[:SLOWEST_KEPT]
        busy = self._journal.busy_seconds + outcome.seconds
        self._journal = self._journal.model_copy(update={"slowest": tuple(slowest), "busy_seconds": busy})

    def _write_journal(self, workers: int, remaining: int, expected: float | None, *, always: bool = False) -> None:
        if not always and time.monotonic() - self._last_journal < JOURNAL_EVERY_SECONDS:
            return
        self._last_journal = time.monotonic()
        state = {
            "updated": now(),
            "computed": self.n_complete,
            "remaining": remaining,
            "workers": workers,
            "expected_seconds": expected,
            "cost": self.model.to_moments(),
        }
        self._journal = self._journal.model_copy(update=state)
        write_journal(self.folder.journal_file, self._journal)


def _workers(connection: Connection) -> tuple[int, int]:
    """Workers that are there now, and tasks that can run once all are; workers may join and leave."""
    try:
        return len(connection.client.nthreads()), connection.slots()
    except (OSError, TimeoutError, RuntimeError, CancelledError, AttributeError) as error:
        raise _lost(error) from error


def _first_done(futures: Iterable[Future[Any]]) -> set[Future[Any]]:
    futures = list(futures)
    if not futures:
        return set()
    try:
        return set(wait(futures, timeout=_LOOK_EVERY_SECONDS, return_when="FIRST_COMPLETED").done)
    except TimeoutError:
        return set()
    except (OSError, CancelledError) as error:
        raise _lost(error) from error


def _result_or_death(future: Future[Any]) -> Any:
    """What a task that is done has to say, or the death of the workers that tried it.

    Raises:
        StoreError: if the task could not write.
        ClusterError: if the scheduler dropped it.
    """
    try:
        return future.result()
    except KilledWorker as death:
        return death
    except CancelledError as error:
        raise _lost(error) from error


def _lost(error: BaseException) -> ClusterError:
    return ClusterError(
        f"the Dask scheduler is gone ({type(error).__name__}: {error}); expected one that outlives the run. Everything "
        "finished is kept: start the cluster and the same command again to go on"
    )
