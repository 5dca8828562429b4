"""A watchdog: workers that are lost for good are replaced, within limits.

Dask restarts a worker process that dies while its nanny lives.  Nobody replaces a job
that hit its walltime, was killed with its node, or never brought a worker up: neither
Dask nor dask-jobqueue looks at the queue.  This does, and gives up with the words of
the job's own log when nothing ever comes up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any

from distributed.core import Status
from distributed.diagnostics.plugin import SchedulerPlugin

from qcsurrogate.clusters.queues import JobState
from qcsurrogate.errors import ClusterError

if TYPE_CHECKING:
    from distributed import Client, Scheduler
    from distributed.deploy.spec import SpecCluster

    from qcsurrogate.clusters.settings import ClusterSettings

Job = Any
"""What a cluster holds per worker: a nanny, a batch job, a process behind SSH."""

Look = Callable[[Mapping[Any, Job]], Awaitable[Mapping[Any, JobState]]]
"""States by worker's name; a worker whose state nobody knows is left out."""

LOOKS_UNTIL_ENDED = 2
"""A job is taken as ended when so many looks in a row say so: queues answer late, and with gaps."""


@dataclass(frozen=True)
class Limits:
    """When the watchdog acts.

    Attributes:
        look_every: seconds between looks.
        startup: seconds that a running job may be without its worker.
        failures: jobs in a row that may end without a worker.
    """

    look_every: float
    startup: float
    failures: int


class _Arrivals(SchedulerPlugin):
    """Names of the workers that came up, however short they lived."""

    def __init__(self, present: set[Any]) -> None:
        self.names = present
        self.since_look = False

    def add_worker(self, scheduler: Scheduler, worker: str) -> None:
        """Called by the scheduler."""
        self.names.add(scheduler.workers[worker].name)
        self.since_look = True


@dataclass
class _Watched:
    job: Job
    missing_since: float | None = None
    looks_ended: int = 0


