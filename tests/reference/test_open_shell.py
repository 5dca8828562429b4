"""Unrestricted Kohn-Sham, charges, forces and density fitting, against PySCF."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from pyscf import dft, gto, scf
from pyscf.dft import numint

from qcsurrogate.errors import BasisError, RecordError
from qcsurrogate.reference.atoms import free_atoms
from qcsurrogate.reference.compute import check_record, compute_reference
from qcsurrogate.reference.density_fit import charges
from qcsurrogate.reference.kohn_sham import build_molecule, build_scf, run_kohn_sham
from qcsurrogate.reference.record import OPEN_SHELL_FIELDS, ReferenceRecord
from qcsurrogate.reference.settings import Method, Targets
from qcsurrogate.structures import Structure
from qcsurrogate.testing import orbital_rotation, random_rotation
from tests.molecules import WATER, superposed

UKS = Method(spin_treatment="unrestricted")
CHEAP = Method(basis="sto-3g", auxiliary_basis="def2-universal-jfit", grid_level=1)
CHEAP_UKS = CHEAP.model_copy(update={"spin_treatment": "unrestricted"})
EVERYTHING = Targets(core_hamiltonian=True, forces=True)

AMIDOGEN = Structure([7, 1, 1], [[0.1, -0.2, 0.1], [1.5, 1.0, 0.3], [-1.4, 1.1, -0.2]], spin=1, name="amidogen")
WATER_CATION = replace(WATER, charge=1, spin=1, name="water cation")
HYDRONIUM = Structure(
    [8, 1, 1, 1],
    [[0.0, 0.1, 0.2], [1.7, 0.3, -0.2], [-0.9, 1.6, -0.1], [-0.8, -1.5, -0.1]],
    charge=1,
    name="hydronium",
)


def pyscf_mol(structure: Structure, basis: str) -> Any:
    atoms = list(zip(structure.symbols, structure.positions.tolist(), strict=True))
    return gto.M(atom=atoms, unit="Bohr", basis=basis, charge=structure.charge, spin=structure.spin, verbose=0)


@pytest.fixture(scope="module")
def radical() -> ReferenceRecord:
    return compute_reference(AMIDOGEN, UKS, EVERYTHING, free_atoms([1, 7], UKS))


def test_labels_of_a_radical_are_pyscfs(radical: ReferenceRecord) -> None:
    mol = pyscf_mol(AMIDOGEN, "def2-svp")
    mf = dft.UKS(mol, xc="pbe").run(conv_tol=1e-11)
    assert radical.energy == pytest.approx(mf.e_tot, abs=1e-9)
    fock, density = np.asarray(mf.get_fock()), np.asarray(mf.make_rdm1())
    for name, spin in (("alpha", 0), ("beta", 1)):
        np.testing.assert_allclose(getattr(radical, f"hamiltonian_{name}"), fock[spin], atol=2e-6)
        np.testing.assert_allclose(getattr(radical, f"density_matrix_{name}"), density[spin], atol=2e-6)
    np.testing.assert_allclose(radical.spin_density_matrix, density[0] - density[1], atol=2e-6)
    np.testing.assert_allclose(radical.mo_energy, mf.mo_energy[0], atol=2e-6)
    np.testing.assert_allclose(radical.mo_energy_beta, mf.mo_energy[1], atol=2e-6)
    assert (radical.mo_occ.sum(), np.sum(radical.mo_occ_beta)) == (5, 4)
    assert radical.spin_square == pytest.approx(mf.spin_square()[0], abs=1e-7)
    assert 0.75 < radical.spin_square < 0.8
    np.testing.assert_allclose(radical.dipole, mf.dip_moment(unit="AU", verbose=0), atol=1e-6)
    np.testing.assert_allclose(radical.core_hamiltonian, mf.get_hcore(), atol=1e-12)
    gradient = mf.nuc_grad_method()
    gradient.grid_response = True
    np.testing.assert_allclose(radical.forces, -gradient.kernel(), atol=2e-6)
    check_record(radical)


@pytest.mark.parametrize("improper", [False, True], ids=["rotated", "reflected"])
def test_labels_of_a_radical_turn_with_it(radical: ReferenceRecord, improper: bool) -> None:
    """Recomputed by PySCF on the turned molecule; what is left is the noise of the grid."""
    turn = random_rotation(3, improper=improper)
    moved = AMIDOGEN.moved(AMIDOGEN.positions @ turn.T)
    turned = compute_reference(moved, UKS, Targets(), free_atoms([1, 7], UKS))
    d = orbital_rotation(UKS.orbital_basis([1, 7]), AMIDOGEN.atomic_numbers, turn)
    np.testing.assert_allclose(turned.overlap, d @ radical.overlap @ d.T, rtol=0, atol=1e-10)
    for name in ("hamiltonian_alpha", "hamiltonian_beta"):
        before = getattr(radical, name)
        assert np.abs(getattr(turned, name) - d @ before @ d.T).mean() < 0.5e-6  # Hartree
        assert np.abs(getattr(turned, name) - before).mean() > 1e-3
    aux = orbital_rotation(UKS.density_basis([1, 7]), AMIDOGEN.atomic_numbers, turn)
    for name in ("density_coefficients", "spin_density_coefficients"):
        np.testing.assert_allclose(getattr(turned, name), aux @ getattr(radical, name), atol=2e-4)


def test_fitted_densities_hold_every_electron_and_every_unpaired_one(radical: ReferenceRecord) -> None:
    basis = UKS.density_basis([1, 7])
    aux, mol = basis.build_mol(AMIDOGEN), build_molecule(AMIDOGEN, UKS)
    assert 9 + charges(aux) @ np.asarray(radical.density_coefficients) == pytest.approx(9, abs=1e-10)
    assert charges(aux) @ np.asarray(radical.spin_density_coefficients) == pytest.approx(1, abs=1e-10)
    unprojected = charges(aux) @ np.asarray(radical.spin_density_coefficients_unprojected)
    assert 1e-8 < abs(unprojected - 1) < 1e-2
    grids = dft.gen_grid.Grids(mol)
    grids.build()
    orbitals, functions = numint.eval_ao(mol, grids.coords), aux.eval_gto("GTOval_sph", grids.coords)
    free = superposed(AMIDOGEN, free_atoms([1, 7], UKS), grids.coords)
    for matrix, coefficients, known in (
        (radical.density_matrix, radical.density_coefficients, free),
        (radical.spin_density_matrix, radical.spin_density_coefficients, 0.0),
    ):
        exact = numint.eval_rho(mol, orbitals, matrix)
        error = known + functions @ np.asarray(coefficients) - exact
        assert grids.weights @ np.abs(error) < 0.02 < 0.1 * (grids.weights @ np.abs(exact))  # electrons


def test_a_singlet_of_two_spins_is_the_restricted_one() -> None:
    atoms = free_atoms([1, 8], CHEAP)
    closed = compute_reference(WATER, CHEAP, EVERYTHING, atoms)
    both = compute_reference(WATER, CHEAP_UKS, EVERYTHING, atoms)
    assert both.energy == pytest.approx(closed.energy, abs=1e-9)
    for name in ("hamiltonian", "density_matrix", "density_coefficients", "forces", "mo_energy"):
        np.testing.assert_allclose(both.value(name), closed.value(name), atol=2e-6, err_msg=name)
    np.testing.assert_allclose(both.mo_occ + np.asarray(both.mo_occ_beta), closed.mo_occ)
    np.testing.assert_allclose(both.spin_hamiltonian, 0, atol=1e-7)
    np.testing.assert_allclose(both.spin_density_coefficients, 0, atol=1e-6)
    assert both.spin_square == pytest.approx(0, abs=1e-8)
    assert both.unrestricted
    assert not closed.unrestricted
    assert all(closed.value(name) is None for name in OPEN_SHELL_FIELDS)
    np.testing.assert_array_equal(closed.density_matrix_alpha + closed.density_matrix_beta, closed.density_matrix)


@pytest.mark.parametrize(("structure", "method"), [(HYDRONIUM, CHEAP), (WATER_CATION, CHEAP_UKS)])
def test_charged_molecules(structure: Structure, method: Method) -> None:
    record = compute_reference(structure, method, EVERYTHING, free_atoms([1, 8], method))
    mol = pyscf_mol(structure, "sto-3g")
    mf = (dft.UKS if structure.spin else dft.RKS)(mol, xc="pbe")
    mf.grids.level = 1
    mf.run(conv_tol=1e-11)
    assert record.energy == pytest.approx(mf.e_tot, abs=1e-8)
    np.testing.assert_allclose(record.dipole, mf.dip_moment(unit="AU", verbose=0), atol=1e-5)
    integral = charges(method.density_basis([1, 8]).build_mol(structure)) @ np.asarray(record.density_coefficients)
    assert integral == pytest.approx(-structure.charge, abs=1e-9)
    if structure.spin:
        assert record.spin_square == pytest.approx(mf.spin_square()[0], abs=1e-6)


@pytest.mark.parametrize(
    ("structure", "method"),
    [
        (AMIDOGEN, CHEAP_UKS),
        (AMIDOGEN, CHEAP_UKS.model_copy(update={"density_fit": "def2-universal-jfit"})),
        (WATER, CHEAP.model_copy(update={"xc": "pbe0"})),
        (WATER, CHEAP.model_copy(update={"xc": "r2scan"})),
    ],
    ids=["exact", "fitted", "hybrid", "meta"],
)
def test_forces_are_slopes_of_the_energy(structure: Structure, method: Method) -> None:
    """Central differences, on the coarsest grid: forces without the response of the grid are far off there."""
    method = method.model_copy(update={"grid_level": 0, "conv_tol": 1e-12, "conv_tol_grad": 1e-8})
    elements = set(structure.atomic_numbers.tolist())
    targets = Targets(density_coefficients=False, forces=True)
    record = compute_reference(structure, method, targets, free_atoms(elements, method))
    step = np.zeros_like(structure.positions)
    step[1] = 6e-4, 8e-4, 0.0
    above, below = (run_kohn_sham(structure.moved(structure.positions + s), method).energy for s in (step, -step))
    slope = -(above - below) / 2e-3
    assert record.forces is not None
    assert record.forces[1] @ [0.6, 0.8, 0.0] == pytest.approx(slope, abs=1e-6)
    rigid = -run_kohn_sham(structure, method).scf.nuc_grad_method().kernel()
    assert abs(rigid[1] @ [0.6, 0.8, 0.0] - slope) > 1e-4
    with pytest.raises(RecordError, match=r"the forces add up to .*expected at most 1e-06: they lack the response"):
        check_record(replace(record, forces=rigid))


@pytest.mark.parametrize("structure", [WATER, AMIDOGEN])
def test_density_fitting_is_pyscfs(structure: Structure) -> None:
    method = CHEAP_UKS.model_copy(update={"density_fit": True})
    mol = pyscf_mol(structure, "sto-3g")
    mf = dft.UKS(mol, xc="pbe").density_fit()
    mf.grids.level = 1
    mf.run(conv_tol=1e-11)
    assert run_kohn_sham(structure, method).energy == pytest.approx(mf.e_tot, abs=1e-8)
    named = method.model_copy(update={"density_fit": "weigend"})
    difference = run_kohn_sham(structure, named).energy - run_kohn_sham(structure, CHEAP_UKS).energy
    assert 1e-7 < abs(difference) < 1e-3
    with pytest.raises(BasisError, match="no basis 'wiegend' for element H"):
        run_kohn_sham(structure, method.model_copy(update={"density_fit": "wiegend"}))


def test_restricted_open_shells_are_refused_with_a_reason() -> None:
    for word in ("roks", "ROKS", "rohf", "restricted_open", "restricted-open-shell"):
        with pytest.raises(
            ValidationError, match=rf"{word} \(restricted open shell\) has no unique Fock matrix.*use unr"
        ):
            Method(spin_treatment=word)  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="'restricted' or 'unrestricted'"):
        Method(spin_treatment="generalized")  # type: ignore[arg-type]


def test_scf_objects_are_of_the_right_kind() -> None:
    assert isinstance(build_scf(build_molecule(WATER, CHEAP), CHEAP), dft.rks.RKS)
    unrestricted = build_scf(build_molecule(AMIDOGEN, CHEAP_UKS), CHEAP_UKS)
    assert isinstance(unrestricted, dft.uks.UKS)
    assert not isinstance(unrestricted, scf.rohf.ROHF)


def test_no_damaged_unrestricted_record_passes_the_checks(radical: ReferenceRecord) -> None:
    def damaged(**changes: Any) -> ReferenceRecord:
        return replace(radical, **changes)

    beta = np.asarray(radical.mo_energy_beta)
    spin_density, spin_fock = np.asarray(radical.spin_density_matrix), np.asarray(radical.spin_hamiltonian)
    skewed = spin_fock.copy()
    skewed[0, 1] += 1e-6
    for record, words in (
        (damaged(spin_density_matrix=0.9 * spin_density), r"tr\(D S\) of alpha = 4\.95.*expected 5 electrons"),
        (damaged(mo_energy_beta=beta + 1e-3), "orbital energies of beta differ"),
        (damaged(spin_hamiltonian=-spin_fock), r"of alpha"),
        (damaged(spin_hamiltonian=skewed), r"spin_hamiltonian differs from its transpose"),
        (damaged(spin_hamiltonian=spin_fock * np.nan), "spin_hamiltonian holds numbers that are not finite"),
        (damaged(mo_occ_beta=np.asarray(radical.mo_occ_beta) * 2), "occupations of beta add up to 8, expected 4"),
        (damaged(spin_square=float("nan")), "the spin_square is nan; expected a finite number"),
        (damaged(mo_energy_beta=None), "spin 1 lacks mo_energy_beta; expected all"),
        (damaged(**dict.fromkeys(OPEN_SHELL_FIELDS)), "spin 1 lacks spin_hamiltonian, spin_density_matrix"),
    ):
        with pytest.raises(RecordError, match=words):
            check_record(record)
