"""A store grows: old records and parts stay, and three steps make the store that one makes."""

# ruff: noqa: F811 - fixtures are imported under the names of arguments

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client

from qcsurrogate import cli
from qcsurrogate.errors import SpecError, StoreError
from qcsurrogate.files.atomic import read_sealed_json, sealed_json
from qcsurrogate.generation import GenerationSummary, generate
from qcsurrogate.inspection import inspect, status
from qcsurrogate.sources.collect import collect
from qcsurrogate.sources.kinds import FileSource, SeveralSource
from qcsurrogate.sources.samplers.vibrations import sample_displacements
from qcsurrogate.store.card import data_card
from qcsurrogate.store.consolidate import consolidate
from qcsurrogate.store.export.extxyz import export_extxyz
from qcsurrogate.store.folder import StoreFolder
from qcsurrogate.store.header import plan_file
from qcsurrogate.store.plan import read_plan
from qcsurrogate.store.spec import DataSpec, HashSplit, MoleculeSplit, RandomSplit, SizeSplit, Split, load_spec
from qcsurrogate.store.store import Store
from qcsurrogate.store.verify import verify
from qcsurrogate.structures import Structure
from qcsurrogate.units import ANGSTROM_PER_BOHR
from tests.store import fakes
from tests.store.conftest import client  # noqa: F401 - a fixture
from tests.store.test_consolidate import assert_same

ROOT = Path(__file__).parents[2]
QM9 = {s.name: s for s in collect(load_spec("qm9_small")).structures}
BY_HASH = HashSplit(kind="by_hash", train=0.6, validation=0.2, test=0.2, seed=3)


def frames(name: str, count: int, seed: int = 0) -> list[Structure]:
    return sample_displacements(QM9[name], 0.02, count, seed=seed)


def write_xyz(path: Path, structures: list[Structure]) -> Path:
    lines = []
    for s in structures:
        lines += [str(len(s)), f"Properties=species:S:1:pos:R:3 name={s.name} charge={s.charge}"]
        for symbol, position in zip(s.symbols, s.positions * ANGSTROM_PER_BOHR, strict=True):
            lines.append(f"{symbol} " + " ".join(f"{x:.9f}" for x in position))
    path.write_text("\n".join(lines) + "\n")
    return path


def spec_of(*paths: Path, split: Split = BY_HASH, **changes: Any) -> DataSpec:
    if paths:
        changes["structures"] = FileSource(kind="file", path=tuple(str(p) for p in paths))
    return fakes.spec(**({"name": "growing", "split": split} | changes))


def run(spec: DataSpec, out: Path, client: Client, **options: Any) -> GenerationSummary:
    return generate(spec, out, client=client, **({"calculator": fakes.pretend, "quiet": True} | options))


def molecules() -> list[Structure]:
    """Frames of 15 molecules, in mixed order."""
    found = [frame for name in list(QM9)[:15] for frame in frames(name, 2)]
    return [found[i] for i in np.random.default_rng(0).permutation(len(found))]


def assert_equal_stores(one: Path, other: Path) -> None:
    a, b = Store.open(one), Store.open(other)
    assert a.plan.keys == b.plan.keys
    np.testing.assert_array_equal(a.plan.split, b.plan.split)
    np.testing.assert_array_equal(a.plan.structures.positions, b.plan.structures.positions)
    assert a.plan.structures.names.tolist() == b.plan.structures.names.tolist()
    assert a.dataset_hash() == b.dataset_hash()
    assert list(a.atoms) == list(b.atoms)
    for z in a.atoms:
        assert a.atoms[z].to_dict() == b.atoms[z].to_dict()
    assert a.keys() == b.keys() == list(a.plan.keys)
    for key in a.keys():  # noqa: SIM118 - no mapping
        assert_same(a.read(key), b.read(key))


