"""The convergence ladder: from plain DIIS to second order, and the search for the lowest solution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyscf.gto import Mole

from qcsurrogate.reference.backend import host
from qcsurrogate.reference.deadline import Deadline

LADDER = ("DIIS", "damping", "level shift", "second order")
"""Steps tried in turn; each starts from the best density that the steps before it left."""

SECOND_ORDER = LADDER.index("second order")

GUESSES = ("huckel", "1e", "atom")
"""Initial guesses that the search tries beside PySCF's default (minao)."""

SUSPICIOUS_CYCLES = 25
SUSPICIOUS_GAP = 0.05

_SAME_ENERGY = 1e-6
_GRADIENT_SLACK = 10.0
"""PySCF takes a last step after convergence and lets it miss the threshold of the gradient by a factor of 3."""

_MOST_SEEDS = 3

_NOTHING: NDArray[np.float64] = np.zeros(0)


@dataclass(frozen=True, eq=False)
class Calculation:
    """One molecule, and how to make fresh SCF objects with the settings of its labels.

    Attributes:
        mol: the PySCF molecule.
        build: makes an SCF object for the ladder.
        build_on_cpu: the same by PySCF itself, for initial guesses and stability analysis.
        deadline: asked between cycles.
        upload: turns a NumPy array into what the ladder's objects work with.
    """

    mol: Mole
    build: Callable[[], Any]
    build_on_cpu: Callable[[], Any]
    deadline: Deadline
    upload: Callable[[NDArray[np.float64]], Any] = np.asarray


@dataclass(frozen=True, eq=False)
class Attempt:
    """One SCF that was run to its end, converged or not.

    Attributes:
        step: index into :data:`LADDER`.
        scf: the PySCF (or GPU4PySCF) object.
        energy: Hartree; infinite if the SCF broke down.
        converged: whether it met both thresholds.
        cycles: iterations.
        density_matrix: (n_ao, n_ao), or (2, n_ao, n_ao) of alpha and beta; the last one.
        fock: of that density matrix itself; zero-sized unless converged.
        problem: why it broke down, or nothing.
    """

    step: int
    scf: Any
    energy: float
    converged: bool
    cycles: int
    density_matrix: NDArray[np.float64]
    fock: NDArray[np.float64]
    problem: str = ""

    @property
    def gap(self) -> float:
        """Lowest empty less highest filled orbital energy, of the spin where it is smallest; Hartree."""
        energies, occupations = (np.atleast_2d(host(v)) for v in (self.scf.mo_energy, self.scf.mo_occ))
        gaps = [
            energy[occupation == 0].min() - energy[occupation > 0].max()
            for energy, occupation in zip(energies, occupations, strict=True)
            if (occupation == 0).any() and (occupation > 0).any()
        ]
        return float(min(gaps, default=np.inf))

    @property
    def is_suspicious(self) -> bool:
        """Whether another, lower solution is likely enough to look for it."""
        return self.step != 0 or self.cycles > SUSPICIOUS_CYCLES or self.gap < SUSPICIOUS_GAP


@dataclass
class _LastPotential:
    """Keeps the effective potential of PySCF's last cycle, which would cost another Fock build."""

    density_matrix: Any = None
    potential: Any = None

    def __call__(self, variables: dict[str, Any]) -> None:
        self.density_matrix = variables.get("dm")
        self.potential = variables.get("vhf")

    def fock(self, scf: Any, density_matrix: Any) -> NDArray[np.float64]:
        """The Fock matrix of this density matrix, from the potential if it belongs to it."""
        known = self.density_matrix is not None and self.potential is not None
        if not known or not np.array_equal(host(self.density_matrix), host(density_matrix)):
            self.potential = scf.get_veff(scf.mol, density_matrix)
        return np.asarray(host(scf.get_hcore()) + host(self.potential))


@dataclass
class _Cycles:
    """PySCF's callback: counts, and asks the deadline."""

    deadline: Deadline
    where: str
    count: int = field(default=0)

    def __call__(self, variables: dict[str, Any]) -> None:
        self.count = int(variables.get("cycle", variables.get("imacro", self.count))) + 1
        self.deadline.check(f"SCF cycle {self.count} ({self.where})")


