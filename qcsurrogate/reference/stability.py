"""Internal stability of a solution, and the way down from an unstable one.

A solution is internally stable if no small real rotation of its orbitals, within the same
spin treatment, lowers the energy: the lowest eigenvalue of the orbital Hessian is not
negative (Seeger and Pople, J. Chem. Phys. 1977, 66, 3045).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pyscf import lib

from qcsurrogate.reference.backend import host
from qcsurrogate.reference.ladder import SECOND_ORDER, Attempt, Calculation, attempt, watch_response

NOT_EXAMINED: Final = 0
STABLE: Final = 1
FOLLOWED: Final = 2
UNSTABLE: Final = 3
"""Values of the record's ``stability``."""

_ROUNDS = 6
_THRESHOLD = -1e-4
_ROTATIONS = (0.15, -0.15, 0.4, -0.4, 0.8, -0.8)
_LOWER = 1e-6
_SEED = 0


def follow(calculation: Calculation, solution: Attempt) -> tuple[Attempt, int, list[Attempt]]:
    """Go down from a solution as long as it is unstable, some rounds at most.

    Returns:
        The last solution, its stability, and every SCF that was run.
    """
    stability = STABLE
    attempts: list[Attempt] = []
    for _ in range(_ROUNDS):
        mode = _unstable_mode(calculation, solution)
        if mode is None:
            return solution, stability, attempts
        orbitals = _downhill(calculation, solution, mode)
        if orbitals is None:  # flat within the noise of the grid, such as a rotation about a molecule's axis
            return solution, stability, attempts
        lower = attempt(calculation, SECOND_ORDER, orbitals=orbitals)
        attempts.append(lower)
        if not lower.converged:
            lower = attempt(calculation, 0, lower.density_matrix if lower.density_matrix.size else None)
            attempts.append(lower)
        if not lower.converged or lower.energy > solution.energy - _LOWER:
            return solution, UNSTABLE, attempts
        solution, stability = lower, FOLLOWED
    return solution, UNSTABLE, attempts


def _on_cpu(calculation: Calculation, solution: Attempt) -> Any:
    scf = calculation.build_on_cpu()
    for name in ("mo_coeff", "mo_occ", "mo_energy"):
        setattr(scf, name, host(getattr(solution.scf, name)))
    scf.e_tot = solution.energy
    second = scf.newton()
    watch_response(second, calculation.deadline)
    return second


def _unstable_mode(calculation: Calculation, solution: Attempt) -> NDArray[np.float64] | None:
    """The orbital rotation of lowest curvature, if that is negative."""
    calculation.deadline.check("the stability analysis")
    scf = _on_cpu(calculation, solution)
    _, product, diagonal = scf.gen_g_hop(scf.mo_coeff, scf.mo_occ)
    if diagonal.size == 0:
        return None

    def precondition(residual: Any, value: Any, _: Any) -> Any:
        shifted = diagonal - value
        shifted[np.abs(shifted) < 1e-8] = 1e-8
        return residual / shifted

    values, vectors = lib.davidson(
        lambda trial: product(np.asarray(trial)), _trials(diagonal), precondition, tol=1e-5, nroots=1, verbose=0
    )
    if float(values) >= _THRESHOLD:
        return None
    return np.asarray(vectors)


def _trials(diagonal: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Single excitations of lowest energy, and a little of everything, which belongs to no symmetry."""
    trials = [np.random.default_rng(_SEED).normal(size=diagonal.size) / (1.0 + np.abs(diagonal) * 10.0)]
    for index in np.argsort(diagonal)[:3]:
        unit = np.zeros(diagonal.size)
        unit[index] = 1.0
        trials.append(unit)
    return [trial / np.linalg.norm(trial) for trial in trials[: diagonal.size]]


def _downhill(calculation: Calculation, solution: Attempt, mode: NDArray[np.float64]) -> tuple[Any, Any] | None:
    """Orbitals and occupations rotated along the mode to the lowest energy of a few angles, if any is lower."""
    scf = _on_cpu(calculation, solution)
    best, lowest = None, _energy(scf, scf.mo_coeff) - _LOWER
    for angle in _ROTATIONS:
        calculation.deadline.check("the stability analysis")
        rotation = scf.update_rotate_matrix(angle * mode / np.linalg.norm(mode), scf.mo_occ)
        rotated = scf.rotate_mo(scf.mo_coeff, rotation)
        energy = _energy(scf, rotated)
        if energy < lowest:
            best, lowest = rotated, energy
    return None if best is None else (best, scf.mo_occ)


def _energy(scf: Any, orbitals: Any) -> float:
    return float(scf.energy_tot(dm=scf.make_rdm1(orbitals, scf.mo_occ)))
