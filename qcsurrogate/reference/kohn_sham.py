"""Kohn-Sham calculations that either converge or are refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from pyscf import dft, lib
from pyscf.df.addons import make_auxbasis, predefined_auxbasis
from pyscf.gto import Mole

from qcsurrogate.basis import auxiliary_basis
from qcsurrogate.errors import ConvergenceError, StructureError
from qcsurrogate.reference.backend import host, kohn_sham_module, on_device
from qcsurrogate.reference.deadline import Deadline
from qcsurrogate.reference.functional import require_functional
from qcsurrogate.reference.ladder import LADDER as LADDER
from qcsurrogate.reference.ladder import Attempt, Calculation, climb, lowest_converged, search
from qcsurrogate.reference.settings import Method
from qcsurrogate.reference.stability import FOLLOWED, NOT_EXAMINED, UNSTABLE, follow
from qcsurrogate.structures import Structure

_SMALLEST_OVERLAP_EIGENVALUE = 1e-6
"""Below it PySCF drops combinations of orbitals, and the matrices would no longer belong to the orbitals."""


@dataclass(frozen=True, eq=False)
class ConvergedSCF:
    """A converged Kohn-Sham solution; matrices in PySCF AO order.

    ``hamiltonian`` is the Fock matrix of ``density_matrix`` itself (not of the cycle
    before), and the orbitals are its eigenvectors, so that all of them belong together.

    Attributes:
        mol: the PySCF molecule.
        overlap, core_hamiltonian: (n_ao, n_ao).
        hamiltonian: (n_ao, n_ao) Fock matrix; unrestricted: mean of alpha and beta.
        density_matrix: (n_ao, n_ao); unrestricted: alpha + beta.
        mo_energy, mo_occ: (n_ao,); unrestricted: alpha.
        energy: total energy, Hartree.
        cycles: SCF cycles of all SCFs that were run.
        ladder_step: index into :data:`LADDER` of the step that converged.
        scf: the PySCF object.
        spin_hamiltonian: unrestricted: (F_alpha - F_beta) / 2.
        spin_density_matrix: unrestricted: alpha - beta.
        mo_energy_beta, mo_occ_beta: unrestricted: (n_ao,).
        spin_square: unrestricted: <S^2>.
        stability: as in the record.
        on_gpu: whether GPU4PySCF ran it.
    """

    mol: Mole
    overlap: NDArray[np.float64]
    core_hamiltonian: NDArray[np.float64]
    hamiltonian: NDArray[np.float64]
    density_matrix: NDArray[np.float64]
    mo_energy: NDArray[np.float64]
    mo_occ: NDArray[np.float64]
    energy: float
    cycles: int
    ladder_step: int
    scf: Any
    spin_hamiltonian: NDArray[np.float64] | None = None
    spin_density_matrix: NDArray[np.float64] | None = None
    mo_energy_beta: NDArray[np.float64] | None = None
    mo_occ_beta: NDArray[np.float64] | None = None
    spin_square: float | None = None
    stability: int = NOT_EXAMINED
    on_gpu: bool = False


def build_molecule(structure: Structure, method: Method, max_memory_mb: int = 4000) -> Mole:
    """The PySCF molecule of a structure in the method's basis.

    Raises:
        StructureError: if the method's spin treatment cannot describe it.
        BasisError: if the basis lacks an element.
    """
    method.require_spin(structure)
    mol = method.orbital_basis(structure.atomic_numbers).build_mol(structure)
    mol.max_memory = max_memory_mb
    return mol


def build_scf(mol: Mole, method: Method) -> Any:
    """A PySCF ``RKS`` or ``UKS`` object with exactly the settings of the labels; nothing is run.

    It runs on the CPU, whatever the method's backend.

    Raises:
        SpecError: if PySCF does not know the functional.
        BasisError: if the auxiliary basis of ``density_fit`` lacks an element.
    """
    return _build_with(dft, mol, method)


def _build_with(module: Any, mol: Mole, method: Method) -> Any:
    require_functional(method.xc)
    scf = (module.UKS if method.unrestricted else module.RKS)(mol, xc=method.xc)
    if method.density_fit is not False:
        scf = scf.density_fit(auxbasis=_auxiliary_basis(mol, method))
    scf.grids.level = method.grid_level
    scf.conv_tol = method.conv_tol
    scf.conv_tol_grad = method.conv_tol_grad
    scf.max_cycle = method.max_cycle
    scf.chkfile = None
    scf.verbose = 0
    return scf


def _auxiliary_basis(mol: Mole, method: Method) -> Any:
    """By name, or what PySCF itself would take for a basis of this name: our molecules carry only primitives."""
    name = method.density_fit
    named = mol.copy()
    named.basis = method.basis
    if name is True:
        name = predefined_auxbasis(named, method.basis, method.xc)
    if not isinstance(name, str):
        return make_auxbasis(named)
    auxiliary_basis(name, Structure.from_pyscf(mol).atomic_numbers)  # a wrong name or a missing element fails here
    return name


def run_kohn_sham(
    structure: Structure,
    method: Method,
    *,
    threads: int = 1,
    max_memory_mb: int = 4000,
    seconds: float | None = None,
) -> ConvergedSCF:
    """Solve the Kohn-Sham equations as ``method.search`` and ``method.stability`` say.

    Args:
        structure: the molecule.
        method: level of theory.
        threads: OpenMP threads that PySCF may use.
        max_memory_mb: memory that PySCF may use.
        seconds: wall time allowed, asked for between SCF cycles; None for no limit.

    Raises:
        ConvergenceError: if nothing converges; nothing unconverged is ever returned.
        TimeLimitError: if it takes longer than ``seconds``.
        StructureError, BasisError, SpecError: if the calculation cannot be set up.
    """
    return solve(structure, method, Deadline(structure.label, seconds), threads, max_memory_mb)


def solve(
    structure: Structure, method: Method, deadline: Deadline, threads: int = 1, max_memory_mb: int = 4000
) -> ConvergedSCF:
    """:func:`run_kohn_sham` under a deadline that began earlier."""
    with lib.with_omp_threads(threads):
        mol = build_molecule(structure, method, max_memory_mb)
        overlap = np.asarray(mol.intor_symmetric("int1e_ovlp"))
        _require_independent_basis(structure, method, overlap)
        module, on_gpu = kohn_sham_module(method)
        calculation = Calculation(
            mol,
            build=_Shared(lambda: _build_with(module, mol, method)),
            build_on_cpu=_Shared(lambda: build_scf(mol, method)),
            deadline=deadline,
            upload=on_device if on_gpu else np.asarray,
        )
        solution, stability, attempts = _solution(structure, method, calculation)
        cycles = sum(a.cycles for a in attempts)
        return _collect(mol, overlap, solution, cycles=cycles, stability=stability, on_gpu=on_gpu)


class _Shared:
    """Fresh SCF objects of one molecule that share the integration grid and stored integrals of the first."""

    def __init__(self, build: Callable[[], Any]) -> None:
        self._build = build
        self._first: Any = None

    def __call__(self) -> Any:
        scf = self._build()
        if self._first is None:
            self._first = scf
        else:
            for name in ("grids", "nlcgrids", "_eri", "with_df"):
                if hasattr(self._first, name):
                    setattr(scf, name, getattr(self._first, name))
        return scf


def _require_independent_basis(structure: Structure, method: Method, overlap: NDArray[np.float64]) -> None:
    smallest = float(np.linalg.eigvalsh(overlap)[0])
    if not smallest > _SMALLEST_OVERLAP_EIGENVALUE:
        raise StructureError(
            f"{structure.label}: the orbital basis {method.basis} is linearly dependent at this geometry (smallest "
            f"eigenvalue of the overlap {smallest:.1e}, expected more than {_SMALLEST_OVERLAP_EIGENVALUE:g}); are two "
            "atoms too near? Otherwise choose a basis with fewer diffuse functions"
        )


def _solution(structure: Structure, method: Method, calculation: Calculation) -> tuple[Attempt, int, Sequence[Attempt]]:
    """The solution to keep, its stability, and every SCF that was run."""
    attempts = [] if method.search == "lowest" else climb(calculation)
    best = lowest_converged(attempts)
    thorough = method.search == "lowest"
    if method.search == "auto":
        thorough = best is None or best.is_suspicious
    if thorough:
        attempts += search(calculation, attempts)
        best = lowest_converged(attempts)
    if best is None:
        raise _not_converged(structure, method, attempts)
    if not (thorough or method.stability):
        return best, NOT_EXAMINED, attempts
    best, stability, followed = follow(calculation, best)
    attempts += followed
    if stability >= FOLLOWED and method.search == "auto" and not thorough:
        attempts += search(calculation, attempts)
        lowest = lowest_converged([best, *attempts])
        if lowest is not None and lowest is not best:
            best, stability, followed = follow(calculation, lowest)
            attempts += followed
    if stability == UNSTABLE and method.stability:
        raise ConvergenceError(
            f"SCF for {structure.label} ({structure.formula}, {method.xc}/{method.basis}) converged at "
            f"{best.energy:.6f} Eh, but to an unstable solution, and nothing stable was found below it; "
            "set method.spin_treatment: unrestricted, method.stability: false, or leave the structure out"
        )
    return best, stability, attempts


def _not_converged(
    structure: Structure, method: Method, attempts: Sequence[Attempt]
) -> ConvergenceError | StructureError:
    what = f"SCF for {structure.label} ({structure.formula}, {method.xc}/{method.basis})"
    if all(a.problem for a in attempts):
        return StructureError(
            f"{what} broke down in every step of {', '.join(LADDER)}: {attempts[0].problem}; look at the geometry, "
            "or choose a basis with fewer diffuse functions"
        )
    lowest = min(a.energy for a in attempts)
    return ConvergenceError(
        f"{what} did not converge to {method.conv_tol:g} Eh in {sum(a.cycles for a in attempts)} cycles of "
        f"{', '.join(LADDER)}; lowest energy seen {lowest:.6f} Eh; raise method.max_cycle (now {method.max_cycle} per "
        "step), loosen method.conv_tol, or leave the structure out"
    )


def _collect(
    mol: Mole, overlap: NDArray[np.float64], solution: Attempt, *, cycles: int, stability: int, on_gpu: bool
) -> ConvergedSCF:
    scf = solution.scf.undo_newton() if hasattr(solution.scf, "undo_newton") else solution.scf
    unrestricted = solution.fock.ndim == 3
    focks = [0.5 * (f + f.T) for f in solution.fock.reshape(-1, mol.nao, mol.nao)]
    densities = [0.5 * (d + d.T) for d in solution.density_matrix.reshape(-1, mol.nao, mol.nao)]
    filling = 1.0 if unrestricted else 2.0
    orbitals = [_orbitals(f, d, overlap, filling) for f, d in zip(focks, densities, strict=True)]
    beta: dict[str, Any] = {}
    if unrestricted:
        beta = {
            "spin_hamiltonian": 0.5 * (focks[0] - focks[1]),
            "spin_density_matrix": densities[0] - densities[1],
            "mo_energy_beta": orbitals[1][0],
            "mo_occ_beta": orbitals[1][1],
            "spin_square": spin_square(densities[0], densities[1], overlap),
        }
    return ConvergedSCF(
        mol=mol,
        overlap=overlap,
        core_hamiltonian=host(scf.get_hcore()),
        hamiltonian=0.5 * (focks[0] + focks[-1]),
        density_matrix=densities[0] + densities[1] if unrestricted else densities[0],
        mo_energy=orbitals[0][0],
        mo_occ=orbitals[0][1],
        energy=solution.energy,
        cycles=cycles,
        ladder_step=solution.step,
        scf=scf,
        stability=stability,
        on_gpu=on_gpu,
        **beta,
    )


def _orbitals(
    fock: NDArray[np.float64], density_matrix: NDArray[np.float64], overlap: NDArray[np.float64], filling: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Orbital energies, and occupations as the density matrix has them: rarely, a solution leaves a hole."""
    energies, coefficients = scipy.linalg.eigh(fock, overlap)
    metric = overlap @ coefficients
    populations = np.einsum("ip,ij,jp->p", metric, density_matrix, metric, optimize=True)
    occupations = np.zeros(len(energies))
    n_filled = round(float(populations.sum()) / filling)
    occupations[np.argsort(-populations, kind="stable")[:n_filled]] = filling
    return energies, occupations


def spin_square(alpha: NDArray[np.float64], beta: NDArray[np.float64], overlap: NDArray[np.float64]) -> float:
    """<S^2> of a determinant from its density matrices, S_z (S_z + 1) + N_beta - tr(D_alpha S D_beta S).

    Szabo and Ostlund, Modern Quantum Chemistry, eq. 2.271.
    """
    n_alpha, n_beta = (float(np.einsum("ij,ji->", d, overlap)) for d in (alpha, beta))
    projection = 0.5 * (n_alpha - n_beta)
    shared = float(np.einsum("ij,ji->", alpha @ overlap, beta @ overlap))
    return projection * (projection + 1.0) + n_beta - shared
