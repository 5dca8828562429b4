"""A surrogate whose network is exact must give PySCF's own numbers."""

from __future__ import annotations

import numpy as np
import pytest
from pyscf import dft

from qcsurrogate.structures import Structure
from tests.prediction.exact import HYDROGEN, METHOD, STRETCHED, WATER


@pytest.fixture
def prediction(hamiltonian_surrogate):
    return hamiltonian_surrogate.predict(WATER)


def test_matrices_are_those_of_pyscf(prediction, reference):
    np.testing.assert_allclose(prediction.hamiltonian, reference.hamiltonian, atol=1e-12)
    np.testing.assert_allclose(prediction.overlap, reference.overlap, atol=1e-12)
    np.testing.assert_allclose(prediction.density_matrix, reference.density_matrix, atol=1e-5)
    assert np.array_equal(prediction.hamiltonian, prediction.hamiltonian.T)
    for matrix in (prediction.hamiltonian, prediction.overlap, prediction.density_matrix):
        assert matrix.dtype == np.float64


def test_orbitals_solve_the_eigenvalue_problem(prediction, reference):
    np.testing.assert_allclose(prediction.mo_energy, reference.mo_energy, atol=1e-10)
    np.testing.assert_array_equal(prediction.mo_occ, reference.mo_occ)
    left = prediction.hamiltonian @ prediction.mo_coeff
    right = prediction.overlap @ prediction.mo_coeff * prediction.mo_energy
    np.testing.assert_allclose(left, right, atol=1e-10)
    assert prediction.homo == reference.mo_energy[4]
    assert prediction.lumo == reference.mo_energy[5]
    assert prediction.gap == pytest.approx(reference.mo_energy[5] - reference.mo_energy[4])


def test_density_matrix_holds_the_electrons(prediction):
    assert np.trace(prediction.density_matrix @ prediction.overlap) == pytest.approx(10.0, abs=1e-10)


def test_dipole_is_that_of_pyscf(prediction, reference):
    expected = reference.scf.dip_moment(unit="AU", verbose=0)
    np.testing.assert_allclose(prediction.dipole, expected, atol=1e-5)


def test_scf_starts_at_the_answer(prediction):
    scf = dft.RKS(prediction.mol, xc=METHOD.xc).set(grids=dft.gen_grid.Grids(prediction.mol), verbose=0)
    scf.grids.level = METHOD.grid_level
    scf.kernel(dm0=prediction.density_matrix)
    assert scf.converged
    assert scf.cycles <= 2


def test_no_empty_orbital_means_no_gap(hamiltonian_surrogate):
    # He in a minimal basis has one orbital, which is full; the model is not asked, its result is replaced.
    from qcsurrogate.basis import orbital_basis
    from qcsurrogate.prediction.results import HamiltonianPrediction

    helium = Structure(np.array([2]), np.zeros((1, 3)))
    prediction = HamiltonianPrediction(helium, orbital_basis("sto-3g", [2]), np.array([[-0.9]]))
    assert prediction.homo == pytest.approx(-0.9)
    assert np.isnan(prediction.lumo)
    assert np.isnan(prediction.gap)


def test_batching_changes_nothing(hamiltonian_surrogate):
    molecules = [WATER, HYDROGEN, STRETCHED]
    together = hamiltonian_surrogate.predict(molecules)
    assert hamiltonian_surrogate.model.batches == [3]
    apart = hamiltonian_surrogate.predict(molecules, batch_size=2)
    assert hamiltonian_surrogate.model.batches == [3, 2, 1]
    for one, other, molecule in zip(together, apart, molecules, strict=True):
        assert one.structure is molecule
        np.testing.assert_allclose(one.hamiltonian, other.hamiltonian, atol=1e-12)
