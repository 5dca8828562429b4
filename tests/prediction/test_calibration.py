"""Bounds of energy errors without a reference: their coverage, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from qcsurrogate.cli import main
from qcsurrogate.errors import DomainError, SpecError, StoreError
from qcsurrogate.models.files import read_metadata
from qcsurrogate.prediction import calibrate as calibrating
from qcsurrogate.prediction.calibrate import calibrate
from qcsurrogate.prediction.files import save_predictions
from qcsurrogate.prediction.reading import load_predictions
from qcsurrogate.prediction.surrogate import load
from qcsurrogate.reference.calibration import EnergyCalibration
from qcsurrogate.reference.evaluation import OneShot
from tests.prediction.exact import WATER


def test_the_bound_holds_as_often_as_it_says():
    """Of exchangeable molecules; the exact expectation of split conformal prediction is rank / (n + 1)."""
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(400):
        estimates = rng.lognormal(sigma=2.0, size=30)
        errors = estimates * rng.gamma(2.0, size=30)
        found = EnergyCalibration.of(errors[:29], estimates[:29], "")
        covered.append(errors[29] <= found.factor(0.9) * estimates[29])
    assert np.mean(covered) == pytest.approx(27 / 30, abs=0.05)


def test_factors():
    found = EnergyCalibration.of([-3.0, 1.0, 4.0, 2.0, 5.0, 7.0, 6.0, 8.0, 9.0], [1.0] * 9, "")
    assert found.ratios == tuple(float(k) for k in range(1, 10))
    assert found.typical == 5.0
    assert found.factor(0.9) == 9.0
    assert found.factor(0.5) == 5.0
    assert found.factor(0.95) == np.inf
    with pytest.raises(SpecError, match=r"level = 1\.0; expected a probability between 0 and 1"):
        found.factor(1.0)


def test_a_check_knows_its_calibration():
    once = OneShot(-1.0, 0.1, 2e-3)
    assert once.corrected_energy == -1.002
    with pytest.raises(SpecError, match=r"were never calibrated, .* run `qcsurrogate calibrate MODEL --data STORE`"):
        once.energy_bound()
    known = OneShot(-1.0, 0.1, 2e-3, EnergyCalibration.of([0.5] * 9, [1.0] * 9, ""))
    assert known.corrected_energy == pytest.approx(-1.001)
    assert known.energy_bound() == pytest.approx(1e-3)


@pytest.fixture
def model(tiny_runs, tmp_path) -> Path:
    path = tmp_path / "model.safetensors"
    shutil.copy(tiny_runs["hamiltonian"] / "model.safetensors", path)
    return path


def test_a_model_is_calibrated(model, tiny_store, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(calibrating, "FEWEST", 2)
    monkeypatch.setattr("qcsurrogate.reference.calibration.LEVEL", 0.5)
    before = load(model).predict(WATER)
    assert main(["calibrate", str(model), "--data", str(tiny_store), "--json", "--quiet"]) == 0
    shown = json.loads(capsys.readouterr().out)
    found = read_metadata(model).energy_calibration
    assert found is not None
    assert shown["molecules"] == len(found.ratios) == 2
    assert all(0.05 < ratio < 20.0 for ratio in found.ratios)
    after = load(model).predict(WATER)
    np.testing.assert_array_equal(after.hamiltonian, before.hamiltonian)
    assert after.source.energy_calibration == found
    check = after.check()
    assert check.calibration == found
    assert check.energy_bound(0.6) == pytest.approx(check.remaining_energy * found.ratios[1])
    assert after.to_pyscf().surrogate.check.calibration == found
    save_predictions([after], tmp_path / "a.npz")
    assert load_predictions(tmp_path / "a.npz")[0].source.energy_calibration == found


def test_words(model, tiny_store, tiny_runs, monkeypatch):
    with pytest.raises(StoreError, match=r"has 2 complete records; expected 9 or more"):
        calibrate(model, tiny_store)
    with pytest.raises(SpecError, match=r"has learned from the training split .* expected split validation or test"):
        calibrate(model, tiny_store, split="train")
    with pytest.raises(SpecError, match=r"is a density model, which predicts no orbitals"):
        calibrate(tiny_runs["density"], tiny_store)
    other = calibrating.Store.open(tiny_store)
    spec = other.spec.model_copy(update={"method": other.spec.method.model_copy(update={"xc": "b3lyp"})})
    monkeypatch.setattr(type(other), "spec", property(lambda self: spec), raising=False)
    with pytest.raises(DomainError, match=r"is of another level of theory than the model .*xc: 'pbe' -> 'b3lyp'"):
        calibrate(model, tiny_store)
