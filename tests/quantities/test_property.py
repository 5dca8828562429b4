"""Properties from tables and stores: training, prediction, comparison, and what they are under rotations."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from pyscf import scf

import qcsurrogate
from qcsurrogate.cli import main
from qcsurrogate.errors import DomainError, SpecError, StoreError
from qcsurrogate.models.files import read_model
from qcsurrogate.pipeline import train_surrogate
from qcsurrogate.quantities.property import QUANTITY
from qcsurrogate.quantities.property.model import PropertyModel
from qcsurrogate.quantities.property.settings import PropertySettings
from qcsurrogate.reference.kohn_sham import build_molecule
from qcsurrogate.store.store import Store
from qcsurrogate.structures import Structure
from qcsurrogate.tables.opening import open_set
from qcsurrogate.tables.records import labelled
from qcsurrogate.tables.table import open_table
from qcsurrogate.testing import assert_continuous, assert_equivariant, perturb, random_rotation

TABLE = """\
structures: {kind: packaged, name: qm9_properties, subset: {max_heavy_atoms: 5}}
split: {kind: random, train: 10, validation: 3, test: 3, seed: 1}
"""
SMALL = {
    "channels": 4,
    "edge_channels": 4,
    "hidden": 8,
    "hidden_odd": 2,
    "layers": 1,
    "gaussians": 6,
    "message_cutoff": 6.0,
    "readout": 8,
}
SHORT = [
    *(f"model.encoder.{key}={value}" for key, value in SMALL.items()),
    "training.steps=6",
    "training.validate_every=3",
    "training.batch_size=5",
]
OF_STORES = ("energy", "gap", "dipole", "quadrupole", "r2", "mulliken_charges")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen molecules of QM9."""
    path = tmp_path_factory.mktemp("table") / "few.yaml"
    path.write_text(TABLE)
    return path


def options(*settings: str) -> list[str]:
    return [part for setting in (*SHORT, *settings) for part in ("--set", setting)]


