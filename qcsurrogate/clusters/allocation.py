"""One large SLURM allocation: all processes of one ``srun`` find each other.

Task 0 runs the scheduler, task 1 drives the generation, all others run workers
(dask-jobqueue's SLURMRunner).  When the driver leaves, in whatever way, the scheduler
closes and with it the workers, so that the step ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import dask
from distributed import Client, Scheduler
from distributed.diagnostics.plugin import SchedulerPlugin

from qcsurrogate.clusters.queues import THREAD_VARIABLES, WORKER_CONFIG, job_queue_module
from qcsurrogate.clusters.settings import ClusterSettings, SlurmRunnerSettings
from qcsurrogate.clusters.tls import Keys, ready_keys
from qcsurrogate.clusters.watch import Connection, dashboard_link
from qcsurrogate.errors import ClusterError, SpecError
from qcsurrogate.files.atomic import make_folder

_DRIVER = 1
QUIET = {"PYTHONWARNINGS": "ignore", "DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "critical"}
"""Environment of worker processes whose output would mix with the driver's."""
SCHEDULER_CONFIG = {"distributed.scheduler.allowed-failures": 0, "distributed.scheduler.worker-saturation": 1.0}
"""How a scheduler must treat tasks that outlive their worker; see the driver."""


@contextlib.contextmanager
def taking_part(settings: ClusterSettings) -> Iterator[Connection | None]:
    """Enter this before anything else: a task that is to serve does so here, and exits.

    Only the driving task of a ``slurm_runner`` cluster gets a connection, and only it
    goes on; for every other kind of cluster there is none, and nothing happens.

    Raises:
        SpecError: if the kind is ``slurm_runner`` and this is no ``srun`` of three tasks or more.
        ClusterError: if the tasks do not find each other.
        SystemExit: in a task that served, when the driver has left.
    """
    if not isinstance(settings, SlurmRunnerSettings):
        yield None
        return
    task, tasks = _place()
    keys = ready_keys(settings.tls_folder) if settings.tls else None
    meeting_point = _meeting_point(settings)
    if task != _DRIVER:
        _serve(settings, keys, meeting_point, tasks - 2)
    address = _scheduler_address(meeting_point, settings.startup_seconds)
    try:
        client = Client(address, security=keys.security() if keys else None, timeout=settings.startup_seconds)
    except OSError as error:
        raise ClusterError(f"the driving task cannot reach the scheduler at {address}: {error}") from error
    with client:
        yield Connection(client, settings.threads, tasks - 2, dashboard_link(settings, client))


def _place() -> tuple[int, int]:
    try:
        task, tasks, _ = (int(os.environ[name]) for name in ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_JOB_ID"))
    except (KeyError, ValueError) as error:
        raise SpecError(
            "kind 'slurm_runner' runs inside a job, started by srun; expected SLURM_PROCID, SLURM_NTASKS and "
            "SLURM_JOB_ID in the environment: srun --kill-on-bad-exit=1 qcsurrogate generate ..."
        ) from error
    if tasks < 3:
        raise SpecError(
            f"srun started {tasks} tasks; expected at least 3: one schedules, one drives, the others work (srun -n)"
        )
    return task, tasks


def _meeting_point(settings: SlurmRunnerSettings) -> Path:
    """A file that all tasks see, named after this very step."""
    folder = Path(settings.tls_folder).expanduser().absolute() if settings.tls else Path.home() / ".qcsurrogate"
    make_folder(folder)
    names = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
    return folder / f"scheduler-{'-'.join(os.environ.get(name, '0') for name in names)}.json"


def _scheduler_address(meeting_point: Path, patience: float) -> str:
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError, KeyError):  # not there yet, or half written
            return str(json.loads(meeting_point.read_text())["address"])
        time.sleep(0.2)
    raise ClusterError(
        f"no scheduler appeared in '{meeting_point}' within {patience:.0f} s; expected task 0 to write it: look at its "
        "output, and check that all nodes see that folder"
    )


def _serve(settings: SlurmRunnerSettings, keys: Keys | None, meeting_point: Path, workers: int) -> NoReturn:
    """Run a scheduler or a worker until the driver has left, then exit with status 0."""
    ended = threading.Event()
    end = _EndWithDriver(workers, settings.startup_seconds)
    runner = _serving_runner(job_queue_module("dask_jobqueue.slurm"), ended, end)
    common: dict[str, Any] = {
        "security": keys.security() if keys else None,
        "protocol": "tls://" if keys else "tcp://",
        "interface": settings.interface,
    }

    def interrupted(_number: int, _frame: object) -> None:
        if ended.is_set():  # the runner ends like this; Ctrl-C is the driver's, who leaves the store in order
            sys.exit(0)

    signal.signal(signal.SIGINT, interrupted)
    place = os.path.expandvars(settings.scratch) if settings.scratch else None
    with tempfile.TemporaryDirectory(prefix="qcsurrogate.", dir=place, ignore_cleanup_errors=True) as scratch:
        os.environ |= dict.fromkeys(THREAD_VARIABLES, str(settings.threads))
        os.environ |= {"TMPDIR": scratch, "PYSCF_TMPDIR": scratch, **QUIET}
        logging.getLogger("distributed").setLevel(logging.CRITICAL)  # every end is noisy, and the driver tells it
        with dask.config.set(SCHEDULER_CONFIG | WORKER_CONFIG):
            runner(
                scheduler_file=str(meeting_point),
                scheduler_options={
                    **common,
                    "dashboard": bool(settings.dashboard),
                    "dashboard_address": settings.dashboard_address,
                },
                worker_class="distributed.Nanny",
                worker_options={
                    **common,
                    "nthreads": 1,
                    "memory_limit": settings.memory,
                    "local_directory": scratch,
                    "dashboard": False,
                    "dashboard_address": "127.0.0.1:0",
                    "death_timeout": settings.startup_seconds,
                    "silence_logs": logging.CRITICAL,
                },
            )
    raise ClusterError("the runner of this task returned; expected it to serve until the driver leaves")


def _serving_runner(module: Any, ended: threading.Event, end: _EndWithDriver) -> Any:
    class ServingRunner(module.SLURMRunner):
        """Keeps Ctrl-C from what it starts, and says when it has ended."""

        async def start_scheduler(self) -> None:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                await super().start_scheduler()
            finally:
                ended.set()

        async def on_scheduler_start(self, scheduler: Scheduler) -> None:
            scheduler.add_plugin(end)

        async def start_worker(self) -> None:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # processes inherit it
            try:
                await super().start_worker()
            finally:
                ended.set()

    return ServingRunner


class _EndWithDriver(SchedulerPlugin):
    """Closes the scheduler, and with it the workers, when its last client is gone.

    Workers that are still on their way are waited for: they would look for a scheduler
    that is no more until they lose patience, and hold the allocation.
    """

    def __init__(self, expected: int, patience: float) -> None:
        self._expected = expected
        self._patience = patience
        self._arrived: set[Any] = set()
        self._closing: asyncio.Task[None] | None = None

    def add_worker(self, scheduler: Scheduler, worker: str) -> None:
        """Called when a worker has come up."""
        self._arrived.add(scheduler.workers[worker].name)

    def remove_client(self, scheduler: Scheduler, client: str) -> None:
        """Called when a client has left or its connection broke."""
        others = set(scheduler.clients) - {client, "fire-and-forget"}
        if not others and self._closing is None:
            self._closing = asyncio.ensure_future(self._close(scheduler))

    async def _close(self, scheduler: Scheduler) -> None:
        deadline = time.monotonic() + self._patience
        while len(self._arrived) < self._expected and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
        await scheduler.close()
