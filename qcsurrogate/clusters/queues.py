"""Jobs of batch systems: their scripts (written by dask-jobqueue), their states, their logs."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import importlib
import re
import shlex
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from dask.utils import parse_bytes
from distributed.core import Status

from qcsurrogate.clusters.queue_settings import LsfSettings, PbsSettings, QueueSettings, SgeSettings, SlurmSettings
from qcsurrogate.clusters.settings import SshSettings
from qcsurrogate.clusters.tls import Keys
from qcsurrogate.errors import SpecError

if TYPE_CHECKING:
    from distributed.deploy.spec import SpecCluster

JobState = Literal["waiting", "running", "ended"]

QUERY_SECONDS = 60.0
LOG_LINES = 15

_OUTPUT = re.compile(r"(#\S+ -[oe]) ([^\"].*)")

_SLURM_RUNNING = frozenset({"RUNNING", "COMPLETING", "STOPPED", "SUSPENDED", "RESIZING", "SIGNALING", "STAGE_OUT"})
_SLURM_ENDED = frozenset(
    {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT"}
)

THREAD_VARIABLES = tuple(f"{library}_NUM_THREADS" for library in ("OMP", "MKL", "OPENBLAS", "NUMEXPR"))
WORKER_CONFIG = {
    **{f"distributed.worker.memory.{name}": False for name in ("target", "spill", "pause")},
    "distributed.worker.memory.terminate": 0.98,
    "distributed.worker.memory.monitor-interval": "1s",
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "2s",
    "distributed.admin.tick.limit": "1m",
    "distributed.admin.system-monitor.interval": "5s",
}
"""Dask never pauses a worker whose memory a calculation holds, and kills it only where our guard could not.  And it
looks at itself rarely: its 50 ticks a second in every process took 8 % of the calculations' time from two cores."""


def job_queue_module(name: str) -> ModuleType:
    """A module of dask-jobqueue, whose import must not take Ctrl-C away from us.

    Raises:
        SpecError: if it is not installed.
    """
    before = signal.getsignal(signal.SIGINT)
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise SpecError(
            f"batch systems need the package 'dask-jobqueue': {error}; expected it installed: "
            "pip install 'qcsurrogate[cluster]'"
        ) from error
    finally:
        with contextlib.suppress(ValueError):  # outside the main thread nobody can set it
            signal.signal(signal.SIGINT, before)


def dask_variable(name: str) -> str:
    """The environment variable that sets a value of Dask's configuration."""
    return "DASK_" + name.upper().replace(".", "__").replace("-", "_")


def prologue(settings: QueueSettings | SshSettings) -> list[str]:
    """Shell lines before a worker: the user's, then threads and a scratch folder that goes when it ends."""
    place = settings.scratch or "${TMPDIR:-/tmp}"
    return [
        *settings.prologue,
        *(f"export {variable}={settings.threads}" for variable in THREAD_VARIABLES),
        f'mkdir -p "{place}"',
        f'export TMPDIR="$(mktemp -d "{place}/qcsurrogate.XXXXXX")"',
        'export PYSCF_TMPDIR="$TMPDIR" PYTHONWARNINGS=ignore',
        *(f"export {dask_variable(name)}={value}" for name, value in WORKER_CONFIG.items()),
        "trap 'rm -rf -- \"$TMPDIR\"' EXIT",
    ]


def queue_cluster(settings: QueueSettings, keys: Keys | None, scratch: Path) -> SpecCluster:
    """A cluster without jobs yet; its scheduler runs in this process."""
    module = job_queue_module("dask_jobqueue")
    kind = {"slurm": "SLURMCluster", "pbs": "PBSCluster", "sge": "SGECluster", "lsf": "LSFCluster"}[settings.kind]
    cluster: Any = getattr(module, kind)
    made: SpecCluster = cluster(job_cls=_job_that_closes(cluster), **cluster_options(settings, keys, scratch))
    return made


def _job_that_closes(cluster: Any) -> type:
    class ClosingJob(cluster.job_cls):
        """Quotes paths with blanks; says that it is closed, as Dask expects, and dask-jobqueue forgets."""

        _command_template: str
        job_header: str

        def __init__(self, *arguments: Any, security: Any = None, **options: Any) -> None:
            super().__init__(*arguments, security=security, **options)
            tls = security.get_tls_config_for_role("worker") if security else {}
            command, header = self._command_template, self.job_header
            for path in {str(value) for name, value in tls.items() if name != "ciphers" and value}:
                command = command.replace(f" {path}", f" {shlex.quote(path)}")
            self._command_template = command
            self.job_header = "\n".join(quoted_directive(line) for line in header.splitlines())

        async def close(self) -> None:
            await super().close()
            self.status = Status.closed

    return ClosingJob


def quoted_directive(line: str) -> str:
    """A directive whose output file (``-o``, ``-e``) has blanks in its path, with the path in quotes."""
    found = _OUTPUT.fullmatch(line)
    return f'{found[1]} "{found[2]}"' if found and " " in found[2] else line


