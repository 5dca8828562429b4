"""H0 of atomic potentials against PySCF, and the orthogonalised basis in which it is corrected."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pyscf.gto.basis import load
from pyscf.scf import hf

from qcsurrogate.basis import orbital_basis
from qcsurrogate.errors import BasisError
from qcsurrogate.reference.kohn_sham import run_kohn_sham
from qcsurrogate.reference.orthogonal import SMEARING, StartingPoint, smooth_occupations
from qcsurrogate.reference.potentials import (
    AtomicPotential,
    core_hamiltonian,
    exponents_for,
    fit_potentials,
    potential_hamiltonian,
    potentials_from_dict,
    potentials_to_dict,
    response_hamiltonian,
)
from qcsurrogate.reference.settings import Method
from qcsurrogate.structures import Structure
from qcsurrogate.testing import orbital_rotation, random_rotation

METHOD = Method(basis="def2-svp", xc="pbe", grid_level=1)
WATER = Structure([8, 1, 1], [[0.1, -0.2, 0.3], [0.2, 1.3, 1.4], [0.3, -1.6, 1.5]], name="water")
METHANOL = Structure(
    [6, 8, 1, 1, 1, 1],
    [[-1.3, 0.0, 0.0], [1.4, 0.0, 0.1], [2.0, 1.7, 0.0], [-2.0, 1.0, 1.7], [-2.0, 0.9, -1.7], [-2.0, -1.9, 0.1]],
    name="methanol",
)


@pytest.fixture(scope="module")
def fitted() -> dict[int, AtomicPotential]:
    basis = METHOD.orbital_basis([1, 6, 8])
    found = [(s, run_kohn_sham(s, METHOD)) for s in (WATER, METHANOL)]
    return fit_potentials(((s, scf.hamiltonian, scf.density_matrix) for s, scf in found), basis)


def test_the_published_potentials_give_what_pyscf_makes_of_them() -> None:
    """S. Lehtola, L. Visscher, E. Engel, J. Chem. Phys. 2020, 152, 144105: tables of error-function fits."""
    tables = {s: np.asarray(load("sapgrasplarge", s)[0][1:]) for s in ("H", "C", "O")}
    potentials = {
        z: AtomicPotential(tables[s][:, 0], -tables[s][:, 1], tables[s][:, 1])
        for z, s in ((1, "H"), (6, "C"), (8, "O"))
    }
    mol = METHOD.orbital_basis([1, 6, 8]).build_mol(METHANOL)
    expected = core_hamiltonian(mol) + hf.make_sap(mol, tables)
    np.testing.assert_allclose(potential_hamiltonian(mol, potentials), expected, atol=1e-11)


def test_fitted_atoms_are_neutral_and_near(fitted: dict[int, AtomicPotential]) -> None:
    for z, potential in fitted.items():
        assert potential.charges.sum() == pytest.approx(z, abs=1e-8)
        assert potential.electrons.sum() == pytest.approx(z, abs=1e-8)
    turned = METHANOL.moved(METHANOL.positions @ random_rotation(3).T * 1.01)
    mol = METHOD.orbital_basis([1, 6, 8]).build_mol(turned)
    error = np.abs(run_kohn_sham(turned, METHOD).hamiltonian - potential_hamiltonian(mol, fitted)).mean()
    assert error < 2.5e-3  # Hartree; the published potentials are 40e-3 off


def test_known_charges_are_found_again() -> None:
    """Up to charges that move no matrix element by more than 1e-4 of 43 Hartree, which are left at rest."""
    generator = np.random.default_rng(0)
    truth = {}
    for z in (1, 6, 8):
        charges = generator.normal(size=len(exponents_for(z)))
        truth[z] = AtomicPotential(exponents_for(z), charges * z / charges.sum(), np.zeros_like(charges))
    basis = METHOD.orbital_basis([1, 6, 8])
    mols = [basis.build_mol(s) for s in (WATER, METHANOL)]
    samples = [
        (s, potential_hamiltonian(mol, truth), np.eye(mol.nao)) for s, mol in zip((WATER, METHANOL), mols, strict=True)
    ]
    found = fit_potentials(samples, basis)
    other = METHANOL.moved(METHANOL.positions * 1.05)
    matrices = [potential_hamiltonian(basis.build_mol(other), p) for p in (truth, found)]
    np.testing.assert_allclose(matrices[1], matrices[0], atol=1e-4)


def test_the_response_is_the_coulomb_potential_of_what_differs_from_atoms(fitted: dict[int, AtomicPotential]) -> None:
    """Against PySCF's J, less that of the fitted electrons of the atoms, in the orthogonalised basis."""
    basis = METHOD.orbital_basis([1, 6, 8])
    mol, density = basis.build_mol(METHANOL), run_kohn_sham(METHANOL, METHOD).density_matrix
    atoms = {z: replace(p, charges=p.electrons) for z, p in fitted.items()}
    exact = hf.get_jk(mol, density)[0] - (potential_hamiltonian(mol, atoms) - core_hamiltonian(mol))
    values, vectors = np.linalg.eigh(mol.intor_symmetric("int1e_ovlp"))
    root = (vectors / np.sqrt(values)) @ vectors.T
    found = response_hamiltonian(mol, fitted, density)
    missed = np.diag(root @ (found - exact) @ root)
    there = np.diag(root @ exact @ root)
    assert np.sqrt(np.mean(missed**2)) < 0.3 * np.sqrt(np.mean(there**2))


