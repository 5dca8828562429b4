"""Generation in processes of its own: killed, interrupted, limited, and started again."""

# ruff: noqa: F811 - fixtures are imported under the names of arguments

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client

from qcsurrogate.generation import generate
from qcsurrogate.store.folder import StoreFolder
from qcsurrogate.store.store import Store
from tests.generation.test_generation import assert_same_contents
from tests.store import fakes
from tests.store.conftest import client  # noqa: F401 - a fixture

ROOT = Path(__file__).parents[2]

SCRIPT = """
import json, resource, sys
from pathlib import Path
from qcsurrogate.errors import QCSurrogateError
from qcsurrogate.generation import generate
from qcsurrogate.clusters.settings import parse_cluster
from tests.store import fakes

if __name__ == "__main__":
    out, count, calculator, cluster, limit, options = sys.argv[1:]
    if int(limit):
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
    try:
        summary = generate(
            fakes.spec(int(count)),
            out,
            cluster=parse_cluster(json.loads(cluster), "test"),
            calculator=getattr(fakes, calculator),
            **json.loads(options),
        )
    except QCSurrogateError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted")
    print(summary.counts)
"""


class Generation:
    """A generation in a process of its own, with a cluster of local processes."""

    def __init__(
        self,
        folder: Path,
        out: Path,
        count: int = 60,
        calculator: str = "slow",
        workers: int = 1,
        limit: int = 0,
        cluster: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        script = folder / "script.py"
        script.write_text(SCRIPT)
        cluster = {"kind": "local", "workers": workers} | (cluster or {})
        arguments = [str(out), str(count), calculator, json.dumps(cluster), str(limit), json.dumps(options)]
        self.process = subprocess.Popen(
            [sys.executable, str(script), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
        self.out = StoreFolder(out)

    def wait_for(self, records: int, seconds: float = 400) -> None:
        """Wait until so many records are finished."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.process.communicate()[1]
            if self.out.is_planned and Store.open(self.out.path).counts()["complete"] >= records:
                return
            time.sleep(0.1)
        raise AssertionError(f"no {records} records after {seconds} s")

    def kill(self, number: signal.Signals, *, group: bool = False) -> tuple[str, str]:
        """Send a signal and wait for the end; returns what was printed."""
        (os.killpg if group else os.kill)(self.process.pid, number)
        return self.process.communicate(timeout=400)

    def end(self) -> tuple[str, str]:
        """Wait for the end; returns what was printed."""
        return self.process.communicate(timeout=800)


Start = Callable[..., Generation]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts generations into ``store``; whatever still runs in the end is killed."""
    started: list[Generation] = []

    def begin(**options: Any) -> Generation:
        started.append(Generation(tmp_path, tmp_path / "store", **options))
        return started[-1]

    yield begin
    for generation in started:
        if generation.process.poll() is None:
            generation.kill(signal.SIGKILL, group=True)


@pytest.mark.slow
def test_killed_at_random_moments_equals_a_quiet_run(client: Client, tmp_path: Path, start: Start) -> None:
    quiet = tmp_path / "quiet"
    generate(fakes.spec(60), quiet, client=client, quiet=True, calculator=fakes.pretend)
    out, generator = tmp_path / "store", np.random.default_rng(0)
    finished_before = 0
    for _ in range(4):
        process = start(workers=2)
        process.wait_for(min(finished_before + 1, 50))
        time.sleep(generator.uniform(0, 0.4))
        process.kill(signal.SIGKILL)
        store = Store.open(out)
        assert store.verify() >= finished_before
        finished_before = store.counts()["complete"]
    stdout, stderr = start(workers=2).end()
    assert "'complete': 60" in stdout, stderr
    assert_same_contents(out, quiet)
    folder = StoreFolder(out)
    assert not list(out.rglob("*.tmp"))
    assert not [*folder.running.iterdir(), *folder.pending.iterdir(), *folder.errors.iterdir()]


@pytest.mark.slow
def test_control_c_says_little_and_leaves_a_store_to_go_on_with(tmp_path: Path, start: Start) -> None:
    out = tmp_path / "store"
    process = start(count=150, workers=2)
    process.wait_for(5)
    stdout, stderr = process.kill(signal.SIGINT, group=True)
    assert process.process.returncode == 1, stderr
    assert stdout == ""
    assert stderr.splitlines()[-1] == "interrupted"
    assert all(
        line.startswith(("planning", "structures:", "hydrogens:", "interrupted")) for line in stderr.splitlines()
    ), stderr
    kept = Store.open(out).verify()
    assert 5 <= kept < 150
    stdout, stderr = start(count=150, workers=2).end()
    assert "'complete': 150" in stdout
    assert all(line.startswith(("planning", "structures:", "hydrogens:")) for line in stderr.splitlines()), stderr


@pytest.mark.slow
def test_a_structure_that_kills_its_worker_is_recorded(tmp_path: Path, start: Start) -> None:
    out = tmp_path / "store"
    stdout, stderr = start(count=10, calculator="deadly_third", workers=2).end()
    assert "'complete': 9, 'error': 1" in stdout, stderr
    (failure,) = Store.open(out).failures()
    assert (failure.name, failure.cause) == ("hydrogen_3", "worker_lost")
    assert "its worker process ended without a word" in failure.message
    assert failure.by_cause == {"worker_lost": 3}
    assert all(line.startswith(("planning", "structures:", "hydrogens:")) for line in stderr.splitlines()), stderr


@pytest.mark.slow
def test_a_structure_that_takes_all_memory_is_put_aside_with_that_cause(tmp_path: Path, start: Start) -> None:
    stdout, stderr = start(count=10, calculator="hungry_third", cluster={"memory": "700 MiB"}).end()
    assert "'complete': 9, 'error': 1" in stdout, stderr
    (failure,) = Store.open(tmp_path / "store").failures()
    assert (failure.name, failure.by_cause) == ("hydrogen_3", {"memory": 2})
    assert re.search(r"'hydrogen_3': its worker process used \d+ MiB of 700 MiB and was ended; give a", failure.message)


@pytest.mark.slow
def test_a_structure_that_never_ends_is_put_aside_with_that_cause(tmp_path: Path, start: Start) -> None:
    stdout, stderr = start(count=10, calculator="endless_third", time_limit=1.0).end()
    assert "'complete': 9, 'error': 1" in stdout, stderr
    (failure,) = Store.open(tmp_path / "store").failures()
    assert (failure.name, failure.by_cause) == ("hydrogen_3", {"time": 1})
    assert "still not finished after 21 s, with a limit of 1 s" in failure.message


@pytest.mark.slow
def test_a_file_size_limit_is_a_clear_error(start: Start) -> None:
    _, stderr = start(count=10, calculator="pretend", limit=9000).end()
    assert "StoreError: cannot write" in stderr
    assert "File too large; free some space" in stderr
    stdout, stderr = start(count=10, calculator="pretend").end()
    assert "'complete': 10" in stdout, stderr


@pytest.mark.slow
def test_the_workflow_script_runs_from_a_checkout(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "workflows" / "generate.py"), "nonsense", "--out", str(tmp_path / "store")],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: cannot find the spec 'nonsense'")
