"""What stops a calculation: time, dependent bases, memory. Each has its own error."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from pyscf.dft import rks

from qcsurrogate.errors import RecordError, StructureError, TimeLimitError
from qcsurrogate.reference import compute, density_fit, ladder
from qcsurrogate.reference.atoms import free_atoms
from qcsurrogate.reference.compute import compute_reference
from qcsurrogate.reference.deadline import Deadline
from qcsurrogate.reference.kohn_sham import run_kohn_sham
from qcsurrogate.reference.settings import Method, Targets
from qcsurrogate.structures import Structure
from tests.benchmarks.hard_molecules import HARD_MOLECULES
from tests.molecules import WATER

CHEAP = Method(basis="sto-3g", auxiliary_basis="def2-universal-jfit", grid_level=0)


def test_a_deadline_says_where_it_struck() -> None:
    Deadline("water").check("anything")
    Deadline("water", 100.0).check("anything")
    with pytest.raises(TimeLimitError, match=r"water: stopped after .* s in the fit; expected at most 0\.001 s") as e:
        Deadline("water", 1e-3, time.perf_counter() - 1.0).check("the fit")
    assert e.value.exit_code == 4
    assert "allow more time" in str(e.value)


def test_time_is_asked_for_between_cycles(monkeypatch: pytest.MonkeyPatch) -> None:
    compute_reference(WATER, CHEAP, Targets(), free_atoms([1, 8], CHEAP), seconds=600.0)
    build = rks.RKS.get_veff

    def slow(*arguments: Any, **options: Any) -> Any:
        time.sleep(0.2)
        return build(*arguments, **options)

    monkeypatch.setattr(rks.RKS, "get_veff", slow)
    with pytest.raises(TimeLimitError, match=r"structure 'water': stopped after .* in SCF cycle \d+ \(DIIS\)"):
        run_kohn_sham(WATER, CHEAP, seconds=0.5)


@pytest.mark.parametrize("where", ["second order", "the orbital Hessian", "stability analysis"])
def test_time_is_asked_for_in_second_order_and_stability(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reached = []

    def check(self: Deadline, place: str) -> None:
        reached.append(place)
        if where in place:
            raise TimeLimitError(place)

    monkeypatch.setattr(Deadline, "check", check)
    molecule = next(m for m in HARD_MOLECULES if m.structure.name == "HF 2.5 A")
    with pytest.raises(TimeLimitError):
        run_kohn_sham(molecule.structure, molecule.method)
    assert reached[0] == "the set-up of the SCF (DIIS)"


def test_time_is_asked_for_after_the_scf(monkeypatch: pytest.MonkeyPatch) -> None:
    solve = compute.solve

    def slow(*arguments: Any) -> Any:
        found = solve(*arguments)
        time.sleep(0.7)
        return found

    compute_reference(WATER, CHEAP, Targets(), free_atoms([1, 8], CHEAP))
    monkeypatch.setattr(compute, "solve", slow)
    with pytest.raises(TimeLimitError, match="in the SCF; expected at most"):
        compute_reference(WATER, CHEAP, Targets(), free_atoms([1, 8], CHEAP), seconds=0.6)


def test_a_linearly_dependent_basis_is_a_matter_of_the_structure() -> None:
    chain = Structure([1] * 8, [[0.7 * i, 0.0, 0.0] for i in range(8)], name="crowd")
    with pytest.raises(StructureError, match=r"'crowd': the orbital basis aug-cc-pvtz is linearly dependent.*too near"):
        run_kohn_sham(chain, CHEAP.model_copy(update={"basis": "aug-cc-pvtz"}))


def test_an_scf_that_breaks_down_in_every_step_is_no_convergence_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(scf: Any) -> Any:
        scf.kernel = _raises(np.linalg.LinAlgError("singular"))
        return scf

    monkeypatch.setattr(ladder, "_STEPS", (broken,) * 4)
    with pytest.raises(StructureError, match=r"'water' \(H2O, pbe/sto-3g\) broke down in every step.*singular"):
        run_kohn_sham(WATER, CHEAP)


def test_one_step_that_breaks_down_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def infinite(scf: Any) -> Any:
        scf.kernel = _raises(ValueError("array must not contain infs or NaNs"))
        return scf

    monkeypatch.setattr(ladder, "_STEPS", (infinite, *ladder._STEPS[1:]))
    found = run_kohn_sham(WATER, CHEAP.model_copy(update={"search": "first"}))
    assert found.ladder_step == 1


@pytest.mark.parametrize("error", [MemoryError("no room"), ValueError("a mistake in the program")])
def test_other_errors_pass_through(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rks.RKS, "get_veff", _raises(error))
    with pytest.raises(type(error)) as e:
        run_kohn_sham(WATER, CHEAP)
    assert e.value is error


def test_a_dependent_auxiliary_basis_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(density_fit.scipy.linalg, "cho_factor", _raises(np.linalg.LinAlgError("not positive definite")))
    with pytest.raises(RecordError, match=r"H2O: the functions of the auxiliary basis def2-universal-jfit.*even_temp"):
        compute_reference(WATER, CHEAP, Targets(), free_atoms([1, 8], CHEAP))


def _raises(error: Exception) -> Any:
    def function(*arguments: Any, **options: Any) -> Any:
        raise error

    return function
