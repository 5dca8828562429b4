from __future__ import annotations

import numpy as np
import pytest
from pyscf import dft

from qcsurrogate.reference.evaluation import commutator_norm, evaluate_once, run_scf
from qcsurrogate.reference.kohn_sham import run_kohn_sham
from qcsurrogate.reference.orbitals import Orbitals
from qcsurrogate.reference.settings import Method
from tests.molecules import WATER

METHOD = Method(basis="sto-3g", grid_level=1, conv_tol=1e-9, conv_tol_grad=1e-5)


@pytest.fixture(scope="module")
def converged():
    return run_kohn_sham(WATER, METHOD)


@pytest.fixture
def fock_builds(monkeypatch):
    """Every potential that PySCF itself evaluates, seen from outside."""
    calls = []
    original = dft.rks.RKS.get_veff

    def counted(self, *args, **kwargs):
        calls.append(self)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(dft.rks.RKS, "get_veff", counted)
    return calls


@pytest.mark.parametrize("from_answer", [False, True])
def test_every_fock_build_is_counted(converged, fock_builds, from_answer):
    run = run_scf(WATER, METHOD, converged.density_matrix if from_answer else None)
    assert run.fock_builds == len(fock_builds)
    assert len({id(scf) for scf in fock_builds}) == 1
    assert run.fock_builds == run.cycles + 2  # the initial one, and PySCF's check after convergence
    assert run.converged
    assert run.energy == pytest.approx(converged.energy, abs=1e-7)


def test_cycles_are_those_of_plain_pyscf(converged):
    scf = dft.RKS(converged.mol, xc=METHOD.xc)
    scf.grids.level, scf.conv_tol, scf.conv_tol_grad = METHOD.grid_level, METHOD.conv_tol, METHOD.conv_tol_grad
    scf.init_guess, scf.verbose = "minao", 0
    scf.kernel()
    assert run_scf(WATER, METHOD).cycles == scf.cycles


def test_starting_at_the_answer_saves_cycles(converged):
    assert run_scf(WATER, METHOD, converged.density_matrix).cycles <= 2
    assert run_scf(WATER, METHOD).cycles > 4


def test_runs_do_not_share_anything():
    first, second = run_scf(WATER, METHOD), run_scf(WATER, METHOD)
    assert (first.cycles, first.fock_builds, first.energy) == (second.cycles, second.fock_builds, second.energy)


def test_an_scf_that_does_not_converge_says_so():
    run = run_scf(WATER, METHOD.model_copy(update={"max_cycle": 2}))
    assert not run.converged
    assert run.cycles == 2


def test_commutator_vanishes_at_convergence_and_not_before(converged):
    assert commutator_norm(converged.hamiltonian, converged.density_matrix, converged.overlap) < 1e-4
    guess = dft.RKS(converged.mol).get_init_guess(key="minao")
    product = converged.hamiltonian @ guess @ converged.overlap
    expected = np.linalg.norm(product - converged.overlap @ guess @ converged.hamiltonian)
    assert commutator_norm(converged.hamiltonian, guess, converged.overlap) == pytest.approx(expected)
    assert expected > 0.1


def test_orbitals_are_those_of_the_scf(converged):
    orbitals = Orbitals.of(converged.hamiltonian, converged.overlap, 5)
    assert orbitals.energies == pytest.approx(converged.mo_energy, abs=1e-9)
    assert orbitals.density_matrix == pytest.approx(converged.density_matrix, abs=1e-5)
    assert np.array_equal(orbitals.occupations, converged.mo_occ)


def test_one_evaluation_at_convergence(converged):
    once = evaluate_once(WATER, METHOD, converged.density_matrix)
    assert once.energy == pytest.approx(converged.energy, abs=1e-8)
    assert once.commutator < 1e-4


def test_one_evaluation_costs_one_fock_build_and_is_variational(converged, fock_builds):
    guess = dft.RKS(converged.mol).get_init_guess(key="minao")
    fock = converged.core_hamiltonian + np.asarray(
        dft.RKS(converged.mol, xc=METHOD.xc).set(grids=converged.scf.grids).get_veff(converged.mol, guess)
    )
    fock_builds.clear()
    once = evaluate_once(WATER, METHOD, guess)
    assert len(fock_builds) == 1
    product = fock @ guess @ converged.overlap
    assert once.commutator == pytest.approx(np.linalg.norm(product - product.T), rel=1e-6)
    coefficients = converged.scf.eig(fock, converged.overlap)[1][:, :5]
    idempotent = evaluate_once(WATER, METHOD, 2.0 * coefficients @ coefficients.T)
    assert idempotent.energy > converged.energy - 1e-6