@pytest.mark.parametrize("identity", ["formula", "structure"])
def test_three_steps_make_the_store_that_one_makes(client: Client, tmp_path: Path, identity: str) -> None:
    split = BY_HASH.model_copy(update={"identity": identity})
    found = molecules()
    one, three, file = tmp_path / "one", tmp_path / "three", tmp_path / "all.extxyz"
    steps = []
    for n in (4, 12, 30):
        write_xyz(file, found[:n])
        run(spec_of(file, split=split), three, client)
        store = Store.open(three)
        keys = list(store.plan.keys)
        steps.append((keys, store.plan.split.tolist(), list(store.read_many(keys))))
    run(spec_of(file, split=split), one, client)
    assert_equal_stores(three, one)
    store = Store.open(three)
    assert [len(keys) for keys, _, _ in steps] == [4, 12, 30]
    for keys, parts, records in steps:
        assert list(store.plan.keys[: len(keys)]) == keys
        assert store.plan.split[: len(keys)].tolist() == parts
        for key, record in zip(keys, records, strict=True):
            assert_same(store.read(key), record)
    assert {len(store.keys(part)) > 2 for part in ("train", "validation", "test")} == {True}
    assert [e.n_structures for e in store.header.earlier] == [4, 12]
    assert verify(three, quiet=True, records=0).problems == []


def test_order_and_number_of_steps_change_no_part(client: Client, tmp_path: Path) -> None:
    found = molecules()
    parts = []
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(found))
        file = tmp_path / f"{seed}.extxyz"
        for n in (10 + 5 * seed, 30):
            write_xyz(file, [found[i] for i in order[:n]])
            run(spec_of(file), tmp_path / f"store{seed}", client, limit=0)
        plan = Store.open(tmp_path / f"store{seed}").plan
        parts.append(dict(zip(plan.keys, plan.split.tolist(), strict=True)))
    assert parts[0] == parts[1] == parts[2]
    assert len(parts[0]) == 30


