from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import ortho_group, spearmanr

from qcsurrogate.comparison import metrics
from qcsurrogate.comparison.figures import SHARED
from qcsurrogate.comparison.schema import Distribution
from qcsurrogate.conventions import block_diagonal_wigner, inverse_order
from qcsurrogate.quantities.hamiltonian import judge
from qcsurrogate.reference.kohn_sham import run_kohn_sham
from qcsurrogate.reference.orbitals import Orbitals
from qcsurrogate.reference.settings import Method
from tests.molecules import WATER, random_orthogonal

METHOD = Method(basis="def2-svp", grid_level=1)
N_OCCUPIED = 5


@pytest.fixture(scope="module")
def scf():
    return run_kohn_sham(WATER, METHOD)


@pytest.fixture(scope="module")
def orbitals(scf):
    return Orbitals.of(scf.hamiltonian, scf.overlap, N_OCCUPIED)


def test_summary_of_known_values():
    summary = Distribution.of([1.0, 2.0, 3.0, 4.0, 10.0], "hartree")
    assert (summary.count, summary.mean, summary.median, summary.max) == (5, 4.0, 3.0, 10.0)
    assert summary.p95 == pytest.approx(np.percentile([1, 2, 3, 4, 10], 95))


@pytest.mark.parametrize("values", [[], [1.0, np.nan], [np.inf]])
def test_summary_refuses_what_has_no_mean(values):
    with pytest.raises(ValueError, match="finite"):
        Distribution.of(values, "hartree")


def test_matrix_error_of_a_known_perturbation():
    reference = np.zeros((4, 4))
    predicted = reference.copy()
    predicted[0, 1] = predicted[1, 0] = -0.3
    error = judge.matrix_values(predicted, reference, n_electrons=2)
    assert error["hamiltonian_mae"] == pytest.approx(0.6 / 16)
    assert error["hamiltonian_largest_error"] == 0.3
    assert error["hamiltonian_frobenius_per_sqrt_n"] == pytest.approx(0.3)  # sqrt((0.09 + 0.09) / 2)


def test_no_norm_is_called_a_mean_square():
    titles = {f.name: f.title for f in (*SHARED, *judge.HamiltonianJudge.figures)}
    assert titles["hamiltonian_frobenius_per_sqrt_n"] == "Frobenius norm of the Hamiltonian error / sqrt(N)"
    assert not [t for name, t in titles.items() if "mean-square" in t.lower() or "rms" in name]


def test_frobenius_per_sqrt_n_is_not_diluted_by_a_distant_copy():
    error = np.diag([0.1, 0.2])
    one = judge.matrix_values(error, np.zeros((2, 2)), 2)
    two = judge.matrix_values(np.kron(np.eye(2), error), np.zeros((4, 4)), 4)
    name = "hamiltonian_frobenius_per_sqrt_n"
    assert two[name] == pytest.approx(one[name])
    assert two["hamiltonian_mae"] == pytest.approx(one["hamiltonian_mae"] / 2)


def test_block_means_are_means_of_blocks():
    matrix = np.random.default_rng(0).normal(size=(7, 7))
    offsets = [0, 1, 4, 7]
    means = metrics.block_means(matrix, offsets)
    for i in range(3):
        for j in range(3):
            block = matrix[offsets[i] : offsets[i + 1], offsets[j] : offsets[j + 1]]
            assert means[i, j] == pytest.approx(block.mean())


def test_orbital_errors_of_shifted_levels():
    reference = np.array([-20.0, -1.0, -0.5, 0.1, 0.3])
    error = judge.orbital_values([judge.Levels("", 3, reference, reference + np.array([0.0, 0.1, -0.2, 0.3, 9.0]))])
    assert error == pytest.approx({"occupied_energy_mae": 0.1, "homo_error": 0.2, "lumo_error": 0.3, "gap_error": 0.5})


def test_no_lumo_in_a_full_basis():
    error = judge.orbital_values([judge.Levels("", 1, np.array([-1.1]), np.array([-1.0]))])
    assert error.keys() == {"occupied_energy_mae", "homo_error"}


