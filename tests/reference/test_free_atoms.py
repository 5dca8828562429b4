"""Free atoms and the baseline Hamiltonian against PySCF."""

from __future__ import annotations

import numpy as np
import pytest
from pyscf import dft, gto, scf
from pyscf.dft import numint
from pyscf.scf import atom_ks

from qcsurrogate.basis import basis_of_mol
from qcsurrogate.errors import BasisError
from qcsurrogate.reference.atoms import (
    FreeAtom,
    free_atom,
    free_atom_density_and_gradient,
    free_atoms,
    free_atoms_from_dict,
    free_atoms_to_dict,
)
from qcsurrogate.reference.baseline import baseline_hamiltonian, coulomb_of_free_atoms
from qcsurrogate.reference.kohn_sham import build_molecule
from qcsurrogate.reference.settings import Method
from qcsurrogate.testing import orbital_rotation, random_rotation
from tests.molecules import WATER

PBE = Method()


@pytest.mark.parametrize("z", [1, 6, 8, 16])
def test_density_of_an_atom_is_pyscfs(z: int) -> None:
    """Integral over all space of |fit - spherical Kohn-Sham atom|, per electron, under 0.1 %."""
    atom = free_atom(z, PBE)
    basis = PBE.orbital_basis([z])
    symbol = basis.symbols[0]
    mol = gto.M(atom=[(symbol, (0, 0, 0))], basis=PBE.basis, spin=z % 2, verbose=0)
    _, _, orbitals, occupations = atom_ks.get_atm_nrks(mol, xc=PBE.xc)[symbol]
    grids = dft.gen_grid.Grids(mol)
    grids.level = 5
    grids.build()
    exact = numint.eval_rho(mol, numint.eval_ao(mol, grids.coords), (orbitals * occupations) @ orbitals.T)
    fitted = atom.density(np.linalg.norm(grids.coords, axis=1))
    assert (fitted >= 0).all()
    assert grids.weights @ np.abs(fitted - exact) < 1e-3 * z
    assert atom.coefficients @ (np.pi / atom.exponents) ** 1.5 == pytest.approx(z, abs=1e-10)


def test_gradient_of_the_superposition_is_its_slope() -> None:
    atoms = free_atoms([1, 8], PBE)
    point, step = np.array([[0.3, -0.4, 0.9]]), 1e-5
    value = free_atom_density_and_gradient(WATER, atoms, point)[:, 0]
    for axis in range(3):
        shift = step * np.eye(3)[axis]
        above, below = (
            free_atom_density_and_gradient(WATER, atoms, point + s, gradient=False)[0, 0] for s in (shift, -shift)
        )
        assert value[1 + axis] == pytest.approx((above - below) / (2 * step), rel=1e-6)


def test_coulomb_matrix_is_that_of_the_density_on_a_grid() -> None:
    """(mu nu | rho_atoms) against the potential of the same charges integrated numerically."""
    atoms = free_atoms([1, 8], PBE)
    mol = build_molecule(WATER, PBE)
    grids = dft.gen_grid.Grids(mol)
    grids.level = 6
    grids.build()
    from scipy.special import erf

    potential = np.zeros(len(grids.coords))
    for z, position in zip(WATER.atomic_numbers, WATER.positions, strict=True):
        atom = atoms[int(z)]
        r = np.linalg.norm(grids.coords - position, axis=1)[:, None]
        charges = atom.coefficients * (np.pi / atom.exponents) ** 1.5
        potential += (erf(np.sqrt(atom.exponents) * r) / r) @ charges
    orbitals = numint.eval_ao(mol, grids.coords)
    numerical = orbitals.T @ (orbitals * (grids.weights * potential)[:, None])
    np.testing.assert_allclose(coulomb_of_free_atoms(mol, atoms), numerical, atol=2e-4)


def test_baseline_of_one_atom_is_near_its_own_fock_matrix() -> None:
    """For neon the free atom is the molecule: H0 is the converged Fock matrix up to the fit."""
    neon = gto.M(atom="Ne", basis="def2-svp", verbose=0)
    mf = dft.RKS(neon, xc="pbe").run(conv_tol=1e-11)
    fock = mf.get_fock()
    h0 = baseline_hamiltonian(neon, PBE, free_atoms([10], PBE))
    assert np.abs(h0 - fock).mean() < 5e-4


@pytest.mark.parametrize("improper", [False, True])
@pytest.mark.parametrize("xc", ["pbe", "b3lyp", "svwn"])
def test_baseline_is_clean_under_rotation(xc: str, improper: bool) -> None:
    method = Method(xc=xc)
    atoms = free_atoms([1, 8], method)
    rotation = random_rotation(7, improper=improper)
    mol = build_molecule(WATER, method)
    turned = build_molecule(WATER.moved(WATER.positions @ rotation.T), method)
    d = orbital_rotation(basis_of_mol(mol), WATER.atomic_numbers, rotation)
    difference = d @ baseline_hamiltonian(mol, method, atoms) @ d.T - baseline_hamiltonian(turned, method, atoms)
    assert np.abs(difference).mean() < 0.5e-6  # Hartree; 65e-6 on a grid of level 0


def test_other_baselines() -> None:
    mol = build_molecule(WATER, PBE)
    assert not baseline_hamiltonian(mol, PBE.model_copy(update={"baseline": "none"}), {}).any()
    minao = PBE.model_copy(update={"baseline": "minao", "baseline_grid_level": 3})
    mf = dft.RKS(mol, xc="pbe")
    expected = mf.get_fock(dm=scf.hf.init_guess_by_minao(mol))
    np.testing.assert_allclose(baseline_hamiltonian(mol, minao, {}), expected, atol=1e-10)


def test_free_atoms_as_plain_data_and_back() -> None:
    atoms = free_atoms([1, 8], PBE)
    again = free_atoms_from_dict(free_atoms_to_dict(atoms))
    assert list(again) == [1, 8]
    for z in atoms:
        np.testing.assert_array_equal(again[z].coefficients, atoms[z].coefficients)
    with pytest.raises(BasisError, match="free atom 'H' is listed with Z=8"):
        free_atoms_from_dict({"H": atoms[8].to_dict()})
    with pytest.raises(BasisError, match="expected equally many finite coefficients"):
        FreeAtom.from_dict({"atomic_number": 1, "exponents": [1.0], "coefficients": [1.0, 2.0]})
    with pytest.raises(BasisError, match="no free-atom density for O; there are H"):
        free_atom_density_and_gradient(WATER, {1: atoms[1]}, np.zeros((1, 3)))
