"""Workers behind SSH: a server on loopback that lives in a thread, with keys of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncssh
import dask
import pytest
from distributed import get_worker

from qcsurrogate.clusters.settings import parse_cluster
from qcsurrogate.clusters.start import connected
from qcsurrogate.errors import ClusterError
from tests.generation.stand_ins import ROOT, wait_until


async def _copy(source: Any, target: Any) -> None:
    async for line in source:
        with contextlib.suppress(BrokenPipeError, asyncssh.Error):  # the client has left
            target.write(line.decode())


@dataclass
class Server:
    """An SSH server that runs commands as sshd would."""

    folder: Path
    port: int = 0
    commands: list[str] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)

    async def run(self, process: Any) -> None:
        """Run one command in a shell."""
        self.commands.append(process.command)
        shell = await asyncio.create_subprocess_shell(
            process.command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        self.groups.append(shell.pid)
        streams = ((shell.stdout, process.stdout), (shell.stderr, process.stderr))
        await asyncio.gather(*(_copy(source, target) for source, target in streams))
        process.exit(await shell.wait())

    def words(self, **changes: Any) -> Any:
        """Settings of a cluster on this host."""
        words = {
            "kind": "ssh",
            "hosts": ["127.0.0.1"],
            "workers": 2,
            "threads": 3,
            "memory": "1 GiB",
            "port": self.port,
            "username": "somebody",
            "key_file": str(self.folder / "user"),
            "known_hosts": str(self.folder / "known_hosts"),
            "interface": "lo",
            "scratch": str(self.folder / "node"),
            "prologue": ['export MARK="it\'s here"'],
            "tls_folder": str(self.folder / "keys"),
            "look_every_seconds": 0.2,
        }
        return parse_cluster(words | changes, "test")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    made = Server(tmp_path)
    for name in ("host", "user"):
        key = asyncssh.generate_private_key("ssh-ed25519")
        key.write_private_key(tmp_path / name)
        key.write_public_key(tmp_path / f"{name}.pub")
    loop, ready = asyncio.new_event_loop(), threading.Event()
    stop = asyncio.Event()

    async def serve() -> None:
        async with await asyncssh.create_server(
            asyncssh.SSHServer,
            "127.0.0.1",
            0,
            server_host_keys=[str(tmp_path / "host")],
            authorized_client_keys=str(tmp_path / "user.pub"),
            process_factory=made.run,
        ) as listener:
            made.port = listener.get_port()
            public = (tmp_path / "host.pub").read_text()
            (tmp_path / "known_hosts").write_text(f"[127.0.0.1]:{made.port} {public}")
            ready.set()
            await stop.wait()
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}), return_exceptions=True)

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert ready.wait(30)
    yield made
    for group in made.groups:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
    loop.call_soon_threadsafe(stop.set)
    thread.join(30)
    loop.close()


def surroundings() -> dict[str, str]:
    """What a task finds on its worker."""
    worker = get_worker()
    return {
        "name": worker.name,
        "address": worker.address,
        "nthreads": str(worker.state.nthreads),
        "memory": str(worker.memory_manager.memory_limit),
        **{name: os.environ[name] for name in ("MARK", "OMP_NUM_THREADS", "TMPDIR")},
    }


@pytest.mark.slow
@pytest.mark.parametrize("level", ["info", "critical"])
def test_workers_behind_ssh(server: Server, level: str) -> None:
    lines: list[str] = []
    with (
        dask.config.set({"distributed.logging": {"distributed": level}}),  # whatever the user likes to hear
        connected(server.words(), server.folder, lines.append) as connection,
    ):
        connection.client.wait_for_workers(2, timeout=60)
        assert connection.slots() == 2
        found = connection.client.submit(surroundings).result(timeout=60)
        assert found["name"] in ("127.0.0.1-0", "127.0.0.1-1")
        assert found["address"].startswith("tls://127.0.0.1:")
        assert (found["nthreads"], found["memory"], found["OMP_NUM_THREADS"]) == ("1", str(2**30), "3")
        assert found["MARK"] == "it's here"
        assert found["TMPDIR"].startswith(str(server.folder / "node" / "qcsurrogate."))
        n_before = len(server.commands)
        os.killpg(server.groups[-1], signal.SIGKILL)
        wait_until(lambda: len(server.commands) > n_before, tend=connection.tend)
        connection.client.wait_for_workers(2, timeout=60)
    assert len(lines) == 1
    assert lines[0].startswith("worker 127.0.0.1-")
    assert lines[0].endswith("ended: it is replaced")
    assert not [command for command in server.commands if "PRIVATE" in command]  # paths of keys travel, keys never


def test_a_worker_that_cannot_start_is_told(server: Server) -> None:
    settings = server.words(prologue=["echo 'module: not found' >&2", "exit 1"])
    with (
        pytest.raises(ClusterError, match=r"2 of 2 workers cannot be started"),
        connected(settings, server.folder, print),
    ):
        raise AssertionError("nobody is there")


def test_an_unknown_host_is_refused(server: Server) -> None:
    (server.folder / "known_hosts").write_text("")
    with (
        pytest.raises(ClusterError, match=r"cannot be started: .*[Hh]ost key"),
        connected(server.words(), server.folder, print),
    ):
        raise AssertionError("the host is not known")
    assert server.commands == []