def test_charge_that_moved_far_acts_as_a_point(fitted: dict[int, AtomicPotential]) -> None:
    """Both electrons of two hydrogens on the first: a third, 40 bohr away, feels a dipole of 20 e bohr.

    To half a percent: three functions on an atom do not hold all of a charge.
    """
    basis = METHOD.orbital_basis([1])
    positions = np.array([[0.0, 0.0, 0.0], [20.0, 0.0, 0.0], [60.0, 0.0, 0.0]])
    mol = basis.build_mol(Structure([1, 1, 1], positions, spin=1))
    n = mol.nao // 3
    single = np.zeros((mol.nao, mol.nao))
    single[0, 0], single[n, n], single[2 * n, 2 * n] = 2.0, 0.0, 1.0  # 1s functions are normalised
    moved = response_hamiltonian(mol, fitted, single)
    at_rest = response_hamiltonian(mol, fitted, np.diag([1.0 if k % n == 0 else 0.0 for k in range(mol.nao)]))
    assert (moved - at_rest)[2 * n, 2 * n] == pytest.approx(1.0 / 60.0 - 1.0 / 40.0, rel=5e-3)


def test_parts_of_the_integrals_add_up(fitted: dict[int, AtomicPotential], monkeypatch: pytest.MonkeyPatch) -> None:
    basis = METHOD.orbital_basis([1, 6, 8])
    mol = basis.build_mol(METHANOL)
    generator = np.random.default_rng(0)
    density = generator.normal(size=(mol.nao, mol.nao))
    density = density + density.T
    whole = response_hamiltonian(mol, fitted, density), potential_hamiltonian(mol, fitted)
    monkeypatch.setattr("qcsurrogate.reference.charges._MOST_BYTES", 2**16)
    parts = response_hamiltonian(mol, fitted, density), potential_hamiltonian(mol, fitted)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-10)


def test_potentials_travel_as_plain_data(fitted: dict[int, AtomicPotential]) -> None:
    again = potentials_from_dict(potentials_to_dict(fitted))
    for z, potential in fitted.items():
        np.testing.assert_array_equal(again[z].exponents, potential.exponents)
        np.testing.assert_array_equal(again[z].charges, potential.charges)
        np.testing.assert_array_equal(again[z].electrons, potential.electrons)


@pytest.mark.parametrize(
    "data",
    [
        {"Xx": {"exponents": [1.0], "charges": [1.0], "electrons": [1.0]}},
        {"H": {"exponents": [-1.0], "charges": [1.0], "electrons": [1.0]}},
        {"H": {"exponents": [1.0, 2.0], "charges": [1.0], "electrons": [1.0]}},
        {"H": {"exponents": [1.0], "charges": [float("nan")], "electrons": [1.0]}},
        {"H": {"exponents": [float("inf")], "charges": [1.0], "electrons": [1.0]}},
        {"H": {"exponents": [1.0], "charges": [1.0], "electrons": [1.0], "run": "x"}},
        {"H": {"exponents": [1.0] * 1000, "charges": [1.0] * 1000, "electrons": [1.0] * 1000}},
        {"H": {"exponents": [1.0], "charges": [1.0], "electrons": [1.0, 2.0]}},
        {"H": {"exponents": [1.0], "charges": [1.0]}},
        {"H": 3},
        [],
    ],
)
def test_what_is_no_potential_is_refused(data: object) -> None:
    with pytest.raises(BasisError, match="atomic potentials are written as"):
        potentials_from_dict(data)  # type: ignore[arg-type]