def test_a_second_file_and_another_source(client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Water, then ethanol with a new element, then samples of another source."""
    water, ethanol = write_xyz(tmp_path / "a.extxyz", frames("gdb_3", 8)), tmp_path / "b.extxyz"
    out = tmp_path / "store"
    run(spec_of(water), out, client)
    before = {path: path.read_bytes() for path in (out / "shards").iterdir()}
    assert set(Store.open(out).atoms) == {1, 8}
    write_xyz(ethanol, [*frames("gdb_1", 2), *frames("gdb_3", 2)])  # two of which are there already
    summary = run(spec_of(water, ethanol, licence="CC-BY-4.0"), out, client, quiet=False)
    lines = capsys.readouterr().err.splitlines()
    assert "store grows: 2 new structures, 8 kept" in lines
    assert not any(line.startswith("split:") for line in lines)
    assert (summary.computed, summary.counts["complete"]) == (2, 10)
    assert set(Store.open(out).atoms) == {1, 6, 8}
    assert Store.open(out).spec.licence == "CC-BY-4.0"

    several = SeveralSource(
        kind="several",
        sources=(
            FileSource(kind="file", path=str(water)),
            FileSource(kind="file", path=str(ethanol)),
            fakes.spec(5).structures,
        ),
    )
    assert run(spec_of(structures=several), out, client).computed == 5
    store = Store.open(out)
    assert [s.formula for s in store.plan.structures] == ["H2O"] * 8 + ["CH4"] * 2 + ["H2"] * 5
    assert all(path.read_bytes() == content for path, content in before.items())
    assert store.header.collected["read"] == 12
    assert store.header.collected["sampled"] == 5
    assert store.verify() == 15
    run(spec_of(structures=several), tmp_path / "at_once", client)
    assert_equal_stores(out, tmp_path / "at_once")


def test_nothing_that_decides_a_record_may_change(client: Client, tmp_path: Path) -> None:
    file, out = write_xyz(tmp_path / "a.extxyz", frames("gdb_3", 4)), tmp_path / "store"
    run(spec_of(file), out, client, limit=0)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    write_xyz(file, frames("gdb_3", 6))
    method = fakes.CHEAP.model_copy(update={"xc": "pbe"})
    changed = spec_of(file, method=method, split=BY_HASH.model_copy(update={"seed": 4}), shard_size=3)
    with pytest.raises(SpecError, match=r"was begun with another spec; expected the same, but for struct") as caught:
        run(changed, out, client)
    lines = str(caught.value).splitlines()[1:-1]
    assert lines == [
        "  method.xc: 'lda' -> 'pbe'",
        "  split.seed: 3 -> 4",
        "  shard_size: 4 -> 3",
    ]
    fewer = BY_HASH.model_copy(update={"train": 0.5, "test": 0.3})
    with pytest.raises(SpecError, match=r"split\.train: 0\.6 -> 0\.5"):
        run(spec_of(file, split=fewer), out, client)
    write_xyz(file, frames("gdb_3", 6)[2:])
    with pytest.raises(
        SpecError, match=r"structure 'gdb_3_0' and 1 more, of the 4 that the store holds, not found any more"
    ) as caught:
        run(spec_of(file), out, client)
    assert "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_the_old_spec_is_refused_by_a_store_that_has_grown(client: Client, tmp_path: Path) -> None:
    a, b = write_xyz(tmp_path / "a.extxyz", frames("gdb_3", 4)), write_xyz(tmp_path / "b.extxyz", frames("gdb_1", 2))
    out = tmp_path / "store"
    run(spec_of(a), out, client, limit=0)
    run(spec_of(a, b), out, client, limit=0)
    with pytest.raises(SpecError, match=r"structure 'gdb_1_0' and 1 more, of the 6 that the store holds, not found"):
        run(spec_of(a), out, client)


def test_other_files_of_the_same_structures_are_taken(
    client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, out = frames("gdb_3", 4), tmp_path / "store"
    file = write_xyz(tmp_path / "a.extxyz", found)
    run(spec_of(file), out, client, limit=1)
    write_xyz(file, found[::-1])
    assert run(spec_of(file), out, client, quiet=False).computed == 3
    assert "store grows: 0 new structures, 4 kept" in capsys.readouterr().err
    assert Store.open(out).header.revision == 1
    run(spec_of(file), out, client, quiet=False)
    assert "planning" not in capsys.readouterr().err
    renamed = file.rename(tmp_path / "b.extxyz")
    run(spec_of(renamed, citation="someone"), out, client)
    store = Store.open(out)
    assert (store.header.revision, store.spec.citation, len(store)) == (2, "someone", 4)
    assert [s.name for s in store.plan.structures] == [s.name for s in found]


def test_only_the_citation_changes_without_planning_anew(client: Client, tmp_path: Path) -> None:
    file, out = write_xyz(tmp_path / "a.extxyz", frames("gdb_3", 4)), tmp_path / "store"
    run(spec_of(file), out, client)
    file.unlink()
    assert run(spec_of(file, citation="doi"), out, client).computed == 0
    assert Store.open(out).spec.citation == "doi"
    assert verify(out, quiet=True, records=0).problems == []


def grown_parts(tmp_path: Path, client: Client, split: Split, first: list[Structure], then: list[Structure]) -> Store:
    """A plan, and what it grows to."""
    file, out = write_xyz(tmp_path / "a.extxyz", first), tmp_path / "store"
    run(spec_of(file, split=split), out, client, limit=0)
    write_xyz(file, [*first, *then])
    run(spec_of(file, split=split), out, client, limit=0, quiet=False)
    return Store.open(out)


def parts_by_name(store: Store) -> dict[str, str]:
    return {store.structure(key).name: store.split_of(key) for key in store.plan.keys}


def test_new_frames_join_their_molecule_and_new_molecules_are_divided_by_a_hash(
    client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = [s for name in list(QM9)[:10] for s in frames(name, 2)]
    water = next(i for i, s in enumerate(first) if s.formula == "H2O")
    stretched = first[water].moved(first[water].positions * 4, "stretched water")
    then = [stretched, *(s for name in list(QM9)[:40] for s in frames(name, 2, seed=1))]
    split = MoleculeSplit(kind="by_molecule", train=0.6, validation=0.2, test=0.2)
    store = grown_parts(tmp_path, client, split, first, then)
    assert (
        "split: 'by_molecule' divides a set that is there at once; what comes later is divided with its molecule"
        in (capsys.readouterr().err)
    )
    assert store.header.earlier[0].n_structures == 20
    old, parts = read_plan(plan_file(store.path)), store.plan.split
    np.testing.assert_array_equal(parts[:20], old.split)
    assert parts[20] == parts[water]
    np.testing.assert_array_equal(parts[21:41].reshape(10, 2), parts[:20].reshape(10, 2))
    assert (parts[41:].reshape(-1, 2)[:, 0] == parts[41:].reshape(-1, 2)[:, 1]).all()
    counts = np.bincount(parts[41::2], minlength=3)
    assert counts.sum() == 30
    assert (counts > 0).all()
    assert counts[0] > 12


def test_a_structure_that_belongs_to_both_sides_is_refused(client: Client, tmp_path: Path) -> None:
    isomers = [s for s in QM9.values() if s.formula == "C2H6O"]
    others = [QM9[f"gdb_{i}"] for i in range(1, 9) if f"gdb_{i}" in QM9]
    file, out = write_xyz(tmp_path / "a.extxyz", [*isomers, *others]), tmp_path / "store"
    for seed in range(20):
        split = MoleculeSplit(kind="by_molecule", train=0.5, validation=0, test=0.5, seed=seed)
        shutil.rmtree(out, ignore_errors=True)
        run(spec_of(file, split=split), out, client, limit=0)
        parts = parts_by_name(Store.open(out))
        if len({parts[s.name] for s in isomers}) == 2:
            break
    broken = isomers[0].moved(isomers[0].positions * 4, "broken")
    write_xyz(file, [*isomers, *others, broken])
    with pytest.raises(SpecError) as caught:
        run(spec_of(file, split=split), out, client)
    train, test = (next(s.name for s in isomers if parts[s.name] == part) for part in ("train", "test"))
    assert str(caught.value).startswith(
        f"split: structure 'broken' may be the same molecule as structure '{train}' in train and structure '{test}' in "
        "test, so that it fits into neither part; leave it out"
    )
    more = frames(isomers[0].name, 3)
    write_xyz(file, [*isomers, *others, *more])
    run(spec_of(file, split=split), out, client, limit=0)
    assert {parts_by_name(Store.open(out))[s.name] for s in more} == {parts[isomers[0].name]}


def test_counts_are_raised_to_take_in_more(client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = frames("gdb_3", 30)
    file, out = write_xyz(tmp_path / "a.extxyz", found[:12]), tmp_path / "store"
    split = RandomSplit(kind="random", train=6, validation=2, test=2)
    run(spec_of(file, split=split), out, client)
    before = parts_by_name(Store.open(out))
    write_xyz(file, found)
    run(spec_of(file, split=split), out, client, quiet=False)
    said = capsys.readouterr().err
    assert "store grows: 0 new structures, 10 kept" in said
    assert "split: 20 structures are more than its counts ask for; raise them to take in more" in said
    more = split.model_copy(update={"train": 14, "test": 5})
    assert run(spec_of(file, split=more), out, client, quiet=False).computed == 11
    assert "split: 'random' divides a set that is there at once; what comes later is divided by a seeded hash" in (
        capsys.readouterr().err
    )
    after = parts_by_name(Store.open(out))
    assert {name: after[name] for name in before} == before
    assert sorted(after.values()) == ["test"] * 5 + ["train"] * 14 + ["validation"] * 2
    with pytest.raises(SpecError, match=r"split\.train: 13 is fewer than the 14 structures that the store has there"):
        run(spec_of(file, split=more.model_copy(update={"train": 13})), out, client)
    with pytest.raises(SpecError, match=r"test = 60; expected at most 30, the number of different structures"):
        run(spec_of(file, split=more.model_copy(update={"train": 53})), out, client)
    with pytest.raises(SpecError, match=r"split\.train: 14 -> 0\.8"):
        run(spec_of(file, split=RandomSplit(kind="random", train=0.8, validation=0.1, test=0.1)), out, client)


def test_by_size_goes_on_by_size(client: Client, tmp_path: Path) -> None:
    small, large = [frames(f"gdb_{i}", 20) for i in (1, 3)], frames("gdb_5", 4)
    split = SizeSplit(kind="by_size", largest_training_size=1, validation=0.25)
    store = grown_parts(tmp_path, client, split, [*small[0], *large[:2]], [*small[1], *large[2:]])
    parts = store.plan.split
    assert (parts[20:22] == 2).all()
    assert (parts[42:] == 2).all()
    assert set(parts[22:42].tolist()) == {0, 1}


def test_a_hash_says_what_it_made_of_the_fractions(
    client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_xyz(tmp_path / "a.extxyz", frames("gdb_3", 3))
    run(spec_of(file), tmp_path / "store", client, quiet=False)
    parts = [0, 0, 0]
    parts[int(Store.open(tmp_path / "store").plan.split[0])] = 3
    assert "split by hash: train {}, validation {}, test {}".format(*parts) in capsys.readouterr().err
    with pytest.raises(ValueError, match="by_hash expects fractions that add up to 1"):
        HashSplit(kind="by_hash", train=5, validation=1, test=1)


def all_of(path: Path) -> dict[str, Any]:
    store = Store.open(path)
    return {key: store.read(key) for key in store.keys()}  # noqa: SIM118 - no mapping


def test_everything_goes_on_after_growth(client: Client, tmp_path: Path) -> None:
    """Large files from before, failures, shards after, a copy, export, card, status, inspect."""
    found, out = molecules(), tmp_path / "store"
    file = write_xyz(tmp_path / "a.extxyz", found[:12])
    run(spec_of(file), out, client)
    consolidate(out, quiet=True)
    small = Store.open(out)
    hash_before = small.dataset_hash()
    write_xyz(file, found[:26])
    run(spec_of(file), out, client, limit=9)
    assert small.read(small.keys()[0]).converged  # open all the while
    assert Store.open(out).counts() == {"waiting": 5, "running": 0, "complete": 21, "error": 0}
    assert StoreFolder(out).manifests()[0].keys == Store.open(out).plan.keys[:12]  # as it was
    assert verify(out, quiet=True, records=0).problems == []
    failing = fakes.Failing("ConvergenceError", found[25].name, str(tmp_path / "log"))
    assert run(spec_of(file), out, client, calculator=failing).counts["error"] == 1
    assert status(out)["structures"] == 26
    records = all_of(out)
    assert len(records) == 25
    assert verify(out, quiet=True, records=0).complete == 25

    copy = consolidate(out, tmp_path / "copy", quiet=True)
    assert copy.n_records == 25
    assert consolidate(out, tmp_path / "copy", quiet=True).n_records == 25
    consolidate(out, quiet=True)
    for path in (out, tmp_path / "copy"):
        store = Store.open(path)
        assert [e.n_structures for e in store.header.earlier] == [12]
        assert store.size_before(hash_before) == 12
        assert store.size_before("0" * 64) is None
        assert store.counts() == {"waiting": 0, "running": 0, "complete": 25, "error": 1}
        for key, record in records.items():
            assert_same(store.read(key), record)
        assert verify(path, quiet=True, records=0).problems == []
        assert run(spec_of(file), path, client, calculator=failing).computed == 0
        shutil.copytree(path, tmp_path / f"more_{path.name}")
    write_xyz(file, found[:29])
    assert run(spec_of(file), tmp_path / "more_copy", client).computed == 3
    assert run(spec_of(file), tmp_path / "more_store", client, retry_failed=True).computed == 4
    again = Store.open(tmp_path / "more_copy")
    assert [e.n_structures for e in again.header.earlier] == [12, 26]
    assert len(all_of(again.path)) == 28
    (written,) = export_extxyz(again, tmp_path / "out.extxyz", None, quiet=True)
    assert written.read_text().count("Properties=") == 28
    assert inspect(again.path)["records"]["count"] == 28


def test_the_card_says_how_a_store_has_grown(client: Client, tmp_path: Path) -> None:
    found = frames("gdb_3", 14)
    split = RandomSplit(kind="random", train=0.5, validation=0.25, test=0.25)
    store = grown_parts(tmp_path, client, split, found[:8], found[8:])
    card = data_card(store.path)
    assert "It was begun with 8 structures and has grown to 14." in card
    assert "'random' divides a set that is there at once" in card
    split = HashSplit(kind="by_hash", identity="structure", train=0.5, validation=0.25, test=0.25)
    (tmp_path / "b").mkdir()
    store = grown_parts(tmp_path / "b", client, split, found[:8], found[8:])
    assert "has grown to 14." in data_card(store.path)
    assert "divides a set" not in data_card(store.path)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With real calculations: a hydrogen more, and its numbers are those of the store made at once."""
    (tmp_path / "spec.yaml").write_text(
        "name: h2\nstructures: {kind: file, path: a.xyz}\nmethod: {xc: lda, basis: sto-3g, "
        "grid_level: 0}\nsplit: {kind: by_hash, identity: structure, train: 0.5, validation: 0.25, test: "
        "0.25}\nlicence: ''\ncitation: ''\n"
    )
    file, spec = tmp_path / "a.xyz", str(tmp_path / "spec.yaml")
    for n in (2, 3):
        file.write_text("".join(f"2\n\nH 0 0 0\nH 0 0 {0.7 + 0.02 * i}\n" for i in range(n)))
        assert cli.main(["generate", spec, "--out", str(tmp_path / "steps"), "--workers", "1"]) == 0
    assert "store grows: 1 new structure, 2 kept" in capsys.readouterr().err
    assert cli.main(["generate", spec, "--out", str(tmp_path / "once"), "--workers", "1", "--quiet"]) == 0
    steps, once = Store.open(tmp_path / "steps"), Store.open(tmp_path / "once")
    assert steps.plan.keys == once.plan.keys
    assert steps.plan.split.tolist() == once.plan.split.tolist()
    for key in once.keys():  # noqa: SIM118 - no mapping
        np.testing.assert_allclose(steps.read(key).hamiltonian, once.read(key).hamiltonian, atol=1e-10)
        assert steps.read(key).energy == pytest.approx(once.read(key).energy, abs=1e-11)
    file.write_text("".join(f"2\n\nH 0 0 0\nH 0 0 {0.7 + 0.02 * i}\n" for i in range(1, 3)))
    assert cli.main(["generate", spec, "--out", str(tmp_path / "steps")]) == SpecError.exit_code
    assert "structure 'a_0', of the 3 that the store holds, not found any more" in capsys.readouterr().err


@pytest.fixture(scope="module")
def begun(client: Client, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A store of six waters, consolidated but for two, and a file of nine."""
    folder = tmp_path_factory.mktemp("begun")
    file = write_xyz(folder / "a.extxyz", frames("gdb_3", 4))
    run(spec_of(file), folder / "store", client)
    consolidate(folder / "store", quiet=True)
    write_xyz(file, frames("gdb_3", 6))
    run(spec_of(file), folder / "store", client, limit=1)
    write_xyz(file, [*frames("gdb_3", 6), *frames("gdb_1", 3)])
    return folder / "store", file


def test_killed_at_any_change_it_is_the_old_store_or_the_new(begun: tuple[Path, Path], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.store.kill_growth", str(begun[0]), str(begun[1]), str(tmp_path / "work")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    kills, grown = (int(word) for word in done.stdout.split())
    assert kills >= 3
    assert 0 < grown < kills


def sealed(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    data = read_sealed_json(path / "store.json")
    change(data)
    (path / "store.json").write_bytes(sealed_json(data))


HEADERS: list[tuple[Callable[[dict[str, Any]], None], str]] = [
    (lambda h: h.update(earlier="../../x"), "is damaged"),
    (lambda h: h.update(earlier=[{}]), "is damaged: 'plan_sha256'"),
    (lambda h: h["earlier"][0].update(structures=7), "the store had more structures before it grew"),
    (lambda h: h["earlier"][0].update(structures=0), "the sizes that the store had do not grow"),
    (lambda h: h["earlier"][0].update(structures=1e400), "is damaged"),
    (lambda h: h["earlier"][0].update(plan_sha256="../plan"), "the digests of earlier plans are none"),
    (lambda h: h.update(earlier=[]), r"plan\.h5' cannot be used: its SHA-256"),
    (lambda h: h["earlier"].append(dict(h["earlier"][0])), r"cannot find the file '.*spec_003\.yaml'"),
    (lambda h: h.update(plan_sha256="0" * 64), r"plan_002\.h5' cannot be used: its SHA-256"),
]


@pytest.mark.parametrize(("change", "message"), HEADERS, ids=range(len(HEADERS)))
def test_headers_that_lie_are_refused(
    begun: tuple[Path, Path], tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    store = Path(shutil.copytree(begun[0], tmp_path / "store"))
    try:
        sealed(store, change)
    except ValueError:  # infinity is no JSON
        return
    with pytest.raises(StoreError, match=message):
        Store.open(store)


def test_verify_looks_at_earlier_plans_and_leftovers(begun: tuple[Path, Path], tmp_path: Path, client: Client) -> None:
    store = Path(shutil.copytree(begun[0], tmp_path / "store"))
    assert verify(store, quiet=True, records=0).problems == []
    shutil.copy(store / "plan_002.h5", store / "plan_003.h5")
    (store / "plan.h5").write_bytes((store / "plan.h5").read_bytes()[:-1])
    problems = {(Path(p.where).name, p.check) for p in verify(store, quiet=True, records=0).problems}
    assert problems == {("plan.h5", "earlier plan"), ("plan_003.h5", "left over")}
    (store / "plan.h5").unlink()
    assert len(verify(store, quiet=True, records=0).problems) == 1
    assert json.loads((store / "store.json").read_text())["earlier"][0]["structures"] == 4
    shutil.copy(store / "spec.yaml", store / "spec_004.yaml")
    gone = spec_of(tmp_path / begun[1].name)  # a file that is not there any more: nothing has changed
    assert run(gone, store, client).counts["complete"] == 6
    assert sorted(path.name for path in store.iterdir() if path.is_file() and path.suffix != ".json") == [
        "lock",
        "plan_002.h5",
        "spec.yaml",
        "spec_002.yaml",
    ]
    assert verify(store, quiet=True, records=0).problems == []


def test_a_store_may_be_called_otherwise(client: Client, tmp_path: Path) -> None:
    """A spec of three lines is called after its file, which may be renamed."""
    file, out = write_xyz(tmp_path / "a.extxyz", frames("gdb_3", 4)), tmp_path / "store"
    run(spec_of(file), out, client)
    before = Store.open(out).dataset_hash()
    assert run(spec_of(file, name="renamed", licence="CC0-1.0"), out, client).computed == 0
    store = Store.open(out)
    assert (store.spec.name, store.spec.licence) == ("renamed", "CC0-1.0")
    assert store.dataset_hash() == before  # a run that was trained on it goes on
    assert store.has_been(before)
    assert store.size_before(before) is None  # it has not grown
    write_xyz(file, frames("gdb_3", 6))
    assert run(spec_of(file, name="again"), out, client).computed == 2
    assert Store.open(out).size_before(before) == 4
    assert verify(out, quiet=True, records=0).problems == []
