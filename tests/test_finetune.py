"""``--from MODEL``: what a run keeps of the model it begins with, what it says, and what it refuses."""

from __future__ import annotations

import csv
import hashlib
import shutil

import numpy as np
import pytest
import torch
import yaml

from qcsurrogate import cli, load
from qcsurrogate.domain import Domain
from qcsurrogate.errors import TrainingError
from qcsurrogate.models.files import read_metadata, read_model
from qcsurrogate.pipeline import train_surrogate
from qcsurrogate.reference.compute import compute_reference
from qcsurrogate.reference.settings import EvenTempered, Method
from qcsurrogate.registry import find_quantity
from qcsurrogate.sources.kinds import DisplacementSource, Equilibrium
from qcsurrogate.store.spec import DataSpec
from qcsurrogate.store.store import Store
from qcsurrogate.structures import Structure
from qcsurrogate.training.origin import Beginning
from tests.store import fakes
from tests.store.stores import make_store
from tests.training.test_loop import assert_equal_runs

METHOD = Method(basis="sto-3g", grid_level=0, auxiliary_basis=EvenTempered(even_tempered_beta=2.5))
PEROXIDE = Equilibrium(
    name="peroxide",
    symbols=("O", "O", "H", "H"),
    positions_angstrom=((0, 0.72, 0), (0, -0.72, 0), (0.8, 0.9, 0.4), (-0.8, -0.9, 0.4)),
)
SHORT = ("training.steps=12", "training.validate_every=4", "training.warmup_steps=1")


def described(**changes):
    """What a store of another method says of itself."""
    return fakes.spec(3).model_copy(update={"method": METHOD.model_copy(update=changes)})


def store_of(folder, molecule, method=METHOD, count=6):
    structures = DisplacementSource(kind="displacement", equilibrium=molecule, sigma_angstrom=0.04, count=count, seed=3)
    spec = DataSpec(name=folder.name, structures=structures, method=method, licence="CC-BY-4.0")
    return make_store(folder, spec, compute_reference).path


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Peroxides, which have pairs of oxygens, hydrogens, and waters of another level of theory."""
    folder = tmp_path_factory.mktemp("stores")
    return {
        "peroxides": store_of(folder / "peroxides", PEROXIDE),
        "hydrogens": store_of(folder / "hydrogens", fakes.HYDROGEN),
        "lda": store_of(folder / "lda", fakes.WATER, METHOD.model_copy(update={"xc": "lda,vwn"}), 3),
    }


def rows(run):
    with (run / "metrics.csv").open() as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def beginning(runs, kind="hamiltonian"):
    return Beginning.read(runs[kind], find_quantity(kind))


@pytest.mark.parametrize("kind", ["hamiltonian", "density"])
def test_it_begins_with_the_error_of_the_model_and_improves_on_it(kind, tiny_store, tiny_runs, tmp_path):
    result = train_surrogate(kind, tiny_store, tmp_path, overrides=SHORT, origin=tiny_runs[kind], quiet=True)
    first, *later = rows(tmp_path)
    before = read_metadata(tiny_runs[kind] / "model.safetensors").metrics
    assert (first["step"], first["epoch"]) == (0, 0)
    assert len(later) == 3
    for name, value in before.items():
        if name.startswith("validation_"):
            assert first[name] == pytest.approx(value, rel=1e-12)
    monitored = f"validation_{read_model(result.model_path)[0].monitored}"
    assert result.metrics[monitored] < 0.9 * before[monitored]


def test_a_run_of_another_quantity_is_no_place_for_this_one(tiny_store, tiny_runs):
    with pytest.raises(TrainingError, match=r"holds a run of a density model; expected another folder for a hamil"):
        train_surrogate("hamiltonian", tiny_store, tiny_runs["density"], quiet=True)


def test_on_another_store_too(tiny_runs, stores, tmp_path):
    """The error of step 0 is that of the model where its statistics are known, here all of hydrogen's."""
    run, store = tmp_path / "run", Store.open(stores["hydrogens"])
    longer = (*SHORT, "training.steps=40", "training.validate_every=20", "training.learning_rate=0.02")
    train_surrogate("hamiltonian", store.path, run, overrides=longer, origin=tiny_runs["hamiltonian"], quiet=True)
    model, _ = read_model(tiny_runs["hamiltonian"] / "model.safetensors")
    (labels,) = find_quantity("hamiltonian").read_labels(
        store, ["validation"], model.settings, elements=model.elements, dtype=torch.float32, like=model
    )
    with torch.no_grad():
        total, count = model.errors(labels.batch(range(len(labels))))["correction_mae"]
    found = [row["validation_correction_mae"] for row in rows(run)]
    assert found[0] == pytest.approx(float(total) / count, rel=1e-6)
    assert min(found) < 0.9 * found[0]


