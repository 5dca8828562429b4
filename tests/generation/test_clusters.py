"""Clusters: jobs, SSH, hand-started schedulers and local processes, all with real worker processes."""

# ruff: noqa: F811 - fixtures are imported under the names of arguments

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from distributed import Client, get_worker

from qcsurrogate.clusters.queues import THREAD_VARIABLES
from qcsurrogate.clusters.settings import local_cluster, parse_cluster, running_scheduler
from qcsurrogate.clusters.start import (
    allowed_failures,
    connected,
)
from qcsurrogate.clusters.tls import Keys, make_keys
from qcsurrogate.clusters.watch import Limits
from qcsurrogate.errors import ClusterError
from tests.generation.stand_ins import ROOT, StartQueue, queue, wait_until  # noqa: F401 - a fixture

SLURM: dict[str, Any] = {
    "kind": "slurm",
    "workers": 1,
    "threads": 3,
    "memory": "1 GiB",
    "walltime": "01:00:00",
    "interface": "lo",
    "look_every_seconds": 0.2,
}


def surroundings() -> dict[str, str]:
    """What a task finds on its worker."""
    worker = get_worker()
    return {
        **{name: os.environ[name] for name in (*THREAD_VARIABLES, "TMPDIR", "PYSCF_TMPDIR")},
        "nthreads": str(worker.state.nthreads),
        "memory": str(worker.memory_manager.memory_limit),
        "address": worker.address,
        "nanny": worker.nanny,
    }


def busy_for(seconds: float) -> float:
    """A task that takes a while."""
    time.sleep(seconds)
    return seconds


def die() -> None:
    """Takes the worker's process down."""
    os._exit(1)


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., Any]:
    """Settings from the words of a cluster file, with a key folder of the test."""

    def make(words: dict[str, Any], **changes: Any) -> Any:
        keys = {} if changes.get("tls") is False or words["kind"] == "local" else {"tls_folder": str(tmp_path / "keys")}
        return parse_cluster({**words, **keys, **changes}, "test")

    return make


def test_local_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")  # the shell's word does not count
    with connected(local_cluster(1, threads=3), tmp_path, print) as connection:
        found = connection.client.submit(surroundings).result()
        assert {found[name] for name in THREAD_VARIABLES} == {"3"}
        assert found["TMPDIR"] == found["PYSCF_TMPDIR"] == str(tmp_path)
        assert (found["nthreads"], connection.threads, connection.slots()) == ("1", 3, 1)
        assert found["address"].startswith("tcp://127.0.0.1:")
        assert allowed_failures(connection.client) == 0
        assert connection.dashboard is None
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()
        connection.tend()
    assert os.environ["OMP_NUM_THREADS"] == "7"


