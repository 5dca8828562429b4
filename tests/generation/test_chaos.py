"""Whatever is killed, and whatever the disk does: nothing lost, nothing twice, nothing different."""

from __future__ import annotations

from pathlib import Path

import pytest

from qcsurrogate.generation import generate
from qcsurrogate.store.store import Store
from tests.benchmarks import chaos

KILLS, STRUCTURES = 30, 420


@pytest.mark.slow
def test_thirty_kills_at_random_lose_nothing(tmp_path: Path) -> None:
    quiet, store = tmp_path / "quiet", tmp_path / "store"
    generate(chaos.chaos_spec(STRUCTURES), quiet, n_workers=2, quiet=True)
    result = chaos.kill_at_random(tmp_path, store, STRUCTURES, KILLS, seed=1)
    assert sum(result["kills"].values()) == KILLS
    assert set(result["kills"]) == set(chaos.TARGETS)
    assert chaos.differences(store, quiet) == []
    assert Store.open(store).verify() >= STRUCTURES - 5


@pytest.mark.slow
def test_a_disk_that_is_full_or_read_only_loses_nothing(tmp_path: Path) -> None:
    if not chaos.can_mount():  # asked here, not when tests are collected: it mounts one to see
        pytest.skip("a disk of a given size needs the right to mount a tmpfs")
    quiet = tmp_path / "quiet"
    generate(chaos.chaos_spec(120), quiet, n_workers=2, quiet=True)
    result = chaos.disk_trouble(tmp_path, 120)
    assert sum("No space left on device; free some space" in said for said in result["said"]) >= 3
    assert sum("Read-only file system; free some space or make" in said for said in result["said"]) == 2
    assert chaos.differences(tmp_path / "after_disk_trouble", quiet) == []
