"""Trained models from files: batches, exactness, and files that cannot be loaded."""

from __future__ import annotations

import hashlib
import os

import numpy as np
import pytest

import qcsurrogate
from qcsurrogate.errors import ModelFileError, SpecError
from qcsurrogate.models.files import read_model
from qcsurrogate.prediction import surrogate as loading
from qcsurrogate.quantities.density.surrogate import DensitySurrogate
from qcsurrogate.quantities.hamiltonian.surrogate import HamiltonianSurrogate
from tests.prediction.exact import HYDROGEN, STRETCHED, WATER

MOLECULES = [WATER, HYDROGEN, STRETCHED]


def test_a_file_and_its_folder_are_the_same(tiny_runs):
    by_folder = qcsurrogate.load(tiny_runs["hamiltonian"])
    by_file = qcsurrogate.load(str(tiny_runs["hamiltonian"] / "model.safetensors"))
    assert isinstance(by_folder, HamiltonianSurrogate)
    assert repr(by_folder) == "<HamiltonianSurrogate for H, O: pbe/sto-3g>"
    one, other = (surrogate.predict(WATER) for surrogate in (by_folder, by_file))
    np.testing.assert_array_equal(one.hamiltonian, other.hamiltonian)


def test_hamiltonians_are_symmetric_and_do_not_depend_on_the_batch(tiny_runs):
    surrogate = qcsurrogate.load(tiny_runs["hamiltonian"])
    together = surrogate.predict(MOLECULES)
    for prediction, molecule in zip(together, MOLECULES, strict=True):
        assert np.array_equal(prediction.hamiltonian, prediction.hamiltonian.T)
        np.testing.assert_allclose(prediction.hamiltonian, surrogate.predict(molecule).hamiltonian, atol=1e-6)


def test_densities_hold_their_electrons_and_do_not_depend_on_the_batch(tiny_runs):
    surrogate = qcsurrogate.load(tiny_runs["density"])
    assert isinstance(surrogate, DensitySurrogate)
    together = surrogate.predict(MOLECULES)
    for prediction, molecule in zip(together, MOLECULES, strict=True):
        assert prediction.electron_count == pytest.approx(molecule.n_electrons, abs=1e-8)
        alone = surrogate.predict(molecule)
        np.testing.assert_allclose(prediction.dipole, alone.dipole, atol=1e-5)
        np.testing.assert_allclose(prediction.density(WATER.positions), alone.density(WATER.positions), atol=1e-4)


def test_results_do_not_carry_gradients_or_change(tiny_runs):
    surrogate = qcsurrogate.load(tiny_runs["density"])
    first, second = surrogate.predict(WATER), surrogate.predict(WATER)
    assert isinstance(first.density_coefficients, np.ndarray)
    np.testing.assert_array_equal(first.density_coefficients, second.density_coefficients)


def test_files_that_cannot_be_loaded(tiny_runs, tmp_path):
    with pytest.raises(ModelFileError, match=r"holds no model\.safetensors"):
        qcsurrogate.load(tmp_path)
    with pytest.raises(ModelFileError, match="cannot find the model file"):
        qcsurrogate.load(tmp_path / "nowhere.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(ModelFileError, match=r"text\.safetensors"):
        qcsurrogate.load(tmp_path / "text.safetensors")
    with pytest.raises(SpecError, match="cannot use the device 'abacus'"):
        qcsurrogate.load(tiny_runs["density"], device="abacus")


def test_a_file_that_is_replaced_while_it_is_read_is_refused(tiny_runs, tmp_path, monkeypatch):
    """Its digest would be that of another model."""
    path = tmp_path / "model.safetensors"
    path.write_bytes((tiny_runs["density"] / "model.safetensors").read_bytes())
    assert qcsurrogate.load(path).source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()

    def read_and_replace(path, device):
        found = read_model(path, device)
        os.utime(path, ns=(0, 0))
        return found

    monkeypatch.setattr(loading, "read_model", read_and_replace)
    with pytest.raises(ModelFileError, match=r"model\.safetensors' was replaced while it was read: load it again"):
        qcsurrogate.load(path)


def test_the_package_offers_load_and_a_version():
    assert {"load", "__version__"} <= set(dir(qcsurrogate))
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        _ = qcsurrogate.lod


def test_results_cannot_be_written_into(hamiltonian_surrogate, density_surrogate):
    for surrogate in (hamiltonian_surrogate, density_surrogate):
        prediction = surrogate.predict(WATER)
        for name in prediction.units:
            array = getattr(prediction, name)
            if isinstance(array, np.ndarray):
                with pytest.raises(ValueError, match="read-only"):
                    array[...] = 0.0
