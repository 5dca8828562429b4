"""From a store of radicals and ions to densities of both spins: labels, training, predictions, files, comparison."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase.io.cube import read_cube
from pyscf import gto
from pyscf.dft import numint

from qcsurrogate import load, load_predictions, save_predictions
from qcsurrogate.cli import main
from qcsurrogate.comparison.measure import Reference
from qcsurrogate.comparison.run import compare
from qcsurrogate.comparison.subjects import check_domain, load_subjects
from qcsurrogate.data.datasets import read_split
from qcsurrogate.data.graphs import GraphSettings
from qcsurrogate.data.potentials import potentials_of
from qcsurrogate.density.expansion import complete_basis, complete_coefficients, complete_spin_coefficients
from qcsurrogate.errors import BasisError, DomainError, SpecError, StoreError, TrainingError
from qcsurrogate.files.yaml_model import parse_yaml
from qcsurrogate.pipeline import train_surrogate
from qcsurrogate.quantities.density.judge import DensityJudge
from qcsurrogate.quantities.density.labels import DensityDataset
from qcsurrogate.quantities.density.prediction import DensityPrediction
from qcsurrogate.quantities.density.start import StartingDensity
from qcsurrogate.reference.density_fit import charges
from qcsurrogate.reference.record import ReferenceRecord
from qcsurrogate.reference.settings import Method
from qcsurrogate.store.store import Store
from qcsurrogate.structures import Structure
from qcsurrogate.units import ANGSTROM_PER_BOHR
from tests.conftest import SHORT_TRAINING

ELEMENTS = [1, 7, 8]


@pytest.fixture(scope="module")
def run(folder: Path, store: Store) -> Path:
    train_surrogate("density", store.path, folder / "density", overrides=SHORT_TRAINING, quiet=True)
    return folder / "density"


@pytest.fixture(scope="module")
def predictions(run: Path, store: Store) -> list[DensityPrediction]:
    """Of all structures of the store."""
    found: list[DensityPrediction] = load(run).predict(list(map(store.structure, store.keys())))
    return found


def exact(record: ReferenceRecord, store: Store) -> DensityPrediction:
    """What a perfect network would give."""
    basis, structure = store.spec.method.density_basis(ELEMENTS), record.structure
    assert record.density_components is not None
    total, spin = record.density_components
    coefficients = complete_coefficients(structure, basis, total, store.atoms)
    return DensityPrediction(
        structure, complete_basis(basis, store.atoms), coefficients, complete_spin_coefficients(structure, basis, spin)
    )


def test_labels_and_starts_are_total_and_spin_density(store: Store) -> None:
    method, start = store.spec.method, StartingDensity(potentials_of(store, ELEMENTS), store.atoms)
    orbital, basis = method.orbital_basis(ELEMENTS), method.density_basis(ELEMENTS)
    data = DensityDataset.from_store(store, "train", GraphSettings(4, 5.0), dtype=torch.float64, start=start)
    assert data.n_components == 2
    for index, key in enumerate(data.keys):
        record, batch = store.read(key), data.batch([index])
        structure = record.structure
        known = start.coefficients(structure, orbital, basis, unrestricted=True)
        integrals = charges(basis.build_mol(structure))
        np.testing.assert_allclose(known @ integrals, [-structure.charge, structure.spin], atol=1e-9)
        if structure.spin == 0:
            assert not known[1].any()
            np.testing.assert_allclose(known[0], start.coefficients(structure, orbital, basis), atol=1e-9)
        starts = basis.offsets(structure.atomic_numbers)
        for rows, expected in (
            (batch.atom_rows, np.stack([record.density_coefficients, record.spin_density_coefficients])),
            (batch.inputs, known),
        ):
            taken = dict.fromkeys(structure.atomic_numbers.tolist(), 0)
            for atom, z in enumerate(structure.atomic_numbers.tolist()):
                internal = dict(rows)[z][taken[z]].numpy().reshape(2, -1)
                taken[z] += 1
                own = np.empty_like(internal)
                own[:, basis[z].internal_order] = internal
                found = own @ data.functions[z].transform.T
                np.testing.assert_allclose(found, expected[:, starts[atom] : starts[atom + 1]], atol=1e-9)


def test_every_state_is_predicted_with_its_electrons(predictions: list[DensityPrediction], run: Path) -> None:
    states = set()
    for prediction in predictions:
        structure = prediction.structure
        states.add((structure.charge, structure.spin))
        assert prediction.electron_count == pytest.approx(structure.n_electrons, abs=1e-9)
        assert prediction.unpaired_electrons == pytest.approx(structure.spin, abs=1e-9)
        assert prediction.spin_density_coefficients.any() == (structure.spin > 0)
    assert states == {(0, 0), (1, 1), (0, 2), (-1, 0)}
    alone = load(run).predict(predictions[0].structure)
    np.testing.assert_allclose(alone.density_coefficients, predictions[0].density_coefficients, atol=1e-5)
    np.testing.assert_allclose(alone.spin_density_coefficients, predictions[0].spin_density_coefficients, atol=1e-5)


def test_files_hold_both_densities(predictions: list[DensityPrediction], tmp_path: Path) -> None:
    for name in ("both.npz", "both.h5"):
        save_predictions(predictions, tmp_path / name)
        for saved, prediction in zip(load_predictions(tmp_path / name), predictions, strict=True):
            assert isinstance(saved, DensityPrediction)
            np.testing.assert_array_equal(saved.density_coefficients, prediction.density_coefficients)
            np.testing.assert_array_equal(saved.spin_density_coefficients, prediction.spin_density_coefficients)
            assert saved.unpaired_electrons == prediction.unpaired_electrons
            assert saved.structure.spin == prediction.structure.spin


def test_a_file_alone_is_enough_for_the_spin_density(predictions: list[DensityPrediction], tmp_path: Path) -> None:
    """NumPy and PySCF, and nothing of this package."""
    chosen = next(p for p in predictions if p.structure.spin == 2)
    save_predictions([chosen], tmp_path / "one.npz")
    with np.load(tmp_path / "one.npz", allow_pickle=False) as file:
        header, own = json.loads(file["header"][()]), {k.split("/")[1]: file[k] for k in file.files if "/" in k}
    atoms = list(zip(own["atomic_numbers"].tolist(), own["positions"].tolist(), strict=True))
    basis = header["density_basis"]["elements"]
    mol = gto.M(atom=atoms, unit="Bohr", basis=basis, charge=int(own["charge"]), spin=int(own["spin"]), verbose=0)
    points = chosen.structure.positions + 0.3
    values = mol.eval_gto("GTOval_sph", points) @ own["spin_density_coefficients"]
    np.testing.assert_allclose(values, chosen.spin_density(points), rtol=1e-9)
    assert header["units"]["spin_density_coefficients"] == "e bohr^-1.5"
    assert own["unpaired_electrons"] == pytest.approx(2.0, abs=1e-9)
    assert header["structures"][0]["unpaired_electrons"] == pytest.approx(2.0, abs=1e-9)
    assert any("alpha less that of beta" in sentence for sentence in header["conventions"])


def test_spin_densities_on_points_and_in_a_cube(
    store: Store, records: dict[str, ReferenceRecord], tmp_path: Path
) -> None:
    for name, record in records.items():
        prediction = exact(record, store)
        points = record.structure.positions + 0.3
        mol = store.spec.method.orbital_basis(ELEMENTS).build_mol(record.structure)
        expected = numint.eval_rho(mol, numint.eval_ao(mol, points), record.spin_density_matrix)
        np.testing.assert_allclose(prediction.spin_density(points), expected, atol=0.02)  # the fit's
        assert np.abs(expected).max() > 0.04 or record.structure.spin == 0, name
    prediction = exact(records["cation"], store)
    prediction.write_spin_cube(tmp_path / "spin.cube", resolution=1.0, margin=2.0)
    with (tmp_path / "spin.cube").open() as file:
        cube = read_cube(file)
    point = cube["origin"] / ANGSTROM_PER_BOHR + 2.0
    assert cube["data"][2, 2, 2] == pytest.approx(prediction.spin_density(point)[0], rel=1e-4)
    assert (tmp_path / "spin.cube").read_text().startswith("spin density of ")


def test_the_command_line_predicts_open_shells(run: Path, folder: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out.npz"
    assert main(["predict", str(run), str(folder / "mixed.xyz"), "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    for entry in told["structures"]:
        assert entry["unpaired_electrons"] == pytest.approx(entry["spin"], abs=1e-9)


def test_the_page_on_densities_says_what_works(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "densities.md").read_text(encoding="utf-8")
    (method,) = re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL)
    assert Method.model_validate(parse_yaml(method, "densities.md")["method"]).density_basis([1, 6]).l_max == 6
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "density").symlink_to(run)
    monkeypatch.chdir(tmp_path)
    (snippet,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(snippet, "densities.md", "exec"), names)
    assert names["p"].electron_count == pytest.approx(8.0, abs=1e-9)
    assert names["p"].unpaired_electrons == pytest.approx(2.0, abs=1e-9)
    assert (tmp_path / "spin.cube").is_file()


def test_both_densities_are_compared(run: Path, store: Store, tmp_path: Path) -> None:
    result = compare([run], store.path, tmp_path / "report", split="train", limit=2, scf_molecules=0, quiet=True)
    assert not result["failures"]
    figures = result["metrics"]["density"]
    for name in ("density_nmae", "spin_density_nmae"):
        for part in ("", "_fit_floor", "_network"):
            assert figures[f"{name}{part}"]["count"] == 2
            assert figures[f"{name}{part}"]["mean"] > 0
    assert figures["unpaired_electrons_error"]["max"] < 1e-9
    assert figures["electron_count_error"]["max"] < 1e-9
    assert "Spin density error: fit floor" in (tmp_path / "report" / "report.html").read_text()


def test_perfect_predictions_are_at_the_floor(run: Path, store: Store, records: dict[str, ReferenceRecord]) -> None:
    judge, basis = DensityJudge(load(run)), store.spec.method.density_basis(ELEMENTS)
    for record in records.values():
        reference = Reference(record, store.spec.method, store.atoms, basis)
        perfect = exact(record, store)
        values = judge.measure(perfect, reference, on_grid=True)
        assert values["spin_density_nmae"] == pytest.approx(values["spin_density_nmae_fit_floor"], rel=1e-9)
        assert values["spin_density_nmae_network"] == pytest.approx(0.0, abs=1e-9)
        doubled = replace(perfect, spin_density_coefficients=2.0 * perfect.spin_density_coefficients)
        spin = record.structure.spin
        assert judge.measure(doubled, reference, on_grid=False)["unpaired_electrons_error"] == pytest.approx(spin)
        assert (values["spin_density_nmae"] > 0.1) == (spin > 0)


def test_what_must_not_be_mixed_is_refused(
    run: Path, store: Store, tiny_store: Path, tiny_runs: dict[str, Path], tmp_path: Path
) -> None:
    start = ["model.start=free_atoms", *SHORT_TRAINING]
    words = r"free atoms say nothing of charge and spin, .* holds unrestricted references of charge -1 and spin 0, .*; "
    with pytest.raises(SpecError, match=words + "expected restricted ones of one charge: take model.start = h0"):
        train_surrogate("density", store.path, tmp_path / "free", overrides=start, quiet=True)
    with pytest.raises(TrainingError, match=r"learnt from restricted Kohn-Sham, the store .* is unrestricted"):
        train_surrogate("density", store.path, tmp_path / "tuned", origin=tiny_runs["density"], quiet=True)
    with pytest.raises(DomainError, match=r"do not match: .*unrestricted Kohn-Sham against restricted"):
        check_domain(load_subjects([run])[0], Store.open(tiny_store), [])
    with pytest.raises(StoreError, match=r"holds unrestricted Kohn-Sham references.*this kind of model learns only"):
        read_split(store, "train", progress=False)


def test_coefficients_of_another_length_are_refused(store: Store, records: dict[str, ReferenceRecord]) -> None:
    with pytest.raises(BasisError, match=r"the spin density of .*water_0.* has coefficients of the shape \(3,\)"):
        replace(exact(records["water"], store), spin_density_coefficients=np.zeros(3))


def test_a_restricted_model_has_no_unpaired_electrons(tiny_runs: dict[str, Path], tmp_path: Path) -> None:
    water = Structure([8, 1, 1], [[0.0, 0.0, 0.2], [0.0, 1.43, -0.88], [0.0, -1.43, -0.88]])
    prediction = load(tiny_runs["density"]).predict(water)
    assert not prediction.spin_density(water.positions).any()
    assert prediction.unpaired_electrons == 0.0
    save_predictions(prediction, tmp_path / "one.h5")
    assert not load_predictions(tmp_path / "one.h5")[0].spin_density_coefficients.any()  # type: ignore[attr-defined]
