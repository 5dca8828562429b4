"""What a density matrix is worth to an SCF: one evaluation, and a counted run.

Every run uses fresh PySCF objects with exactly the settings of the labels, so that
nothing (integration grid, two-electron integrals, DIIS space) is handed from one run to
the next, and both starting points pay for the same things.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyscf import lib

from qcsurrogate.errors import SpecError
from qcsurrogate.reference.calibration import LEVEL, EnergyCalibration
from qcsurrogate.reference.kohn_sham import build_molecule, build_scf
from qcsurrogate.reference.settings import Method
from qcsurrogate.structures import Structure

Array = NDArray[np.float64]


@dataclass(frozen=True)
class OneShot:
    """One Fock build from a density matrix, without any iteration.

    Attributes:
        energy: total Kohn-Sham energy E of that density matrix D, Hartree.
        commutator: |FDS - SDF|_F, Hartree.
        remaining_energy: estimate of E less the converged energy, Hartree; see :func:`remaining_energy`.
        calibration: how such estimates of the model compare with true errors; None where nobody has looked.
    """

    energy: float
    commutator: float
    remaining_energy: float
    calibration: EnergyCalibration | None = None

    @property
    def corrected_energy(self) -> float:
        """The energy less what is estimated to remain, Hartree; no longer that of any density matrix.

        With a calibration the estimate is multiplied by the median of true over estimated errors.
        """
        return self.energy - self.remaining_energy * (1.0 if self.calibration is None else self.calibration.typical)

    def energy_bound(self, level: float = LEVEL) -> float:
        """What the energy is off the converged one by at most, with this probability, Hartree.

        It holds for molecules like those of the calibration: see :mod:`qcsurrogate.reference.calibration`.

        Returns:
            Infinity where the calibration has too few molecules for this level, or there is no estimate.

        Raises:
            SpecError: without a calibration, or if the level is no probability.
        """
        if self.calibration is None:
            raise SpecError(
                "the model's energies were never calibrated, so that no bound can be given; "
                "run `qcsurrogate calibrate MODEL --data STORE`, which needs references that it did not learn from"
            )
        return self.remaining_energy * self.calibration.factor(level)


def evaluate_once(structure: Structure, method: Method, density_matrix: Array, *, threads: int = 1) -> OneShot:
    """Energy of a density matrix, and how far it is from self-consistency, from a single Fock build.

    Args:
        structure: the molecule.
        method: settings of the labels.
        density_matrix: (n_ao, n_ao); unrestricted (2, n_ao, n_ao), alpha and beta.
        threads: OpenMP threads of PySCF.
    """
    with lib.with_omp_threads(threads):
        mol = build_molecule(structure, method)
        return evaluate_with(build_scf(mol, method), density_matrix)


def evaluate_with(scf: Any, density_matrix: Array) -> OneShot:
    """:func:`evaluate_once` with a PySCF mean field that is there already."""
    core, potential = scf.get_hcore(), scf.get_veff(scf.mol, density_matrix)
    energy = float(scf.energy_tot(dm=density_matrix, h1e=core, vhf=potential))
    return one_shot(energy, core + np.asarray(potential), density_matrix, scf.get_ovlp())


def one_shot(energy: float, fock: Array, density_matrix: Array, overlap: Array) -> OneShot:
    """What the Fock matrix of a density matrix says of it; both ([2,] n_ao, n_ao)."""
    spins = list(zip(fock.reshape(-1, *overlap.shape), density_matrix.reshape(-1, *overlap.shape), strict=True))
    remaining = sum(remaining_energy(f, d, overlap, 2.0 / len(spins)) for f, d in spins)
    return OneShot(energy, commutator_norm(fock, density_matrix, overlap), remaining)


def remaining_energy(fock: Array, density_matrix: Array, overlap: Array, filling: float) -> float:
    """Second-order estimate of how far above the converged energy a density matrix is, Hartree.

    f sum_ia F_ia^2 / (e_a - e_i) over occupied i and empty a orbitals of D in which F is diagonal otherwise, f
    electrons in each: a Newton step with the uncoupled Hessian (Helgaker, Jorgensen, Olsen, Molecular
    Electronic-Structure Theory, 10.8).  The response of F is left out: an estimate to be calibrated, not a bound.

    Returns:
        Infinity where an empty orbital lies below an occupied one.
    """
    values, vectors = np.linalg.eigh(overlap)
    root, inverse = (vectors * values**power @ vectors.T for power in (0.5, -0.5))
    order = np.linalg.eigh(root @ density_matrix @ root / filling)[1][:, ::-1]
    n_occupied = round(float(np.vdot(density_matrix, overlap)) / filling)
    matrix = order.T @ (inverse @ fock @ inverse) @ order
    if n_occupied in (0, len(matrix)):
        return 0.0
    low, occupied = np.linalg.eigh(matrix[:n_occupied, :n_occupied])
    high, empty = np.linalg.eigh(matrix[n_occupied:, n_occupied:])
    gaps = high - low[:, None]
    if not gaps.min() > 0.0:
        return float("inf")
    between = occupied.T @ matrix[:n_occupied, n_occupied:] @ empty
    return float(filling * (between**2 / gaps).sum())


def commutator_norm(fock: Array, density_matrix: Array, overlap: Array) -> float:
    """|FDS - SDF|_F in Hartree: zero where the density matrix is self-consistent.

    Of alpha and beta (2, n_ao, n_ao) the root of twice the sum of their squares: a closed shell has the same
    commutator whether its spins are told apart or not.
    """
    product = fock @ density_matrix @ overlap
    n_spins = product.size // overlap.size
    return float(np.sqrt(n_spins) * np.linalg.norm(product - product.swapaxes(-1, -2)))


@dataclass(frozen=True)
class ScfRun:
    """One SCF from start to end.

    Attributes:
        converged: whether it met both thresholds of the method.
        cycles: iterations, PySCF's count.
        fock_builds: evaluations of the potential, the initial and the final one included.
        wall_time: seconds from the bare molecule to the end, grid and integrals included.
        energy: total energy, Hartree.
    """

    converged: bool
    cycles: int
    fock_builds: int
    wall_time: float
    energy: float


def run_scf(structure: Structure, method: Method, density_matrix: Array | None = None, *, threads: int = 1) -> ScfRun:
    """Run a plain SCF (DIIS only) to the method's thresholds and count everything.

    Args:
        structure: the molecule.
        method: settings of the labels.
        density_matrix: (n_ao, n_ao), unrestricted (2, n_ao, n_ao), to start from; None for PySCF's minao guess.
        threads: OpenMP threads of PySCF.
    """
    with lib.with_omp_threads(threads):
        start = time.perf_counter()
        mol = build_molecule(structure, method)
        scf = build_scf(mol, method)
        scf.init_guess = "minao"
        fock_builds = count_builds(scf, density_matrix)
        wall_time = time.perf_counter() - start
    return ScfRun(bool(scf.converged), int(scf.cycles), fock_builds, wall_time, float(scf.e_tot))


def count_builds(scf: Any, density_matrix: Array | None) -> int:
    """Run an SCF from a density matrix, or its own guess; returns the evaluations of the potential."""
    counter = _CallCounter(scf.get_veff)
    scf.get_veff = counter
    try:
        scf.kernel(dm0=density_matrix)
    finally:
        del scf.get_veff
    return counter.calls


class _CallCounter:
    """A callable that counts its calls."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.calls = 0
        self._function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return self._function(*args, **kwargs)
