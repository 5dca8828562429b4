"""Everything that predict accepts, and everything that it must refuse."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.io import write
from pyscf import gto

from qcsurrogate.errors import BasisError, DomainError, SpecError, StructureError
from qcsurrogate.structures import Structure
from tests.prediction.exact import METHOD, STRETCHED, WATER

WATER_ASE = WATER.to_ase()


@pytest.fixture
def water_xyz(tmp_path):
    path = tmp_path / "water.xyz"
    write(path, Atoms(WATER_ASE.symbols, WATER_ASE.positions), format="xyz", fmt="%20.12f")
    return path


def mole(basis="sto-3g", **options):
    atom = list(zip(WATER.symbols, WATER.positions.tolist(), strict=True))
    return gto.M(atom=atom, unit="Bohr", basis=basis, verbose=0, **options)


def test_every_form_of_one_molecule_gives_the_same(hamiltonian_surrogate, water_xyz, reference):
    for x in (WATER, WATER_ASE, mole(), mole(METHOD.basis.upper()), water_xyz, str(water_xyz)):
        prediction = hamiltonian_surrogate.predict(x)
        np.testing.assert_allclose(prediction.hamiltonian, reference.hamiltonian, atol=1e-8)


def test_matrices_are_in_the_order_of_the_users_mole(hamiltonian_surrogate):
    first, second, p_shell = gto.basis.load("sto-3g", "O")
    mol = mole({"H": gto.basis.load("sto-3g", "H"), "O": [p_shell, first, second]})
    np.testing.assert_allclose(hamiltonian_surrogate.predict(mol).overlap, mol.intor("int1e_ovlp"), atol=1e-12)


def test_a_list_gives_a_list(hamiltonian_surrogate, water_xyz):
    results = hamiltonian_surrogate.predict([WATER_ASE, water_xyz, mole(), STRETCHED])
    assert [r.structure.name for r in results] == ["water", "water", "", "stretched"]
    assert len(hamiltonian_surrogate.predict([WATER])) == 1
    assert len(hamiltonian_surrogate.predict((WATER, WATER))) == 2
    assert hamiltonian_surrogate.predict([]) == []


def test_a_file_of_several_structures_gives_a_list(density_surrogate, tmp_path):
    path = tmp_path / "two.extxyz"
    write(path, [WATER_ASE, STRETCHED.to_ase()])
    results = density_surrogate.predict(path)
    assert [r.structure.name for r in results] == ["water", "stretched"]
    with pytest.raises(StructureError, match=r"two.extxyz' \(item 1 of the list\) holds 2 structures; expected one"):
        density_surrogate.predict([WATER, path])


@pytest.mark.parametrize(
    ("x", "words"),
    [
        ("nowhere.xyz", "cannot find the structure file 'nowhere.xyz'"),
        (42, "cannot predict for a int; expected an ASE Atoms"),
        ([WATER, {"O": 1}], r"cannot predict for a dict \(item 1 of the list\)"),
        (Atoms("OH2", np.full((3, 3), np.nan)), "position of atom 0 .* expected finite numbers"),
        (Atoms("OH2", [[0, 0, 0], [0, 0, 1], [0, 0, 1.01]]), "Angstrom apart; expected at least"),
        (Atoms("OH", [[0, 0, 0], [0, 0, 1]]), "9 electrons .* cannot have spin 0"),
        (Atoms("OH2", WATER_ASE.positions, cell=[9, 9, 9], pbc=True), "periodic"),
    ],
)
def test_bad_input_is_refused(hamiltonian_surrogate, x, words):
    with pytest.raises(StructureError, match=words):
        hamiltonian_surrogate.predict(x)


@pytest.mark.parametrize(
    "text", ["3\n\nO 0 0 0\nH 0 0\nH 0 1 0\n", "3\n\nO 0 0 0\nH 0 0 1\n", "hello\n", "", "1\n\nXx 0 0 0\n"]
)
def test_a_malformed_xyz_is_refused(hamiltonian_surrogate, tmp_path, text):
    path = tmp_path / "bad.xyz"
    path.write_text(text)
    with pytest.raises(StructureError, match=r"bad.xyz|not an atomic number"):
        hamiltonian_surrogate.predict(path)


def test_a_mole_that_is_not_built_is_refused(hamiltonian_surrogate):
    mol = gto.Mole(atom="O 0 0 0", basis="sto-3g")
    with pytest.raises(StructureError, match=r"not built; call mol.build\(\) first"):
        hamiltonian_surrogate.predict(mol)


def test_foreign_elements_are_refused(hamiltonian_surrogate):
    methane = Atoms("CH4", [[0, 0, 0], [0.6, 0.6, 0.6], [-0.6, -0.6, 0.6], [-0.6, 0.6, -0.6], [0.6, -0.6, -0.6]])
    with pytest.raises(DomainError, match=r"\(CH4\) holds C; this hamiltonian model was trained on H, O only"):
        hamiltonian_surrogate.predict([WATER, methane])
    assert hamiltonian_surrogate.model.batches == []  # refused before anything is computed


def test_another_charge_or_spin_is_refused(density_surrogate):
    with pytest.raises(DomainError, match=r"has charge 2 and spin 0 .* trained on charge 0 and spin 0 only"):
        density_surrogate.predict(Structure(WATER.atomic_numbers, WATER.positions, charge=2))
    with pytest.raises(DomainError, match="has charge 0 and spin 2"):
        density_surrogate.predict(mole(spin=2))


def test_a_mole_in_another_basis_is_refused(hamiltonian_surrogate, density_surrogate):
    for surrogate in (hamiltonian_surrogate, density_surrogate):
        with pytest.raises(DomainError, match=r"has the basis 'def2-svp'; .* trained in 'sto-3g'"):
            surrogate.predict(mole("def2-svp"))
        with pytest.raises(BasisError, match="Cartesian"):
            surrogate.predict(mole("def2-svp", cart=True))


def test_a_mole_with_core_potentials_is_refused(hamiltonian_surrogate):
    iodide = gto.M(atom="I 0 0 0; H 0 0 1.6", basis="def2-svp", ecp="def2-svp", verbose=0)
    with pytest.raises(StructureError, match=r"effective core potential .* on I0; expected all electrons"):
        hamiltonian_surrogate.predict([WATER, iodide])


def test_metadata_of_atoms_reaches_the_prediction(hamiltonian_surrogate):
    atoms = WATER.to_ase()
    del atoms.info["charge"]
    for info in ({"q": 2}, {"charges": [2, 0, 0]}):
        atoms.info |= info
        with pytest.raises(DomainError, match="has charge 2"):
            hamiltonian_surrogate.predict(atoms)
    atoms.info |= {"q": 0.5}
    with pytest.raises(StructureError, match=r"structure 'water': q=0\.5; expected an integer"):
        hamiltonian_surrogate.predict(atoms)


def test_a_batch_size_of_zero_is_refused(hamiltonian_surrogate):
    with pytest.raises(SpecError, match="batch_size = 0; expected 1 or more"):
        hamiltonian_surrogate.predict([WATER], batch_size=0)
