"""Workers for a generation: started, reached, kept up.

The scheduler runs in the process that generates, except where one runs already or
where a SLURM allocation holds all processes.  Every worker runs one task at a time, in
one process, with as many OpenMP threads as the settings say.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import dask
from dask.system import CPU_COUNT
from distributed import Client, LocalCluster
from distributed.core import Status
from distributed.deploy.spec import SpecCluster

from qcsurrogate.clusters.allocation import QUIET, SCHEDULER_CONFIG
from qcsurrogate.clusters.queue_settings import QueueSettings
from qcsurrogate.clusters.queues import (
    THREAD_VARIABLES,
    WORKER_CONFIG,
    JobState,
    job_states,
    log_folder,
    log_tail,
    queue_cluster,
)
from qcsurrogate.clusters.settings import (
    ClusterSettings,
    LocalSettings,
    SchedulerSettings,
    SlurmRunnerSettings,
    SshSettings,
)
from qcsurrogate.clusters.ssh import SshWorker, ssh_cluster, ssh_workers
from qcsurrogate.clusters.tls import Keys, ready_keys
from qcsurrogate.clusters.watch import Connection, Job, Limits, Look, Watchdog, dashboard_link
from qcsurrogate.errors import ClusterError, SpecError

_CONNECT_SECONDS = 30.0
_LOCAL_LIMITS = Limits(look_every=5.0, startup=600.0, failures=5)


@contextlib.contextmanager
def connected(settings: ClusterSettings, scratch: Path, log: Callable[[str], None]) -> Iterator[Connection]:
    """Workers as the settings want them, for as long as this is entered.

    Raises:
        SpecError: if a package is missing, or keys cannot be used.
        ClusterError: if no worker can be started, or the scheduler cannot be reached.
    """
    match settings:
        case SchedulerSettings():
            with _running(settings, log) as connection:
                yield connection
        case SlurmRunnerSettings():
            raise SpecError("kind 'slurm_runner' needs its allocation; expected taking_part() to be entered first")
        case _:
            with _started(settings, scratch, log) as connection:
                yield connection


def allowed_failures(client: Client) -> int:
    """How many workers may die over a task until this client's scheduler gives it up; ours has 0."""

    def read(dask_scheduler: Any) -> int:  # nested, so that it travels by value
        return int(dask_scheduler.allowed_failures)

    return int(client.run_on_scheduler(read))


@contextlib.contextmanager
def _running(settings: SchedulerSettings, log: Callable[[str], None]) -> Iterator[Connection]:
    keys = ready_keys(settings.tls_folder) if settings.tls else None
    try:
        client = Client(settings.address, security=keys.security() if keys else None, timeout=_CONNECT_SECONDS)
    except OSError as error:  # TimeoutError and refused certificates among them
        hint = f", and that it was started with the keys in '{settings.tls_folder}'" if keys else ""
        raise ClusterError(
            f"cannot reach a Dask scheduler at {settings.address}: {error or type(error).__name__}; expected one that "
            f"runs: check the address{hint}"
        ) from error
    with client:
        if not client.nthreads():
            log(f"the scheduler at {settings.address} has no workers yet")
        yield Connection(client, settings.threads, None, dashboard_link(settings, client))


@contextlib.contextmanager
def _started(
    settings: LocalSettings | QueueSettings | SshSettings, scratch: Path, log: Callable[[str], None]
) -> Iterator[Connection]:
    keys = ready_keys(settings.tls_folder) if settings.tls else None
    with contextlib.ExitStack() as stack:
        stack.enter_context(dask.config.set(_configuration(settings, scratch)))
        if isinstance(settings, LocalSettings):
            stack.enter_context(_environment(_local_environment(settings, scratch)))
        with _interrupts_held_back():
            cluster = _cluster(settings, keys, scratch)
            stack.enter_context(cluster)
            watchdog = Watchdog(cluster, *_senses(settings, scratch), _limits(settings), log)
            workers = _ask_for_workers(settings, keys, cluster, watchdog)
            client = stack.enter_context(Client(cluster))
        yield Connection(client, settings.threads, workers, dashboard_link(settings, client), watchdog)


def _configuration(settings: LocalSettings | QueueSettings | SshSettings, scratch: Path) -> dict[str, Any]:
    configuration: dict[str, Any] = {
        **SCHEDULER_CONFIG,
        **WORKER_CONFIG,
        "distributed.deploy.lost-worker-timeout": "1000 days",  # the watchdog knows better
    }
    if isinstance(settings, LocalSettings):
        configuration |= {
            "distributed.nanny.pre-spawn-environ": _local_environment(settings, scratch),
            "distributed.logging": {"distributed": "critical"},
            "temporary-directory": _local_scratch(settings, scratch),
        }
    if isinstance(settings, SshSettings):  # a worker inherits it, and Dask waits for the line that tells its address
        configuration["distributed.logging"] = {"distributed": "info"}
    return configuration


