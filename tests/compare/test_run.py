from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qcsurrogate.comparison import run, session
from qcsurrogate.comparison.figures import SHARED
from qcsurrogate.comparison.run import compare, compare_subjects
from qcsurrogate.comparison.schema import read_comparison
from qcsurrogate.comparison.subjects import _labels, check_domain, differences, read_curves
from qcsurrogate.domain import Domain, OutsideTrainingDomain
from qcsurrogate.errors import ConvergenceError, DomainError, ModelFileError, OutputError, SpecError, StoreError
from qcsurrogate.reference.settings import EvenTempered
from qcsurrogate.store.header import Extent
from tests.compare.conftest import METHOD, settings
from tests.compare.known import known_density, known_hamiltonian, symmetric_noise


def _maxima(comparison, label):
    return {name: summary.max for name, summary in comparison.metrics[label].items()}


def test_a_record_as_its_own_prediction_has_no_error(perfect):
    worst = _maxima(perfect[0], "hamiltonian")
    for name in ("hamiltonian_mae", "hamiltonian_largest_error", "hamiltonian_frobenius_per_sqrt_n"):
        assert worst[name] < 1e-12
    for name in ("occupied_energy_mae", "homo_error", "lumo_error", "gap_error", "occupied_subspace_defect"):
        assert worst[name] < 1e-10
    assert worst["density_nmae"] < 1e-3
    assert worst["one_shot_energy_error"] < 1e-8
    assert worst["commutator_norm"] < 1e-4
    assert worst["scf_cycles"] <= 3  # the labels themselves are converged to conv_tol_grad only
    assert worst["scf_energy_difference"] < 1e-8
    assert worst["baseline_mae"] > 1e-3
    density = _maxima(perfect[0], "density")
    assert density["density_nmae_network"] == 0.0
    assert density["density_nmae_over_fit_floor"] == pytest.approx(1.0)
    assert density["density_nmae"] == density["density_nmae_fit_floor"] > 0.1
    assert density["dipole_error_network"] == density["hartree_energy_error_network"] == 0.0
    assert density["dipole_error"] == density["dipole_error_fit_floor"] > 0.0
    assert density["electron_count_error"] < 1e-8


def test_a_shift_of_all_levels_moves_the_levels_and_nothing_else(store):
    """H + s S has the same orbitals, all energies s higher."""
    shift = 1e-3
    subject = known_hamiltonian(store, lambda r: shift * r.overlap)
    comparison, _ = compare_subjects([subject], store, settings(scf_molecules=1), quiet=True)
    values = comparison.metrics["hamiltonian"]
    for name in ("occupied_energy_mae", "homo_error", "lumo_error"):
        assert values[name].mean == pytest.approx(shift, rel=1e-8)
        assert values[name].count == 5
    assert values["gap_error"].max < 1e-12
    assert values["occupied_subspace_defect"].max < 1e-14
    expected = [np.abs(shift * r.overlap).mean() for r in store.read_many(store.keys("test"))]
    assert values["hamiltonian_mae"].mean == pytest.approx(np.mean(expected))
    assert values["hamiltonian_mae"].max == pytest.approx(np.max(expected))


def test_breakdown_of_a_change_of_one_block(store):
    """Only the hydrogen-hydrogen block is wrong: nothing else may be blamed."""

    def change(record):
        wrong = np.zeros_like(record.hamiltonian)
        wrong[5, 6] = wrong[6, 5] = 2e-4  # sto-3g water: five functions on O, one on each H
        return wrong

    comparison, showcase = compare_subjects(
        [known_hamiltonian(store, change)], store, settings(scf_molecules=0, density_molecules=0), quiet=True
    )
    found = comparison.breakdowns["hamiltonian"]
    pairs = {(p.first, p.second, p.atoms): p for p in found.element_pairs}
    assert pairs["H", "H", "different"].mean == pytest.approx(2e-4)
    assert pairs["H", "H", "different"].count == 5
    assert max(p.max for name, p in pairs.items() if name != ("H", "H", "different")) < 1e-12
    shells = {(p.first, p.second, p.atoms): p.mean for p in found.shell_pairs}
    assert shells["H 1s", "H 1s", "different"] == pytest.approx(2e-4)
    assert shells["O 1s", "O 2s", "same"] < 1e-12
    assert ("O 2p", "O 2p", "different") not in shells
    near, far = found.distances  # O-H and H-H
    assert (near.count, far.count) == (10, 5)
    assert near.max < 1e-12
    assert far.mean == pytest.approx(2e-4)
    assert near.stop_angstrom < 1.2 < far.start_angstrom
    blocks = showcase.judges["hamiltonian"].blocks
    distances, errors = np.concatenate(blocks.distances), np.concatenate(blocks.errors)
    assert distances[errors > 1e-6].min() == far.start_angstrom
    assert comparison.metrics["hamiltonian"]["hamiltonian_mae"].mean == pytest.approx(4e-4 / 49)