def test_an_element_without_a_potential_is_named(fitted: dict[int, AtomicPotential]) -> None:
    mol = orbital_basis("sto-3g", [7]).build_mol(Structure([7], np.zeros((1, 3)), spin=3))
    with pytest.raises(BasisError, match="no atomic potential for N; expected one for every element"):
        potential_hamiltonian(mol, fitted)


def test_the_correction_and_its_inverse(fitted: dict[int, AtomicPotential]) -> None:
    basis = METHOD.orbital_basis([1, 6, 8])
    start = StartingPoint.of(METHANOL, basis, fitted)
    overlap = basis.build_mol(METHANOL).intor("int1e_ovlp")
    np.testing.assert_allclose(start.root @ start.root, overlap, atol=1e-12)
    np.testing.assert_allclose(start.root @ start.inverse_root, np.eye(len(overlap)), atol=1e-10)
    hamiltonian = run_kohn_sham(METHANOL, METHOD).hamiltonian
    np.testing.assert_allclose(start.hamiltonian(start.correction(hamiltonian)), hamiltonian, atol=1e-11)
    assert np.trace(start.density) == pytest.approx(METHANOL.n_electrons, abs=1e-10)


@pytest.mark.parametrize("improper", [False, True])
def test_the_starting_point_turns_with_the_molecule(fitted: dict[int, AtomicPotential], *, improper: bool) -> None:
    basis = METHOD.orbital_basis([1, 6, 8])
    rotation = random_rotation(1, improper=improper)
    one = StartingPoint.of(METHANOL, basis, fitted)
    other = StartingPoint.of(METHANOL.moved(METHANOL.positions @ rotation.T), basis, fitted)
    turn = orbital_rotation(basis, METHANOL.atomic_numbers, rotation)
    for name in ("baseline", "root", "inverse_root", "density"):
        np.testing.assert_allclose(getattr(other, name), turn @ getattr(one, name) @ turn.T, atol=1e-9, err_msg=name)


def test_occupations_add_up_and_are_sharp_over_a_gap() -> None:
    energies = np.array([-1.0, -0.5, 0.5, 0.9])
    np.testing.assert_allclose(smooth_occupations(energies, 4), [2.0, 2.0, 0.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(smooth_occupations(energies, 0), 0.0)
    np.testing.assert_allclose(smooth_occupations(energies, 8), 2.0)
    np.testing.assert_allclose(smooth_occupations(np.array([-1.0, 0.0, 0.0, 0.0]), 4), [2.0, 2 / 3, 2 / 3, 2 / 3])


def test_the_density_of_h0_is_smooth_where_its_gap_vanishes() -> None:
    """Two levels cross: with whole electrons the density would jump, here the smearing says how fast it changes."""
    steps = np.linspace(-3.0, 3.0, 121) * SMEARING
    occupations = np.array(
        [smooth_occupations(np.sort([-1.0, 0.0, x]), 4)[np.argsort(np.argsort([-1.0, 0.0, x]))] for x in steps]
    )
    changes = np.abs(np.diff(occupations, axis=0)).max() / (steps[1] - steps[0])
    assert changes < 0.6 / SMEARING
    np.testing.assert_allclose(occupations.sum(1), 4.0)


def test_a_degenerate_atom_has_a_round_density(fitted: dict[int, AtomicPotential]) -> None:
    """Four electrons in the three p orbitals of oxygen: a third of them in each, whatever the axes."""
    basis = METHOD.orbital_basis([8])
    atom = Structure([8], np.zeros((1, 3)), name="oxygen")
    density = StartingPoint.of(atom, basis, fitted).density
    for seed in range(3):
        turn = orbital_rotation(basis, np.array([8]), random_rotation(seed))
        np.testing.assert_allclose(turn @ density @ turn.T, density, atol=1e-10)


def test_functions_that_depend_on_each_other_are_refused(
    fitted: dict[int, AtomicPotential], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qcsurrogate.reference.orthogonal.SMALLEST_OVERLAP", 1e-6)
    basis = orbital_basis("aug-cc-pv5z", [1])
    near = Structure([1, 1], [[0.0, 0.0, 0.0], [0.0, 0.0, 0.7]], name="near")
    with pytest.raises(BasisError, match=r"'near': the smallest eigenvalue of the overlap is 1\.0e-07, expected more"):
        StartingPoint.of(near, basis, fitted)