@pytest.mark.slow
def test_a_local_worker_whose_nanny_gave_up_is_replaced(
    settings: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qcsurrogate.clusters.start._LOCAL_LIMITS", Limits(0.05, 60, 5))
    lines: list[str] = []
    words = {"kind": "local", "workers": 2, "tls": True, "tls_folder": str(tmp_path / "keys")}
    with connected(settings(words), tmp_path, lines.append) as connection:
        found = connection.client.submit(surroundings).result()
        assert found["address"].startswith("tls://127.0.0.1:")
        nannies = connection.client.cluster.workers
        (name,) = [name for name, nanny in nannies.items() if nanny.address == found["nanny"]]
        connection.client.sync(nannies[name].close)  # as when its worker cannot be restarted
        wait_until(lambda: name in nannies and nannies[name].address != found["nanny"], tend=connection.tend)
        connection.client.wait_for_workers(2, timeout=60)
    assert lines == [f"worker {name} ended: it is replaced"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["slurm", "pbs", "sge", "lsf"])
def test_a_killed_job_is_replaced(
    kind: str, queue: StartQueue, settings: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    stand_in, lines = queue(kind), []
    words = SLURM | {"kind": kind, "scratch": str(tmp_path / "node"), "prologue": ["export MARK=1"]}
    words |= {"parallel_environment": "smp"} if kind == "sge" else {}
    with connected(settings(words), tmp_path, lines.append) as connection:
        found = connection.client.submit(surroundings).result(timeout=60)
        assert {found[name] for name in THREAD_VARIABLES} == {"3"}
        assert found["TMPDIR"].startswith(str(tmp_path / "node" / "qcsurrogate."))
        assert (found["nthreads"], found["memory"]) == ("1", str(2**30))
        assert found["address"].startswith("tls://")
        assert found["nanny"].startswith("tls://")
        assert connection.client.submit(os.getenv, "MARK").result() == "1"
        connection.tend()
        stand_in.kill()
        wait_until(lambda: len(stand_in.scripts()) == 2, tend=connection.tend)
        connection.client.wait_for_workers(1, timeout=60)
        assert connection.client.submit(surroundings).result(timeout=60)["address"] != found["address"]
        for _ in range(20):
            connection.tend()  # a worker that is there is left alone
        assert len(stand_in.scripts()) == 2
    assert lines == ["job 100 (worker SLURMCluster-0) ended: it is replaced".replace("SLURM", kind.upper())]
    wait_until(lambda: not stand_in.alive())
    assert not list((tmp_path / "node").iterdir()) or len(list((tmp_path / "node").iterdir())) == 1  # the killed one's


@pytest.mark.slow
def test_a_dead_worker_process_comes_back_in_its_job(
    queue: StartQueue, settings: Callable[..., Any], tmp_path: Path
) -> None:
    stand_in, lines = queue("slurm"), []
    with connected(settings(SLURM), tmp_path, lines.append) as connection:
        before = connection.client.submit(surroundings).result(timeout=60)["address"]
        future = connection.client.submit(die)
        with pytest.raises(Exception, match="Attempted to run task"):
            future.result(timeout=60)  # not on two workers: no failure is allowed
        connection.client.wait_for_workers(1, timeout=60)
        wait_until(lambda: bool(connection.client.nthreads()) and before not in connection.client.nthreads())
        connection.tend()
    assert len(stand_in.scripts()) == 1
    assert lines == []


@pytest.mark.slow
def test_retired_workers_lose_no_task_and_are_replaced(
    queue: StartQueue, settings: Callable[..., Any], tmp_path: Path
) -> None:
    stand_in = queue("slurm")
    words = SLURM | {"workers": 2, "lifetime": "3 s", "lifetime_stagger": "100 ms"}
    with connected(settings(words), tmp_path, lambda _: None) as connection:
        futures = [connection.client.submit(busy_for, 1.0, pure=False) for _ in range(6)]
        while futures:
            connection.tend()
            time.sleep(0.1)
            done = {future for future in futures if future.done()}
            assert {future.result() for future in done} <= {1.0}  # retirement is no death, despite 0 failures
            futures = [future for future in futures if future not in done]
            del done  # a result that is held keeps the last worker from retiring
        assert len(stand_in.scripts()) > 2


@pytest.mark.slow
def test_adaptive_jobs_come_back(queue: StartQueue, settings: Callable[..., Any], tmp_path: Path) -> None:
    stand_in = queue("slurm")
    words = {k: v for k, v in SLURM.items() if k != "workers"} | {"adaptive": {"minimum": 0, "maximum": 2}}
    with connected(settings(words), tmp_path, lambda _: None) as connection:
        assert connection.slots() == 2
        futures = [connection.client.submit(busy_for, 1.0, pure=False) for _ in range(20)]
        wait_until(lambda: len(connection.client.nthreads()) == 2, tend=connection.tend)
        n_before = len(stand_in.scripts())
        stand_in.kill(0)
        wait_until(lambda: len(stand_in.scripts()) > n_before, tend=connection.tend)
        wait_until(lambda: all(f.done() for f in futures), seconds=120, tend=connection.tend)
        assert sum(f.status == "finished" for f in futures) >= 19  # the killed one may be an error: it is the driver's
        futures.clear()
        wait_until(lambda: not connection.client.nthreads(), seconds=60, tend=connection.tend)  # nothing left to do


def test_jobs_that_never_bring_a_worker_up(queue: StartQueue, settings: Callable[..., Any], tmp_path: Path) -> None:
    stand_in, lines = queue("slurm"), []
    words = SLURM | {"prologue": ["echo 'module: cannot find pyscf/2.9' >&2; exit 1"], "failures_allowed": 2}
    with (
        pytest.raises(ClusterError) as caught,
        connected(settings(words, look_every_seconds=0.02), tmp_path, lines.append) as connection,
    ):
        wait_until(lambda: False, seconds=60, tend=connection.tend)
    assert "2 jobs in a row ended before their worker came up" in str(caught.value)
    assert "it said:\n  module: cannot find pyscf/2.9" in str(caught.value)
    assert len(stand_in.scripts()) == len(lines) == 2
    assert lines[0].startswith("job 100 (worker SLURMCluster-0) ended, no worker came up: it is replaced; it said:")


def test_a_job_that_runs_without_its_worker(queue: StartQueue, settings: Callable[..., Any], tmp_path: Path) -> None:
    stand_in, lines = queue("slurm"), []
    words = SLURM | {"prologue": ["sleep 600"], "look_every_seconds": 0.05, "startup_seconds": 1.0}
    with connected(settings(words), tmp_path, lines.append) as connection:
        wait_until(lambda: len(stand_in.scripts()) > 1, tend=connection.tend)
        assert len(stand_in.alive()) <= 2
    assert "runs without its worker for 1 s, no worker came up" in lines[0]
    wait_until(lambda: not stand_in.alive())


def test_a_mute_batch_system_decides_nothing(queue: StartQueue, settings: Callable[..., Any], tmp_path: Path) -> None:
    stand_in, lines = queue("slurm"), []
    (stand_in.folder / "mute").touch()
    words = SLURM | {"prologue": ["exit 1"], "look_every_seconds": 0.02}
    with connected(settings(words), tmp_path, lines.append) as connection:
        wait_until(lambda: not stand_in.alive())
        for _ in range(20):
            connection.tend()
            wait_until(lambda: True)
        assert len(stand_in.scripts()) == 1
    assert lines == []


def test_a_refused_submission_is_told(queue: StartQueue, settings: Callable[..., Any], tmp_path: Path) -> None:
    stand_in = queue("slurm")
    (stand_in.folder / "refuse").touch()
    with (
        pytest.raises(ClusterError, match=r"1 of 1 workers cannot be started(.|\n)*invalid partition specified"),
        connected(settings(SLURM), tmp_path, lambda _: None),
    ):
        raise AssertionError("no job, no connection")
    handler = signal.getsignal(signal.SIGINT)
    assert handler is signal.default_int_handler  # dask-jobqueue sets its own


@contextmanager
def _process(*words: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        words, env=os.environ | {"PYTHONPATH": str(ROOT)} | environment, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=30)


def _dask(*words: str, keys: Keys | None, **environment: str) -> Any:
    """The command ``dask``, as the documentation gives it."""
    tls = []
    if keys is not None:
        tls = ["--tls-ca-file", str(keys.ca), "--tls-cert", str(keys.certificate), "--tls-key", str(keys.key)]
    return _process(str(Path(sys.executable).parent / "dask"), *words, *tls, **environment)


def _address(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    return next(line.split("Scheduler at:")[1].strip() for line in process.stderr if "Scheduler at:" in line)


def test_a_hand_started_scheduler_with_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = make_keys(tmp_path / "keys")
    make_keys(tmp_path / "other")
    monkeypatch.setattr("qcsurrogate.clusters.start._CONNECT_SECONDS", 2.0)
    zero = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"}
    scheduler = ["scheduler", "--protocol", "tls", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
    with _dask(*scheduler, keys=keys, **zero) as process:
        address = _address(process)
        assert address.startswith("tls://127.0.0.1:")
        worker = ["worker", address, "--nthreads", "1", "--memory-limit", "1GiB", "--no-dashboard"]
        lines: list[str] = []
        with (
            _dask(*worker, keys=keys, OMP_NUM_THREADS="2"),
            connected(
                running_scheduler(address, 2, tls_folder=str(tmp_path / "keys")), tmp_path, lines.append
            ) as found,
        ):
            found.client.wait_for_workers(1, timeout=60)
            assert found.client.submit(os.getenv, "OMP_NUM_THREADS").result() == "2"
            assert (found.threads, found.workers, found.slots()) == (2, None, 1)
            assert allowed_failures(found.client) == 0
            found.tend()
        assert lines in ([], [f"the scheduler at {address} has no workers yet"])
        with pytest.raises(OSError, match=r"Timed out|reset by peer|closed"):
            Client(address.replace("tls", "tcp"), timeout=1)  # without keys
        strangers = running_scheduler(address, tls_folder=str(tmp_path / "other"))
        with pytest.raises(ClusterError, match="cannot reach"), connected(strangers, tmp_path, print):
            raise AssertionError("keys of another authority were accepted")


def test_an_unreachable_scheduler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qcsurrogate.clusters.start._CONNECT_SECONDS", 0.5)
    make_keys(tmp_path / "keys")
    settings = running_scheduler("tls://127.0.0.1:9", tls_folder=str(tmp_path / "keys"))
    expected = r"cannot reach a Dask scheduler at tls://127\.0\.0\.1:9: .*keys in"
    with pytest.raises(ClusterError, match=expected), connected(settings, tmp_path, print):
        raise AssertionError("nobody is there")
