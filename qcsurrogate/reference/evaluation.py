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

from qcsurrogate.reference.kohn_sham import build_molecule, build_scf
from qcsurrogate.reference.settings import Method
from qcsurrogate.structures import Structure

Array = NDArray[np.float64]


@dataclass(frozen=True)
class OneShot:
    """One Fock build from a density matrix, without any iteration.

    Attributes:
        energy: total Kohn-Sham energy of that density matrix, Hartree.
        commutator: |FDS - SDF|_F, Hartree.
    """

    energy: float
    commutator: float


def evaluate_once(structure: Structure, method: Method, density_matrix: Array, *, threads: int = 1) -> OneShot:
    """Energy and commutator of a density matrix from a single Fock build.

    Args:
        structure: the molecule.
        method: settings of the labels.
        density_matrix: (n_ao, n_ao); unrestricted (2, n_ao, n_ao), alpha and beta.
        threads: OpenMP threads of PySCF.
    """
    with lib.with_omp_threads(threads):
        mol = build_molecule(structure, method)
        scf = build_scf(mol, method)
        core = scf.get_hcore(mol)
        potential = scf.get_veff(mol, density_matrix)
        energy = scf.energy_tot(dm=density_matrix, h1e=core, vhf=potential)
        commutator = commutator_norm(core + np.asarray(potential), density_matrix, scf.get_ovlp(mol))
    return OneShot(float(energy), commutator)


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
        counter = _CallCounter(scf.get_veff)
        scf.get_veff = counter
        energy = scf.kernel(dm0=density_matrix)
        wall_time = time.perf_counter() - start
    return ScfRun(bool(scf.converged), int(scf.cycles), counter.calls, wall_time, float(energy))


class _CallCounter:
    """A callable that counts its calls."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.calls = 0
        self._function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return self._function(*args, **kwargs)
