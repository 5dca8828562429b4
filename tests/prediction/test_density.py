"""Density on points, moments and cube files, against quadrature and against PySCF."""

from __future__ import annotations

import ase.io.cube
import numpy as np
import pytest
from pyscf import dft
from pyscf.dft import numint
from pyscf.scf import hf

from qcsurrogate.density import densities
from qcsurrogate.density.densities import GaussianDensity
from qcsurrogate.errors import BasisError, QCSurrogateError, SpecError, StructureError
from qcsurrogate.quantities.density.prediction import DensityPrediction
from qcsurrogate.units import ANGSTROM_PER_BOHR
from tests.prediction.exact import HYDROGEN, STRETCHED, WATER

CENTRE = WATER.atomic_numbers @ WATER.positions / 10.0


@pytest.fixture
def prediction(density_surrogate):
    return density_surrogate.predict(WATER)


@pytest.fixture(scope="module")
def grid(reference):
    grid = dft.gen_grid.Grids(reference.mol)
    grid.level, grid.prune = 4, None
    return grid.build()


def test_density_is_near_that_of_pyscf(prediction, reference, grid):
    predicted = prediction.density(grid.coords)
    expected = numint.eval_rho(reference.mol, numint.eval_ao(reference.mol, grid.coords), reference.density_matrix)
    assert predicted.shape == (len(grid.coords),)
    assert grid.weights @ np.abs(predicted - expected) / 10.0 < 0.011  # the fit's floor, measured 0.0101


def test_electron_count_is_exact_and_integrates(prediction, grid):
    assert prediction.electron_count == pytest.approx(10.0, abs=1e-10)
    assert grid.weights @ prediction.density(grid.coords) == pytest.approx(10.0, abs=1e-5)


def test_moments_equal_quadrature(prediction, grid):
    charge = -grid.weights * prediction.density(grid.coords)
    nuclei = WATER.atomic_numbers.astype(float)
    dipole = charge @ grid.coords + nuclei @ WATER.positions
    np.testing.assert_allclose(prediction.dipole, dipole, atol=1e-5)
    points, positions = grid.coords - CENTRE, WATER.positions - CENTRE
    second = np.einsum("n,nx,ny->xy", charge, points, points)
    second += np.einsum("n,nx,ny->xy", nuclei, positions, positions)
    np.testing.assert_allclose(prediction.quadrupole, 1.5 * second - 0.5 * np.trace(second) * np.eye(3), atol=1e-4)


def test_moments_are_near_those_of_pyscf(prediction, reference):
    expected = reference.scf.dip_moment(unit="AU", verbose=0)
    np.testing.assert_allclose(prediction.dipole, expected, atol=0.006)
    expected = hf.quad_moment(reference.mol, reference.density_matrix, unit="AU", origin=CENTRE, verbose=0)
    np.testing.assert_allclose(prediction.quadrupole, expected, atol=0.06)


def test_moments_of_every_function_equal_quadrature(density_surrogate, grid):
    aux = density_surrogate.density_basis.build_mol(WATER)
    values = aux.eval_gto("GTOval_sph", grid.coords) * grid.weights[:, None]
    second = np.einsum("nk,nx,ny->kxy", values, grid.coords, grid.coords)
    for k, one in enumerate(np.eye(aux.nao)):
        moments = GaussianDensity(aux, one).moments()
        assert moments.count == pytest.approx(values[:, k].sum(), abs=1e-5)
        np.testing.assert_allclose(moments.first, values[:, k] @ grid.coords, atol=1e-5)
        np.testing.assert_allclose(moments.second, second[k], rtol=1e-5, atol=1e-4)
    assert {0, 1, 2} <= {aux.bas_angular(shell) for shell in range(aux.nbas)}


def test_coefficients_are_those_of_the_whole_density(density_surrogate, prediction, atoms):
    assert density_surrogate.density_basis is prediction.density_basis
    assert len(prediction.density_coefficients) == density_surrogate.auxiliary_basis.n_functions([8, 1, 1]) + 3
    with pytest.raises(BasisError, match=r"has coefficients of the shape \(3,\); expected \(\d+,\)"):
        DensityPrediction(WATER, prediction.density_basis, np.zeros(3), prediction.spin_density_coefficients)


