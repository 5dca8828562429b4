"""A sound store passes; in a damaged one every problem is named, not only the first."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qcsurrogate import cli
from qcsurrogate.errors import SpecError, StoreError
from qcsurrogate.reference.compute import compute_reference
from qcsurrogate.reference.record import ReferenceRecord
from qcsurrogate.store.agreement import differences_of
from qcsurrogate.store.consolidate import consolidate
from qcsurrogate.store.folder import StoreFolder
from qcsurrogate.store.store import Store
from qcsurrogate.store.verify import Verification, verify
from tests.store import fakes
from tests.store.stores import make_store


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten hydrogen molecules by PySCF, in shards of 4, 4 and 1, and one single record."""
    return make_store(tmp_path_factory.mktemp("real") / "store", fakes.spec(), compute_reference, pending=1).path


@pytest.fixture
def store_copy(real: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(real, tmp_path / "store"))


def found(result: Verification, check: str) -> list[str]:
    return [f"{p.where}: {p.message}" for p in result.problems if p.check == check]


@pytest.mark.parametrize("layout", ["shards", "large files"])
def test_a_sound_store(store_copy: Path, layout: str) -> None:
    if layout == "large files":
        consolidate(store_copy, max_bytes=4000, quiet=True)
    result = verify(store_copy, sample=3, seed=5, quiet=True)
    assert result.sound
    assert result.problems == []
    assert (result.planned, result.complete, result.checked) == (10, 10, 10)
    assert result.files == (4 if layout == "shards" else 2)
    assert len(result.recomputed) == 3
    for entry in result.recomputed:
        assert {d.quantity for d in entry.differences} == {"energy", "overlap", "hamiltonian", "density_matrix"}
        assert all(d.value < 1e-10 for d in entry.differences)
    assert result.versions_then.keys() == result.versions_now.keys()
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["sound"] is True
    other = verify(store_copy, sample=3, seed=6, records=0, quiet=True)
    assert other.checked == 0
    assert {e.key for e in other.recomputed} != {e.key for e in result.recomputed}


