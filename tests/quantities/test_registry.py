"""A quantity that no file of the package names goes through every stage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import qcsurrogate
from qcsurrogate import registry
from qcsurrogate.cli import main
from qcsurrogate.errors import ModelFileError, SpecError
from qcsurrogate.sources.readers import read_structures
from qcsurrogate.testing import assert_equivariant
from tests.quantities.toy import ToyEnergy, ToySurrogate


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.setattr(registry, "_registered", {})
    quantity = ToyEnergy()
    registry.register(quantity)
    return quantity


def test_a_quantity_from_outside_goes_through_every_stage(toy, tiny_store, water_xyz, tmp_path, capsys):
    run, report = tmp_path / "run", tmp_path / "report"
    training = ["--set", "training.steps=3", "--set", "training.validate_every=1"]
    assert main(["train", "toy_energy", str(tiny_store), "--out", str(run), *training, "--quiet"]) == 0

    surrogate = qcsurrogate.load(run)
    assert isinstance(surrogate, ToySurrogate)
    assert surrogate.metadata.units == {"energy": "hartree"}
    water = read_structures(water_xyz)[0]
    assert_equivariant(surrogate.model.double(), [water])
    assert np.isfinite(surrogate.predict(water).energy)

    finer = ["train", "toy_energy", str(tiny_store), "--out", str(tmp_path / "finer"), "--from", str(run)]
    assert main([*finer, *training, "--quiet"]) == 0

    out = tmp_path / "toy.npz"
    assert main(["predict", str(run), str(water_xyz), "--out", str(out), "--quiet"]) == 0
    with np.load(out, allow_pickle=False) as arrays:
        np.testing.assert_allclose(arrays["000000/energy"], surrogate.predict(water).energy, rtol=1e-5)

    (again,) = qcsurrogate.load_predictions(out)
    assert again.energy == pytest.approx(surrogate.predict(water).energy, rel=1e-5)
    assert main(["predict", str(run), str(water_xyz), "--out", str(out), "--cube", "density"]) == 2
    assert "the predictions of a toy_energy model" in capsys.readouterr().err

    assert main(["compare", str(run), "--data", str(tiny_store), "--out", str(report), "--json"]) == 0
    assert '"toy_energy_error"' in capsys.readouterr().out
    page = (report / "report.html").read_text()
    assert "The mean error of toys is" in page
    assert "Toy energy error" in page
    assert "Toy error" in page  # the headline, by the judge's own rule
    assert "Worst molecules" in page


def test_no_file_of_the_package_names_the_toy(toy):
    package = Path(qcsurrogate.__file__).parent
    assert not [p for p in package.rglob("*.py") if toy.name in p.read_text(encoding="utf-8")]


def test_a_model_of_an_unregistered_quantity_is_refused(toy, tiny_store, tmp_path, monkeypatch):
    options = ["--set", "training.steps=1", "--set", "training.validate_every=1", "--quiet"]
    assert main(["train", "toy_energy", str(tiny_store), "--out", str(tmp_path / "run"), *options]) == 0
    monkeypatch.setattr(registry, "_registered", {})
    with pytest.raises(ModelFileError, match=r"unknown kind of model 'toy_energy'; expected .*density or hamiltonian"):
        qcsurrogate.load(tmp_path / "run")


def test_names_are_taken_once(toy):
    registry.register(toy)  # the same object again is no conflict
    with pytest.raises(SpecError, match="there is a quantity 'toy_energy' already"):
        registry.register(ToyEnergy())
    assert registry.quantity_names() == sorted([*registry.BUILT_IN, "toy_energy"])


@pytest.mark.parametrize("name", sorted(registry.BUILT_IN))
def test_built_in_quantities_say_what_they_are(name):
    quantity = registry.find_quantity(name)
    assert quantity.name == name
    assert quantity.units
    assert quantity.ranking
