"""Whole generations on clusters: jobs that are killed half-way, and the tasks of one allocation."""

# ruff: noqa: F811 - fixtures are imported under the names of arguments

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from distributed import Client

from qcsurrogate.clusters.settings import parse_cluster
from qcsurrogate.generation import generate
from qcsurrogate.store.folder import StoreFolder
from qcsurrogate.store.store import Store
from tests.generation.stand_ins import ROOT, StartQueue, queue, wait_until  # noqa: F401 - a fixture
from tests.generation.test_generation import assert_same_contents
from tests.store import fakes
from tests.store.conftest import client  # noqa: F401 - a fixture


def complete(path: Path) -> int:
    """Records that are finished."""
    return Store.open(path).counts()["complete"] if StoreFolder(path).is_planned else 0


@pytest.mark.slow
def test_a_job_killed_half_way_costs_nothing(
    client: Client, queue: StartQueue, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    generate(fakes.spec(200), tmp_path / "quiet", client=client, quiet=True, calculator=fakes.pretend)
    stand_in, out = queue("slurm"), tmp_path / "store"
    words: dict[str, Any] = {
        "kind": "slurm",
        "workers": 2,
        "memory": "1 GiB",
        "walltime": "01:00:00",
        "interface": "lo",
        "tls_folder": str(tmp_path / "keys"),
        "logs": str(tmp_path / "logs"),
        "look_every_seconds": 0.2,
    }

    def kill_one() -> None:
        wait_until(lambda: complete(out) >= 20, seconds=200)
        stand_in.kill()

    killer = threading.Thread(target=kill_one)
    killer.start()
    summary = generate(fakes.spec(200), out, cluster=parse_cluster(words, "test"), calculator=fakes.slow)
    killer.join()
    assert summary.counts["complete"] == 200
    assert summary.failures == ()
    assert len(stand_in.scripts()) == 3
    assert "ended: it is replaced" in capfd.readouterr().err
    assert_same_contents(out, tmp_path / "quiet")
    wait_until(lambda: not stand_in.alive())
    assert {path.suffix[:2] for path in (tmp_path / "logs").iterdir()} == {".o", ".e"}


SCRIPT = """
import sys
from qcsurrogate.generation import generate
from qcsurrogate.clusters.settings import parse_cluster
from tests.store import fakes

if __name__ == "__main__":
    out, keys = sys.argv[1:]
    words = {"kind": "slurm_runner", "memory": "1 GiB", "interface": "lo", "tls_folder": keys}
    summary = generate(fakes.spec(60), out, cluster=parse_cluster(words, "test"), calculator=fakes.slow)
    print(summary.counts)
"""


@pytest.mark.slow
def test_one_allocation_computes_a_store(client: Client, tmp_path: Path) -> None:
    generate(fakes.spec(60), tmp_path / "quiet", client=client, quiet=True, calculator=fakes.pretend)
    (tmp_path / "script.py").write_text(SCRIPT)
    out = tmp_path / "store"
    tasks = [
        subprocess.Popen(
            [sys.executable, str(tmp_path / "script.py"), str(out), str(tmp_path / "keys")],
            env=os.environ
            | {"SLURM_PROCID": str(task), "SLURM_NTASKS": "4", "SLURM_JOB_ID": "8", "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for task in range(4)
    ]
    try:
        said = [task.communicate(timeout=200) for task in tasks]
    finally:
        for task in tasks:
            task.kill()
    assert [task.returncode for task in tasks] == [0] * 4, said
    assert "'complete': 60" in said[1][0]
    assert [printed for other in (said[0], *said[2:]) for printed in other] == [""] * 6
    assert_same_contents(out, tmp_path / "quiet")