def test_elements_pairs_add_up_to_the_matrix(compared):
    comparison, showcase = compared
    sizes = {"H": 1, "O": 5}
    total = sum(
        p.mean * p.count * sizes[p.first] * sizes[p.second] * (1 if p.atoms == "same" else 2)
        for p in comparison.breakdowns["hamiltonian"].element_pairs
    )
    assert total / 5 / 49 == pytest.approx(comparison.metrics["hamiltonian"]["hamiltonian_mae"].mean)
    assert len(showcase.judges["hamiltonian"].levels) == 5


def test_every_summary_is_that_of_the_molecules(compared):
    comparison, showcase = compared
    assert len(comparison.molecules) == 5
    for label, figures in comparison.metrics.items():
        known = {f.name: f for f in (*SHARED, *showcase.judges[label].figures)}
        measured = {name for m in comparison.molecules for name in m.values[label]}
        assert figures.keys() == measured
        for name, summary in figures.items():
            values = [m.values[label][name] for m in comparison.molecules if name in m.values[label]]
            assert comparison.values(label, name) == values
            assert summary.count == len(values)
            assert summary.mean == pytest.approx(np.mean(values))
            assert summary.max == max(values)
            assert (summary.unit, summary.definition) == (known[name].unit, known[name].definition)
            assert summary.shown == (known[name].shown or known[name].unit)


def test_subsets_are_as_large_as_asked_for(compared):
    metrics = compared[0].metrics
    assert metrics["hamiltonian"]["hamiltonian_mae"].count == 5
    assert metrics["hamiltonian"]["density_nmae"].count == metrics["density"]["density_nmae"].count == 4
    assert metrics["hamiltonian"]["scf_cycles"].count == len(compared[0].scf) == 3
    assert compared[0].trust["hamiltonian"].molecules == 3


def test_the_parts_of_the_density_error_obey_the_triangle_inequality(compared):
    for molecule in compared[0].molecules:
        values = molecule.values["density"]
        if "density_nmae" in values:
            floor, network = values["density_nmae_fit_floor"], values["density_nmae_network"]
            assert abs(floor - network) <= values["density_nmae"] <= floor + network


def test_saving_is_totals_over_totals(compared):
    comparison, _ = compared
    saving = comparison.saving["hamiltonian"]
    before = sum(row.minao.cycles for row in comparison.scf)
    after = sum(row.surrogates["hamiltonian"].cycles for row in comparison.scf)
    assert saving.cycle_ratio == pytest.approx(after / before)
    assert saving.share_converged == saving.share_converged_minao == 1.0
    row = comparison.scf[0]
    values = next(m for m in comparison.molecules if m.key == row.key).values["hamiltonian"]
    assert values["scf_wall_time"] == pytest.approx(row.surrogates["hamiltonian"].wall_time + values["prediction_time"])


def test_the_headline_names_what_the_demo_prints(compared):
    items = {(item.model, item.name): item for item in compared[0].headline}
    assert items["hamiltonian", "hamiltonian_mae"].shown.endswith("µEh")
    assert "% of the wall time. 3 of 3 SCFs converge." in items["hamiltonian", "scf_cycles"].verdict
    assert "auxiliary basis" in items["density", "density_nmae_over_fit_floor"].verdict
    assert items["density", "density_nmae"].title == "Density error · density"
    assert items["hamiltonian", "density_nmae"].title == "Density error · hamiltonian"
    assert items["hamiltonian", "hamiltonian_mae"].rating == "good"
    assert "of H0 alone." in items["hamiltonian", "hamiltonian_mae"].verdict


