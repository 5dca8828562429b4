from __future__ import annotations

import numpy as np
import pytest
from pyscf import dft
from pyscf.dft import numint
from pyscf.scf import hf

from qcsurrogate.comparison.metrics import nmae
from qcsurrogate.density.densities import GaussianDensity, OrbitalDensity, free_atom_density
from qcsurrogate.density.grid import IntegrationGrid
from qcsurrogate.density.moments import charge_moments
from qcsurrogate.reference.atoms import FreeAtom, free_atoms
from qcsurrogate.reference.density_fit import fit_density
from qcsurrogate.reference.kohn_sham import run_kohn_sham
from qcsurrogate.reference.settings import Method
from qcsurrogate.structures import Structure
from tests.molecules import WATER, superposed

METHOD = Method(basis="def2-svp", grid_level=1)


@pytest.fixture(scope="module")
def scf():
    return run_kohn_sham(WATER, METHOD)


@pytest.fixture(scope="module")
def atoms():
    return free_atoms([1, 8], METHOD)


@pytest.fixture(scope="module")
def exact(scf):
    return OrbitalDensity(scf.mol, scf.density_matrix)


@pytest.fixture(scope="module")
def coefficients(scf, atoms):
    return fit_density(scf.mol, METHOD.density_basis([1, 8]), scf.density_matrix, atoms).coefficients


@pytest.fixture(scope="module")
def fitted(coefficients, atoms):
    return GaussianDensity.from_fit(WATER, METHOD.density_basis([1, 8]), coefficients, atoms)


@pytest.fixture(scope="module")
def grid(scf):
    return IntegrationGrid.for_molecule(scf.mol, 1)


def test_the_grid_is_never_coarser_than_level_three(scf, grid):
    grids = dft.gen_grid.Grids(scf.mol)
    grids.level = 3
    assert len(grid.weights) == len(grids.build().weights)


def test_orbital_density_is_pyscfs(scf, exact, grid):
    expected = numint.eval_rho(scf.mol, numint.eval_ao(scf.mol, grid.points[::50]), scf.density_matrix)
    assert exact.on_points(grid.points[::50]) == pytest.approx(expected, abs=1e-12)


def test_expansion_is_auxiliary_functions_plus_free_atoms(fitted, coefficients, atoms, grid):
    points = grid.points[::50]
    auxiliary = METHOD.density_basis([1, 8]).build_mol(WATER)
    expected = auxiliary.eval_gto("GTOval_sph", points) @ coefficients
    expected += superposed(WATER, atoms, points)
    assert fitted.on_points(points) == pytest.approx(expected, abs=1e-11)
    assert len(fitted.coefficients) == auxiliary.nao + 3


@pytest.mark.parametrize("name", ["exact", "fitted"])
def test_analytic_moments_are_those_on_the_grid(name, grid, request):
    density = request.getfixturevalue(name)
    weighted = grid.weights * density.on_points(grid.points)
    moments = density.moments()
    assert moments.count == pytest.approx(10.0, abs=1e-8)
    assert weighted.sum() == pytest.approx(moments.count, abs=1e-5)
    assert weighted @ grid.points == pytest.approx(moments.first, abs=1e-4)
    second = np.einsum("p,px,py->xy", weighted, grid.points, grid.points)
    assert second == pytest.approx(moments.second, abs=1e-3)


def test_dipole_is_pyscfs(scf, exact):
    expected = scf.scf.dip_moment(unit="au", verbose=0)
    assert charge_moments(WATER, exact.moments()).dipole == pytest.approx(expected, abs=1e-8)


def test_quadrupole_is_pyscfs(scf, exact):
    centre = WATER.atomic_numbers @ WATER.positions / WATER.atomic_numbers.sum()
    expected = hf.quad_moment(scf.mol, scf.density_matrix, unit="au", origin=centre, verbose=0)
    assert charge_moments(WATER, exact.moments()).quadrupole == pytest.approx(np.asarray(expected), abs=1e-8)


@pytest.mark.parametrize("shift", [[0.0, 0.0, 0.0], [3.0, -2.0, 1.0]])
def test_quadrupole_does_not_depend_on_the_origin(coefficients, atoms, shift):
    basis = METHOD.density_basis([1, 8])
    moved = WATER.moved(WATER.positions + shift)
    here = GaussianDensity.from_fit(WATER, basis, coefficients, atoms)
    there = GaussianDensity.from_fit(moved, basis, coefficients, atoms)
    expected = charge_moments(WATER, here.moments()).quadrupole
    assert charge_moments(moved, there.moments()).quadrupole == pytest.approx(expected, abs=1e-9)


def test_hartree_energy_is_that_of_pyscfs_coulomb_matrix(scf, exact):
    expected = 0.5 * np.einsum("ij,ji->", scf.scf.get_j(scf.mol, scf.density_matrix), scf.density_matrix)
    assert exact.hartree_energy() == pytest.approx(expected, abs=1e-9)


def test_hartree_energy_of_one_gaussian_is_analytic():
    exponent, charge = 0.7, 1.0
    coefficient = charge * (exponent / np.pi) ** 1.5
    atom = FreeAtom(1, np.array([exponent]), np.array([coefficient]))
    ion = Structure(np.array([1]), np.zeros((1, 3)), charge=1)
    density = free_atom_density(ion, {1: atom})
    assert density.hartree_energy() == pytest.approx(charge**2 * np.sqrt(exponent / (2.0 * np.pi)), rel=1e-10)


def test_fitted_hartree_energy_is_near_the_exact_one(exact, fitted):
    assert fitted.hartree_energy() == pytest.approx(exact.hartree_energy(), abs=2e-3)


def test_nmae_of_free_atoms_computed_by_hand(scf, exact, atoms, grid):
    by_hand = np.zeros(len(grid.points))
    for z, position in zip(WATER.atomic_numbers, WATER.positions, strict=True):
        by_hand += atoms[int(z)].density(np.linalg.norm(grid.points - position, axis=1))
    true = numint.eval_rho(scf.mol, numint.eval_ao(scf.mol, grid.points), scf.density_matrix)
    expected = 100.0 * np.sum(grid.weights * np.abs(by_hand - true)) / 10.0
    free = free_atom_density(WATER, atoms).on_points(grid.points)
    measured = nmae(free, exact.on_points(grid.points), grid.weights, 10)
    assert measured == pytest.approx(expected, rel=1e-8)
    assert 5.0 < measured < 20.0


def test_nmae_of_a_density_that_is_one_percent_too_large(exact, grid):
    density = exact.on_points(grid.points)
    assert nmae(1.01 * density, density, grid.weights, 10) == pytest.approx(1.0, abs=1e-5)
    assert nmae(density, density, grid.weights, 10) == 0.0
