"""A surrogate whose network is exact must give PySCF's own numbers."""

from __future__ import annotations

from dataclasses import replace

import ase.io.cube
import numpy as np
import pytest
from pyscf import dft
from pyscf.dft import numint
from pyscf.scf import hf

from qcsurrogate.errors import BasisError, SpecError
from qcsurrogate.structures import Structure
from qcsurrogate.units import ANGSTROM_PER_BOHR
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
    assert prediction.homo == pytest.approx(reference.mo_energy[4], abs=1e-12)
    assert prediction.lumo == pytest.approx(reference.mo_energy[5], abs=1e-12)
    assert prediction.gap == pytest.approx(reference.mo_energy[5] - reference.mo_energy[4])


def test_density_matrix_holds_the_electrons(prediction):
    assert np.trace(prediction.density_matrix @ prediction.overlap) == pytest.approx(10.0, abs=1e-10)


def test_dipole_is_that_of_pyscf(prediction, reference):
    expected = reference.scf.dip_moment(unit="AU", verbose=0)
    np.testing.assert_allclose(prediction.dipole, expected, atol=1e-5)


def test_density_is_that_of_pyscf(prediction, reference):
    points = np.random.default_rng(0).normal(size=(50, 3))
    expected = numint.eval_rho(reference.mol, numint.eval_ao(reference.mol, points), reference.density_matrix)
    np.testing.assert_allclose(prediction.density(points), expected, atol=1e-6)
    assert prediction.electron_count == pytest.approx(10.0, abs=1e-10)


def test_quadrupole_is_that_of_pyscf_about_the_centre_of_nuclear_charge(prediction, hamiltonian_surrogate):
    centre = WATER.atomic_numbers @ WATER.positions / 10.0
    expected = hf.quad_moment(prediction.mol, prediction.density_matrix, unit="AU", origin=centre, verbose=0)
    np.testing.assert_allclose(prediction.quadrupole, expected, atol=1e-10)
    moved = hamiltonian_surrogate.predict(WATER.moved(WATER.positions + np.array([3.0, -2.0, 1.0])))
    np.testing.assert_allclose(moved.quadrupole, prediction.quadrupole, atol=1e-4)  # grids turn with the molecule


def test_moments_do_not_follow_a_moved_origin_of_the_mole(prediction):
    before = prediction.electron_density.moments().first
    with prediction.mol.with_common_orig((1.0, 2.0, 3.0)):
        np.testing.assert_allclose(prediction.electron_density.moments().first, before, atol=1e-12)


def test_cube_of_a_hamiltonian(prediction, tmp_path):
    prediction.write_cube(tmp_path / "water.cube", resolution=1.0, margin=2.0)
    with (tmp_path / "water.cube").open() as file:
        cube = ase.io.cube.read_cube(file)
    point = cube["origin"] / ANGSTROM_PER_BOHR + 1.0
    assert cube["data"][1, 1, 1] == pytest.approx(prediction.density(point)[0], rel=1e-4)


def test_one_evaluation_is_the_energy_of_pyscf(prediction, reference):
    once = prediction.check()
    assert once.energy == pytest.approx(reference.energy, abs=1e-8)
    assert once.commutator < 1e-4
    with pytest.raises(SpecError, match=r"prediction for structure 'water' has no source, and so no method"):
        replace(prediction, source=None).check()


def test_a_matrix_of_another_basis_is_refused(prediction):
    with pytest.raises(BasisError, match=r"Hamiltonian of structure 'water' has the shape \(3, 3\); expected \(7, 7\)"):
        replace(prediction, hamiltonian=np.eye(3))


def test_scf_starts_at_the_answer(prediction):
    scf = dft.RKS(prediction.mol, xc=METHOD.xc).set(grids=dft.gen_grid.Grids(prediction.mol), verbose=0)
    scf.grids.level = METHOD.grid_level
    scf.kernel(dm0=prediction.density_matrix)
    assert scf.converged
    assert scf.cycles <= 2


def test_no_empty_orbital_means_no_gap(hamiltonian_surrogate):
    # He in a minimal basis has one orbital, which is full; the model is not asked, its result is replaced.
    from qcsurrogate.basis import orbital_basis
    from qcsurrogate.quantities.hamiltonian.prediction import HamiltonianPrediction

    helium = Structure(np.array([2]), np.zeros((1, 3)))
    prediction = HamiltonianPrediction(helium, orbital_basis("sto-3g", [2]), np.array([[-0.9]]), np.array([[-0.8]]))
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
