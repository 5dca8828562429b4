"""Expected errors of trained models: from training, through files, to what a user reads."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from safetensors.numpy import load_file

import qcsurrogate
from qcsurrogate.cli import main
from qcsurrogate.errors import OutputError, StructureError
from qcsurrogate.pipeline import train_surrogate
from qcsurrogate.prediction.files import summary
from qcsurrogate.prediction.reading import load_predictions
from qcsurrogate.prediction.uncertainty import Uncertainty
from qcsurrogate.quantities.hamiltonian.uncertainty import FIGURES
from tests.molecules import WATER

EXPECTED = {"hamiltonian": set(FIGURES), "density": {"density_nmae_network"}}


@pytest.fixture(scope="module", params=["hamiltonian", "density"])
def predicted(request, tiny_runs):
    return qcsurrogate.load(tiny_runs[request.param]).predict([WATER, WATER.moved(WATER.positions * 1.01)])


def test_a_trained_model_says_what_errors_it_expects(predicted) -> None:
    first = predicted[0]
    assert set(first.expected_errors) == EXPECTED[first.source.kind]
    for name, error in first.expected_errors.items():
        assert error.unit == first.error_units[name]
        assert 0 < error.value < 10 * error.within[2]
        assert error.within[0] < error.within[1] < error.within[2]
    n = len(WATER)
    assert first.uncertainty.blocks.shape == ((n, n) if first.source.kind == "hamiltonian" else (n,))
    assert first.uncertainty.atoms.shape == (n,)
    assert first.uncertainty.atoms.min() > 0
    with pytest.raises(ValueError, match="read-only"):
        first.uncertainty.blocks[0] = 1.0


@pytest.mark.parametrize("suffix", [".npz", ".h5"])
def test_files_hold_expected_errors(predicted, suffix, tmp_path) -> None:
    path = tmp_path / f"out{suffix}"
    qcsurrogate.save_predictions(predicted, path)
    for before, after in zip(predicted, load_predictions(path), strict=True):
        np.testing.assert_array_equal(after.uncertainty.blocks, before.uncertainty.blocks)
        assert after.uncertainty.unit == before.uncertainty.unit
        assert after.expected_errors == before.expected_errors
    if suffix == ".h5":
        with h5py.File(path) as file:
            assert file["000000/expected_block_errors"].attrs["units"] == predicted[0].uncertainty.unit


def test_a_changed_expectation_is_refused(predicted, tmp_path) -> None:
    path = tmp_path / "out.h5"
    qcsurrogate.save_predictions(predicted, path)
    with h5py.File(path, "r+") as file:
        file["000001/expected_block_errors"][...] *= 0.5
    with pytest.raises(OutputError, match="content_sha256"):
        load_predictions(path)


def test_json_says_it_with_units(predicted) -> None:
    entry = summary(predicted)["structures"][0]["expected_errors"]
    assert set(entry) == EXPECTED[predicted[0].source.kind]
    assert all(set(e) == {"value", "unit", "within_50", "within_80", "within_95"} for e in entry.values())
    json.dumps(entry, allow_nan=False)


def test_the_command_line_prints_it(tiny_runs, water_xyz, tmp_path, capsys) -> None:
    assert main(["predict", str(tiny_runs["hamiltonian"]), str(water_xyz), "--out", str(tmp_path / "a.npz")]) == 0
    assert "expected errors: hamiltonian_mae " in capsys.readouterr().out


def test_a_silent_model_expects_nothing(hamiltonian_surrogate) -> None:
    prediction = hamiltonian_surrogate.predict(WATER)
    assert prediction.uncertainty is None
    assert prediction.expected_errors == {}
    assert summary([prediction])["structures"][0]["expected_errors"] is None


@pytest.mark.parametrize(
    ("blocks", "message"), [(np.ones(2), "shape"), (-np.ones(3), "negative"), ([np.nan] * 3, "finite")]
)
def test_what_cannot_belong_to_a_molecule_is_refused(blocks, message) -> None:
    with pytest.raises(StructureError, match=message):
        Uncertainty(np.asarray(blocks), "hartree", {}).check(3)
    with pytest.raises(StructureError, match="four numbers"):
        Uncertainty(np.ones(3), "hartree", {"a": (1.0, -1.0, 1.0, 1.0)})


def learned(run: Path) -> dict[str, np.ndarray]:
    tensors = load_file(run / "model.safetensors")
    return {name: tensor for name, tensor in tensors.items() if "error_model" in name}


def test_a_stopped_run_has_learned_its_errors_and_a_resumed_one_learns_the_same(tiny_store, tmp_path) -> None:
    options = ["training.steps=3", "training.validate_every=1", "model.encoder.layers=1", "model.encoder.channels=4"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train_surrogate("density", tiny_store, whole, overrides=options, quiet=True)
    stopped = [*options, "training.max_minutes=1e-9"]
    for _ in range(2):
        train_surrogate("density", tiny_store, parts, overrides=stopped, quiet=True)
        assert (learned(parts)["error_model.readouts.atoms.spread"] > 0).all()
    train_surrogate("density", tiny_store, parts, overrides=[*options, "training.max_minutes=null"], quiet=True)
    once, again = learned(whole), learned(parts)
    assert once.keys() == again.keys()
    for name in once:
        np.testing.assert_array_equal(once[name], again[name])


def test_a_fine_tuned_model_learns_its_errors_anew(tiny_runs, tiny_store, tmp_path) -> None:
    options = ["training.steps=2", "training.validate_every=1", "training.learning_rate=0.01"]
    train_surrogate("density", tiny_store, tmp_path, overrides=options, origin=tiny_runs["density"], quiet=True)
    old, new = learned(tiny_runs["density"]), learned(tmp_path)
    name = "error_model.readouts.atoms.precision"
    assert np.abs(old[name] - new[name]).max() > 0
    assert np.isfinite(new[name]).all()