def test_the_run_and_its_model_say_where_they_come_from(tiny_runs, stores, tmp_path):
    path = tiny_runs["hamiltonian"] / "model.safetensors"
    train_surrogate("hamiltonian", stores["peroxides"], tmp_path, overrides=SHORT, origin=path, quiet=True)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert config["origin"] == {"path": str(path), "sha256": digest}
    assert (tmp_path / "origin.safetensors").read_bytes() == path.read_bytes()
    before, after = read_metadata(path), read_metadata(tmp_path / "model.safetensors")
    origin = after.training["origin"]
    assert (origin["file"], origin["sha256"]) == ("model.safetensors", digest)
    assert str(tmp_path.parent) not in after.model_dump_json()
    assert (origin["data"], origin["licence"], origin["citation"], origin["step"]) == ("tiny", "CC0-1.0", "nobody", 2)
    assert origin["dataset_hash"] == before.dataset_hash
    assert (after.spec["name"], after.spec["licence"]) == ("peroxides", "CC-BY-4.0")
    assert after.elements == before.elements
    store = Store.open(stores["peroxides"])
    own = Domain.fit(store.structure(key) for key in store.keys("train"))
    assert after.domain == before.domain.joined(own)
    assert (after.domain.atoms, own.atoms) == ((3, 4), (4, 4))


def test_before_the_first_step_it_is_the_old_model(tiny_runs, stores, tmp_path):
    """Stopped at once: the best model is that of step 0, and its domain is what it had seen until then."""
    overrides = (*SHORT, "training.max_minutes=1e-9")
    result = train_surrogate(
        "hamiltonian", stores["hydrogens"], tmp_path, overrides=overrides, origin=tiny_runs["hamiltonian"], quiet=True
    )
    assert (result.best_step, result.finished) == (0, False)
    model, metadata = read_model(result.model_path)
    original, before = read_model(tiny_runs["hamiltonian"] / "model.safetensors")
    assert metadata.domain == before.domain
    for name, tensor in model.state_dict().items():
        if not name.startswith("error_model."):  # what it gets wrong of the new molecules is learned anew
            assert torch.equal(tensor, original.state_dict()[name])


def test_it_goes_on_without_the_model_and_without_being_told_again(tiny_runs, stores, tmp_path):
    original = tmp_path / "original.safetensors"
    shutil.copy(tiny_runs["density"] / "model.safetensors", original)
    for name, limits in (("whole", ()), ("halves", ("training.max_minutes=1e-9",))):
        train_surrogate(
            "density", stores["peroxides"], tmp_path / name, overrides=SHORT + limits, origin=original, quiet=True
        )
    original.unlink()
    again = ["training.max_minutes=null"]
    result = train_surrogate("density", stores["peroxides"], tmp_path / "halves", overrides=again, quiet=True)
    assert (result.finished, result.steps) == (True, 12)
    assert_equal_runs(tmp_path / "whole", tmp_path / "halves")
    copy = tmp_path / "whole" / "origin.safetensors"
    assert train_surrogate("density", stores["peroxides"], tmp_path / "halves", origin=copy, quiet=True) == result


def test_kinds_of_pairs_that_are_new_can_be_learned(tiny_runs, stores, tmp_path, capfd):
    train_surrogate("hamiltonian", stores["peroxides"], tmp_path, overrides=SHORT, origin=tiny_runs["hamiltonian"])
    words = capfd.readouterr().err
    assert "begins with" in words
    assert "trained on 'tiny'" in words
    before, after = (read_model(run / "model.safetensors")[0] for run in (tiny_runs["hamiltonian"], tmp_path))
    for model in (before, after):
        assert model.pair_labels.of((8, 8))[1].all()  # made of the spreads of O-H and H-H
    old, new = before.state_dict(), after.state_dict()
    assert all(torch.equal(old[n], new[n]) for n in old if n.startswith(("pair_labels", "atom_labels")))
    assert before.description()["potentials"] == after.description()["potentials"]


def test_elements_that_the_store_lacks_are_still_predicted(tiny_runs, stores, tmp_path, water_xyz):
    train_surrogate(
        "hamiltonian", stores["hydrogens"], tmp_path, overrides=SHORT, origin=tiny_runs["hamiltonian"], quiet=True
    )
    surrogate = load(tmp_path)
    assert sorted(surrogate.atoms) == [1, 8]
    original = load(tiny_runs["hamiltonian"])
    radii = np.linspace(0, 3, 20)
    for z in (1, 8):
        np.testing.assert_allclose(surrogate.atoms[z].density(radii), original.atoms[z].density(radii), atol=1e-8)
    assert surrogate.predict(water_xyz).domain.inside


