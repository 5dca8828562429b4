"""From a store of radicals and ions to orbitals of both spins: labels, training, predictions, comparison."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.io import write
from ase.io.cube import read_cube
from distributed import Client, LocalCluster
from pyscf.dft import numint

from qcsurrogate import load, load_predictions, save_predictions
from qcsurrogate.basis import orbital_basis
from qcsurrogate.cli import main
from qcsurrogate.comparison.measure import Reference
from qcsurrogate.comparison.run import compare
from qcsurrogate.comparison.subjects import check_domain, load_subjects
from qcsurrogate.data.potentials import potentials_of
from qcsurrogate.errors import BasisError, DomainError, StoreError, TrainingError
from qcsurrogate.generation import generate
from qcsurrogate.models.settings import HamiltonianSettings
from qcsurrogate.pipeline import train_surrogate
from qcsurrogate.quantities.hamiltonian.judge import HamiltonianJudge
from qcsurrogate.quantities.hamiltonian.labels import HamiltonianDataset
from qcsurrogate.quantities.hamiltonian.model import HamiltonianModel
from qcsurrogate.quantities.hamiltonian.prediction import HamiltonianPrediction
from qcsurrogate.reference.evaluation import evaluate_once
from qcsurrogate.reference.kohn_sham import build_molecule, build_scf
from qcsurrogate.reference.orthogonal import StartingPoint, each_spin
from qcsurrogate.reference.potentials import charge_hamiltonian, potential_hamiltonian
from qcsurrogate.reference.record import ReferenceRecord
from qcsurrogate.reference.settings import Method
from qcsurrogate.store.spec import load_spec
from qcsurrogate.store.store import Store
from qcsurrogate.structures import Structure
from qcsurrogate.units import ANGSTROM_PER_BOHR
from tests.conftest import SHORT_TRAINING
from tests.quantities.test_labels import matrices_of

SPEC = """\
name: mixed
structures: {kind: file, path: mixed.xyz}
method: {xc: lda, basis: sto-3g, grid_level: 0, auxiliary_basis: def2-universal-jfit, spin_treatment: unrestricted,
         conv_tol: 1.0e-9}