def cluster_options(settings: QueueSettings, keys: Keys | None, scratch: Path) -> dict[str, Any]:
    """Keywords of dask-jobqueue's cluster: one worker with one task slot per job."""
    scheduler = {name: value for name, value in settings.scheduler_options.items() if value is not None}
    return {
        "n_workers": 0,
        "cores": 1,  # of Dask: how many tasks a worker runs at a time; OpenMP threads are asked for below
        "processes": 1,
        "memory": settings.memory,
        "queue": settings.queue,
        "walltime": settings.walltime,
        "job_name": settings.job_name,
        "log_directory": str(log_folder(settings, scratch)),
        "interface": settings.interface,
        "python": shlex.quote(settings.python or sys.executable),
        "local_directory": '"$TMPDIR"',
        "job_script_prologue": prologue(settings),
        "job_directives_skip": [],
        "nanny": True,
        "death_timeout": int(settings.startup_seconds),
        "worker_extra_args": [
            *("--lifetime", f"{settings.lifetime_seconds:.0f}s"),
            *("--lifetime-stagger", f"{settings.stagger_seconds:.0f}s"),
            *("--no-dashboard", "--dashboard-address", "127.0.0.1:0"),
        ],
        "scheduler_options": scheduler,
        "security": keys.security() if keys else None,
        "shared_temp_directory": str(scratch),
        "silence_logs": "CRITICAL",
        **_of_kind(settings),
    }


def _of_kind(settings: QueueSettings) -> dict[str, Any]:
    extra = list(settings.extra_directives)
    match settings:
        case SlurmSettings():
            return {
                "queue": settings.queue or settings.partition,
                "account": settings.account,
                "job_cpu": settings.threads,
                "job_extra_directives": extra,
            }
        case PbsSettings():
            mebibytes = -(-parse_bytes(settings.memory) // 2**20)
            resources = settings.resource_spec or f"select=1:ncpus={settings.threads}:mem={mebibytes}mb"
            return {"account": settings.account, "resource_spec": resources, "job_extra_directives": extra}
        case SgeSettings():
            slots = [f"-pe {settings.parallel_environment} {settings.threads}"] if settings.parallel_environment else []
            return {
                "project": settings.account,
                "resource_spec": settings.resource_spec,
                "job_extra_directives": [*slots, *extra],
            }
        case LsfSettings():
            hours, minutes = divmod(-(-settings.walltime_seconds // 60), 60)
            return {
                "project": settings.account,
                "ncpus": settings.threads,
                "walltime": f"{hours:02d}:{minutes:02d}",
                "job_extra_directives": extra,
            }


def log_folder(settings: QueueSettings, scratch: Path) -> Path:
    """Where the batch system writes what the jobs print."""
    return Path(settings.logs).expanduser().absolute() if settings.logs else scratch / "jobs"


def log_tail(folder: Path, job_id: str | None) -> str:
    """The last lines that a job printed, or nothing."""
    if not job_id:
        return ""
    written = [path for path in folder.glob(f"*{job_id}*") if path.is_file() and path.stat().st_size]
    errors_last = sorted(written, key=lambda path: (".e" in path.suffix, path.name))
    lines = [line for path in errors_last for line in _last_lines(path)]
    return "\n".join(lines[-LOG_LINES:])


def _last_lines(path: Path) -> list[str]:
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        return file.read().decode(errors="replace").splitlines()[-LOG_LINES:]


@dataclass(frozen=True)
class _Query:
    """How a batch system lists jobs: a command, the columns of number and state, and what states mean."""

    command: tuple[str, ...]
    state_column: int
    running: frozenset[str]
    ended: frozenset[str]


def _query(kind: str) -> _Query:
    user = getpass.getuser()
    match kind:
        case "slurm":
            return _Query(
                ("squeue", "--noheader", f"--user={user}", "--format=%i %T"),
                1,
                _SLURM_RUNNING,
                _SLURM_ENDED,
            )
        case "pbs":
            return _Query(("qstat",), 4, frozenset("RBESU"), frozenset("CFX"))
        case "sge":
            return _Query(("qstat", "-u", user), 4, frozenset({"r", "t", "Rr", "Rt", "s", "S"}), frozenset({"Eqw"}))
        case _:
            return _Query(
                ("bjobs", "-w"), 2, frozenset({"RUN", "USUSP", "SSUSP", "UNKWN"}), frozenset({"DONE", "EXIT"})
            )


def parse_states(kind: str, text: str) -> dict[str, JobState]:
    """States by job number from what ``squeue``, ``qstat`` or ``bjobs`` print; other lines are left out."""
    query = _query(kind)
    states: dict[str, JobState] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) <= query.state_column or not words[0][0].isdigit():
            continue
        number = words[0][: next((i for i, c in enumerate(words[0]) if not c.isdigit()), None)]
        state = words[query.state_column]
        states[number] = "running" if state in query.running else "ended" if state in query.ended else "waiting"
    return states


async def job_states(kind: str) -> dict[str, JobState] | None:
    """States of this user's jobs; one that is not listed has ended. None if the batch system gives no answer."""
    query = _query(kind)
    try:
        process = await asyncio.create_subprocess_exec(
            *query.command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
    except OSError:
        return None
    try:
        out, err = await asyncio.wait_for(process.communicate(), QUERY_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()
        return None
    if process.returncode != 0 and b"No unfinished job" not in out + err:
        return None
    return parse_states(kind, out.decode(errors="replace"))