def test_subspace_ignores_rotations_among_occupied_orbitals(scf, orbitals):
    mixed = orbitals.coefficients.copy()
    mixed[:, :N_OCCUPIED] @= ortho_group.rvs(N_OCCUPIED, random_state=0)
    assert metrics.occupied_subspace_defect(orbitals.coefficients, mixed, scf.overlap, N_OCCUPIED) < 1e-14
    assert metrics.orbital_cosine_defects(orbitals.coefficients, mixed, scf.overlap, N_OCCUPIED).max() > 0.1


@pytest.mark.parametrize("angle", [1e-6, 1e-3, 0.4, np.pi / 2])
def test_subspace_defect_of_a_known_rotation_into_the_lumo(scf, orbitals, angle):
    turned = orbitals.coefficients.copy()
    homo, lumo = orbitals.coefficients[:, N_OCCUPIED - 1], orbitals.coefficients[:, N_OCCUPIED]
    turned[:, N_OCCUPIED - 1] = np.cos(angle) * homo + np.sin(angle) * lumo
    defect = metrics.occupied_subspace_defect(orbitals.coefficients, turned, scf.overlap, N_OCCUPIED)
    assert defect == pytest.approx(np.sin(angle) ** 2 / N_OCCUPIED, rel=1e-6)


def test_subspace_defect_is_its_textbook_formula(scf, orbitals):
    rng = np.random.default_rng(1)
    noise = rng.normal(scale=0.05, size=scf.hamiltonian.shape)
    predicted = Orbitals.of(scf.hamiltonian + noise + noise.T, scf.overlap, N_OCCUPIED).coefficients
    product = orbitals.coefficients[:, :N_OCCUPIED].T @ scf.overlap @ predicted[:, :N_OCCUPIED]
    textbook = 1.0 - np.linalg.norm(product) ** 2 / N_OCCUPIED
    defect = metrics.occupied_subspace_defect(orbitals.coefficients, predicted, scf.overlap, N_OCCUPIED)
    assert defect == pytest.approx(textbook, abs=1e-12)


@pytest.mark.parametrize("improper", [False, True])
def test_subspace_defect_does_not_depend_on_the_frame(scf, improper):
    basis = METHOD.orbital_basis(WATER.atomic_numbers)
    momenta = [l for z in WATER.atomic_numbers for l in basis[z].angular_momenta]
    order = basis.internal_order(WATER.atomic_numbers)
    rotation = torch.from_numpy(random_orthogonal(3, improper=improper))
    wigner = block_diagonal_wigner(momenta, rotation).numpy()
    back = inverse_order(order)
    turn = wigner[np.ix_(back, back)]
    rng = np.random.default_rng(2)
    noise = rng.normal(scale=0.02, size=scf.hamiltonian.shape)
    matrices = (scf.hamiltonian, scf.hamiltonian + noise + noise.T, scf.overlap)

    def defect(reference, predicted, overlap):
        first, second = (Orbitals.of(h, overlap, N_OCCUPIED).coefficients for h in (reference, predicted))
        return metrics.occupied_subspace_defect(first, second, overlap, N_OCCUPIED)

    assert defect(*(turn @ m @ turn.T for m in matrices)) == pytest.approx(defect(*matrices), rel=1e-9)


def test_rank_correlation_is_spearmans():
    rng = np.random.default_rng(3)
    first, second = rng.normal(size=20).tolist(), rng.integers(0, 5, size=20).astype(float).tolist()
    assert metrics.rank_correlation(first, second) == pytest.approx(spearmanr(first, second).statistic)


@pytest.mark.parametrize(("first", "second"), [([1.0, 2.0], [1.0, 2.0]), ([1.0] * 4, [1.0, 2.0, 3.0, 4.0])])
def test_no_rank_correlation_of_too_little(first, second):
    assert metrics.rank_correlation(first, second) is None
