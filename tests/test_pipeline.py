"""From a store to a model file, and the demo's verdict."""

from __future__ import annotations

import copy
import json
import shutil

import numpy as np
import pytest

from qcsurrogate import demo, pipeline
from qcsurrogate.domain import Domain
from qcsurrogate.errors import SpecError, StoreError, TrainingError
from qcsurrogate.generation import GenerationSummary
from qcsurrogate.models.files import read_metadata
from qcsurrogate.store.failures import Failure
from qcsurrogate.store.store import Store
from tests.conftest import SHORT_TRAINING


@pytest.mark.parametrize("kind", ["hamiltonian", "density"])
def test_a_model_file_says_where_it_comes_from(kind, tiny_runs, tiny_store):
    metadata = read_metadata(tiny_runs[kind] / "model.safetensors")
    store = Store.open(tiny_store)
    assert metadata.kind == kind
    assert metadata.method == store.spec.method
    assert metadata.dataset_hash == store.dataset_hash()
    assert metadata.elements == (1, 8)
    assert sorted(metadata.atoms) == ["H", "O"]
    assert metadata.spec["name"] == "tiny"
    assert metadata.units
    assert metadata.domain == Domain.fit(store.structure(key) for key in store.keys("train"))
    assert metadata.domain.states == ((0, 0),)
    assert metadata.training["config"]["training"]["steps"] == 2
    assert all(np.isfinite(value) for value in metadata.metrics.values())
    assert {"torch", "pyscf", "qcsurrogate"} <= metadata.versions.keys()


def test_training_is_repeatable(tiny_store, tiny_runs, tmp_path):
    pipeline.train_surrogate("density", tiny_store, tmp_path / "again", overrides=SHORT_TRAINING, quiet=True)
    for name in ("metrics.csv",):
        again, first = (run / name for run in (tmp_path / "again", tiny_runs["density"]))
        untimed = [
            [row.split(",")[k] for row in path.read_text().splitlines() for k in (0, 4, 6)] for path in (again, first)
        ]
        assert untimed[0] == untimed[1]


def test_an_unknown_kind_is_refused(tiny_store, tmp_path):
    with pytest.raises(SpecError, match=r"unknown kind of model 'densities'; expected .*did you mean 'density'\?"):
        pipeline.train_surrogate("densities", tiny_store, tmp_path)
    with pytest.raises(SpecError, match="unknown kind"):
        pipeline.config_schema("densities")


def test_a_new_element_in_validation_is_refused(tiny_store, tmp_path, monkeypatch):
    elements = pipeline._elements
    without = {"train": {8}, "validation": set()}
    monkeypatch.setattr(pipeline, "_elements", lambda store, split: elements(store, split) - without[split])
    with pytest.raises(TrainingError, match=r"the validation set of .* holds O, which the training set lacks"):
        pipeline.train_surrogate("density", tiny_store, tmp_path / "run", quiet=True)


@pytest.fixture
def short_demo(tiny_store, tmp_path, monkeypatch):
    """The demo on the tiny store, which it need not generate."""
    out = tmp_path / "demo"
    shutil.copytree(tiny_store, out / "store")
    summary = GenerationSummary(out / "store", Store.open(tiny_store).counts(), 0, (), 0.0)
    monkeypatch.setattr(demo, "generate", lambda spec, out, quiet: summary)
    monkeypatch.setattr(demo, "OVERRIDES", dict.fromkeys(demo.OVERRIDES, SHORT_TRAINING))
    return out, summary


def test_the_demo_judges_its_figures(short_demo):
    out, _ = short_demo
    result = demo.demo(out, quiet=True)
    assert result.report.is_file()
    comparison = json.loads(result.metrics.read_text())
    error, cycles, floor = result.targets
    assert error.value == pytest.approx(1e6 * comparison["metrics"]["hamiltonian"]["hamiltonian_mae"]["mean"])
    assert not error.passed  # after two steps
    assert (error.limit, cycles.limit, floor.limit) == (20.0, 0.5, 1.3)
    assert floor.value > 1.0

    better = copy.deepcopy(comparison)
    better["metrics"]["hamiltonian"]["hamiltonian_mae"]["mean"] = 4e-6
    better["saving"]["hamiltonian"]["cycle_ratio"] = 0.4
    better["metrics"]["density"]["density_nmae"]["mean"] = (
        1.1 * better["metrics"]["density"]["density_nmae_fit_floor"]["mean"]
    )
    assert all(target.passed for target in demo.demo_targets(better))
    better["saving"]["hamiltonian"]["cycle_ratio"] = None  # no SCF converged both ways
    assert not demo.demo_targets(better)[1].passed


def test_the_demo_stops_when_a_reference_failed(short_demo, monkeypatch):
    out, summary = short_demo
    failure = Failure("key", "water_3", "not_converged", "SCF for 'water_3' did not converge")
    failed = GenerationSummary(out / "store", summary.counts, 0, (failure,), 0.0)
    monkeypatch.setattr(demo, "generate", lambda spec, out, quiet: failed)
    with pytest.raises(StoreError, match=r"1 references of the demo failed.*water_3.*qcsurrogate status"):
        demo.demo(out, quiet=True)


def test_a_run_goes_on_with_its_own_settings(tiny_store, tmp_path):
    """Without repeating --set; a contradiction is refused, more steps are taken."""
    run = tmp_path / "run"
    settings = (*SHORT_TRAINING, "model.readout_hidden=8")
    first = pipeline.train_surrogate("density", tiny_store, run, overrides=settings, quiet=True)
    assert pipeline.train_surrogate("density", tiny_store, run, quiet=True) == first
    with pytest.raises(TrainingError, match=r"model\.readout_hidden: 8 -> 9"):
        pipeline.train_surrogate("density", tiny_store, run, overrides=["model.readout_hidden=9"], quiet=True)
    longer = pipeline.train_surrogate("density", tiny_store, run, overrides=["training.steps=3"], quiet=True)
    assert (longer.steps, longer.finished) == (3, True)
    assert pipeline.train_surrogate("density", tiny_store, run, quiet=True) == longer


def test_small_sets_are_mentioned(tiny_store, tmp_path, capfd):
    pipeline.train_surrogate("density", tiny_store, tmp_path / "run", overrides=SHORT_TRAINING)
    words = capfd.readouterr().err
    assert "the training set holds only 4 molecules: the model will know little beyond them" in words
    assert "the validation set holds only 2 molecules: its error is a rough estimate" in words
