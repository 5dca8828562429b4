"""What a worker does with a batch when the world around it has changed."""

# ruff: noqa: F811 - fixtures are imported under the names of arguments

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from distributed import Client

from qcsurrogate.generation import generate
from qcsurrogate.generation.guard import Resources, _trouble, guarded
from qcsurrogate.generation.worker import Orders, compute_batch, gather_records
from qcsurrogate.reference.record import ReferenceRecord
from qcsurrogate.store.failures import ATTEMPT_LIMITS, read_failure
from qcsurrogate.store.folder import StoreFolder
from qcsurrogate.store.plan import write_plan
from qcsurrogate.store.store import Store
from qcsurrogate.store.upkeep import clean, next_shard_number
from qcsurrogate.structures import Structure
from tests.store import fakes
from tests.store.conftest import client  # noqa: F401 - a fixture


@pytest.fixture
def folder(client: Client, tmp_path: Path) -> StoreFolder:
    """A planned store in which nothing was computed yet."""
    generate(fakes.spec(), tmp_path / "store", client=client, quiet=True, limit=0)
    return StoreFolder(tmp_path / "store")


def give_out(folder: StoreFolder, name: str, n: int = 4) -> tuple[str, ...]:
    """The first n structures as a batch; returns their keys."""
    plan = folder.read_header().plan
    write_plan(folder.batches / f"{name}.h5", plan.part(plan.keys[:n]))
    return plan.keys[:n]


def orders(folder: StoreFolder, calculator: Any = fakes.pretend) -> Orders:
    return Orders(str(folder.path), calculator, dict(ATTEMPT_LIMITS))


@dataclass(frozen=True)
class CallingOff:
    """A calculator during whose first calculation the run that wanted it ends."""

    batch: Path

    def __call__(self, structure: Structure, *arguments: Any, **options: Any) -> ReferenceRecord:
        self.batch.unlink()
        return fakes.pretend(structure, *arguments, **options)


def test_a_batch_that_was_called_off_ends_after_the_structure_at_work(folder: StoreFolder) -> None:
    keys = give_out(folder, "a")
    outcomes = compute_batch(orders(folder, CallingOff(folder.batches / "a.h5")), "a")
    assert [(o.key, o.kind) for o in outcomes] == [(keys[0], "complete")]
    assert compute_batch(orders(folder), "a") == []
    assert Store.open(folder.path).counts()["complete"] == 1


def test_a_batch_that_is_run_again_goes_on_and_blames_the_structure_that_was_at_work(folder: StoreFolder) -> None:
    keys = give_out(folder, "a")
    compute_batch(orders(folder), "a")
    folder.pending_file(keys[2]).unlink()
    folder.pending_file(keys[3]).unlink()
    folder.mark_running(keys[2])  # what a worker that was killed leaves
    outcomes = compute_batch(orders(folder), "a")
    assert [o.kind for o in outcomes] == ["complete", "complete", "again", "complete"]
    failure = read_failure(folder.attempts_file(keys[2]), "")
    assert (failure.cause, failure.by_cause) == ("worker_lost", {"worker_lost": 1})
    assert "'hydrogen_2': its worker process ended without a word" in failure.message
    assert not list(folder.running.iterdir())


def test_alone_it_is_computed_again_until_that_is_often_enough(folder: StoreFolder) -> None:
    (key,) = give_out(folder, "a", 1)
    for _ in range(2):
        folder.mark_running(key)
        assert compute_batch(orders(folder, fakes.unconverged_third), "a")[0].kind == "complete"
        folder.pending_file(key).unlink()
        folder.write_failure(key, "worker_lost", "before", 3)
    folder.mark_running(key)
    folder.write_failure(key, "worker_lost", "before", 3)
    assert compute_batch(orders(folder), "a")[0].kind == "error"
    assert folder.error_file(key).is_file()


def test_gathering_twice_is_gathering_once(folder: StoreFolder) -> None:
    keys = give_out(folder, "shard_00003-a")
    compute_batch(orders(folder), "shard_00003-a")
    assert gather_records(str(folder.path), "shard_00003-a", 3) == 4
    before = folder.shard_file(3).read_bytes()
    assert gather_records(str(folder.path), "shard_00003-a", 3) == 4
    assert folder.shard_file(3).read_bytes() == before
    assert not list(folder.pending.iterdir())
    assert Store.open(folder.path).keys() == list(keys)


def test_what_another_worker_gathered_is_left_out(folder: StoreFolder) -> None:
    keys = give_out(folder, "shard_00000-a")
    compute_batch(orders(folder), "shard_00000-a")
    give_out(folder, "shard_00001-b", 2)
    assert gather_records(str(folder.path), "shard_00001-b", 1) == 2
    assert gather_records(str(folder.path), "shard_00000-a", 0) == 2
    assert [shard.keys for shard in folder.manifests()] == [keys[2:], keys[:2]]


def test_a_shard_that_was_called_off_does_not_appear(folder: StoreFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    give_out(folder, "shard_00000-a")
    compute_batch(orders(folder), "shard_00000-a")
    from qcsurrogate.store import upkeep

    write_packed = upkeep.write_packed

    def slowly(*arguments: Any) -> str:
        (folder.batches / "shard_00000-a.h5").unlink()  # as the next run does when it cleans up
        return write_packed(*arguments)

    monkeypatch.setattr(upkeep, "write_packed", slowly)
    gather_records(str(folder.path), "shard_00000-a", 0)
    assert not list(folder.shards.iterdir())
    assert len(list(folder.pending.iterdir())) == 4


def test_a_run_takes_no_shard_number_that_a_worker_may_still_write(folder: StoreFolder) -> None:
    give_out(folder, "shard_00007-a")
    give_out(folder, "0f3a")
    assert next_shard_number(folder) == 0
    assert clean(folder)[1] == 8
    assert not list(folder.batches.iterdir())
    assert clean(folder)[1] == 0


def test_what_was_running_when_a_run_ended_is_known_to_the_next(folder: StoreFolder) -> None:
    key = folder.read_header().plan.keys[0]
    folder.mark_running(key)
    assert clean(folder)[0] == {key}
    assert not list(folder.running.iterdir())


def test_the_guard_knows_trouble() -> None:
    resources = Resources(1, 1000 * 2**20, 10.0, may_exit=True)
    assert resources.pyscf_memory_mb == 700
    assert _trouble(resources, "x", 30.0, 800 * 2**20) is None
    late, full = _trouble(resources, "x", 33.0, 0), _trouble(resources, "x", 0.0, 950 * 2**20)
    assert late is not None
    assert late[0] == "time"
    assert "x: still not finished after 33 s, with a limit of 10 s" in late[1]
    assert full is not None
    assert full[0] == "memory"
    assert "x: its worker process used 950 MiB of 1000 MiB and was ended; give a worker more memory" in full[1]
    assert _trouble(Resources(), "x", 1e9, 10**15) is None


def test_the_guard_does_nothing_where_nobody_would_start_the_process_again() -> None:
    with guarded(Resources(1, 1, 1e-9, may_exit=False), "x", lambda *_: pytest.fail("it acted")):
        pass
