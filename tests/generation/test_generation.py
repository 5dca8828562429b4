"""Generation: resume, failures, refusals, and nothing lost however it ends."""

# ruff: noqa: F811 - fixtures are imported under the names of arguments

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client

from qcsurrogate import generation
from qcsurrogate.errors import BasisError, SpecError, StoreError, StructureError
from qcsurrogate.files import atomic as files
from qcsurrogate.generation import generate
from qcsurrogate.reference.compute import compute_reference
from qcsurrogate.reference.record import FIELDS
from qcsurrogate.sources.collect import collect
from qcsurrogate.sources.kinds import FileSource, PackagedSource, ThermalSource
from qcsurrogate.store import progress
from qcsurrogate.store.folder import StoreFolder
from qcsurrogate.store.spec import DataSpec, MoleculeSplit, RandomSplit
from qcsurrogate.store.store import Store
from tests.store import fakes
from tests.store.conftest import client, finished, store_path  # noqa: F401 - fixtures


def run(spec: DataSpec, out: Path, client: Client, **options: Any) -> generation.GenerationSummary:
    return generate(spec, out, client=client, quiet=True, **({"calculator": fakes.pretend} | options))


def assert_same_contents(first: Path, second: Path) -> None:
    a, b = Store.open(first), Store.open(second)
    assert a.keys() == b.keys()
    assert a.dataset_hash() == b.dataset_hash()
    for left, right in zip(a.read_many(a.keys()), b.read_many(b.keys()), strict=True):
        for field in FIELDS:
            if left.value(field.name) is not None:
                np.testing.assert_array_equal(left.value(field.name), right.value(field.name))


def write_xyz(path: Path, lengths: list[float]) -> None:
    path.write_text("".join(f"2\n\nH 0 0 0\nH 0 0 {length}\n" for length in lengths))


def file_spec(path: Path, **changes: Any) -> DataSpec:
    source = FileSource(kind="file", path=str(path), **changes)
    return fakes.spec(structures=source, split=RandomSplit(kind="random", train=1.0, validation=0, test=0))


def test_summary_and_nothing_to_do_the_second_time(client: Client, tmp_path: Path) -> None:
    first = run(fakes.spec(), tmp_path / "store", client)
    assert first.computed == 10
    assert first.counts == {"waiting": 0, "running": 0, "complete": 10, "error": 0}
    assert first.failures == ()
    assert first.path == tmp_path / "store"
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "store").rglob("*.h5")}
    assert run(fakes.spec(), tmp_path / "store", client).computed == 0
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "store").rglob("*.h5")} == before


def test_in_portions_or_at_once_gives_the_same(client: Client, tmp_path: Path, finished: Path) -> None:
    for limit in (3, 0, 4, None):
        run(fakes.spec(), tmp_path / "store", client, limit=limit)
    assert_same_contents(tmp_path / "store", finished)


def test_a_real_reference_end_to_end(client: Client, tmp_path: Path) -> None:
    spec = fakes.spec(
        name="water",
        structures=ThermalSource(
            kind="thermal", equilibrium=fakes.WATER, temperature_kelvin=300, count=5, statistics="quantum"
        ),
    )
    summary = run(spec, tmp_path / "store", client, calculator=compute_reference)
    assert summary.counts["complete"] == 5, summary.failures
    store = Store.open(tmp_path / "store")
    for record in store.read_many(store.keys()):
        again = compute_reference(record.structure, spec.method, spec.targets, store.atoms)
        assert record.energy == pytest.approx(again.energy, abs=1e-9)
        np.testing.assert_allclose(record.hamiltonian, again.hamiltonian, atol=1e-9)
        np.testing.assert_allclose(record.density_coefficients, again.density_coefficients, atol=1e-7)
        assert np.einsum("ij,ji->", record.density_matrix, record.overlap) == pytest.approx(10, abs=1e-9)
    assert not list((tmp_path / "store" / "scratch").iterdir())


def test_one_failure_is_recorded_and_stops_nothing(client: Client, tmp_path: Path) -> None:
    out = tmp_path / "store"
    summary = run(fakes.spec(), out, client, calculator=fakes.unconverged_third)
    assert summary.counts == {"waiting": 0, "running": 0, "complete": 9, "error": 1}
    (failure,) = Store.open(out).failures()
    assert (failure.name, failure.cause, failure.attempts) == ("hydrogen_3", "not_converged", 1)
    assert failure.message == "SCF for structure 'hydrogen_3' did not converge"
    assert summary.failures == (failure,)
    with pytest.raises(StoreError, match=r"'hydrogen_3' in .* is not complete but 'error'"):
        Store.open(out).read(failure.key)

    assert run(fakes.spec(), out, client).computed == 0
    again = run(fakes.spec(), out, client, calculator=fakes.unconverged_third, retry_failed=True)
    assert (again.computed, again.failures[0].attempts, again.failures[0].total) == (0, 1, 2)
    cured = run(fakes.spec(), out, client, retry_failed=True)
    assert (cured.computed, cured.counts["complete"], cured.failures) == (1, 10, ())
    assert not list((out / "errors").iterdir())