def test_another_level_of_theory_is_said_and_leaves_its_own_domain(tiny_runs, stores, tmp_path, capfd):
    train_surrogate("hamiltonian", stores["lda"], tmp_path, overrides=SHORT, origin=tiny_runs["hamiltonian"])
    words = capfd.readouterr().err
    assert "another level of theory (xc: 'pbe' -> 'lda,vwn'): the model will stand for that of the store" in words
    metadata = read_metadata(tmp_path / "model.safetensors")
    assert metadata.method.xc == "lda,vwn"
    store = Store.open(stores["lda"])
    assert metadata.domain == Domain.fit(store.structure(key) for key in store.keys("train"))
    begun = beginning(tiny_runs)
    assert begun.domain(metadata.domain, store.spec, step=0) is None
    assert begun.level_changes(described(charge=1, backend="gpu4pyscf")) == []


@pytest.mark.parametrize(
    ("change", "elements", "words"),
    [
        (
            {"basis": "6-31g"},
            {1, 8},
            r"made for the basis 'sto-3g', the store 'new' has '6-31g'; expected the same",
        ),
        (
            {},
            {1, 7, 8},
            r"the store 'new' holds N, which .* was not made for \(it knows H, O\); expected no",
        ),
    ],
)
def test_a_store_that_does_not_fit_is_refused(tiny_runs, change, elements, words):
    with pytest.raises(TrainingError, match=words) as caught:
        beginning(tiny_runs).require_data("new", described(**change), elements)
    assert len(str(caught.value).splitlines()) == 1


def test_another_auxiliary_basis_is_refused_for_densities_alone(tiny_runs, tmp_path):
    finer = METHOD.model_copy(update={"auxiliary_basis": EvenTempered(even_tempered_beta=2.0)})
    store = store_of(tmp_path / "finer", fakes.HYDROGEN, finer, 3)
    with pytest.raises(TrainingError, match=r"basis 'even-tempered\(beta=2\.5\) .* has 'even-tempered\(beta=2\)"):
        train_surrogate("density", store, tmp_path / "run", origin=tiny_runs["density"], quiet=True)
    assert not (tmp_path / "run").exists()
    run = train_surrogate(
        "hamiltonian", store, tmp_path / "run", overrides=SHORT, origin=tiny_runs["hamiltonian"], quiet=True
    )
    assert run.finished


def test_other_models_and_settings_are_refused(tiny_store, tiny_runs, tmp_path):
    def refused(words, kind="density", out=tmp_path / "new", **options):
        with pytest.raises(TrainingError, match=words) as caught:
            train_surrogate(kind, tiny_store, out, quiet=True, **options)
        assert len(str(caught.value).splitlines()) == 1

    path = tiny_runs["density"]
    refused("holds a hamiltonian model; expected a density model to begin with", origin=tiny_runs["hamiltonian"])
    refused(
        r"other settings of the network \(model\.readout_hidden: 48 -> 9\); expected its own",
        origin=path,
        overrides=["model.readout_hidden=9"],
    )
    assert not (tmp_path / "new").exists()
    refused("holds a run that began with random weights", out=path, origin=path)

    run = tmp_path / "run"
    train_surrogate("density", tiny_store, run, overrides=SHORT, origin=path, quiet=True)
    refused("is another; expected the same to go on, or another folder", out=run, origin=run)
    (run / "origin.safetensors").unlink()
    assert train_surrogate("density", tiny_store, run, quiet=True).finished  # read again from where it lay
    shutil.copy(run / "model.safetensors", run / "origin.safetensors")
    refused(r"began with the model '.*', and '.*origin\.safetensors' is another", out=run)


def test_from_the_command_line(tiny_runs, stores, tmp_path, capsys):
    settings = [part for setting in SHORT for part in ("--set", setting)]
    arguments = ["train", "density", str(stores["peroxides"]), "--out", str(tmp_path / "run"), "--quiet"]
    assert cli.main([*arguments, "--from", str(tiny_runs["density"]), *settings]) == 0
    assert cli.main([*arguments]) == 0
    assert cli.main([*arguments, "--from", str(tmp_path / "nowhere")]) == 6
    assert "cannot find the model file" in capsys.readouterr().err


def test_domains_join():
    def water(stretch, charge=0):
        positions = np.array([[0, 0, 0.2], [0, 1.43, -0.9], [0, -1.43, -0.9]]) * stretch
        return Structure([8, 1, 1], positions, charge)

    one, other = [water(1), water(1.1)], [water(1.7), Structure([1, 1], [[0, 0, 0], [0, 0, 1.4]]), water(1, 2)]
    assert Domain.fit(one).joined(Domain.fit(other)) == Domain.fit(one + other)