@pytest.fixture(scope="module")
def run(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the command line on four targets."""
    out = tmp_path_factory.mktemp("runs") / "four"
    four = options("model.targets=[U0, gap, mu, r2]")
    assert main(["train", "property", str(table), "--out", str(out), *four, "--quiet"]) == 0
    return out


def model_of(source: str | Path, *targets: str, encoder: Mapping[str, object] = SMALL) -> PropertyModel:
    """An untrained model with the statistics of a data set."""
    data = open_set(source)
    settings = PropertySettings(targets=targets, encoder=encoder)  # type: ignore[arg-type]
    elements = sorted({int(z) for key in data.keys("train") for z in data.structure(key).atomic_numbers})
    (labels,) = QUANTITY.read_labels(data, ["train"], settings, elements=elements, dtype=torch.float64)
    model = QUANTITY.new_model(settings, labels, seed=0).double()
    perturb(model)
    return model


def test_a_table_is_learned_predicted_and_compared(run, table, tmp_path, capsys):
    surrogate = qcsurrogate.load(run)
    metadata = surrogate.metadata
    assert (metadata.method, metadata.level, metadata.atoms) == (None, "B3LYP/6-31G(2df,p)", {})
    assert metadata.units == {"U0": "hartree", "gap": "hartree", "mu": "e bohr", "r2": "bohr^2"}
    assert metadata.dataset_hash == open_table(table).dataset_hash()
    assert metadata.domain.states == ((0, 0),)
    assert {"validation_U0_mae", "validation_mu_mae", "validation_standardised_mae"} <= metadata.metrics.keys()

    ethanol = open_table(table).structure("gdb_14")
    prediction = surrogate.predict(ethanol)
    assert prediction["U0"] == pytest.approx(-154.97, abs=0.5)  # from the elements alone
    assert prediction["mu"] >= 0
    with pytest.raises(KeyError, match="no property 'Gap'; expected U0, gap, mu, r2; did you mean 'gap'"):
        prediction["Gap"]
    with pytest.raises(ValueError, match="read-only"):
        prediction["U0"][...] = 0
    several = surrogate.predict([ethanol, ethanol.moved(ethanol.positions @ random_rotation(1).T + 3.0)], batch_size=1)
    for name in surrogate.targets:
        np.testing.assert_allclose(several[0][name], prediction[name], rtol=1e-6)
        np.testing.assert_allclose(several[1][name], prediction[name], rtol=1e-4)

    for ending in ("npz", "h5"):
        qcsurrogate.save_predictions(several, tmp_path / f"p.{ending}")
        again = qcsurrogate.load_predictions(tmp_path / f"p.{ending}")
        assert [{k: float(v) for k, v in p.values.items()} for p in again] == [
            {k: float(v) for k, v in p.values.items()} for p in several
        ]
        assert again[0].target_units == metadata.units
        assert again[0].source == prediction.source

    report = tmp_path / "report"
    assert main(["compare", str(run), "--data", str(table), "--out", str(report), "--quiet"]) == 0
    figures = json.loads((report / "metrics.json").read_text())
    assert figures["data"]["method"] is None
    assert figures["data"]["level"] == "B3LYP/6-31G(2df,p)"
    assert figures["models"][0]["trained_on_this_data"]
    assert figures["failures"] == []
    test = open_table(table)
    wrong = [
        abs(float(surrogate.predict(test.structure(key))["gap"]) - float(test.labels(["gap"], [key])["gap"][0]))
        for key in test.keys("test")
    ]
    assert figures["metrics"]["property"]["gap_error"]["mean"] == pytest.approx(np.mean(wrong), rel=1e-4)
    assert figures["metrics"]["property"]["gap_error_no_network"]["count"] == 3
    page = (report / "report.html").read_text()
    assert "B3LYP/6-31G(2df,p) · 3 molecules of the test split" in page
    assert "U0 less what its elements contribute" in page
    assert main(["inspect", str(run)]) == 0
    assert "level: B3LYP/6-31G(2df,p)" in capsys.readouterr().out


def test_what_needs_no_network_is_what_the_elements_contribute(table):
    model = model_of(table, "U0", "Cv", "gap", "mu", "alpha")
    data = open_table(table)
    train = [data.structure(key) for key in data.keys("train")]
    found = model.expected(train)
    counts = np.array([[(s.atomic_numbers == z).sum() for z in model.elements] for s in train], dtype=float)
    for name in ("U0", "Cv", "alpha"):
        labels = np.array(data.labels([name], data.keys("train"))[name])
        fitted = counts @ np.linalg.lstsq(counts, labels, rcond=1e-10)[0]
        np.testing.assert_allclose([own[name] for own in found], fitted + (labels - fitted).mean(), atol=1e-9)
    for name in ("gap", "mu"):
        labels = data.labels([name], data.keys("train"))[name]
        np.testing.assert_allclose([own[name] for own in found], np.mean(labels), rtol=1e-12)


def test_standardised_labels_have_the_spread_of_one(table):
    model = model_of(table, "U0", "gap")
    data = open_table(table)
    (labels,) = QUANTITY.read_labels(data, ["train"], model.settings, elements=model.elements, dtype=torch.float64)
    batch = labels.batch(range(len(labels)))
    for values in model.heads.standardise(batch.labels, batch.graph).values():
        assert values.mean().abs() < 1e-9
        assert values.square().mean().sqrt() == pytest.approx(1.0, abs=1e-9)


def test_training_learns(table, tmp_path):
    settings = [*SHORT, "model.targets=[alpha]", "training.steps=60", "training.validate_every=15"]
    settings += ["training.warmup_steps=5", "training.learning_rate=0.01"]
    train_surrogate("property", table, tmp_path / "run", overrides=settings, quiet=True)
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        losses = [float(row["train_loss"]) for row in csv.DictReader(file)]
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("encoder", [SMALL, {"network": "invariant", "channels": 8}], ids=["so2", "invariant"])
def test_invariants_are_invariant(encoder, table):
    data = open_table(table)
    assert_equivariant(model_of(table, "U0", "gap", "mu", "r2", encoder=encoder), [data.structure("gdb_14")])


def test_vectors_and_tensors_turn_with_the_molecule(tiny_store):
    model = model_of(tiny_store, *OF_STORES)
    store = Store.open(tiny_store)
    water = store.structure(store.keys()[0])
    assert_equivariant(model, [water])
    nearer = water.moved(water.positions * 0.9)
    assert_continuous(model, water, nearer)
    for improper in (False, True):
        rotation = random_rotation(3, improper=improper)
        moved = water.moved(water.positions @ rotation.T + np.array([1.0, -2.0, 0.5]))
        before, after = model.predict([water, moved])
        np.testing.assert_allclose(after["dipole"], rotation @ before["dipole"], atol=1e-9)
        np.testing.assert_allclose(after["quadrupole"], rotation @ before["quadrupole"] @ rotation.T, atol=1e-9)
        np.testing.assert_allclose(after["mulliken_charges"], before["mulliken_charges"], atol=1e-9)
    assert before["mulliken_charges"].sum() == pytest.approx(0.0, abs=1e-9)
    assert np.trace(before["quadrupole"]) == pytest.approx(0.0, abs=1e-9)
    order = np.array([2, 0, 1])
    turned = Structure(water.atomic_numbers[order], water.positions[order])
    np.testing.assert_allclose(
        model.predict([turned])[0]["mulliken_charges"], before["mulliken_charges"][order], atol=1e-9
    )


def test_labels_of_a_store_are_those_of_pyscf(tiny_store):
    store = Store.open(tiny_store)
    data = labelled(store)
    assert "forces" not in data.targets
    keys = data.keys("test")
    found = data.labels([*OF_STORES, "homo", "lumo", "mu"], keys)
    for i, record in enumerate(store.read_many(keys)):
        mol = build_molecule(record.structure, store.spec.method)
        centre = np.average(mol.atom_coords(), axis=0, weights=mol.atom_charges())
        charges = scf.hf.mulliken_pop(mol, record.density_matrix, record.overlap, verbose=0)[1]
        np.testing.assert_allclose(found["mulliken_charges"][i], charges, atol=1e-9)
        quadrupole = scf.hf.quad_moment(mol, record.density_matrix, unit="AU", origin=centre, verbose=0)
        np.testing.assert_allclose(found["quadrupole"][i], quadrupole, atol=1e-9)
        with mol.with_common_origin(centre):
            extent = np.einsum("ij,ji->", mol.intor("int1e_r2"), record.density_matrix)
        assert found["r2"][i] == pytest.approx(extent, abs=1e-9)
        occupied = record.mo_energy[record.mo_occ > 0].max()
        assert found["homo"][i] == occupied
        assert found["gap"][i] == pytest.approx(record.mo_energy[record.mo_occ == 0].min() - occupied)
        assert found["mu"][i] == pytest.approx(np.linalg.norm(record.dipole))
    stored = data.labels(["energy", "dipole"], keys)  # read without the matrices
    np.testing.assert_array_equal(stored["energy"], found["energy"])
    np.testing.assert_array_equal(stored["dipole"], found["dipole"])


def test_a_store_is_learned_with_all_it_holds(tiny_store, tmp_path):
    run, report = tmp_path / "run", tmp_path / "report"
    targets = f"model.targets=[{', '.join(OF_STORES)}]"
    train_surrogate("property", tiny_store, run, overrides=[*SHORT, targets], quiet=True)
    surrogate = qcsurrogate.load(run)
    assert surrogate.method == Store.open(tiny_store).spec.method
    assert surrogate.level == "pbe/sto-3g"
    store = Store.open(tiny_store)
    prediction = surrogate.predict(store.structure(store.keys()[0]))
    assert {name: value.shape for name, value in prediction.values.items()} == {
        "energy": (),
        "gap": (),
        "dipole": (3,),
        "quadrupole": (3, 3),
        "r2": (),
        "mulliken_charges": (3,),
    }
    qcsurrogate.save_predictions(prediction, tmp_path / "p.npz")
    (again,) = qcsurrogate.load_predictions(tmp_path / "p.npz")
    np.testing.assert_array_equal(again["quadrupole"], prediction["quadrupole"])
    assert main(["compare", str(run), "--data", str(tiny_store), "--out", str(report), "--quiet"]) == 0
    figures = json.loads((report / "metrics.json").read_text())["metrics"]["property"]
    assert {"energy_error", "dipole_error", "quadrupole_error", "mulliken_charges_error"} <= figures.keys()
    assert figures["dipole_error"]["definition"] == "|mu - mu_KS|"


def test_a_model_that_goes_on_with_other_molecules(run, tmp_path):
    other = tmp_path / "other.yaml"
    other.write_text(TABLE.replace("seed: 1", "seed: 2"))
    tuned = tmp_path / "tuned"
    assert main(["train", "property", str(other), "--out", str(tuned), "--from", str(run), *options(), "--quiet"]) == 0
    before, after = (read_model(path / "model.safetensors") for path in (run, tuned))
    assert after[0].description()["statistics"] == before[0].description()["statistics"]
    assert after[1].dataset_hashes == [open_table(other).dataset_hash(), before[1].dataset_hash]
    assert after[1].domain.atoms[1] >= before[1].domain.atoms[1]


def test_a_learning_curve_of_a_table(table, tmp_path):
    curve = qcsurrogate.learning_curve(
        "property", table, tmp_path, sizes=[6, 10], overrides=[*SHORT, "model.targets=[alpha, gap]"], quiet=True
    )
    assert [point.size for point in curve.points] == [6, 10]
    assert {"alpha_error", "gap_error"} <= set(curve.shown)
    assert (tmp_path / "learning_curve.png").is_file()


def test_electronic_inputs(tiny_store, tiny_runs, tmp_path):
    settings = [*SHORT, "model.targets=[gap, energy]", "model.encoder.inputs=electronic"]
    settings += [f"model.encoder.h0_from={tiny_runs['hamiltonian']}"]
    train_surrogate("property", tiny_store, tmp_path / "run", overrides=settings, quiet=True)
    surrogate = qcsurrogate.load(tmp_path / "run")  # which needs no other file
    store = Store.open(tiny_store)
    water = store.structure(store.keys("test")[0])
    guess = surrogate.expected(water)["gap"]
    truth = float(labelled(store).labels(["gap"], store.keys("test")[:1])["gap"][0])
    assert guess == pytest.approx(truth, abs=0.05)
    model = surrogate.model.double()
    perturb(model)
    assert_equivariant(model, [water], tolerance=1e-8)


def test_what_a_model_was_not_trained_on_is_refused(run):
    surrogate = qcsurrogate.load(run)
    with pytest.raises(DomainError, match=r"has charge 1 and spin 1 .*this property model was trained on charge 0"):
        surrogate.predict(Structure([8, 1, 1], [[0, 0, 0], [0, 0, 1.8], [1.8, 0, 0]], charge=1, spin=1))
    with pytest.raises(DomainError, match="holds S; this property model was trained on H, C, N, O only"):
        surrogate.predict(Structure([16, 1, 1], [[0, 0, 0], [0, 0, 2.5], [2.5, 0, 0]]))
    with pytest.warns(UserWarning, match="outside the training data"):
        surrogate.predict(Structure([8, 1, 1], [[0, 0, 0], [0, 0, 3.0], [3.0, 0, 0]]))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["model.targets=[u0]"], r"holds no target 'u0'; .*did you mean 'U0'\?"),
        ([], "no target was named; expected some of mu, alpha"),
        (["model.targets=[U0]", "model.weights={U=3}"], "model.weights"),
        (["model.targets=[U0]", "model.weights={U: 3}"], r"model\.weights: 'U' is none of model\.targets"),
        (["model.targets=[U0]", "model.readouts={U0: quadrupole}"], "a scalar has no readout 'quadrupole'"),
        (["model.targets=[gap]", "model.readouts={gap: gap}"], "needs electronic inputs"),
    ],
)
def test_settings_that_cannot_be(settings, words, table, tmp_path):
    with pytest.raises(SpecError, match=words) as caught:
        train_surrogate("property", table, tmp_path, overrides=[*SHORT, *settings], quiet=True)
    assert len(str(caught.value).splitlines()) == 1


def test_states_that_a_geometry_does_not_tell_apart_are_refused(tmp_path):
    path = tmp_path / "ions.npz"
    numbers = np.tile([8, 1], 12)
    positions = np.tile([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]], (12, 1)) * np.linspace(0.9, 1.1, 24)[:, None]
    labels = {"targets": np.arange(12.0)[:, None], "target_names": np.array(["x"]), "target_units": np.array(["1"])}
    state = {"charge": np.array([-1, 1] * 6), "spin": np.array([0, 0] * 6)}
    np.savez(path, atomic_numbers=numbers, positions_angstrom=positions, num_atoms=np.full(12, 2), **labels, **state)
    with pytest.raises(StoreError, match=r"several charges or spins \(charge -1 with spin 0, charge 1 with spin 0\)"):
        train_surrogate("property", path, tmp_path / "run", overrides=[*SHORT, "model.targets=[x]"], quiet=True)
    with pytest.raises(SpecError, match="holds structures and no labels"):
        train_surrogate("property", "qm9_small", tmp_path / "run", overrides=[*SHORT, "model.targets=[x]"], quiet=True)


def test_matrices_cannot_be_learned_from_a_table(table, tmp_path, run, tiny_store, capsys):
    with pytest.raises(StoreError, match="is a table of structures; expected a store: density models learn from"):
        train_surrogate("density", table, tmp_path / "run")
    assert main(["train", "hamiltonian", "qm9_properties", "--out", str(tmp_path / "h")]) == StoreError.exit_code
    assert "is a table of structures" in capsys.readouterr().err
    assert main(["compare", str(run), "--data", str(tiny_store), "--out", str(tmp_path / "r")]) == DomainError.exit_code
    words = capsys.readouterr().err
    assert "level of theory B3LYP/6-31G(2df,p) against pbe/sto-3g" in words
    assert "target U0 is not among its labels" in words


def test_a_hamiltonian_model_is_not_compared_with_a_table(tiny_runs, tmp_path):
    with pytest.raises(StoreError, match="is measured against Kohn-Sham references"):
        qcsurrogate.compare([tiny_runs["hamiltonian"]], "qm9_properties", tmp_path, quiet=True)