def test_a_bad_model_is_called_bad(store):
    subject = known_hamiltonian(store, symmetric_noise(0.02))
    comparison, _ = compare_subjects([subject], store, settings(scf_molecules=2), quiet=True)
    ratings = {item.name: item.rating for item in comparison.headline}
    assert ratings["hamiltonian_mae"] == ratings["occupied_energy_mae"] == "poor"


def test_the_same_seed_chooses_the_same_molecules(store):
    subjects = [known_hamiltonian(store)]

    def chosen(seed):
        asked = settings(limit=2, scf_molecules=0, density_molecules=1, seed=seed)
        found, _ = compare_subjects(subjects, store, asked, quiet=True)
        return [(m.key, "density_nmae" in m.values["hamiltonian"]) for m in found.molecules]

    assert chosen(1) == chosen(1)
    assert len(chosen(1)) == 2
    assert len({tuple(chosen(seed)) for seed in range(6)}) > 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"basis": "def2-svp"}, "basis def2-svp against sto-3g"),
        ({"xc": "b3lyp"}, "functional b3lyp against pbe"),
        ({"auxiliary_basis": EvenTempered(even_tempered_beta=2.0)}, "auxiliary basis even-tempered, beta = 2 against"),
        (
            {"auxiliary_basis": EvenTempered(even_tempered_beta=2.0, diffuse=1, higher_l=2)},
            "auxiliary basis even-tempered, beta = 2, diffuse = 1, higher_l = 2 against def2-universal-jfit",
        ),
    ],
)
def test_models_of_another_method_are_refused(store, change, words):
    subject = known_density(store, method=METHOD.model_copy(update=change))
    with pytest.raises(DomainError, match=words):
        check_domain(subject, store, [store.structure(key) for key in store.keys("test")])


def test_models_of_other_elements_are_refused(store):
    subject = known_hamiltonian(store)
    subject.surrogate.elements = (1,)
    with pytest.raises(DomainError, match="trained on H only"):
        compare_subjects([subject], store, settings(), quiet=True)


def test_harmless_differences_are_noted(store):
    subject = known_hamiltonian(store, method=METHOD.model_copy(update={"grid_level": 4}))
    assert differences(subject, store) == ["grid_level of the training data is 4, of this store 1"]
    looser = known_hamiltonian(store, method=METHOD.model_copy(update={"conv_tol": 1e-8}))
    words = "conv_tol of the training data is 1.00 \u00d7 10⁻⁸, of this store 1.00 \u00d7 10⁻¹⁰"
    assert differences(looser, store) == [words]
    object.__setattr__(subject.surrogate.metadata, "dataset_hash", "another")
    assert any("other data" in note for note in differences(subject, store))
    grown = replace(store, header=replace(store.header, earlier=(Extent("0" * 64, 7, "another"),)))
    assert f"trained on this store when it had 7 of its {len(store.plan)} structures, in the same parts" in (
        differences(subject, grown)
    )
    assert (store.has_been("another"), grown.has_been("another")) == (False, True)


def test_what_a_fine_tuned_model_saw_before_counts(store):
    own, unknown = store.dataset_hash(), "whether it has seen these molecules in training is not known"

    def notes(*hashes):
        subject, origin = known_hamiltonian(store), None
        for seen in reversed(hashes[1:]):
            origin = {"dataset_hash": seen, "origin": origin}
        object.__setattr__(subject.surrogate.metadata, "dataset_hash", hashes[0])
        object.__setattr__(subject.surrogate.metadata, "training", {"origin": origin})
        comparison, _ = compare_subjects([subject], store, settings(limit=1), quiet=True)
        found = [note for note in comparison.models[0].notes if "trained on" in note]
        return comparison.models[0].trained_on_this_data, found

    assert notes(own, own) == (True, [])
    for hashes in ((own, "other"), ("other", own), (own, own, "other")):
        assert notes(*hashes) == (False, [f"trained on this store and on other data: {unknown}"])
    assert notes("other", "others") == (False, [f"trained on other data than this store: {unknown}"])