def test_a_record_that_fails_its_checks_is_a_failure(client: Client, tmp_path: Path) -> None:
    summary = run(fakes.spec(5), tmp_path / "store", client, calculator=fakes.not_finite)
    assert summary.counts["error"] == 5
    assert summary.failures[0].cause == "check_failed"
    assert "hamiltonian holds values that are not finite" in summary.failures[0].message
    assert not list((tmp_path / "store" / "pending").iterdir())


def test_identical_structures_are_computed_once(client: Client, tmp_path: Path) -> None:
    write_xyz(tmp_path / "a.xyz", [0.7, 0.8, 0.7, 0.7, 0.9, 0.8])
    out = tmp_path / "store"
    assert run(file_spec(tmp_path / "a.xyz"), out, client).computed == 3
    store = Store.open(out)
    assert [structure.name for structure in store.plan.structures] == ["a_0", "a_1", "a_4"]
    assert store.header.collected == {"read": 6, "left out: the same geometry again": 3, "planned": 3}


def test_stride_limit_and_seed_choose_from_a_file(client: Client, tmp_path: Path) -> None:
    write_xyz(tmp_path / "a.xyz", [0.7 + 0.01 * i for i in range(20)])

    def names(**changes: Any) -> list[str]:
        return [s.name for s in collect(file_spec(tmp_path / "a.xyz", **changes)).structures]

    assert names(stride=5) == ["a_0", "a_5", "a_10", "a_15"]
    assert names(stride=2, limit=3) == ["a_0", "a_2", "a_4"]
    drawn = names(limit=6, seed=1)
    assert drawn == names(limit=6, seed=1) != names(limit=6, seed=2)
    assert len(set(drawn)) == 6
    assert names(limit=100) == [f"a_{i}" for i in range(20)]


def test_a_changed_spec_is_refused_with_a_diff(client: Client, store_path: Path) -> None:
    method = fakes.CHEAP.model_copy(update={"xc": "pbe"})
    with pytest.raises(SpecError) as caught:
        run(fakes.spec(method=method, shard_size=5), store_path, client)
    lines = str(caught.value).splitlines()
    assert "was begun with another spec" in lines[0]
    assert lines[1:3] == ["  method.xc: 'lda' -> 'pbe'", "  shard_size: 4 -> 5"]
    assert Store.open(store_path).verify() == 10


def test_a_file_may_move_but_not_lose_anything(client: Client, tmp_path: Path) -> None:
    write_xyz(tmp_path / "a.xyz", [0.7, 0.8])
    out = tmp_path / "store"
    run(file_spec(tmp_path / "a.xyz"), out, client, limit=1)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "a.xyz").rename(elsewhere / "a.xyz")
    assert run(file_spec(elsewhere / "a.xyz"), out, client, limit=1).computed == 1
    write_xyz(elsewhere / "a.xyz", [0.7, 0.9])
    with pytest.raises(SpecError, match=r"structure 'a_1', of the 2 that the store holds, not found any more; a store"):
        run(file_spec(elsewhere / "a.xyz"), out, client)
    (elsewhere / "a.xyz").unlink()
    assert run(file_spec(elsewhere / "a.xyz"), out, client).counts["complete"] == 2


