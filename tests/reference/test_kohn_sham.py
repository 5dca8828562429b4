"""The SCF ladder, the density fit, the record and its checks."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from pyscf import dft, gto
from pyscf.dft import numint

from qcsurrogate.errors import BasisError, ConvergenceError, RecordError, SpecError, StructureError
from qcsurrogate.reference import ladder
from qcsurrogate.reference.atoms import free_atoms
from qcsurrogate.reference.compute import check_record, compute_reference
from qcsurrogate.reference.density_fit import charges, fit_density
from qcsurrogate.reference.kohn_sham import build_molecule, run_kohn_sham
from qcsurrogate.reference.normal_modes import harmonic_modes
from qcsurrogate.reference.record import FIELD, ReferenceRecord
from qcsurrogate.reference.settings import EvenTempered, Method, Targets
from qcsurrogate.structures import Structure
from qcsurrogate.testing import orbital_rotation, random_rotation
from tests.molecules import WATER, superposed

PBE = Method()
STO = Method(basis="sto-3g", auxiliary_basis="def2-universal-jfit")


@pytest.fixture(scope="module")
def record() -> ReferenceRecord:
    targets = Targets(core_hamiltonian=True, forces=True)
    return compute_reference(WATER, PBE, targets, free_atoms([1, 8], PBE))


def test_record_is_pyscfs_answer(record: ReferenceRecord) -> None:
    mol = gto.M(
        atom=list(zip(WATER.symbols, WATER.positions.tolist(), strict=True)), unit="Bohr", basis="def2-svp", verbose=0
    )
    mf = dft.RKS(mol, xc="pbe").run(conv_tol=1e-11)
    assert record.energy == pytest.approx(mf.e_tot, abs=1e-9)
    np.testing.assert_allclose(record.hamiltonian, mf.get_fock(), atol=2e-6)
    np.testing.assert_allclose(record.mo_energy, mf.mo_energy, atol=1e-6)
    np.testing.assert_allclose(record.density_matrix, mf.make_rdm1(), atol=1e-6)
    np.testing.assert_allclose(record.overlap, mol.intor("int1e_ovlp"), atol=1e-12)
    np.testing.assert_allclose(record.dipole, mf.dip_moment(unit="AU", verbose=0), atol=1e-6)
    gradient = mf.nuc_grad_method()
    gradient.grid_response = True
    np.testing.assert_allclose(record.forces, -gradient.kernel(), atol=1e-6)
    np.testing.assert_allclose(record.core_hamiltonian, mf.get_hcore(), atol=1e-12)
    assert record.ladder_step == 0
    assert record.mo_occ.sum() == 10


@pytest.mark.parametrize("improper", [False, True])
def test_labels_turn_with_the_molecule(record: ReferenceRecord, improper: bool) -> None:
    """Recomputed by PySCF on the rotated molecule; what is left is the noise of the grid."""
    rotation = random_rotation(2, improper=improper)
    turned = compute_reference(WATER.moved(WATER.positions @ rotation.T), PBE, Targets(), free_atoms([1, 8], PBE))
    d = orbital_rotation(PBE.orbital_basis([1, 8]), WATER.atomic_numbers, rotation)
    assert np.abs(turned.hamiltonian - d @ record.hamiltonian @ d.T).mean() < 0.5e-6
    aux = orbital_rotation(PBE.density_basis([1, 8]), WATER.atomic_numbers, rotation)
    assert record.density_coefficients is not None
    np.testing.assert_allclose(turned.density_coefficients, aux @ record.density_coefficients, atol=1e-4)


@pytest.mark.parametrize(
    ("auxiliary", "floor"),
    [
        ("def2-universal-jfit", 1.6),
        (EvenTempered(even_tempered_beta=2.0), 0.34),
        (EvenTempered(even_tempered_beta=1.6), 0.20),
        (EvenTempered(even_tempered_beta=1.8, diffuse=1, higher_l=1), 0.11),
        (EvenTempered(even_tempered_beta=1.6, diffuse=2, higher_l=2), 0.05),
    ],
)
def test_fit_reaches_its_floor(record: ReferenceRecord, auxiliary: str | EvenTempered, floor: float) -> None:
    """Error of the fit in percent of int |drho| / N, electron count and dipole against the true density."""
    method = PBE.model_copy(update={"auxiliary_basis": auxiliary})
    atoms = free_atoms([1, 8], method)
    mol = build_molecule(WATER, method)
    basis = method.density_basis([1, 8])
    fitted = fit_density(mol, basis, record.density_matrix, atoms)
    aux = basis.build_mol(WATER)
    assert 10 + charges(aux) @ fitted.coefficients == pytest.approx(10, abs=1e-10)
    grids = dft.gen_grid.Grids(mol)
    grids.build()
    exact = numint.eval_rho(mol, numint.eval_ao(mol, grids.coords), record.density_matrix)
    free = superposed(WATER, atoms, grids.coords)
    error = free + aux.eval_gto("GTOval_sph", grids.coords) @ fitted.coefficients - exact
    nmae = 100 * grids.weights @ np.abs(error) / 10
    assert nmae < floor < 100 * grids.weights @ np.abs(free - exact) / 10
    assert np.linalg.norm((grids.weights * error) @ grids.coords) * 2.54 < 0.1  # debye


@pytest.mark.parametrize("improper", [False, True])
def test_a_fit_with_higher_l_turns_with_the_molecule(record: ReferenceRecord, improper: bool) -> None:
    method = PBE.model_copy(update={"auxiliary_basis": EvenTempered(even_tempered_beta=2.5, diffuse=1, higher_l=2)})
    basis, atoms, rotation = method.density_basis([1, 8]), free_atoms([1, 8], method), random_rotation(4)
    rotation = -rotation if improper else rotation
    assert basis.l_max == 6
    turned = WATER.moved(WATER.positions @ rotation.T)
    d = orbital_rotation(method.orbital_basis([1, 8]), WATER.atomic_numbers, rotation)
    found = fit_density(build_molecule(turned, method), basis, d @ record.density_matrix @ d.T, atoms).coefficients
    plain = fit_density(build_molecule(WATER, method), basis, record.density_matrix, atoms).coefficients
    expected = orbital_rotation(basis, WATER.atomic_numbers, rotation) @ plain
    np.testing.assert_allclose(found, expected, atol=1e-8 * np.abs(plain).max())


def test_charges_are_integrals() -> None:
    aux = PBE.density_basis([8]).build_mol(Structure(np.array([8]), np.zeros((1, 3))))
    grids = dft.gen_grid.Grids(gto.M(atom="O", basis="def2-svp", spin=2, verbose=0))
    grids.level = 6
    grids.build()
    numerical = grids.weights @ aux.eval_gto("GTOval_sph", grids.coords)
    np.testing.assert_allclose(charges(aux), numerical, atol=2e-4)


def test_what_does_not_converge_is_refused() -> None:
    stretched = Structure(np.array([8, 1, 1]), WATER.positions * 2.5, name="torn water")
    with pytest.raises(
        ConvergenceError, match=r"SCF for structure 'torn water' \(H2O, pbe/def2-svp\) did not converge"
    ) as e:
        run_kohn_sham(stretched, PBE.model_copy(update={"max_cycle": 1}))
    assert "raise method.max_cycle (now 1 per step)" in str(e.value)


def test_later_steps_of_the_ladder_find_the_same_state(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = run_kohn_sham(WATER, STO)

    def hopeless(scf: object) -> object:
        scf.max_cycle = 1  # type: ignore[attr-defined]
        return scf

    for skipped in range(1, len(ladder.LADDER)):
        steps = [hopeless] * skipped + list(ladder._STEPS[skipped:])
        monkeypatch.setattr(ladder, "_STEPS", tuple(steps))
        found = run_kohn_sham(WATER, STO.model_copy(update={"search": "first"}))
        assert found.ladder_step == skipped
        assert found.energy == pytest.approx(expected.energy, abs=1e-8)
        np.testing.assert_allclose(found.hamiltonian, expected.hamiltonian, atol=2e-5)
        monkeypatch.undo()


def test_open_shells_unknown_functionals_and_bases_are_refused() -> None:
    radical = Structure(np.array([8, 1]), np.array([[0.0, 0, 0], [0, 0, 1.8]]), spin=1, name="hydroxyl")
    with pytest.raises(StructureError, match=r"'hydroxyl' has spin 1; expected 0: only closed shells"):
        run_kohn_sham(radical, PBE)
    with pytest.raises(SpecError, match=r"PySCF does not know the functional 'pbee' \(method.xc\)"):
        run_kohn_sham(WATER, PBE.model_copy(update={"xc": "pbee"}))
    with pytest.raises(BasisError, match="PySCF has no basis 'def3-svp' for element H"):
        run_kohn_sham(WATER, PBE.model_copy(update={"basis": "def3-svp"}))


def test_no_damaged_record_passes_the_checks(record: ReferenceRecord) -> None:
    check_record(record)
    skewed = record.hamiltonian.copy()
    skewed[0, 1] += 1e-6
    with pytest.raises(RecordError, match=r"hamiltonian differs from its transpose by 1\.0e-06"):
        check_record(replace(record, hamiltonian=skewed))
    with pytest.raises(RecordError, match=r"tr\(D S\) = 9\.9.*expected 10 electrons"):
        check_record(replace(record, density_matrix=record.density_matrix * 0.999))
    with pytest.raises(RecordError, match="orbital energies differ"):
        check_record(replace(record, mo_energy=record.mo_energy + 1e-4))
    with pytest.raises(RecordError, match="SCF is not converged"):
        check_record(replace(record, hamiltonian=record.hamiltonian + 0.01 * np.diag(np.arange(24.0))))
    with pytest.raises(RecordError, match="overlap holds numbers that are not finite"):
        check_record(replace(record, overlap=record.overlap * np.nan))


def test_normal_modes_of_water_are_pyscfs() -> None:
    from pyscf.hessian import thermo

    modes = harmonic_modes(WATER, STO)
    mol = STO.orbital_basis([1, 8]).build_mol(modes.equilibrium)
    mf = dft.RKS(mol, xc="pbe").run(conv_tol=1e-11)
    assert np.abs(mf.nuc_grad_method().kernel()).max() < 1e-3
    published = thermo.harmonic_analysis(mol, mf.Hessian().kernel())["freq_au"]
    assert len(modes.angular_frequencies) == 3
    atomic_mass_unit = 1822.888486
    np.testing.assert_allclose(modes.angular_frequencies * np.sqrt(atomic_mass_unit), published, rtol=1e-3)


def test_every_part_of_a_record_is_listed_for_the_store() -> None:
    of_structure = {"atomic_numbers", "positions", "charge", "spin"}
    assert {f.name for f in fields(ReferenceRecord)} - {"structure"} | of_structure == set(FIELD)