def attempt(
    calculation: Calculation, step: int, guess: NDArray[np.float64] | None = None, orbitals: Any = None
) -> Attempt:
    """Run one step of the ladder on its own.

    Args:
        calculation: the molecule.
        step: index into :data:`LADDER`.
        guess: density matrix to start from; None for PySCF's default.
        orbitals: (coefficients, occupations) to start the second-order step from.
    """
    calculation.deadline.check(f"the set-up of the SCF ({LADDER[step]})")
    scf = _STEPS[step](calculation.build())
    potential, cycles = _LastPotential(), _Cycles(calculation.deadline, LADDER[step])
    scf.post_kernel, scf.callback = potential, cycles
    if step == SECOND_ORDER:
        watch_response(scf, calculation.deadline)
    problem = ""
    try:
        if orbitals is None:
            scf.kernel(dm0=None if guess is None else calculation.upload(guess))
        else:
            scf.kernel(*(calculation.upload(np.asarray(part)) for part in orbitals))
    except np.linalg.LinAlgError as error:
        problem = str(error)
    except ValueError as error:  # SciPy's word for a matrix that is not finite
        if "infs or NaNs" not in str(error):
            raise
        problem = str(error)
    finally:
        scf.callback = None
        scf.__dict__.pop("post_kernel", None)
        scf.__dict__.pop("gen_response", None)
    if problem or not np.isfinite(scf.e_tot):
        return Attempt(step, scf, np.inf, False, cycles.count, _NOTHING, _NOTHING, problem)
    density_matrix = scf.make_rdm1()
    fock = potential.fock(scf, density_matrix) if scf.converged else _NOTHING
    converged = bool(scf.converged) and _gradient_norm(scf, fock) <= _GRADIENT_SLACK * scf.conv_tol_grad
    return Attempt(step, scf, float(scf.e_tot), converged, cycles.count, host(density_matrix), fock)


def _gradient_norm(scf: Any, fock: NDArray[np.float64]) -> float:
    """Norm of the Fock matrix between empty and filled orbitals, as PySCF takes it, Hartree."""
    coefficients, occupations = host(scf.mo_coeff), host(scf.mo_occ)
    if fock.ndim == 2:
        parts = [2.0 * coefficients[:, occupations == 0].T @ fock @ coefficients[:, occupations > 0]]
    else:
        parts = [c[:, n == 0].T @ f @ c[:, n > 0] for c, n, f in zip(coefficients, occupations, fock, strict=True)]
    return float(np.sqrt(sum((part**2).sum() for part in parts)))


def watch_response(scf: Any, deadline: Deadline) -> None:
    """Let a second-order object ask the deadline at every product with its Hessian."""
    generate = scf.gen_response

    def generate_watched(*arguments: Any, **options: Any) -> Callable[[Any], Any]:
        response = generate(*arguments, **options)

        def watched(trial: Any) -> Any:
            deadline.check("the orbital Hessian")
            return response(trial)

        return watched

    scf.gen_response = generate_watched


def climb(calculation: Calculation) -> list[Attempt]:
    """Steps in turn, each from the density of the lowest energy before it, until one converges."""
    attempts: list[Attempt] = []
    for step in range(len(LADDER)):
        attempts.append(attempt(calculation, step, _lowest_density(attempts)))
        if attempts[-1].converged:
            break
    return attempts


def search(calculation: Calculation, before: Sequence[Attempt] = ()) -> list[Attempt]:
    """Every step from a cold start, then DIIS from other guesses, then second order from what did not converge.

    Args:
        calculation: the molecule.
        before: what :func:`climb` tried; its first attempt was a cold start of the first step.
            Nothing else of it is used, so that what is tried here does not depend on it.
    """
    cold = list(before[:1]) or [attempt(calculation, 0)]
    cold += [attempt(calculation, step) for step in range(1, len(LADDER))]
    others = [attempt(calculation, 0, guess) for guess in _guesses(calculation)]
    stuck = _distinct([a for a in [*cold, *others] if not a.converged and a.density_matrix.size])
    seeded = [attempt(calculation, SECOND_ORDER, a.density_matrix) for a in stuck[:_MOST_SEEDS]]
    return [*cold[len(before[:1]) :], *others, *seeded]


def lowest_converged(attempts: Sequence[Attempt]) -> Attempt | None:
    """The converged attempt of lowest energy; the earliest of those that agree."""
    converged = [a for a in attempts if a.converged]
    if not converged:
        return None
    lowest = min(a.energy for a in converged)
    return next(a for a in converged if a.energy <= lowest + _SAME_ENERGY)


def _lowest_density(attempts: Sequence[Attempt]) -> NDArray[np.float64] | None:
    usable = [a for a in attempts if a.density_matrix.size]
    return min(usable, key=lambda a: a.energy).density_matrix if usable else None


def _distinct(attempts: Sequence[Attempt]) -> list[Attempt]:
    """One of those that ended at the same energy, lowest first."""
    kept: list[Attempt] = []
    for one in sorted(attempts, key=lambda a: a.energy):
        if not kept or one.energy > kept[-1].energy + _SAME_ENERGY:
            kept.append(one)
    return kept


def _guesses(calculation: Calculation) -> list[NDArray[np.float64]]:
    scf = calculation.build_on_cpu()
    return [host(scf.get_init_guess(key=key)) for key in GUESSES]


def _diis(scf: Any) -> Any:
    return scf


def _damping(scf: Any) -> Any:
    scf.damp = 0.5
    scf.diis_start_cycle = 4
    return scf


def _level_shift(scf: Any) -> Any:
    scf.level_shift = 0.3
    return scf


def _second_order(scf: Any) -> Any:
    return scf.newton()


_STEPS: tuple[Callable[[Any], Any], ...] = (_diis, _damping, _level_shift, _second_order)
