"""Why structures fail: causes, attempts and their limits, retry, and the reports about it."""

# ruff: noqa: F811 - fixtures are imported under the names of arguments

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from distributed import Client

from qcsurrogate import cli
from qcsurrogate.errors import (
    BasisError,
    ConvergenceError,
    RecordError,
    SpecError,
    StoreError,
    StructureError,
    TimeLimitError,
)
from qcsurrogate.files.atomic import exclusive_lock
from qcsurrogate.generation import generate
from qcsurrogate.inspection import failure_report, retry, status
from qcsurrogate.store.failures import ATTEMPT_LIMITS, CAUSES, Failure, cause_of, checked_limits, group_failures
from qcsurrogate.store.folder import StoreFolder
from qcsurrogate.store.store import Store
from tests.store import fakes
from tests.store.conftest import client  # noqa: F401 - a fixture


def run(out: Path, client: Client, calculator: Any, **options: Any) -> Any:
    return generate(fakes.spec(), out, client=client, quiet=True, calculator=calculator, **options)


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (ConvergenceError("x"), "not_converged"),
        (TimeLimitError("x"), "time"),
        (RecordError("x"), "check_failed"),
        (StructureError("x"), "bad_geometry"),
        (BasisError("x"), "bad_geometry"),
        (MemoryError(), "memory"),
        (ZeroDivisionError("x"), "unexpected"),
    ],
)
def test_every_exception_has_a_cause(error: Exception, cause: str) -> None:
    assert cause_of(error) == cause
    assert set(ATTEMPT_LIMITS) == set(CAUSES)


@pytest.mark.parametrize(
    ("kind", "cause", "attempts"),
    [
        ("ConvergenceError", "not_converged", 1),
        ("MemoryError", "memory", 2),
        ("TimeLimitError", "time", 1),
        ("StructureError", "bad_geometry", 1),
        ("RecordError", "check_failed", 1),
        ("ZeroDivisionError", "unexpected", 2),
    ],
)
def test_a_structure_is_tried_as_often_as_its_cause_deserves(
    client: Client, tmp_path: Path, kind: str, cause: str, attempts: int
) -> None:
    summary = run(tmp_path / "store", client, fakes.Failing(kind, "hydrogen_3", str(tmp_path / "log")))
    assert summary.counts == {"waiting": 0, "running": 0, "complete": 9, "error": 1}
    (failure,) = summary.failures
    assert (failure.name, failure.cause, failure.by_cause, failure.total) == (
        "hydrogen_3", cause, {cause: attempts}, attempts
    )  # fmt: skip
    assert (tmp_path / "log").read_text().splitlines() == ["hydrogen_3"] * attempts
    assert "hydrogen_3" in failure.message
    folder = StoreFolder(tmp_path / "store")
    assert not [*folder.running.iterdir(), *folder.attempts.iterdir(), *folder.batches.iterdir()]


def test_limits_can_be_set_for_each_cause(client: Client, tmp_path: Path) -> None:
    calculator = fakes.Failing("ConvergenceError", "hydrogen_3", str(tmp_path / "log"))
    summary = run(tmp_path / "store", client, calculator, attempts={"not_converged": 4})
    assert summary.failures[0].by_cause == {"not_converged": 4}
    with pytest.raises(
        SpecError, match=r"no cause 'memry'; expected one of not_converged, .*; did you mean 'memory'\?"
    ):
        checked_limits({"memry": 2})
    with pytest.raises(SpecError, match="attempts for 'time': expected 1 or more, got 0"):
        checked_limits({"time": 0})


def test_what_fails_once_and_then_succeeds_leaves_no_trace(client: Client, tmp_path: Path) -> None:
    calculator = fakes.Failing("ZeroDivisionError", "hydrogen_3", str(tmp_path / "log"), times=1)
    summary = run(tmp_path / "store", client, calculator)
    assert (summary.counts["complete"], summary.failures) == (10, ())
    folder = StoreFolder(tmp_path / "store")
    assert not [*folder.errors.iterdir(), *folder.attempts.iterdir()]


def test_memory_trouble_is_tried_again_with_half(client: Client, tmp_path: Path) -> None:
    run(tmp_path / "store", client, fakes.Failing("MemoryError", "hydrogen_3", str(tmp_path / "log"), say="memory"))
    first, second = (int(line.split()[1]) for line in (tmp_path / "log").read_text().splitlines())
    assert second == first // 2


def test_an_attempt_of_an_earlier_run_counts(client: Client, tmp_path: Path) -> None:
    out, log = tmp_path / "store", str(tmp_path / "log")
    run(out, client, fakes.pretend, limit=0)
    plan = Store.open(out).plan
    key = next(k for k in plan.keys if plan.structures[plan.index[k]].name == "hydrogen_3")
    assert StoreFolder(out).write_failure(key, "unexpected", "before", 2) is False
    assert status(out)["to_be_tried_again_by_cause"] == {"unexpected": 1}
    summary = run(out, client, fakes.Failing("ZeroDivisionError", "hydrogen_3", log))
    assert summary.failures[0].by_cause == {"unexpected": 2}
    assert (tmp_path / "log").read_text().splitlines() == ["hydrogen_3"]


