"""Free atoms against PySCF."""

from __future__ import annotations

import numpy as np
import pytest
from pyscf import dft, gto
from pyscf.dft import numint
from pyscf.scf import atom_ks

from qcsurrogate.errors import BasisError
from qcsurrogate.reference.atoms import (
    FreeAtom,
    free_atom,
    free_atom_mol,
    free_atoms,
    free_atoms_from_dict,
    free_atoms_to_dict,
)
from qcsurrogate.reference.settings import Method
from tests.molecules import WATER, superposed

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


def test_the_superposition_is_the_sum_of_its_atoms() -> None:
    atoms = free_atoms([1, 8], PBE)
    points = np.random.default_rng(0).normal(size=(50, 3)) * 2
    mol, coefficients = free_atom_mol(WATER, atoms)
    np.testing.assert_allclose(mol.eval_gto("GTOval_sph", points) @ coefficients, superposed(WATER, atoms, points))


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
        free_atom_mol(WATER, {1: atoms[1]})