def test_what_is_not_finite_is_listed_and_left_out(store):
    bad = store.keys("test")[0]

    def change(record):
        return np.full_like(record.hamiltonian, np.nan if record.structure.key == store.structure(bad).key else 0.0)

    comparison, _ = compare_subjects([known_hamiltonian(store, change)], store, settings(scf_molecules=5), quiet=True)
    assert comparison.metrics["hamiltonian"]["hamiltonian_mae"].count == 4
    assert comparison.metrics["hamiltonian"]["scf_cycles"].count == 4
    assert {(f.key, f.stage) for f in comparison.failures} == {(bad, "comparison"), (bad, "SCF")}
    assert "not finite" in comparison.failures[0].message


def test_a_model_that_always_fails_is_an_error(store):
    subject = known_hamiltonian(store, lambda r: np.full_like(r.hamiltonian, np.nan))
    with pytest.raises(DomainError, match="any of 5 molecules"):
        compare_subjects([subject], store, settings(), quiet=True)


def test_a_prediction_that_fails_is_found_in_its_batch(store):
    bad = store.structure(store.keys("test")[1]).key

    def change(record):
        if record.structure.key == bad:
            raise ArithmeticError("overflow in the network")
        return np.zeros_like(record.hamiltonian)

    comparison, _ = compare_subjects([known_hamiltonian(store, change)], store, settings(scf_molecules=0), quiet=True)
    assert [f.stage for f in comparison.failures] == ["prediction"]
    assert comparison.metrics["hamiltonian"]["hamiltonian_mae"].count == 4


def test_a_molecule_that_fails_in_the_scf_is_listed_not_fatal(store, monkeypatch):
    asked = settings(scf_molecules=5, density_molecules=0)
    bad = store.keys("test")[2]
    original = session.run_scf

    def broken(structure, *args, **kwargs):
        if structure.key == store.structure(bad).key:
            raise ConvergenceError("no luck")
        return original(structure, *args, **kwargs)

    monkeypatch.setattr(session, "run_scf", broken)
    comparison, _ = compare_subjects([known_hamiltonian(store)], store, asked, quiet=True)
    assert [(f.key, f.stage) for f in comparison.failures] == [(bad, "SCF")]
    assert len(comparison.scf) == 4


def test_scfs_that_do_not_converge_are_counted_as_such(store, monkeypatch):
    original = session.run_scf

    def limited(structure, method, density_matrix=None, **kwargs):
        short = method.model_copy(update={"max_cycle": 2}) if density_matrix is None else method
        return original(structure, short, density_matrix, **kwargs)

    monkeypatch.setattr(session, "run_scf", limited)
    comparison, _ = compare_subjects(
        [known_hamiltonian(store)], store, settings(scf_molecules=2, density_molecules=0), quiet=True
    )
    saving = comparison.saving["hamiltonian"]
    assert (saving.share_converged, saving.share_converged_minao, saving.converged_both) == (1.0, 0.0, 0)
    assert saving.cycle_ratio is None
    assert {f.message for f in comparison.failures} == {"not converged from minao"}


@pytest.fixture
def loaded(store, monkeypatch):
    """``compare`` with known models in place of files."""
    monkeypatch.setattr(run, "load_subjects", lambda paths: [known_hamiltonian(store, symmetric_noise(1e-5))])
    return store


