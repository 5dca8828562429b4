"""Configuration: defaults, overrides, and words for what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from qcsurrogate.errors import SpecError
from qcsurrogate.files.nested import differences
from qcsurrogate.training.config import RunConfig, TrainingConfig, load_run_config
from tests.training.runs import TinySettings


def load(*overrides: str, path: Path | None = None) -> RunConfig[TinySettings]:
    return load_run_config(TinySettings, path, overrides)


def test_defaults_are_the_measured_recipe() -> None:
    training = load().training
    assert training == TrainingConfig()
    assert (training.batch_size, training.learning_rate, training.optimiser) == (16, 3e-3, "soap")


def test_file_and_overrides_in_this_order(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("model:\n  width: 4\ntraining:\n  steps: 10\n  learning_rate: 1e-3\n")
    config = load("training.steps=20", "training.threads=null", "training.learning_rate = 2e-3", path=path)
    assert config.model.width == 4
    assert (config.training.steps, config.training.threads) == (20, None)
    assert config.training.learning_rate == 2e-3


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.step=3", "unknown key 'step'; did you mean 'steps'"),
        ("trainig.steps=3", "unknown key 'trainig'; did you mean 'training'"),
        ("model.widht=3", "unknown key 'widht'; did you mean 'width'"),
        ("training.optimiser=sopa", "expected 'soap' or 'adamw', got 'sopa'; did you mean 'soap'"),
        ("training.steps=0", "training.steps: expected greater than or equal to 1, got 0"),
        ("training.learning_rate=fast", "got 'fast'"),
        ("training.learning_rate=.nan", "training.learning_rate"),
        ("training.precision=16", "training.precision: expected 32 or 64, got 16"),
        ("training.steps", "expected KEY=VALUE"),
        (".steps=3", "expected KEY=VALUE"),
        ("training.steps.more=3", "training.steps"),
        ("training.steps=[1", "as YAML"),
    ],
)
def test_wrong_overrides(override: str, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        load(override)
    assert words in str(caught.value)


def test_override_below_a_value() -> None:
    with pytest.raises(SpecError, match="is no mapping"):
        load("training.steps=3", "training.steps.more=3")


def test_file_problems_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"absent\.yaml"):
        load(path=tmp_path / "absent.yaml")
    path = tmp_path / "run.yaml"
    for text, words in [("- 1\n", "mapping"), ("a: [\n", "YAML"), ("training: {stepz: 1}\n", "did you mean 'steps'")]:
        path.write_text(text)
        with pytest.raises(SpecError, match=words) as caught:
            load(path=path)
        assert "run.yaml" in str(caught.value)


def test_every_setting_is_described() -> None:
    assert all(field.description for field in TrainingConfig.model_fields.values())


def test_differences_name_old_and_new() -> None:
    old = {"a": 1, "b": {"c": [1], "d": 2}, "e": {"x": 1}}
    new = {"a": 1, "b": {"c": [2], "d": 2}, "f": 3, "e": 4}
    assert differences(old, new) == ["b.c: [1] -> [2]", "e.x: 1 -> nothing", "f: nothing -> 3", "e: nothing -> 4"]
    assert differences(old, old) == []
