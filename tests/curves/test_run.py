"""Learning curves from a store: nested parts, figures as of compare, going on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from qcsurrogate import cli, compare, learning_curve, registry
from qcsurrogate.curves import run as curves
from qcsurrogate.errors import SpecError, StoreError, TrainingError
from qcsurrogate.models.files import read_metadata
from qcsurrogate.store.store import Store
from tests.conftest import SHORT_TRAINING
from tests.quantities.toy import ToyEnergy


@pytest.fixture(autouse=True)
def _toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {})
    registry.register(ToyEnergy())


@pytest.fixture
def _undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take a second each; here they are not looked at."""
    monkeypatch.setattr(curves, "draw", lambda curve, file_format: b"")


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders that were trained in, as they are."""
    folders: list[str] = []
    own = curves.train_surrogate

    def train(kind: str, store: Path, out: Path, **options: Any) -> Any:
        folders.append(f"{out.parent.name}/{out.name}")
        return own(kind, store, out, **options)

    monkeypatch.setattr(curves, "train_surrogate", train)
    return folders


def toy_curve(store: Path, out: Path, sizes: list[int], **options: Any) -> Any:
    options = {"overrides": SHORT_TRAINING, "quiet": True, **options}
    return learning_curve("toy_energy", store, out, sizes=sizes, **options)


def test_a_curve_from_a_store(tiny_store: Path, tmp_path: Path, trained: list[str]) -> None:
    out, store = tmp_path / "curve", Store.open(tiny_store)
    curve = toy_curve(tiny_store, out, [3, 2], seeds=2)
    assert trained == ["seed_0/size_2", "seed_1/size_2", "seed_0/size_3", "seed_1/size_3"]
    assert [(p.size, p.seed) for p in curve.points] == [(2, 0), (2, 1), (3, 0), (3, 1)]
    assert curve.shown == ["toy_energy_error"]
    assert curve.curves["toy_energy_error"].mean_law is not None
    assert curve.curves["toy_energy_error"].floor is None
    orders = [json.loads((out / f"seed_{seed}/keys.json").read_text())["keys"] for seed in (0, 1)]
    assert orders[0] != orders[1]
    for point in curve.points:
        part = store.training_on(orders[point.seed][: point.size])
        training = read_metadata(out / point.run / "model.safetensors").training
        assert training["dataset"] == {"hash": part.dataset_hash(), "train": point.size, "validation": 2}
        assert training["config"]["training"]["seed"] == point.seed
    for suffix in ("json", "md", "png", "svg"):
        assert (out / f"learning_curve.{suffix}").stat().st_size > 100
    assert json.loads((out / "learning_curve.json").read_text()) == curve.model_dump(mode="json")

    report = compare([out / "seed_1/size_3"], tiny_store, tmp_path / "report", scf_molecules=0, quiet=True)
    assert report["metrics"]["toy_energy"]["toy_energy_error"] == curve.points[3].figures[
        "toy_energy_error"
    ].model_dump(mode="json")
    assert report["models"][0]["trained_on_this_data"]

    trained.clear()
    again = toy_curve(tiny_store, out, [2, 3], seeds=2, overrides=())
    assert (trained, again.points) == ([], curve.points)
    grown = toy_curve(tiny_store, out, [2, 3, 4], seeds=1)
    assert trained == ["seed_0/size_4"]
    assert grown.points[:2] == [curve.points[0], curve.points[2]]


@pytest.mark.usefixtures("_undrawn")
def test_an_interrupted_run_goes_on(tiny_store: Path, tmp_path: Path) -> None:
    whole = toy_curve(tiny_store, tmp_path / "whole", [2, 4])
    stopped = toy_curve(
        tiny_store, tmp_path / "parts", [2, 4], overrides=[*SHORT_TRAINING, "training.max_minutes=1e-9"]
    )
    assert (stopped.points, stopped.unfinished) == ([], ["seed_0/size_2", "seed_0/size_4"])
    assert not (tmp_path / "parts/learning_curve.md").exists()
    gone_on = toy_curve(tiny_store, tmp_path / "parts", [2, 4], overrides=["training.max_minutes=null"])
    assert gone_on.unfinished == []
    assert [p.figures for p in gone_on.points] == [p.figures for p in whole.points]


@pytest.mark.usefixtures("_undrawn")
def test_a_model_that_changed_is_measured_again(tiny_store: Path, tmp_path: Path, trained: list[str]) -> None:
    out = tmp_path / "curve"
    toy_curve(tiny_store, out, [2, 3])
    shutil.copy(out / "seed_0/size_3/model.safetensors", out / "seed_0/size_2/model.safetensors")
    trained.clear()
    small, large = toy_curve(tiny_store, out, [2, 3]).points
    assert trained == ["seed_0/size_2"]
    assert small.model_sha256 == large.model_sha256
    assert toy_curve(tiny_store, out, [2, 3], limit=1).points[0].figures["toy_energy_error"].count == 1


@pytest.mark.usefixtures("_undrawn")
def test_another_study_needs_another_folder(tiny_store: Path, tmp_path: Path) -> None:
    out = tmp_path / "curve"
    toy_curve(tiny_store, out, [2])
    with pytest.raises(TrainingError, match=r"other settings \(training\.steps: 2 -> 3\); expected the same"):
        toy_curve(tiny_store, out, [2, 3], overrides=["training.steps=3"])
    with pytest.raises(TrainingError, match=r"another quantity or of other data \(kind: 'toy_energy' -> 'density'\)"):
        learning_curve("density", tiny_store, out, sizes=[2], config=tmp_path_config(tmp_path), quiet=True)
    with pytest.raises(TrainingError, match="holds a training run and no learning curve; expected another folder"):
        toy_curve(tiny_store, out / "seed_0/size_2", [2])
    keys = out / "seed_0/keys.json"
    keys.write_text(keys.read_text().replace(Store.open(tiny_store).keys("train")[0], "nothing"))
    with pytest.raises(TrainingError, match=r"keys\.json' does not hold the keys of the training split"):
        toy_curve(tiny_store, out, [2, 3])


def tmp_path_config(folder: Path) -> Path:
    path = folder / "config.yaml"
    path.write_text("training: {steps: 2}\n")
    return path


def test_errors_come_before_any_training(
    tiny_store: Path, tmp_path: Path, trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "curve"
    for sizes, words in (([2, 5], "5 is more than the 4"), ([2, 2], "twice"), ([], "one or more")):
        with pytest.raises(SpecError, match=words):
            toy_curve(tiny_store, out, sizes)
    with pytest.raises(SpecError, match="seeds: expected 1 or more, got 0"):
        toy_curve(tiny_store, out, [2], seeds=0)
    with pytest.raises(SpecError, match="unknown preset 'small'; this kind of model has no presets"):
        toy_curve(tiny_store, out, [2], preset="small")
    with pytest.raises(SpecError, match="limit"):
        toy_curve(tiny_store, out, [2], limit=0)
    monkeypatch.setattr(curves, "nested_order", lambda store, seed: (store.keys("train"), 3))
    with pytest.raises(SpecError, match="2 is fewer than the 3 molecules with which every element"):
        toy_curve(tiny_store, out, [2, 4])
    monkeypatch.setattr(curves.Store, "keys", lambda self, split=None: [] if split == "test" else ["key"])
    with pytest.raises(StoreError, match="no complete record in the split 'test'"):
        toy_curve(tiny_store, out, [2])
    assert not trained
    assert not out.exists()


def test_densities_have_a_floor(tiny_store: Path, tmp_path: Path) -> None:
    curve = learning_curve(
        "density", tiny_store, tmp_path / "curve", sizes=[4], overrides=SHORT_TRAINING, density_molecules=1, quiet=True
    )
    (point,) = curve.points
    assert curve.curves["density_nmae"].floor == point.figures["density_nmae_fit_floor"].mean > 0
    assert curve.shown == ["density_nmae", "dipole_error", "density_nmae_network"]
    assert curve.curves["density_nmae"].mean_law is None
    assert "no law; expected two sizes" in (tmp_path / "curve/learning_curve.md").read_text()


@pytest.mark.usefixtures("_undrawn")
def test_the_command(tiny_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["learning-curve", "toy_energy", str(tiny_store), "--out", str(tmp_path / "curve")]
    short = [part for text in SHORT_TRAINING for part in ("--set", text)]
    assert cli.main([*command, "--sizes", "2, 4", *short]) == 0
    out, err = capsys.readouterr()
    assert "Toy error: N^" in out
    assert "learning curve: 4 molecules, seed 0 (2 of 2)" in err
    assert cli.main([*command, "--sizes", "2,4", "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)["sizes"] == [2, 4]
    with pytest.raises(SystemExit, match="2"):
        cli.main([*command, "--sizes", "2;4"])
    assert "'2;4' is no list of whole numbers, such as 60,180,500" in capsys.readouterr().err