def test_compare_writes_what_it_returns(loaded, tmp_path, capsys):
    out = tmp_path / "deep" / "report"
    result = compare(["run"], loaded.path, out, scf_molecules=1, density_molecules=1, quiet=True)
    text = (out / "metrics.json").read_text(encoding="utf-8")
    assert json.loads(text) == result
    assert read_comparison(out / "metrics.json").metrics["hamiltonian"]["hamiltonian_mae"].count == 5
    assert "NaN" not in text
    assert (out / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert sorted(p.name for p in out.iterdir()) == ["metrics.json", "report.html"]
    assert capsys.readouterr() == ("", "")


def test_progress_goes_to_standard_error(loaded, tmp_path, capsys):
    compare(["run"], loaded.path, tmp_path, limit=2, scf_molecules=1, density_molecules=0)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "comparing: 2/2 in " in captured.err
    assert "running SCFs: 1/1 in " in captured.err


def test_an_empty_split_is_an_error(loaded, monkeypatch, tmp_path):
    original = type(loaded).keys
    monkeypatch.setattr(type(loaded), "keys", lambda self, split=None: original(self, split) if split != "test" else [])
    with pytest.raises(
        StoreError, match=r"no complete record in the split 'test' \(train: 2, validation: 1, test: 0\)"
    ):
        compare(["run"], loaded.path, tmp_path, quiet=True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"split": "tset"}, "did you mean 'test'"),
        ({"limit": 0}, "limit: expected greater than or equal to 1, got 0"),
        ({"scf_molecules": -1}, "scf_molecules: expected greater than or equal to 0, got -1"),
        ({"threads": 0}, "threads: expected greater than or equal to 1, got 0"),
    ],
)
def test_arguments_are_checked_first(tmp_path, options, words):
    with pytest.raises(SpecError, match=words):
        compare(["nowhere"], "nowhere", tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_files_that_are_not_there(store, tmp_path):
    with pytest.raises(ModelFileError):
        compare([tmp_path / "none.safetensors"], store.path, tmp_path)
    with pytest.raises(SpecError, match="no model to compare"):
        compare([], store.path, tmp_path)


def test_a_folder_that_cannot_be_written_is_refused_before_any_work(store, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write to the folder"):
        compare(["nowhere"], store.path, tmp_path / "file")


@pytest.mark.parametrize("content", ["", "{}", "[]", "not json", '{"schema_version": "3"}'])
def test_a_foreign_metrics_file_is_refused(tmp_path, content):
    (tmp_path / "metrics.json").write_text(content)
    with pytest.raises(StoreError, match=r"metrics\.json' is not a qcsurrogate-comparison of schema version 4: "):
        read_comparison(tmp_path / "metrics.json")
    with pytest.raises(StoreError, match="cannot read"):
        read_comparison(tmp_path / "missing.json")


def test_a_metrics_file_of_an_older_schema_is_refused_by_its_version(compared, tmp_path):
    old = compared[0].model_dump(mode="json") | {"schema_version": 1}
    (tmp_path / "metrics.json").write_text(json.dumps(old))
    words = "is of schema version 1, expected 4; write it again with 'qcsurrogate compare'"
    with pytest.raises(StoreError, match=words):
        read_comparison(tmp_path / "metrics.json")


def test_models_of_one_kind_are_told_apart():
    kinds = ["hamiltonian", "density", "hamiltonian", "hamiltonian"]
    files = [Path(name) / "model.safetensors" for name in ("a/run", "b/run", "c/other", "d/run")]
    assert _labels(kinds, files) == ["hamiltonian (run)", "density", "hamiltonian (other)", "hamiltonian (run) 2"]


def test_training_logs_are_read_as_far_as_they_go(tmp_path):
    log = tmp_path / "metrics.csv"
    log.write_text(
        "step,time_s,train_loss,learning_rate,validation_hamiltonian_mae\n"
        "10,6,0.5,1e-3,\n20,12,nan,1e-3,2e-5\n30,18,0.25,1e-3,1e-5\n40,oops,1,1,1\n50"
    )
    loss, validation = read_curves(log)
    assert (loss.name, loss.seconds, loss.values) == ("train_loss", (6.0, 18.0), (0.5, 0.25))
    assert (validation.name, validation.values) == ("validation_hamiltonian_mae", (2e-5, 1e-5))
    assert read_curves(tmp_path / "missing.csv") == ()
    log.write_bytes(b"\xff\xfe\x00binary")
    assert read_curves(log) == ()


@pytest.mark.parametrize(
    ("known", "words"),
    [
        (True, "5 of 5 molecules lie outside of its training data, '.+' among them"),
        (False, "the model file does not say what it was trained on: whether molecules lie outside of it is not known"),
    ],
)
def test_molecules_outside_of_the_training_data_are_a_note(store, known, words, recwarn):
    subject = known_hamiltonian(store)
    water = store.structure(store.keys("train")[0])
    wide = Domain.fit([water.moved(3.0 * water.positions)]) if known else None
    subject.surrogate.metadata = subject.surrogate.metadata.model_copy(update={"domain": wide})
    comparison, _ = compare_subjects([subject], store, settings(scf_molecules=0, density_molecules=0), quiet=True)
    assert re.fullmatch(words, comparison.models[0].notes[-1])
    assert not [w for w in recwarn if issubclass(w.category, OutsideTrainingDomain)]