def with_method(**changes: Any) -> DataSpec:
    return fakes.spec(method=fakes.CHEAP.model_copy(update=changes))


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        (with_method(xc="pbx"), SpecError, "functional 'pbx'"),
        (with_method(basis="sto-33g"), BasisError, "no basis 'sto-33g' for element H"),
        (with_method(auxiliary_basis="jift"), BasisError, "no basis 'jift'"),
        (with_method(charge=1), StructureError, r"1 electrons \(charge 1\) cannot have spin 0"),
        (with_method(spin=2), StructureError, r"has spin 2; expected 0: only closed shells"),
        (
            fakes.spec(5, split=RandomSplit(kind="random", train=4, validation=2, test=2)),
            SpecError,
            "expected at most 5",
        ),
        (
            fakes.spec(structures=PackagedSource(kind="packaged", name="qm9_smal")),
            SpecError,
            "did you mean 'qm9_small'",
        ),
        (file_spec(Path("/nowhere/a.xyz")), StructureError, "cannot find the structure file"),
    ],
)
def test_what_cannot_be_planned_is_said_before_anything_is_computed(
    client: Client, tmp_path: Path, spec: DataSpec, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        run(spec, tmp_path / "store", client)
    assert not (tmp_path / "store" / "store.json").exists()
    assert run(fakes.spec(5), tmp_path / "store", client).computed == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2\n\nH 0 0 0\nH 0 0\n", "cannot read"),
        ("2\n\nH 0 0 0\nH 0 0 nan\n", "expected finite numbers"),
        ("2\n\nH 0 0 0\nH 0 0 0.01\n", "0.0100 Angstrom apart"),
        ("1\n\nH 0 0 0\n", "cannot have spin 0"),
        ("1\n\nBk 0 0 0\n", "."),
        ("", "cannot read"),
    ],
)
def test_bad_structure_files_are_named(client: Client, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.xyz").write_text(text)
    with pytest.raises((StructureError, BasisError), match=message):
        run(file_spec(tmp_path / "a.xyz"), tmp_path / "store", client)


def test_groups_come_from_the_file(client: Client, tmp_path: Path) -> None:
    positions = np.zeros((6, 2, 3))
    positions[:, 1, 2] = 0.7 + 0.01 * np.arange(6)
    arrays = {"positions_angstrom": positions, "atomic_numbers": np.array([1, 1])}
    np.savez(tmp_path / "a.npz", **arrays, groups=np.array([0, 0, 1, 1, 2, 2]))
    split = MoleculeSplit(kind="by_molecule", identity="group", train=1, validation=1, test=1)
    spec = file_spec(tmp_path / "a.npz").model_copy(update={"split": split})
    run(spec, tmp_path / "store", client)
    plan = Store.open(tmp_path / "store").plan
    assert plan.split.reshape(3, 2).std(axis=1).tolist() == [0, 0, 0]
    assert sorted(plan.split.tolist()) == [0, 0, 1, 1, 2, 2]
    np.savez(tmp_path / "b.npz", **arrays, groups=np.array([0, 1]))
    with pytest.raises(StructureError, match=r"groups has shape \(2,\); expected \(6,\)"):
        run(
            spec.model_copy(update={"structures": FileSource(kind="file", path=str(tmp_path / "b.npz"))}),
            tmp_path / "b",
            client,
        )


def test_places_that_cannot_be_a_store(client: Client, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StoreError, match=r"cannot make the folder .* choose another place"):
            run(fakes.spec(), out, client)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("")
    with pytest.raises(StoreError, match=r"is no store and holds other files \(chapter\.tex\)"):
        run(fakes.spec(), tmp_path / "thesis", client)
    assert [p.name for p in (tmp_path / "thesis").iterdir()] == ["chapter.tex"]
    for options in ({"threads": 0}, {"n_workers": 0}, {"limit": -1}):
        with pytest.raises(SpecError, match="expected positive numbers"):
            run(fakes.spec(), tmp_path / "store", client, **options)


@pytest.mark.parametrize("writes", [0, 3, 7, 10, 16, 25, 34, 60])
def test_a_disk_that_fills_up_at_any_write_loses_nothing(
    client: Client, tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    left = writes

    def fsync(descriptor: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    out = tmp_path / "store"
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", fsync)
        with pytest.raises(StoreError, match=r"No space left on device; free some space .* is kept"):
            run(fakes.spec(), out, client)
    kept = Store.open(out).verify() if StoreFolder(out).is_planned else 0
    # planning writes three files, a batch and a record one, each with its folder; two batches lie ready, and a journal
    assert kept >= (writes - 12) // 5
    summary = run(fakes.spec(), out, client)
    assert summary.computed <= 10 - kept  # a worker may still have finished a record meanwhile
    assert_same_contents(out, finished)
    assert not list(out.rglob("*.tmp"))


def test_disk_trouble_in_a_calculation_is_no_failure_of_the_structure(client: Client, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No space left on device"):
        run(fakes.spec(), tmp_path / "store", client, calculator=fakes.full_scratch)
    assert Store.open(tmp_path / "store").counts()["error"] == 0


def test_lines_where_there_is_no_terminal(
    client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_SECONDS", 0.01)
    generate(fakes.spec(), tmp_path / "store", client=client, calculator=fakes.unconverged_third)
    output = capsys.readouterr()
    lines = output.err.splitlines()
    assert output.out == ""
    assert lines[:2] == ["planning hydrogens", "structures: sampled 10, planned 10"]
    assert lines[-1].startswith("hydrogens: 10/10, 1 failed in ")
    assert len(lines) > 3
    assert any("s left" in line for line in lines)


def test_quiet_is_silent(client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(fakes.spec(5), tmp_path / "store", client)
    assert capsys.readouterr() == ("", "")