def test_chunks_do_not_show(prediction, grid, monkeypatch):
    points = grid.coords[:2000]
    whole = prediction.density(points)
    monkeypatch.setattr(densities, "_CHUNK_BYTES", 50_000)
    np.testing.assert_allclose(prediction.density(points), whole, rtol=1e-12)
    assert prediction.density(np.empty((0, 3))).shape == (0,)
    assert prediction.density(points[0]) == pytest.approx(whole[:1])


@pytest.mark.parametrize(
    ("points", "words"),
    [
        (np.zeros((4, 2)), r"shape \(4, 2\); expected \(n, 3\) in bohr"),
        (np.full((2, 3), np.nan), "point 0 is .*nan.*expected finite numbers"),
        ([["x", "y", "z"]], "not an array of numbers"),
    ],
)
def test_bad_points_are_refused(prediction, points, words):
    with pytest.raises(StructureError, match=words):
        prediction.density(points)


def test_batching_changes_nothing(density_surrogate):
    molecules = [WATER, HYDROGEN, STRETCHED]
    together = density_surrogate.predict(molecules)
    apart = density_surrogate.predict(molecules, batch_size=1)
    for one, other in zip(together, apart, strict=True):
        np.testing.assert_allclose(one.density_coefficients, other.density_coefficients, atol=1e-10)


def test_cube_round_trip_through_ase(prediction, tmp_path):
    path = tmp_path / "water.cube"
    prediction.write_cube(path, resolution=0.5, margin=3.0)
    with path.open() as file:
        cube = ase.io.cube.read_cube(file)
    np.testing.assert_array_equal(cube["atoms"].numbers, WATER.atomic_numbers)
    np.testing.assert_allclose(cube["atoms"].positions, WATER.positions * ANGSTROM_PER_BOHR, atol=1e-6)
    np.testing.assert_allclose(cube["spacing"], 0.5 * np.eye(3) * ANGSTROM_PER_BOHR, rtol=1e-6)
    shape = cube["data"].shape
    origin = cube["origin"] / ANGSTROM_PER_BOHR
    index = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1).reshape(-1, 3)
    expected = prediction.density(origin + 0.5 * index).reshape(shape)
    np.testing.assert_allclose(cube["data"], expected, rtol=1e-4, atol=1e-5)
    assert (origin <= WATER.positions.min(axis=0) - 3.0 + 1e-6).all()
    assert (origin + 0.5 * (np.array(shape) - 1) >= WATER.positions.max(axis=0) + 3.0 - 1e-6).all()


def test_cube_is_read_by_pyscf(prediction, tmp_path):
    from pyscf import gto
    from pyscf.tools import cubegen

    path = tmp_path / "water.cube"
    prediction.write_cube(path, resolution=0.7, margin=2.0)
    cube = cubegen.Cube(gto.M(atom="He", verbose=0), nx=2, ny=2, nz=2)
    data = cube.read(str(path))
    np.testing.assert_allclose(cube.mol.atom_coords(), WATER.positions, atol=1e-6)
    point = cube.boxorig + 0.7 * np.array([3, 4, 5])
    assert data[3, 4, 5] == pytest.approx(prediction.density(point)[0], rel=1e-4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"resolution": 0.0}, "resolution = 0.0 bohr; expected a positive distance"),
        ({"margin": -1.0}, "margin = -1.0 bohr; expected a distance of zero or more"),
        ({"resolution": 1e-3}, "coarser resolution"),
    ],
)
def test_bad_cube_options_are_refused(prediction, tmp_path, options, words):
    with pytest.raises(SpecError, match=words):
        prediction.write_cube(tmp_path / "water.cube", **options)
    assert list(tmp_path.iterdir()) == []


def test_cube_in_a_missing_folder(prediction, tmp_path):
    with pytest.raises(QCSurrogateError, match=r"cannot write the cube file .*No such file.*writable folder"):
        prediction.write_cube(tmp_path / "nowhere" / "water.cube", resolution=1.0)