def test_every_problem_is_named(store_copy: Path) -> None:
    folder = StoreFolder(store_copy)
    shards = sorted(folder.shards.glob("*.h5"))
    plan = folder.read_header().plan
    shutil.copy(shards[2], folder.shards / "shard_00007.h5")
    shutil.copy(shards[2].with_suffix(".json"), folder.shards / "shard_00007.json")
    data = bytearray(shards[0].read_bytes())
    data[len(data) // 2] ^= 1
    shards[0].write_bytes(data)
    shards[1].with_suffix(".json").write_text("{")
    single = next(folder.pending.glob("*.record"))
    single.write_bytes(single.read_bytes()[:-3])
    (folder.pending / f"{'a' * 32}.record").write_bytes(b"")
    (folder.shards / "shard_00009.h5.123.tmp").write_bytes(b"half")

    result = verify(store_copy, quiet=True)
    assert any(shards[0].name in text for text in found(result, "checksum"))
    assert any(shards[1].name in text for text in found(result, "manifest"))
    assert any(single.name in text for text in found(result, "declaration"))
    assert any("a" * 32 in text for text in found(result, "plan"))
    assert found(result, "twice") == [
        f"{plan.label(plan.keys[8])}: its record lies in 2 files: shard_00002.h5, shard_00007.h5; an interrupted "
        "`consolidate` leaves that: run it again"
    ]
    assert any("shard_00009" in text for text in found(result, "left over"))
    assert not result.sound


def wrong(changes: dict[str, object]) -> object:
    def change(record: ReferenceRecord) -> ReferenceRecord:
        return replace(record, **changes) if record.structure.name.endswith("_3") else record  # type: ignore[arg-type]

    return change


@pytest.mark.parametrize(
    ("changes", "check", "message"),
    [
        ({"density_matrix": 2 * np.eye(2)}, "physics", "tr(D S) = 4"),
        ({"hamiltonian": np.diag([-1.0, 1.0])}, "physics", "FDS - SDF"),
        ({"mo_energy": np.array([-9.0, 1.0])}, "physics", "orbital energies differ from those of H C = S C e"),
        ({"overlap": np.eye(2)}, "overlap", "differs from that of the basis by"),
        ({"density_coefficients": np.ones(22)}, "density", "density_coefficients integrate to"),
    ],
)
def test_labels_that_contradict_themselves(
    tmp_path: Path, changes: dict[str, object], check: str, message: str
) -> None:
    path = make_store(tmp_path / "store", fakes.spec(), compute_reference, record=wrong(changes)).path  # type: ignore[arg-type]
    result = verify(path, quiet=True)
    assert result.checked == 10
    assert {p.check for p in result.problems} >= {check}
    assert all("hydrogen_3" in p.where for p in result.problems)
    (text,) = found(result, check)
    assert message in text


def test_a_consistent_record_of_another_calculation_is_found_by_computing_it_again(tmp_path: Path) -> None:
    finer = fakes.spec(5, method=fakes.CHEAP.model_copy(update={"grid_level": 2}))
    path = make_store(
        tmp_path / "store", fakes.spec(5), lambda s, m, t, a: compute_reference(s, finer.method, t, a)
    ).path
    assert verify(path, quiet=True).sound
    result = verify(path, sample=2, quiet=True)
    assert len(result.recomputed) == 2
    texts = found(result, "recomputed")
    assert any("stored and recomputed energy differs by" in text for text in texts)
    assert all("expected at most" in text for text in texts)


def test_a_store_whose_header_is_damaged_is_still_looked_at(store_copy: Path) -> None:
    (store_copy / "plan.h5").write_bytes(b"nothing")
    shard = sorted((store_copy / "shards").glob("*.h5"))[1]
    shard.write_bytes(shard.read_bytes() + b"x")
    result = verify(store_copy, quiet=True)
    assert [p.check for p in result.problems] == ["header", "checksum"]
    assert shard.name in result.problems[1].where


def test_a_shard_that_is_gone(store_copy: Path) -> None:
    files = consolidate(store_copy, max_bytes=4000, quiet=True).files
    shutil.copy(files[0].with_suffix(".json"), files[0].with_name("shard_00099.json"))  # its records are elsewhere
    assert verify(store_copy, quiet=True).sound
    files[1].unlink()
    result = verify(store_copy, quiet=True)
    assert [(Path(p.where).name, p.check) for p in result.problems] == [(files[1].name, "missing")]
    assert "records that lie nowhere else; run `generate` to compute them again" in result.problems[0].message


def test_the_command_ends_with_5_if_anything_is_wrong(store_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", str(store_copy), "--sample", "1", "--quiet"]) == 0
    assert cli.main(["verify", str(store_copy), "--sample", "1"]) == 0
    out = capsys.readouterr().out
    assert "10 of 10 records in 4 files; contents of 10 checked, 1 computed again" in out
    assert "largest differences: energy" in out
    shard = next((store_copy / "shards").glob("*.h5"))
    shard.write_bytes(shard.read_bytes()[:-1])
    assert cli.main(["verify", str(store_copy), "--json", "--quiet"]) == 5
    captured = capsys.readouterr()
    assert {p["check"] for p in json.loads(captured.out)["problems"]} == {"checksum", "declaration"}
    assert f"error: '{store_copy}' has 2 problems; expected none" in captured.err


def test_what_cannot_be_verified(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot find the store"):
        verify(tmp_path / "nothing")
    with pytest.raises(SpecError, match="sample = -1"):
        verify(tmp_path, sample=-1)


def test_a_quantity_that_only_one_record_has_is_a_difference(real: Path) -> None:
    store = Store.open(real)
    record = store.read(store.keys()[0])
    method = store.spec.method
    assert all(d.within for d in differences_of(record, record, method))
    other = replace(record, spin_hamiltonian=np.zeros((2, 2)))
    (difference,) = [d for d in differences_of(record, other, method) if not d.within]
    assert difference.quantity == "spin_hamiltonian"
    nan = replace(record, hamiltonian=np.full((2, 2), np.nan))
    assert [d.quantity for d in differences_of(record, nan, method) if not d.within] == ["hamiltonian"]
