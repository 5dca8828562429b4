"""Saved predictions hold what was predicted, with units, and are read without pickle."""

from __future__ import annotations

import json
import os

import h5py
import numpy as np
import pytest

from qcsurrogate.errors import OutputError, SpecError
from qcsurrogate.prediction.files import save_predictions, summary
from tests.prediction.exact import HYDROGEN, WATER


@pytest.fixture
def hamiltonians(hamiltonian_surrogate):
    return hamiltonian_surrogate.predict([WATER, HYDROGEN])


@pytest.fixture
def densities(density_surrogate):
    return density_surrogate.predict([WATER, HYDROGEN])


def test_npz_round_trip(hamiltonians, tmp_path):
    save_predictions(hamiltonians, tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz", allow_pickle=False) as file:
        header = json.loads(file["header"][()])
        assert [entry["name"] for entry in header["structures"]] == ["water", "hydrogen"]
        assert header["units"]["hamiltonian"] == "hartree"
        for i, prediction in enumerate(hamiltonians):
            for name in prediction.units:
                np.testing.assert_array_equal(file[f"{i:06d}/{name}"], getattr(prediction, name))
            np.testing.assert_array_equal(file[f"{i:06d}/positions"], prediction.structure.positions)


def test_hdf5_round_trip(densities, tmp_path):
    save_predictions(densities, tmp_path / "out.h5")
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["000001"].attrs["name"] == "hydrogen"
        assert file["000000"].attrs["formula"] == "H2O"
        for i, prediction in enumerate(densities):
            group = file[f"{i:06d}"]
            assert all("units" in dataset.attrs for dataset in group.values())
            for name, unit in prediction.units.items():
                np.testing.assert_array_equal(group[name][()], getattr(prediction, name))
                assert group[name].attrs["units"] == unit


def test_one_prediction_need_not_be_a_list(densities, tmp_path):
    save_predictions(densities[1], tmp_path / "one.npz")
    with np.load(tmp_path / "one.npz") as file:
        assert [entry["name"] for entry in json.loads(file["header"][()])["structures"]] == ["hydrogen"]


def test_summary_is_json(hamiltonians, densities):
    data = json.loads(json.dumps(summary(hamiltonians), allow_nan=False))
    moments = {"dipole": "e bohr", "quadrupole": "e bohr^2"}
    assert data["units"] == {"homo": "hartree", "lumo": "hartree", "gap": "hartree", **moments}
    assert data["method"]["basis"] == "sto-3g"
    assert data["model"]["kind"] == "hamiltonian"
    assert data["versions"].keys() >= {"qcsurrogate", "pyscf", "numpy", "torch"}
    assert [entry["formula"] for entry in data["structures"]] == ["H2O", "H2"]
    assert data["structures"][0]["gap"] == pytest.approx(hamiltonians[0].gap)
    assert len(data["structures"][0]["dipole"]) == 3
    data = summary(densities)["structures"]
    assert data[1]["electron_count"] == pytest.approx(2.0, abs=1e-10)
    empty = summary([])
    assert (empty["model"], empty["units"], empty["structures"]) == (None, {}, [])


def test_another_ending_is_refused(densities, tmp_path):
    with pytest.raises(SpecError, match=r"expected the ending .npz or .h5, got '.pkl'"):
        save_predictions(densities, tmp_path / "out.pkl")


def test_an_unwritable_place_is_refused(densities, tmp_path):
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(OutputError, match=r"cannot write .*\(Is a directory\); expected the name of a file"):
        save_predictions(densities, tmp_path / "folder.npz")
    with pytest.raises(OutputError, match=r"cannot write the predictions .*an existing, writable folder with \d+ K"):
        save_predictions(densities, tmp_path / "nowhere" / "out.npz")
    with pytest.raises(OutputError, match="cannot write the predictions"):
        save_predictions(densities, "/proc/out.npz")


def test_an_older_file_survives_a_failure(densities, tmp_path, monkeypatch):
    path = tmp_path / "out.npz"
    save_predictions(densities, path)
    before = path.read_bytes()

    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OutputError, match="No space left on device"):
        save_predictions(densities[:1], path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