def _local_scratch(settings: LocalSettings, scratch: Path) -> str:
    return os.path.expanduser(os.path.expandvars(settings.scratch)) if settings.scratch else str(scratch)


def _local_environment(settings: LocalSettings, scratch: Path) -> dict[str, str]:
    folder = _local_scratch(settings, scratch)
    return {
        **dict.fromkeys(THREAD_VARIABLES, str(settings.threads)),
        "PYSCF_TMPDIR": folder,
        "TMPDIR": folder,
        **QUIET,
    }


def _cluster(settings: LocalSettings | QueueSettings | SshSettings, keys: Keys | None, scratch: Path) -> SpecCluster:
    try:
        match settings:
            case LocalSettings():
                return _local(settings, keys, scratch)
            case SshSettings():
                return ssh_cluster(settings, keys)
            case _:
                return queue_cluster(settings, keys, scratch)
    except (OSError, RuntimeError, ValueError) as error:
        raise ClusterError(
            f"cannot start a Dask scheduler here: {error}; check interface and scheduler_port"
        ) from error


def _local(settings: LocalSettings, keys: Keys | None, scratch: Path) -> LocalCluster:
    return LocalCluster(
        n_workers=settings.workers or max(1, CPU_COUNT // settings.threads),
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        security=keys.security() if keys else None,
        dashboard_address=settings.dashboard_address,
        worker_dashboard_address="127.0.0.1:0",
        scheduler_kwargs={"dashboard": bool(settings.dashboard)},
        local_directory=_local_scratch(settings, scratch),
        silence_logs=logging.CRITICAL,
        **({"memory_limit": settings.memory} if settings.memory else {}),
    )


def _ask_for_workers(
    settings: LocalSettings | QueueSettings | SshSettings, keys: Keys | None, cluster: SpecCluster, watchdog: Watchdog
) -> int:
    match settings:
        case LocalSettings():
            return len(cluster.worker_spec)
        case SshSettings():
            cluster.worker_spec.update(ssh_workers(settings, keys))
            watchdog.start()
            return settings.workers
        case _:
            adaptive = settings.adaptive
            at_once = settings.workers if adaptive is None else max(1, adaptive.minimum)
            for _ in range(at_once or 0):
                cluster.worker_spec.update(cluster.new_worker_spec())
            watchdog.start()  # before it adapts, so that what the batch system refuses is heard
            if adaptive is not None:
                cluster.adapt(minimum=adaptive.minimum, maximum=adaptive.maximum)
            return settings.most_workers


def _senses(settings: LocalSettings | QueueSettings | SshSettings, scratch: Path) -> tuple[Look, Callable[[Job], str]]:
    """How the states of jobs are seen, and the last lines that one printed."""
    if isinstance(settings, LocalSettings):

        async def at_nannies(jobs: Mapping[Any, Job]) -> Mapping[Any, JobState]:
            gone = (Status.closing, Status.closed, Status.failed, Status.stopped)
            return {name: "ended" if nanny.status in gone else "running" for name, nanny in jobs.items()}

        return at_nannies, lambda _nanny: ""
    if isinstance(settings, SshSettings):

        async def at_processes(jobs: Mapping[Any, SshWorker]) -> Mapping[Any, JobState]:
            return {name: process.state for name, process in jobs.items()}

        return at_processes, lambda process: "\n".join(process.printed)
    folder = log_folder(settings, scratch)

    async def at_queue(jobs: Mapping[Any, Job]) -> Mapping[Any, JobState]:
        states = await job_states(settings.kind)
        return {} if states is None else {name: states.get(str(job.job_id), "ended") for name, job in jobs.items()}

    return at_queue, lambda job: log_tail(folder, job.job_id)


def _limits(settings: LocalSettings | QueueSettings | SshSettings) -> Limits:
    if isinstance(settings, LocalSettings):
        return _LOCAL_LIMITS
    return Limits(settings.look_every_seconds, settings.startup_seconds, settings.failures_allowed)


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Variables that processes started inside inherit, whatever the shell says; they count before Dask's settings."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Let Ctrl-C wait until the cluster stands, and never reach its processes.

    Threads and processes inherit the mask, so that only the calling thread, which
    leaves the store in order, ever sees the interrupt.
    """
    resource_tracker.ensure_running()  # it would unblock the signal if it were started inside
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
