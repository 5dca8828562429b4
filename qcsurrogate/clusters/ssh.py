"""Workers on other machines, started through SSH; the scheduler runs in this process."""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections import deque
from pathlib import Path
from typing import Any

from distributed import Scheduler
from distributed.deploy.spec import SpecCluster
from distributed.deploy.ssh import Worker

from qcsurrogate.clusters.queues import LOG_LINES, JobState, prologue
from qcsurrogate.clusters.settings import SshSettings
from qcsurrogate.clusters.tls import Keys
from qcsurrogate.errors import SpecError

_AT_ONCE_PER_HOST = 4
"""SSH servers refuse more than a few connections that have not logged in yet."""


class SshWorker(Worker):
    """Dask's worker behind SSH, whose output is read to the end, so that it never blocks on it."""

    def __init__(self, *arguments: Any, door: asyncio.Semaphore, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._door = door
        self.proc: Any = None
        self.printed: deque[str] = deque(maxlen=LOG_LINES)
        self._readers: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Log in, start the worker, and wait until it says where it listens."""
        async with self._door:
            try:
                await super().start()
            except Exception:
                if self.proc is not None:
                    self.printed.extend((await self.proc.stderr.read()).splitlines())
                    self.proc.kill()
                if self.connection is not None:
                    self.connection.close()
                raise
        self._readers = [asyncio.create_task(self._read(s)) for s in (self.proc.stdout, self.proc.stderr)]

    async def _read(self, stream: Any) -> None:
        async for line in stream:
            self.printed.append(line.rstrip("\n"))

    @property
    def state(self) -> JobState:
        """Whether the worker's process still runs, as far as SSH knows."""
        return (
            "ended" if self.proc is None or self.proc.exit_status is not None or self.proc.is_closing() else "running"
        )

    async def close(self) -> None:
        """End the process and the connection."""
        await super().close()
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)


def ssh_cluster(settings: SshSettings, keys: Keys | None) -> SpecCluster:
    """A cluster whose workers are in its specification but not started yet."""
    try:
        import asyncssh  # noqa: F401 - Dask imports it late, and says less
    except ImportError as error:
        raise SpecError(
            "SSH needs the package 'asyncssh'; expected it installed: pip install 'qcsurrogate[cluster]'"
        ) from error
    security = keys.security() if keys else None
    options = settings.scheduler_options | {"protocol": "tls://" if keys else "tcp://", "security": security}
    scheduler = {"cls": Scheduler, "options": options}
    return SpecCluster(scheduler=scheduler, security=security, name="ssh", silence_logs="CRITICAL")


def ssh_workers(settings: SshSettings, keys: Keys | None) -> dict[str, dict[str, Any]]:
    """Specifications of the workers by name, dealt out to the hosts in turn."""
    workers = {}
    doors = {host: asyncio.Semaphore(_AT_ONCE_PER_HOST) for host in settings.hosts}
    for number in range(settings.workers):
        host = settings.hosts[number % len(settings.hosts)]
        name = f"{host}-{number // len(settings.hosts)}"
        options = _worker_options(settings, keys, host, name) | {"door": doors[host]}
        workers[name] = {"cls": SshWorker, "options": options}
    return workers


def _worker_options(settings: SshSettings, keys: Keys | None, host: str, name: str) -> dict[str, Any]:
    connection: dict[str, Any] = {"port": settings.port}
    if settings.username is not None:
        connection["username"] = settings.username
    if settings.key_file is not None:
        connection["client_keys"] = [str(Path(settings.key_file).expanduser())]
    if settings.known_hosts is not None:
        connection["known_hosts"] = str(Path(settings.known_hosts).expanduser())
    script = "\n".join([*prologue(settings), '"$0" "$@"'])
    return {
        "address": host,
        "connect_options": connection,
        "remote_python": f"bash -c {shlex.quote(script)} {shlex.quote(settings.python or sys.executable)}",
        "kwargs": {
            "name": name,
            "nthreads": 1,
            "memory_limit": settings.memory,
            "protocol": "tls://" if keys else "tcp://",
            "security": {"require_encryption": True, **keys.options()} if keys else None,
            "interface": settings.interface,
            "dashboard": False,
            "dashboard_address": "127.0.0.1:0",
            "death_timeout": settings.startup_seconds,
        },
    }