class Watchdog:
    """Looks after the workers of a cluster whose scheduler runs in this process."""

    def __init__(
        self, cluster: SpecCluster, look: Look, tail: Callable[[Job], str], limits: Limits, log: Callable[[str], None]
    ) -> None:
        self._cluster = cluster
        self._loop: asyncio.AbstractEventLoop = cluster.loop.asyncio_loop  # type: ignore[union-attr]
        self._look = look
        self._tail = tail
        self._limits = limits
        self._log = log
        self._watched: dict[Any, _Watched] = {}
        scheduler: Any = cluster.scheduler
        self._arrivals = _Arrivals({worker.name for worker in scheduler.workers.values()})
        scheduler.add_plugin(self._arrivals, name="qcsurrogate-watchdog")
        self._scheduler = scheduler
        self._failures = 0
        self._refusals = 0
        self._next = monotonic() + limits.look_every
        self._looking: Future[None] | None = None

    def tend(self) -> None:
        """Start a look if one is due; cheap, and never waits.

        Raises:
            ClusterError: if too many jobs ended without a worker.
        """
        if self._looking is not None:
            if not self._looking.done():
                return
            finished, self._looking = self._looking, None
            finished.result()
        if monotonic() >= self._next and self._cluster.status == Status.running:
            self._next = monotonic() + self._limits.look_every
            self._looking = asyncio.run_coroutine_threadsafe(self._check(), self._loop)

    def start(self) -> None:
        """Start all workers that the cluster's specification asks for."""
        self._cluster.sync(self._fill, at_start=True)

    async def _check(self) -> None:
        jobs = {name: job for name, job in self._cluster.workers.items() if name in self._cluster.worker_spec}
        states = await self._look(jobs)
        present = self._present()
        if self._arrivals.since_look:
            self._arrivals.since_look, self._failures = False, 0
        self._watched = {name: self._watch(name, job) for name, job in jobs.items()}
        lost = {}
        for name, watched in self._watched.items():
            if name in present:
                watched.missing_since, watched.looks_ended = None, 0
            else:
                reason = self._reason(watched, states.get(name))
                if reason:
                    lost[name] = reason
        for name, reason in lost.items():
            await self._drop(name, reason, anybody=bool(present))
        await self._fill()

    def _present(self) -> set[Any]:
        return {worker.name for worker in self._scheduler.workers.values()}

    def _watch(self, name: Any, job: Job) -> _Watched:
        known = self._watched.get(name)
        return known if known is not None and known.job is job else _Watched(job)

    def _reason(self, watched: _Watched, state: JobState | None) -> str | None:
        """Why a worker that is not there is lost for good; None while it may come."""
        if state == "ended":
            watched.looks_ended += 1
            return "ended" if watched.looks_ended >= LOOKS_UNTIL_ENDED else None
        watched.looks_ended = 0
        if state != "running":
            watched.missing_since = None
            return None
        watched.missing_since = watched.missing_since or monotonic()
        waited = monotonic() - watched.missing_since
        return f"runs without its worker for {waited:.0f} s" if waited > self._limits.startup else None

    async def _drop(self, name: Any, reason: str, *, anybody: bool) -> None:
        watched = self._watched.pop(name)
        self._cluster.workers.pop(name, None)
        job, what = watched.job, _called(name, watched.job)
        if name in self._arrivals.names:
            self._arrivals.names.discard(name)
            self._log(f"{what} {reason}: it is replaced")
        else:
            self._failures += 1
            tail = self._tail(job)
            said = f"; it said:\n{_indented(tail)}" if tail else "; it left no output"
            self._log(f"{what} {reason}, no worker came up: it is replaced{said}")
            if self._failures >= self._limits.failures and not anybody:
                await job.close()
                raise ClusterError(
                    f"{self._failures} jobs in a row ended before their worker came up; expected workers. Check "
                    f"prologue, python, memory and interface of the cluster file. The last one, {what}{said}"
                )
        await job.close()

    async def _fill(self, *, at_start: bool = False) -> None:
        """Start what is in the specification and not there."""
        if set(self._cluster.worker_spec) <= set(self._cluster.workers):
            return
        try:
            await self._cluster._correct_state()
        except Exception as error:  # whatever a batch system or SSH has to say; it is raised or logged
            refused = [name for name, job in self._cluster.workers.items() if _not_started(job)]
            said = "".join(
                f"\n{_indented(tail)}" for tail in {self._tail(self._cluster.workers[n]) for n in refused} if tail
            )
            for name in refused:
                await self._cluster.workers.pop(name).close()
            self._refusals += 1
            hopeless = not self._cluster.workers and (at_start or self._refusals >= self._limits.failures)
            message = f"{len(refused)} of {len(self._cluster.worker_spec)} workers cannot be started: {error}{said}"
            if hopeless:
                raise ClusterError(
                    f"{message}\nCheck the cluster file, or wait until the other side answers"
                ) from error
            self._log(f"{message}; they are tried again")
        else:
            self._refusals = 0


@dataclass(frozen=True)
class Connection:
    """A cluster as the driver sees it.

    Attributes:
        client: for submitting.
        threads: OpenMP threads of one worker.
        workers: worker processes that were asked for, at most; None where others start them.
        dashboard: address of the web page, where one was asked for.
    """

    client: Client
    threads: int = 1
    workers: int | None = None
    dashboard: str | None = None
    watchdog: Watchdog | None = None

    def tend(self) -> None:
        """Keep the workers up: cheap, to be called every few seconds."""
        if self.watchdog is not None:
            self.watchdog.tend()

    def slots(self) -> int:
        """How many tasks can run at a time once all workers are there; at least one."""
        return max(1, self.workers if self.workers is not None else sum(self.client.nthreads().values()))


def dashboard_link(settings: ClusterSettings, client: Client) -> str | None:
    return client.dashboard_link if settings.dashboard else None


def _called(name: Any, job: Job) -> str:
    number = getattr(job, "job_id", None)
    return f"job {number} (worker {name})" if number else f"worker {name}"


def _not_started(job: Job) -> bool:
    return job.status in (Status.created, Status.undefined, Status.failed, Status.closed)


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