split: {kind: random, train: 8, validation: 2, test: 2}
licence: CC0-1.0
citation: nobody
"""
STATES = {  # symbols, positions in Angstrom, charge, spin
    "water": ("OH2", [[0, 0, 0.1], [0, 0.76, -0.47], [0, -0.76, -0.47]], 0, 0),
    "cation": ("OH2", [[0, 0, 0.1], [0, 0.80, -0.47], [0, -0.80, -0.47]], 1, 1),
    "imidogen": ("NH", [[0, 0, 0], [0.3, 0.4, 0.9]], 0, 2),
    "hydroxide": ("OH", [[0, 0, 0], [0.2, 0.4, 0.9]], -1, 0),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("open_shell")


@pytest.fixture(scope="module")
def store(folder: Path) -> Store:
    """Three geometries of each state."""
    rng = np.random.default_rng(0)
    frames = []
    for name, (symbols, positions, charge, spin) in STATES.items():
        for k in range(3):
            moved = np.array(positions, dtype=float) + rng.normal(scale=0.03, size=(len(positions), 3))
            frames.append(Atoms(symbols, moved, info={"name": f"{name}_{k}", "charge": charge, "spin": spin}))
    write(folder / "mixed.xyz", frames, format="extxyz")
    (folder / "mixed.yaml").write_text(SPEC)
    options: dict[str, Any] = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "dashboard_address": ":0"}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        generate(load_spec(folder / "mixed.yaml"), folder / "store", client=client, quiet=True)
    return Store.open(folder / "store")


@pytest.fixture(scope="module")
def run(folder: Path, store: Store) -> Path:
    train_surrogate("hamiltonian", store.path, folder / "run", overrides=SHORT_TRAINING, quiet=True)
    return folder / "run"


@pytest.fixture(scope="module")
def records(store: Store) -> dict[str, ReferenceRecord]:
    """One of each state."""
    return {r.structure.name[:-2]: r for r in store.read_many(store.keys()) if r.structure.name.endswith("_0")}


def exact(record: ReferenceRecord, store: Store) -> HamiltonianPrediction:
    """What a perfect network would give."""
    basis = store.spec.method.orbital_basis([1, 7, 8])
    return HamiltonianPrediction(record.structure, basis, record.fock, record.hamiltonian)


def test_labels_are_mean_and_half_difference_of_the_spins(store: Store) -> None:
    elements = [1, 7, 8]
    basis, potentials = store.spec.method.orbital_basis(elements), potentials_of(store, elements)
    settings = HamiltonianModel.graph_settings(basis, HamiltonianSettings())
    data = HamiltonianDataset.from_store(store, "train", settings, potentials, dtype=torch.float64)
    assert data.n_components == 2
    for index, key in enumerate(data.keys):
        record, batch = store.read(key), data.batch([index])
        start = StartingPoint.of(record.structure, basis, potentials, unrestricted=True)
        order = basis.internal_order(record.structure.atomic_numbers)
        corrections = [start.inverse_root @ (fock - start.baseline) @ start.inverse_root for fock in record.fock]
        found = each_spin(matrices_of(batch, basis, n_components=2))
        np.testing.assert_allclose(found, np.stack(corrections)[:, order[:, None], order], atol=1e-10)
        inputs = matrices_of(batch, basis, "inputs", n_components=2)
        np.testing.assert_allclose(inputs, start.density[:, order[:, None], order], atol=1e-12)
        assert batch.n_elements == 2 * record.n_ao**2


def test_h0_of_ions_knows_their_charge(store: Store, records: dict[str, ReferenceRecord]) -> None:
    """Fitted with ions in the store, it is as near to the Hamiltonian of an ion as to that of a molecule."""
    basis, potentials = store.spec.method.orbital_basis([1, 7, 8]), potentials_of(store, [1, 7, 8])
    far = {}
    for name, record in records.items():
        start = StartingPoint.of(record.structure, basis, potentials, unrestricted=True)
        far[name] = np.abs(record.hamiltonian - start.baseline).mean()
        neutral = np.abs(record.hamiltonian - potential_hamiltonian(basis.build_mol(record.structure), potentials))
        assert (neutral.mean() > 3.0 * far[name]) == (record.structure.charge != 0)
    assert max(far["cation"], far["hydroxide"]) < 2.0 * max(far["water"], far["imidogen"])


def test_charges_of_atoms_are_felt_as_coulomb_says() -> None:
    mol = build_molecule(Structure([1, 1], [[0.0, 0.0, 0.0], [0.0, 0.0, 40.0]]), Method(basis="sto-3g"))
    matrix = charge_hamiltonian(mol, np.array([1.0, 0.0]))
    assert matrix[1, 1] == pytest.approx(-1.0 / 40.0, rel=1e-6)
    np.testing.assert_allclose(charge_hamiltonian(mol, np.array([-2.0, 0.0])), -2.0 * matrix, atol=1e-12)


def test_predictions_of_both_spins_are_those_of_pyscf(store: Store, records: dict[str, ReferenceRecord]) -> None:
    for record in records.values():
        prediction = exact(record, store)
        n = record.n_ao
        assert prediction.unrestricted
        assert prediction.hamiltonian.shape == prediction.mo_coeff.shape == prediction.density_matrix.shape == (2, n, n)
        np.testing.assert_allclose(prediction.mo_energy, [record.mo_energy, record.mo_energy_beta], atol=1e-9)
        np.testing.assert_array_equal(prediction.mo_occ, [record.mo_occ, record.mo_occ_beta])
        densities = record.density_matrix_alpha, record.density_matrix_beta
        np.testing.assert_allclose(prediction.density_matrix, densities, atol=1e-4)
        assert prediction.electron_count == pytest.approx(record.structure.n_electrons, abs=1e-9)
        spin = np.trace(prediction.spin_density_matrix @ record.overlap)
        assert spin == pytest.approx(record.structure.spin, abs=1e-9)
        assert prediction.spin_square == pytest.approx(record.spin_square, abs=1e-4)
        np.testing.assert_allclose(prediction.dipole, record.dipole, atol=1e-4)
        points = record.structure.positions + 0.3
        values = numint.eval_ao(prediction.mol, points)
        expected = numint.eval_rho(prediction.mol, values, densities[0] - densities[1])
        np.testing.assert_allclose(prediction.spin_density(points), expected, atol=1e-4)


def test_frontier_orbitals_are_those_of_either_spin(store: Store, records: dict[str, ReferenceRecord]) -> None:
    cation, imidogen = (exact(records[name], store) for name in ("cation", "imidogen"))
    assert cation.homo == max(cation.mo_energy[0, 4], cation.mo_energy[1, 3])
    assert cation.lumo == min(cation.mo_energy[0, 5], cation.mo_energy[1, 4])
    assert imidogen.gap == imidogen.lumo - imidogen.homo
    hydrogen = Structure([1], [[0.0, 0.0, 0.0]], spin=1)
    one = HamiltonianPrediction(hydrogen, orbital_basis("sto-3g", [1]), np.array([[[-0.5]], [[0.1]]]), np.zeros((1, 1)))
    assert (one.homo, one.lumo) == (-0.5, 0.1)


def test_a_cube_of_the_spin_density(store: Store, records: dict[str, ReferenceRecord], tmp_path: Path) -> None:
    prediction = exact(records["cation"], store)
    prediction.write_spin_cube(tmp_path / "spin.cube", resolution=1.0, margin=2.0)
    with (tmp_path / "spin.cube").open() as file:
        cube = read_cube(file)
    point = cube["origin"] / ANGSTROM_PER_BOHR + 2.0
    assert cube["data"][2, 2, 2] == pytest.approx(prediction.spin_density(point)[0], rel=1e-4)


def test_an_scf_starts_at_the_answer(store: Store, records: dict[str, ReferenceRecord]) -> None:
    method, record = store.spec.method, records["cation"]
    prediction = exact(record, store)
    scf = build_scf(build_molecule(record.structure, method), method)
    scf.kernel(dm0=prediction.density_matrix)
    assert scf.converged
    assert scf.cycles <= 2
    assert scf.e_tot == pytest.approx(record.energy, abs=1e-8)
    once = evaluate_once(record.structure, method, prediction.density_matrix)
    assert once.energy == pytest.approx(record.energy, abs=1e-7)
    assert once.commutator < 1e-3


def test_one_set_of_orbitals_has_no_unpaired_electrons(store: Store, records: dict[str, ReferenceRecord]) -> None:
    with pytest.raises(BasisError, match=r"Hamiltonian of .*cation_0.* has the shape \(7, 7\); expected \(2, 7, 7\)"):
        replace(exact(records["cation"], store), hamiltonian=np.eye(7))
    both = replace(exact(records["water"], store), hamiltonian=records["water"].hamiltonian)
    assert not both.unrestricted
    assert both.spin_square == pytest.approx(0.0, abs=1e-9)
    assert not both.spin_density_matrix.any()


def test_a_trained_model_predicts_every_state_and_its_files_come_back(run: Path, store: Store, tmp_path: Path) -> None:
    surrogate = load(run)
    structures = list(map(store.structure, store.keys()))
    predictions = surrogate.predict(structures)
    for structure, prediction in zip(structures, predictions, strict=True):
        alpha, beta = prediction.hamiltonian
        assert np.array_equal(alpha, beta) == (structure.spin == 0)
        alone = surrogate.predict(structure).hamiltonian
        np.testing.assert_allclose(prediction.hamiltonian, alone, atol=1e-5)
        assert np.isfinite(prediction.check().energy)
    for name in ("both.npz", "both.h5"):
        save_predictions(predictions, tmp_path / name)
        for saved, prediction in zip(load_predictions(tmp_path / name), predictions, strict=True):
            np.testing.assert_array_equal(saved.hamiltonian, prediction.hamiltonian)
            np.testing.assert_array_equal(saved.mo_energy, prediction.mo_energy)
            assert saved.structure.spin == prediction.structure.spin
    dication = Structure([8, 1, 1], structures[0].positions, charge=2) if len(structures[0]) == 3 else None
    with pytest.raises(DomainError, match="was trained on charge -1 and spin 0 or charge 0 and spin 0 or"):
        surrogate.predict(dication or Structure([8, 1], structures[0].positions, charge=1))


def test_the_command_line_predicts_open_shells(run: Path, folder: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out.npz"
    assert main(["predict", str(run), str(folder / "mixed.xyz"), "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {(s["charge"], s["spin"]) for s in told["structures"]} == {(0, 0), (1, 1), (0, 2), (-1, 0)}
    with np.load(out, allow_pickle=False) as file:
        assert file["000000/density_matrix"].shape == (2, 7, 7)


def test_both_spins_are_compared(run: Path, store: Store, tmp_path: Path) -> None:
    result = compare([run], store.path, tmp_path / "report", split="train", limit=4, scf_molecules=2, quiet=True)
    assert not result["failures"]
    figures = result["metrics"]["hamiltonian"]
    for name in ("hamiltonian_mae", "occupied_energy_mae", "gap_error", "spin_density_nmae", "spin_square_error"):
        assert figures[name]["count"] == 4
        assert figures[name]["mean"] > 0
    assert figures["scf_cycles"]["count"] == 2
    assert "Orbital levels of one molecule, beta" in (tmp_path / "report" / "report.html").read_text()


def test_far_molecules_keep_their_electrons_to_themselves(store: Store, records: dict[str, ReferenceRecord]) -> None:
    """Up to the tails of smooth occupations: unpaired electrons and charge are where the levels are."""
    basis, potentials = store.spec.method.orbital_basis([1, 7, 8]), potentials_of(store, [1, 7, 8])
    for name in ("imidogen", "hydroxide"):
        ion, water = records[name].structure, records["water"].structure
        numbers = [*ion.atomic_numbers, *water.atomic_numbers]
        positions = np.concatenate([ion.positions, water.positions + np.array([40.0, 20.0, 0.0])])
        both = Structure(numbers, positions, charge=ion.charge, spin=ion.spin)
        start, *alone = (StartingPoint.of(s, basis, potentials, unrestricted=True) for s in (both, ion, water))
        n = len(alone[0].baseline)
        for part, expected in zip((slice(None, n), slice(n, None)), alone, strict=True):
            np.testing.assert_allclose(start.density[:, part, part], expected.density, atol=0.03)


def test_what_must_not_be_mixed_is_refused(
    run: Path, store: Store, tiny_store: Path, tiny_runs: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(StoreError, match=r"this kind of model learns only from restricted ones so far"):
        train_surrogate("density", store.path, tmp_path / "density", overrides=SHORT_TRAINING, quiet=True)
    with pytest.raises(TrainingError, match=r"learnt from restricted Kohn-Sham, the store .* is unrestricted"):
        train_surrogate("hamiltonian", store.path, tmp_path / "tuned", origin=tiny_runs["hamiltonian"], quiet=True)
    with pytest.raises(DomainError, match=r"do not match: .*unrestricted Kohn-Sham against restricted"):
        check_domain(load_subjects([run])[0], Store.open(tiny_store), [])


def test_perfect_predictions_have_no_errors(run: Path, store: Store, records: dict[str, ReferenceRecord]) -> None:
    judge = HamiltonianJudge(load(run))
    for record in records.values():
        reference, perfect = Reference(record, store.spec.method, store.atoms, None), exact(record, store)
        values = judge.measure(perfect, reference, on_grid=True)
        shift = 1e-3 * np.stack([record.overlap, -record.overlap])
        other = judge.measure(replace(perfect, hamiltonian=record.fock + shift), reference, on_grid=False)
        for name in ("hamiltonian_mae", "occupied_energy_mae", "occupied_subspace_defect", "homo_error", "gap_error"):
            assert values[name] == pytest.approx(0.0, abs=1e-8), name
        assert values["spin_density_nmae"] == pytest.approx(0.0, abs=1e-2)
        assert values["spin_square_error"] == pytest.approx(0.0, abs=1e-4)
        assert other["occupied_energy_mae"] == pytest.approx(1e-3, rel=1e-6)  # alpha and beta are counted
        assert other["hamiltonian_mae"] == pytest.approx(1e-3 * np.abs(record.overlap).mean(), rel=1e-6)
