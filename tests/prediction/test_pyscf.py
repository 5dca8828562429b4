"""Mean-field objects of predictions, and SCFs that start from them, against PySCF's own."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from pyscf import dft, gto, lo, mp, scf, tddft
from pyscf.tools import cubegen, molden

import qcsurrogate
from qcsurrogate.domain import DomainVerdict
from qcsurrogate.errors import SpecError, StructureError
from qcsurrogate.prediction.pyscf import accelerate, surrogate_ks
from qcsurrogate.reference.evaluation import evaluate_once, one_shot
from qcsurrogate.reference.kohn_sham import build_scf
from qcsurrogate.structures import Structure
from tests.prediction.exact import HYDROGEN, METHOD, STRETCHED, WATER


def mole(basis: str = "sto-3g", **options: object) -> gto.Mole:
    atoms = list(zip(["O", "H", "H"], WATER.positions.tolist(), strict=True))
    return gto.M(atom=atoms, unit="Bohr", basis=basis, verbose=0, **options)


@pytest.fixture(scope="module")
def converged():
    mf = build_scf(mole(), METHOD)
    mf.kernel()
    return mf


@pytest.fixture
def mf(hamiltonian_surrogate):
    return surrogate_ks(mole(), hamiltonian_surrogate)


def test_it_is_a_plain_object_of_pyscf_that_says_what_it_is(mf, converged):
    assert type(mf) is type(converged)
    assert mf.converged
    assert not mf.surrogate.self_consistent
    assert (mf.surrogate.done, mf.surrogate.policy, mf.surrogate.fock_builds) == ("predicted", "surrogate", 1)
    assert mf.e_tot == pytest.approx(converged.e_tot, abs=1e-9)
    assert mf.e_tot == mf.surrogate.check.energy
    assert mf.surrogate.domain.summary.startswith("domain unknown")
    mf.verbose, mf.stdout = 5, io.StringIO()
    mf.unknown = 1
    mf.check_sanity()  # PySCF names the attributes that it does not know
    assert "unknown" in mf.stdout.getvalue()
    assert "surrogate" not in mf.stdout.getvalue()


def excitations(mf):
    solver = tddft.TDA(mf)
    solver.nstates, solver.verbose = 2, 0
    return solver.kernel()[0]


def mulliken(mf):
    return mf.mulliken_pop(verbose=0)[1]


def localised(mf):
    occupied = mf.mo_coeff[:, mf.mo_occ > 0]
    solver = lo.PipekMezey(mf.mol, occupied)
    solver.verbose = 0
    solver.kernel()
    return np.array([solver.cost_function()])


def gradient(mf):
    solver = mf.nuc_grad_method()
    solver.verbose = 0
    return solver.kernel()


DOWNSTREAM = {
    "mo_energy": lambda mf: mf.mo_energy,
    "make_rdm1": lambda mf: mf.make_rdm1(),
    "get_fock": lambda mf: mf.get_fock(),
    "dip_moment": lambda mf: mf.dip_moment(verbose=0),
    "quad_moment": lambda mf: mf.quad_moment(verbose=0),
    "mulliken_pop": mulliken,
    "mulliken_meta": lambda mf: mf.mulliken_meta(verbose=0)[1],
    "gradient": gradient,
    "tda": excitations,
    "iao": lambda mf: np.abs(lo.iao.iao(mf.mol, mf.mo_coeff[:, mf.mo_occ > 0], minao="minao")),
    "pipek_mezey": localised,
    "mp2": lambda mf: np.array([mp.MP2(mf.to_hf()).run(verbose=0).e_corr]),
    "stability": lambda mf: np.array([np.abs(mf.stability(return_status=True)[0]).max()]),
    "get_grad": lambda mf: mf.get_grad(mf.mo_coeff, mf.mo_occ),
}


@pytest.mark.parametrize("feature", DOWNSTREAM)
def test_what_comes_after_an_scf_takes_it(feature, mf, converged):
    np.testing.assert_allclose(DOWNSTREAM[feature](mf), DOWNSTREAM[feature](converged), atol=2e-5)


def test_files_of_it(mf, converged, tmp_path):
    mf.analyze(verbose=0)
    molden.from_scf(mf, str(tmp_path / "a.molden"))
    energies = molden.load(str(tmp_path / "a.molden"))[1]
    np.testing.assert_allclose(energies, converged.mo_energy, atol=1e-6)
    values = [
        cubegen.orbital(mf.mol, str(tmp_path / "homo.cube"), m.mo_coeff[:, 4], nx=6, ny=6, nz=6)
        for m in (mf, converged)
    ]
    np.testing.assert_allclose(np.abs(values[0]), np.abs(values[1]), atol=1e-5)
    mf.chkfile = str(tmp_path / "a.chk")
    mf.dump_chk({"e_tot": mf.e_tot, "mo_energy": mf.mo_energy, "mo_coeff": mf.mo_coeff, "mo_occ": mf.mo_occ})
    assert Path(mf.chkfile).stat().st_size > 0


def test_kernel_goes_on_from_it(mf, converged):
    mf.kernel()
    assert mf.converged
    assert mf.cycles <= 2
    assert mf.e_tot == pytest.approx(converged.e_tot, abs=1e-9)


def disturbed(surrogate, scale: float):
    """The surrogate with an error: the same symmetric matrix in the orthogonalised basis each time."""
    exact = surrogate.model.corrections

    def wrong(structures, starts):
        noise = np.random.default_rng(0).normal(scale=scale, size=(7, 7))
        return [c + noise + noise.T for c in exact(structures, starts)]

    surrogate.model.corrections = wrong
    return surrogate


def test_the_estimate_of_what_remains(hamiltonian_surrogate, converged):
    check = disturbed(hamiltonian_surrogate, 0.002).predict(WATER).check()
    error = check.energy - converged.e_tot
    assert 1e-6 < error < 1e-3
    assert check.remaining_energy == pytest.approx(error, rel=0.25)
    assert abs(check.corrected_energy - converged.e_tot) < 0.25 * error
    density = converged.make_rdm1()
    both = evaluate_once(WATER, METHOD, density)
    assert both.remaining_energy < 1e-9
    spins = one_shot(0.0, np.stack([converged.get_fock()] * 2), np.stack([0.5 * density] * 2), converged.get_ovlp())
    assert spins.remaining_energy == pytest.approx(both.remaining_energy, abs=1e-12)


def test_an_empty_orbital_below_an_occupied_one_has_no_estimate(converged):
    coefficients = converged.mo_coeff[:, [0, 1, 2, 3, 5]]
    excited = 2.0 * coefficients @ coefficients.T
    assert evaluate_once(WATER, METHOD, excited).remaining_energy == np.inf


def test_refine_runs_so_many_cycles(hamiltonian_surrogate, converged):
    surrogate = disturbed(hamiltonian_surrogate, 0.01)
    plain = surrogate.predict(WATER).to_pyscf()
    refined = surrogate.predict(WATER).to_pyscf(policy="refine", steps=2)
    assert refined.surrogate.done == "refined"
    assert refined.surrogate.fock_builds > 2
    assert refined.converged
    assert not refined.surrogate.self_consistent
    assert refined.e_tot - converged.e_tot < 0.1 * (plain.e_tot - converged.e_tot)
    assert refined.max_cycle == METHOD.max_cycle


def test_fallback_converges_what_is_not_good_enough(hamiltonian_surrogate, converged):
    surrogate = disturbed(hamiltonian_surrogate, 0.01)
    surrogate.assess = lambda structure: DomainVerdict(known=True)
    kept = surrogate_ks(WATER, surrogate, policy="fallback", tolerance=1.0)
    assert kept.surrogate.done == "predicted"
    assert "Hartree are estimated to remain" in kept.surrogate.reason
    done = surrogate_ks(WATER, surrogate, policy="fallback", tolerance=1e-6)
    assert (done.surrogate.done, done.surrogate.self_consistent) == ("converged", True)
    assert "more than 1e-06" in done.surrogate.reason
    assert done.e_tot == pytest.approx(converged.e_tot, abs=1e-9)


def test_fallback_converges_what_lies_outside(hamiltonian_surrogate):
    done = surrogate_ks(WATER, hamiltonian_surrogate, policy="fallback", tolerance=1.0)  # the model says no domain
    assert done.surrogate.done == "converged"
    assert done.surrogate.reason == done.surrogate.domain.summary


def kohn_sham(kind: str = "RKS", xc: str = "pbe"):
    def make(mol):
        found = getattr(dft, kind)(mol, xc=xc)
        found.grids.level = 0
        return found

    return make


KINDS = {
    "RHF": scf.RHF,
    "UHF": scf.UHF,
    "ROHF": scf.ROHF,
    "RKS": kohn_sham(),
    "UKS": kohn_sham("UKS"),
    "density fitting": lambda mol: kohn_sham(xc="b3lyp")(mol).density_fit(),
    "newton": lambda mol: scf.RHF(mol).newton(),
}


def total(density_matrix) -> np.ndarray:
    """Both spins together."""
    both = np.asarray(density_matrix)
    return both.reshape(-1, *both.shape[-2:]).sum(0)


def starts_from(surrogate, mol, make) -> None:
    plain, own = make(mol), make(mol)
    plain.kernel()
    own.conv_tol = 1e-10
    fast = accelerate(own, surrogate)
    assert fast is own
    assert isinstance(fast, type(plain))
    assert fast.conv_tol == 1e-10
    guess = total(fast.get_init_guess(key="surrogate"))
    assert np.vdot(guess, fast.get_ovlp()) == pytest.approx(10.0, abs=1e-8)
    fast.kernel()
    assert fast.converged
    assert fast.e_tot == pytest.approx(plain.e_tot, abs=1e-7)
    assert fast.surrogate_start.route == surrogate.kind
    assert fast.surrogate_start.seconds > 0.0
    end = total(fast.make_rdm1())
    assert np.abs(guess - end).max() < np.abs(total(fast.get_init_guess(key="1e")) - end).max()


@pytest.mark.parametrize("kind", KINDS)
def test_an_scf_of_ones_own_starts_from_orbitals(kind, hamiltonian_surrogate):
    starts_from(hamiltonian_surrogate, mole(), KINDS[kind])


@pytest.mark.parametrize("kind", ["RHF", "UHF"])
def test_an_scf_of_ones_own_starts_from_a_density(kind, density_surrogate):
    starts_from(density_surrogate, mole(), KINDS[kind])


@pytest.mark.parametrize("cartesian", [False, True])
def test_a_start_in_another_basis(cartesian, hamiltonian_surrogate, density_surrogate):
    mol = mole("6-31g*", cart=cartesian)
    for surrogate in (hamiltonian_surrogate, density_surrogate):
        starts_from(surrogate, mol, scf.RHF)


def test_the_better_of_two_by_energy(hamiltonian_surrogate, density_surrogate):
    fast = accelerate(build_scf(mole(), METHOD), density_surrogate, hamiltonian_surrogate)
    fast.kernel()
    start = fast.surrogate_start
    assert start.route == "hamiltonian"
    assert start.fock_builds == 2
    assert start.energies["hamiltonian"] < start.energies["density"]
    assert fast.cycles <= 2


def test_the_guess_follows_the_geometry(hamiltonian_surrogate):
    fast = accelerate(build_scf(mole(), METHOD), hamiltonian_surrogate)
    fast.kernel()
    stretched = mole().set_geom_(STRETCHED.positions, unit="Bohr")
    fast.reset(stretched)
    fast.mo_coeff = None
    fast.kernel()
    expected = build_scf(stretched, METHOD).kernel()
    assert fast.e_tot == pytest.approx(expected, abs=1e-9)
    assert fast.cycles <= 3  # METHOD's SCF, which the surrogate repeats, ends within its thresholds


def test_another_state_of_the_molecule(hamiltonian_surrogate):
    cation = mole(charge=1, spin=1)
    plain = scf.UHF(cation)
    plain.kernel()
    with pytest.raises(qcsurrogate.DomainError, match="charge 1 and spin 1"):
        accelerate(scf.UHF(cation), hamiltonian_surrogate).kernel()
    fast = accelerate(scf.UHF(cation), hamiltonian_surrogate, state=(0, 0))
    fast.kernel()
    assert fast.e_tot == pytest.approx(plain.e_tot, abs=1e-7)


def test_words_of_what_is_refused(hamiltonian_surrogate, density_surrogate):
    with pytest.raises(SpecError, match=r"policy = 'magic'; expected surrogate, refine or fallback"):
        surrogate_ks(WATER, hamiltonian_surrogate, policy="magic")
    with pytest.raises(SpecError, match=r"policy = 'magic'; expected surrogate, refine or fallback"):
        hamiltonian_surrogate.predict(WATER).to_pyscf(policy="magic")
    with pytest.raises(SpecError, match=r"steps = 0; expected 1 or more"):
        surrogate_ks(WATER, hamiltonian_surrogate, policy="refine", steps=0)
    with pytest.raises(StructureError, match=r"got 2 structures; expected one molecule"):
        surrogate_ks([WATER, HYDROGEN], hamiltonian_surrogate)
    with pytest.raises(SpecError, match=r"DensityPrediction holds no orbitals; .* accelerate\(mf, surrogate\)"):
        surrogate_ks(WATER, density_surrogate)
    with pytest.raises(StructureError, match=r"has symmetry='C2v'|has symmetry='Cs'"):
        surrogate_ks(mole(symmetry=True), hamiltonian_surrogate)
    with pytest.raises(SpecError, match="accelerate got no model"):
        accelerate(scf.RHF(mole()))
    with pytest.raises(SpecError, match=r"cannot accelerate a pyscf.scf.ghf.GHF; expected a molecular RHF"):
        accelerate(scf.GHF(mole()), hamiltonian_surrogate)
    with pytest.raises(SpecError, match=r"cannot accelerate a builtins.str"):
        accelerate("b3lyp", hamiltonian_surrogate)
    pseudo = gto.M(atom="O 0 0 0; H 0 0 1; H 0 1 0", basis="ccecp-cc-pvdz", ecp="ccecp", verbose=0)
    with pytest.raises(StructureError, match="core potential"):
        accelerate(scf.RHF(pseudo), hamiltonian_surrogate)
    ghost = gto.M(atom="O 0 0 0; H 0 0 1; H 0 1 0; ghost-O 0 0 4", basis="sto-3g", verbose=0)
    with pytest.raises(StructureError, match="ghost"):
        accelerate(scf.RHF(ghost), hamiltonian_surrogate)


def test_a_prediction_without_a_source(hamiltonian_surrogate):
    from dataclasses import replace

    prediction = replace(hamiltonian_surrogate.predict(WATER), source=None)
    with pytest.raises(SpecError, match="has no source"):
        prediction.to_pyscf()


def test_structures_and_moles_give_the_same(hamiltonian_surrogate):
    first = surrogate_ks(Structure(WATER.atomic_numbers, WATER.positions), hamiltonian_surrogate)
    second = hamiltonian_surrogate.predict(mole()).to_pyscf()
    assert first.e_tot == pytest.approx(second.e_tot, abs=1e-10)
