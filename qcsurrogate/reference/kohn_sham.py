"""Restricted Kohn-Sham calculations that either converge or are refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyscf import dft, lib
from pyscf.gto import Mole

from qcsurrogate.errors import ConvergenceError, SpecError, StructureError
from qcsurrogate.reference.settings import Method
from qcsurrogate.structures import Structure

LADDER = ("DIIS", "damping", "level shift", "second order")
"""Steps tried in turn; each starts from the best density that the steps before it left."""


@dataclass(frozen=True, eq=False)
class ConvergedSCF:
    """A converged restricted Kohn-Sham solution; matrices in PySCF AO order.

    ``hamiltonian`` is the Fock matrix of ``density_matrix`` itself (not of the cycle
    before), and the orbitals are its eigenvectors, so that all of them belong together.

    Attributes:
        mol: the PySCF molecule.
        overlap, core_hamiltonian, hamiltonian, density_matrix: (n_ao, n_ao).
        mo_energy, mo_occ: (n_ao,).
        energy: total energy, Hartree.
        cycles: SCF cycles of all ladder steps together.
        ladder_step: index into :data:`LADDER` of the step that converged.
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


def require_closed_shell(structure: Structure) -> None:
    """Refuse what restricted Kohn-Sham cannot describe.

    Raises:
        StructureError: for unpaired electrons.
    """
    if structure.spin != 0:
        raise StructureError(
            f"{structure.label} has {structure.spin} unpaired electrons; only closed shells (restricted Kohn-Sham, "
            "spin = 0) can be computed so far"
        )


def build_molecule(structure: Structure, method: Method, max_memory_mb: int = 4000) -> Mole:
    """The PySCF molecule of a closed-shell structure in the method's basis."""
    require_closed_shell(structure)
    mol = method.orbital_basis(structure.atomic_numbers).build_mol(structure)
    mol.max_memory = max_memory_mb
    return mol


def build_scf(mol: Mole, method: Method) -> Any:
    """A PySCF ``RKS`` object with exactly the settings of the labels; nothing is run.

    Raises:
        SpecError: if PySCF does not know the functional.
    """
    try:
        dft.libxc.parse_xc(method.xc)
    except (KeyError, ValueError) as error:
        raise SpecError(f"PySCF does not know the functional '{method.xc}' (method.xc): {error}") from error
    scf = dft.RKS(mol, xc=method.xc)
    scf.grids.level = method.grid_level
    scf.conv_tol = method.conv_tol
    scf.conv_tol_grad = method.conv_tol_grad
    scf.max_cycle = method.max_cycle
    scf.chkfile = None
    scf.verbose = 0
    return scf


def run_kohn_sham(structure: Structure, method: Method, *, threads: int = 1, max_memory_mb: int = 4000) -> ConvergedSCF:
    """Solve the Kohn-Sham equations, climbing :data:`LADDER` as far as needed.

    Raises:
        ConvergenceError: if no step converges; nothing unconverged is ever returned.
        StructureError, BasisError, SpecError: if the calculation cannot be set up.
    """
    with lib.with_omp_threads(threads):
        return _climb(structure, build_molecule(structure, method, max_memory_mb), method)


def _climb(structure: Structure, mol: Mole, method: Method) -> ConvergedSCF:
    guess: NDArray[np.float64] | None = None
    lowest = np.inf
    cycles = 0
    for step, prepare in enumerate(_STEPS):
        scf = prepare(build_scf(mol, method))
        last = _LastPotential()
        scf.post_kernel = last
        scf.kernel(dm0=guess)
        cycles += int(scf.cycles)
        if scf.converged:
            return _collect(mol, scf, last, cycles, step)
        if np.isfinite(scf.e_tot) and scf.e_tot < lowest:
            lowest, guess = scf.e_tot, scf.make_rdm1()
    raise ConvergenceError(
        f"SCF for {structure.label} ({structure.formula}, {method.xc}/{method.basis}) did not converge to "
        f"{method.conv_tol:g} Eh in {cycles} cycles of {', '.join(LADDER)}; lowest energy seen {lowest:.6f} Eh; "
        f"raise method.max_cycle (now {method.max_cycle} per step), loosen method.conv_tol, or leave the structure out"
    )


class _LastPotential:
    """Keeps the effective potential of PySCF's last cycle, which would cost another Fock build."""

    def __init__(self) -> None:
        self.density_matrix: NDArray[np.float64] | None = None
        self.potential: NDArray[np.float64] | None = None

    def __call__(self, variables: dict[str, Any]) -> None:
        self.density_matrix = variables.get("dm")
        self.potential = variables.get("vhf")

    def of(self, density_matrix: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """The potential, if it belongs to this density matrix."""
        if self.density_matrix is None or self.potential is None:
            return None
        same = np.array_equal(np.asarray(self.density_matrix), density_matrix)
        return np.asarray(self.potential) if same else None


def _collect(mol: Mole, scf: Any, last: _LastPotential, cycles: int, step: int) -> ConvergedSCF:
    overlap = np.asarray(scf.get_ovlp())
    core = np.asarray(scf.get_hcore())
    density_matrix = np.asarray(scf.make_rdm1())
    potential = last.of(density_matrix)
    hamiltonian = core + (np.asarray(scf.get_veff(mol, density_matrix)) if potential is None else potential)
    hamiltonian = 0.5 * (hamiltonian + hamiltonian.T)
    mo_energy, mo_coeff = scf.eig(hamiltonian, overlap)
    order = np.argsort(mo_energy, kind="stable")
    mo_energy = mo_energy[order]
    return ConvergedSCF(
        mol=mol,
        overlap=overlap,
        core_hamiltonian=core,
        hamiltonian=hamiltonian,
        density_matrix=0.5 * (density_matrix + density_matrix.T),
        mo_energy=mo_energy,
        mo_occ=np.asarray(scf.get_occ(mo_energy, mo_coeff[:, order])),
        energy=float(scf.e_tot),
        cycles=cycles,
        ladder_step=step,
        scf=scf,
    )


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
