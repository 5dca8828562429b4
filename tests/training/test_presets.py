"""Presets: what wins over what, what is recorded, and that those of the package can be trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from qcsurrogate import cli, registry
from qcsurrogate.errors import SpecError, StoreError, TrainingError
from qcsurrogate.files.presets import Preset, presets_of, read_presets
from qcsurrogate.files.yaml_model import read_yaml
from qcsurrogate.pipeline import train_surrogate
from qcsurrogate.store.store import Store
from qcsurrogate.training.config import RunConfig, TrainingConfig, load_run_config
from tests.training.runs import TinySettings

PRESETS = {
    "quick": Preset(purpose="a try", model={"width": 3}, training={"steps": 5, "batch_size": 2}),
    "thorough": Preset(purpose="the real thing", model={"width": 30}),
}


def load(*overrides: str, path: Path | None = None, preset: str | None = None) -> RunConfig[TinySettings]:
    return load_run_config(TinySettings, path, overrides, presets=PRESETS, preset=preset)


def test_without_a_preset_nothing_changes() -> None:
    assert load() == RunConfig(model=TinySettings(), training=TrainingConfig())


def test_file_and_overrides_win_over_the_preset(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("training: {batch_size: 7}\n")
    config = load("training.seed=4", path=path, preset="quick")
    assert (config.preset, config.model.width) == ("quick", 3)
    assert (config.training.steps, config.training.batch_size, config.training.seed) == (5, 7, 4)
    assert load("model.width=1", preset="quick").model.width == 1


@pytest.mark.parametrize("place", ["file", "override"])
def test_a_preset_may_be_named_anywhere(place: str, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("preset: quick\n" if place == "file" else "{}\n")
    found = load(*["preset=quick"] * (place == "override"), path=path)
    assert found == load(preset="quick")
    with pytest.raises(SpecError, match=r"has the preset 'quick', --preset the preset 'thorough'; expected one"):
        load(*["preset=quick"] * (place == "override"), path=path, preset="thorough")


def test_the_written_configuration_means_the_same(tmp_path: Path) -> None:
    """Even if the preset means something else by then."""
    path = tmp_path / "config.yaml"
    config = load("training.seed=9", preset="quick")
    path.write_text(config.model_dump_json())
    changed = {"quick": Preset(purpose="a try", model={"width": 99})}
    assert load_run_config(TinySettings, path, presets=changed) == config


def test_unknown_presets() -> None:
    with pytest.raises(
        SpecError, match=r"unknown preset 'quik'; expected one of quick, thorough; did you mean 'quick'"
    ):
        load(preset="quik")
    with pytest.raises(SpecError, match=r"unknown preset 'quick'; this kind of model has no presets"):
        load_run_config(TinySettings, preset="quick")
    with pytest.raises(SpecError, match="preset: expected a valid string, got 3"):
        load("preset=3")


def test_a_broken_file_of_presets_is_named(tmp_path: Path) -> None:
    (tmp_path / "presets.yaml").write_text("small: {purpose: x, modell: {}}\n")
    with pytest.raises(SpecError, match=r"presets\.yaml', small: .*unknown key 'modell'; did you mean 'model'"):
        read_presets(tmp_path)


@pytest.mark.parametrize("kind", sorted(registry.BUILT_IN))
def test_presets_of_the_package_are_known_without_importing_it(kind: str) -> None:
    quantity = registry.find_quantity(kind)
    assert presets_of(kind) == quantity.presets
    assert list(quantity.presets) == ["small", "base", "large"]
    widths = []
    for name in quantity.presets:
        run = load_run_config(quantity.settings, presets=quantity.presets, preset=name)
        widths.append((run.model.encoder.channels, run.model.encoder.layers, run.training.steps))
    assert widths == sorted(widths)
    assert len(set(widths)) == 3


@pytest.mark.parametrize(("kind", "preset"), [("hamiltonian", "base"), ("density", "large")])
def test_a_preset_trains_and_is_recorded(kind: str, preset: str, tiny_store: Path, tmp_path: Path) -> None:
    run, short = tmp_path / "run", ["training.steps=1", "training.batch_size=1", "model.encoder.layers=1"]
    train_surrogate(kind, tiny_store, run, preset=preset, overrides=short, quiet=True)
    config = read_yaml(run / "config.yaml")
    assert config["preset"] == preset
    expected = registry.find_quantity(kind).presets[preset].model["encoder"] | {"layers": 1}
    assert config["model"]["encoder"].items() >= expected.items()
    assert (config["training"]["steps"], config["training"]["batch_size"]) == (1, 1)
    for again in (None, preset):  # goes on, so that nothing is to be done
        assert train_surrogate(kind, tiny_store, run, preset=again, quiet=True).steps == 1
    with pytest.raises(SpecError, match=f"has the preset '{preset}', --preset the preset 'small'"):
        train_surrogate(kind, tiny_store, run, preset="small", quiet=True)


def test_a_preset_given_later_is_another_configuration(tiny_store: Path, tiny_runs: dict[str, Path]) -> None:
    with pytest.raises(TrainingError, match="preset: None -> 'small'"):
        train_surrogate("density", tiny_store, tiny_runs["density"], preset="small", quiet=True)


def test_what_is_fine_tuned_keeps_its_network(tiny_store: Path, tiny_runs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError, match=r"other settings of the network \(model\.encoder\.message_cutoff: 10\.0 -> 7"
    ):
        train_surrogate(
            "density", tiny_store, tmp_path / "run", preset="small", origin=tiny_runs["density"], quiet=True
        )


def test_the_command_line_knows_presets(tiny_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    words = capsys.readouterr().out
    assert all(preset.purpose in words for kind in registry.BUILT_IN for preset in presets_of(kind).values())
    run = ["train", "density", str(tiny_store), "--out", str(tmp_path / "run"), "--preset", "bas"]
    assert cli.main(run) == SpecError.exit_code
    assert capsys.readouterr().err == (
        "error: unknown preset 'bas'; expected one of small, base, large; did you mean 'base'?\n"
    )
    assert not (tmp_path / "run").exists()


def test_a_store_may_be_read_as_if_it_had_fewer_training_molecules(tiny_store: Path) -> None:
    whole = Store.open(tiny_store)
    keys = whole.keys("train")[1:3]
    part = whole.training_on(keys)
    assert part.keys("train") == keys
    assert (part.keys("validation"), part.keys("test")) == (whole.keys("validation"), whole.keys("test"))
    assert part.dataset_hash() != whole.dataset_hash()
    assert part.state_of(whole.keys("train")[0]) == "waiting"
    assert [r.structure.key for r in part.read_many(keys)] == [whole.structure(key).key for key in keys]
    with pytest.raises(StoreError, match=r"no complete record with the key .* in its training split"):
        whole.training_on(whole.keys("test"))