def test_what_no_structure_can_get_past_stops_the_run(client: Client, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="failed on purpose"):
        run(tmp_path / "store", client, fakes.Failing("SpecError", "hydrogen_3", str(tmp_path / "log")))
    assert Store.open(tmp_path / "store").counts()["error"] == 0
    assert not list((tmp_path / "store" / "running").iterdir())


def test_retry_by_cause_and_by_name(client: Client, tmp_path: Path) -> None:
    out = tmp_path / "store"
    run(out, client, fakes.Failing("ConvergenceError", "hydrogen_3", str(tmp_path / "log")))
    assert retry(out, "memory") == 0
    assert Store.open(out).counts()["error"] == 1
    with pytest.raises(SpecError, match=r"no structure 'hydrogen_4' was put aside .* did you mean 'hydrogen_3'\?"):
        retry(out, names=["hydrogen_4"])
    with exclusive_lock(StoreFolder(out).lock_file), pytest.raises(StoreError, match="another process is generating"):
        retry(out)
    assert retry(out, "not_converged", ["hydrogen_3"]) == 1
    assert Store.open(out).counts() == {"waiting": 1, "running": 0, "complete": 9, "error": 0}
    assert status(out)["to_be_tried_again_by_cause"] == {}
    again = run(out, client, fakes.Failing("ConvergenceError", "hydrogen_3", str(tmp_path / "log")))
    assert (again.failures[0].by_cause, again.failures[0].total) == ({"not_converged": 1}, 2)
    assert retry(out) == 1
    assert run(out, client, fakes.pretend).counts["complete"] == 10


def test_failures_are_grouped_by_cause_and_words() -> None:
    def failure(name: str, cause: Any, message: str, n: int = 1) -> Failure:
        return Failure(name, name, cause, message, {cause: n}, n)

    groups = group_failures(
        [
            failure("a", "not_converged", "SCF for structure 'a' (H2O, pbe/def2-svp) stopped at 1.2e-3 Eh"),
            failure("b", "memory", "structure 'b': used 800 of 900 MiB", 2),
            failure("c", "not_converged", "SCF for structure 'c' (CH4, pbe/def2-svp) stopped at -7 Eh", 3),
        ]
    )
    assert [(g.cause, [f.name for f in g.failures], g.attempts) for g in groups] == [
        ("not_converged", ["c", "a"], 4),
        ("memory", ["b"], 2),
    ]
    assert groups[0].pattern == "SCF for structure ... stopped at # Eh"


def test_an_error_file_of_an_earlier_version_or_a_vandal_is_readable(client: Client, tmp_path: Path) -> None:
    out = tmp_path / "store"
    run(out, client, fakes.unconverged_third)
    file = next((out / "errors").iterdir())
    for text in ('{"cause": "ConvergenceError", "message": "m", "attempts": 2}', "{}", '{"attempts": {"memory": "x"}}'):
        file.write_text(text)
        (failure,) = Store.open(out).failures()
        assert failure.cause == "unexpected"
    file.write_text("[")
    with pytest.raises(StoreError, match="is damaged"):
        Store.open(out).failures()


def test_status_and_retry_from_the_command_line(
    client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "store"
    run(out, client, fakes.Failing("ConvergenceError", "hydrogen_3", str(tmp_path / "log")))
    assert cli.main(["status", str(out), "--failures"]) == 0
    text = capsys.readouterr().out
    assert "states: waiting 0, running 0, complete 9, error 1" in text
    assert "put aside, by cause: not_converged 1" in text
    assert "not running; the last run: 9 records" in text
    assert "slowest: hydrogen_" in text
    assert "not_converged: 1 structures, 1 attempts: " in text
    assert "hydrogen_3 (1 x): structure 'hydrogen_3' failed on purpose" in text
    assert cli.main(["status", str(out), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["errors_by_cause"] == {"not_converged": 1}
    assert data["generation"]["is_on"] is False
    assert len(data["generation"]["slowest"]) == 9
    assert cli.main(["retry", str(out), "--cause", "convergence"]) == 2
    assert "no cause 'convergence'; expected one of" in capsys.readouterr().err
    assert cli.main(["retry", str(out), "--cause", "not_converged"]) == 0
    assert capsys.readouterr().out.startswith("1 structures wait again; run `qcsurrogate generate`")
    assert [g.failures for g in failure_report(out)] == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--attempts", "memory"], "cannot use --attempts 'memory'; expected CAUSE=N"),
        (["--attempts", "memry=2"], "no cause 'memry'"),
        (["--time-limit", "0"], "'0' is not a positive number of seconds"),
        (["--tls-folder", "keys"], "--tls-folder goes with --scheduler"),
        (["--scheduler", "tcp://127.0.0.1:1", "--workers", "2"], "are for processes on this machine"),
        (["--scheduler", "10.0.0.1"], "expected tls://HOST:PORT"),
        (["--cluster", "slurn"], "cannot find the cluster file 'slurn'"),
    ],
)
def test_options_that_do_not_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    try:
        code: Any = cli.main(["generate", "water_demo", "--out", str(tmp_path / "store"), *arguments])
    except SystemExit as stop:
        code = stop.code
    assert (code, (tmp_path / "store" / "store.json").exists()) == (2, False)
    assert words in capsys.readouterr().err
