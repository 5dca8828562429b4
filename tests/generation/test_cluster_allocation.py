"""One allocation: four processes that SLURM might have started find each other, work, and end together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qcsurrogate.clusters.allocation import taking_part
from qcsurrogate.clusters.settings import parse_cluster
from qcsurrogate.clusters.start import connected
from qcsurrogate.errors import ClusterError, SpecError
from tests.generation.stand_ins import ROOT

SCRIPT = """
import os, signal, sys, time
from pathlib import Path
from qcsurrogate.errors import QCSurrogateError
from qcsurrogate.clusters.settings import parse_cluster
from contextlib import nullcontext
from qcsurrogate.clusters.allocation import taking_part
from qcsurrogate.clusters.start import allowed_failures
from tests.generation.test_cluster_allocation import surroundings

def main(folder, how):
    words = {"kind": "slurm_runner", "threads": 2, "memory": "1 GiB", "interface": "lo", "startup_seconds": 60}
    settings = parse_cluster({**words, "tls_folder": f"{folder}/keys", "scratch": "$NODE"}, "test")
    with taking_part(settings) as allocation:
        print("task", os.environ["SLURM_PROCID"], "drives", flush=True)
        if how == "early":
            sys.exit(2)
        with nullcontext(allocation) as connection:
            connection.client.wait_for_workers(2, timeout=60)
            print(*connection.client.submit(surroundings).result(), connection.slots(), flush=True)
            print(allowed_failures(connection.client), len(connection.client.nthreads()), flush=True)
            if how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if how == "interrupted":
                print("waiting", flush=True)
                time.sleep(60)

if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(130)
"""


def surroundings() -> tuple[str, str, str]:
    """What a task finds on its worker."""
    from distributed import get_worker

    return os.environ["OMP_NUM_THREADS"], os.environ["PYSCF_TMPDIR"], get_worker().address


Start = Callable[..., list["subprocess.Popen[str]"]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts the tasks of a step, the first of them first."""
    started: list[subprocess.Popen[str]] = []
    (tmp_path / "node").mkdir()

    def begin(how: str, tasks: int = 4) -> list[subprocess.Popen[str]]:
        (tmp_path / "script.py").write_text(SCRIPT)
        for task in range(tasks):
            slurm = {"SLURM_PROCID": str(task), "SLURM_NTASKS": str(tasks), "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0"}
            started.append(
                subprocess.Popen(
                    [sys.executable, str(tmp_path / "script.py"), str(tmp_path), how],
                    env=os.environ | slurm | {"PYTHONPATH": str(ROOT), "NODE": str(tmp_path / "node")},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
        return started

    yield begin
    for process in started:
        process.kill()
        process.communicate(timeout=30)


@pytest.mark.slow
@pytest.mark.parametrize(("how", "status"), [("well", 0), ("early", 2), ("killed", -signal.SIGKILL)])
def test_all_tasks_end_with_the_driver(how: str, status: int, start: Start, tmp_path: Path) -> None:
    tasks = start(how)
    said = [task.communicate(timeout=120) for task in tasks]
    assert [task.returncode for task in tasks] == [0, status, 0, 0], said
    out, err = said[1]
    assert out.startswith("task 1 drives\n")
    assert [printed for other in (said[0], *said[2:]) for printed in other] == [""] * 6
    if how != "early":
        threads, folder, address, slots = out.splitlines()[1].split()
        assert (threads, slots) == ("2", "2")
        assert folder.startswith(str(tmp_path / "node"))
        assert address.startswith("tls://127.0.0.1:")
        assert out.splitlines()[2] == "0 2"
    assert err == ""
    assert not list((tmp_path / "node").iterdir())
    assert sorted(path.name for path in (tmp_path / "keys").iterdir()) == ["ca.pem", "cert.pem", "key.pem"]


@pytest.mark.slow
def test_control_c_is_the_drivers(start: Start, tmp_path: Path) -> None:
    tasks = start("interrupted")
    assert tasks[1].stdout is not None
    assert "waiting\n" in iter(tasks[1].stdout.readline, "")
    for task in tasks:
        task.send_signal(signal.SIGINT)  # as srun does
    said = [task.communicate(timeout=120) for task in tasks]
    assert [task.returncode for task in tasks] == [0, 130, 0, 0], said


@pytest.fixture
def words(tmp_path: Path) -> dict[str, str]:
    return {"kind": "slurm_runner", "memory": "1 GiB", "tls_folder": str(tmp_path / "keys")}


def place(monkeypatch: pytest.MonkeyPatch, task: int, tasks: int) -> None:
    for name, value in (("PROCID", task), ("NTASKS", tasks), ("JOB_ID", 7)):
        monkeypatch.setenv(f"SLURM_{name}", str(value))


def test_outside_of_srun(words: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = parse_cluster(words, "test")
    monkeypatch.delenv("SLURM_PROCID", raising=False)
    with pytest.raises(SpecError, match="runs inside a job, started by srun"), taking_part(settings):
        raise AssertionError("no task, no part")
    with pytest.raises(SpecError, match="needs its allocation"), connected(settings, tmp_path, print):
        raise AssertionError("no allocation, no connection")


def test_too_few_tasks(words: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    place(monkeypatch, 0, 2)
    with (
        pytest.raises(SpecError, match="srun started 2 tasks; expected at least 3"),
        taking_part(parse_cluster(words, "test")),
    ):
        raise AssertionError("too few")


def test_no_scheduler_appears(words: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    place(monkeypatch, 1, 3)
    settings = parse_cluster({**words, "startup_seconds": 0.5}, "test")  # type: ignore[dict-item]
    with (
        pytest.raises(ClusterError, match=r"no scheduler appeared in '.*scheduler-7-0-0\.json' within 0 s"),
        taking_part(settings),
    ):
        raise AssertionError("nobody is there")


def test_other_clusters_have_no_part() -> None:
    with taking_part(parse_cluster({"kind": "local"}, "test")) as allocation:
        assert allocation is None
