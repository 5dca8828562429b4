"""From a structure to a checked reference record."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray
from pyscf import lib

from qcsurrogate.errors import RecordError
from qcsurrogate.reference.atoms import FreeAtoms
from qcsurrogate.reference.baseline import baseline_hamiltonian
from qcsurrogate.reference.density_fit import charges, fit_density
from qcsurrogate.reference.kohn_sham import ConvergedSCF, run_kohn_sham
from qcsurrogate.reference.record import ReferenceRecord
from qcsurrogate.reference.settings import Method, Targets
from qcsurrogate.structures import Structure

ELECTRON_COUNT_TOLERANCE = 1e-8
EIGENVALUE_TOLERANCE = 1e-5
COMMUTATOR_TOLERANCE = 1e-4


def compute_reference(
    structure: Structure,
    method: Method,
    targets: Targets,
    atoms: FreeAtoms,
    *,
    threads: int = 1,
    max_memory_mb: int = 4000,
) -> ReferenceRecord:
    """Converge the SCF, fit the density, check everything, return the record.

    Args:
        structure: a closed-shell molecule.
        method: level of theory.
        targets: optional quantities.
        atoms: free atoms of all elements of the molecule at this method.
        threads: OpenMP threads that PySCF may use.
        max_memory_mb: memory that PySCF may use.

    Raises:
        ConvergenceError: if the SCF does not converge.
        RecordError: if the converged record fails one of its checks.
        StructureError, BasisError, SpecError: if it cannot be set up.
    """
    start = time.perf_counter()
    with lib.with_omp_threads(threads):
        scf = run_kohn_sham(structure, method, threads=threads, max_memory_mb=max_memory_mb)
        baseline = None if method.baseline == "none" else baseline_hamiltonian(scf.mol, method, atoms)
        coefficients, unprojected = _density(structure, method, targets, atoms, scf)
        record = ReferenceRecord(
            structure=structure,
            overlap=scf.overlap,
            hamiltonian=scf.hamiltonian,
            density_matrix=scf.density_matrix,
            energy=scf.energy,
            mo_energy=scf.mo_energy,
            mo_occ=scf.mo_occ,
            dipole=_dipole(structure, scf),
            converged=True,
            cycles=scf.cycles,
            ladder_step=scf.ladder_step,
            wall_time=time.perf_counter() - start,
            baseline=baseline,
            core_hamiltonian=scf.core_hamiltonian if targets.core_hamiltonian else None,
            density_coefficients=coefficients,
            density_coefficients_unprojected=unprojected,
            forces=-np.asarray(scf.scf.nuc_grad_method().kernel()) if targets.forces else None,
        )
    check_record(record)
    return record


def _density(
    structure: Structure, method: Method, targets: Targets, atoms: FreeAtoms, scf: ConvergedSCF
) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]:
    if not targets.density_coefficients:
        return None, None
    basis = method.density_basis(structure.atomic_numbers)
    fitted = fit_density(scf.mol, basis, scf.density_matrix, atoms)
    count = float(structure.atomic_numbers.sum()) + charges(basis.build_mol(structure)) @ fitted.coefficients
    if not abs(count - structure.n_electrons) <= ELECTRON_COUNT_TOLERANCE:
        raise RecordError(
            f"{structure.label}: the fitted density holds {count:.10f} electrons, expected {structure.n_electrons}; "
            f"the auxiliary basis {basis.name} may be too nearly dependent: choose a larger even_tempered_beta"
        )
    return fitted.coefficients, fitted.unprojected


def _dipole(structure: Structure, scf: ConvergedSCF) -> NDArray[np.float64]:
    """Nuclear less electronic dipole about the origin, e bohr."""
    integrals = scf.mol.intor_symmetric("int1e_r")
    nuclear = structure.atomic_numbers @ structure.positions
    return np.asarray(nuclear - np.einsum("xij,ji->x", integrals, scf.density_matrix))


def check_record(record: ReferenceRecord) -> None:
    """The checks that every record passes before it is kept.

    Finite, symmetric, tr(D S) = N, [F, D] = 0 in the metric S, H C = S C e.

    Raises:
        RecordError: naming the structure, the check, the value expected and found.
    """
    import scipy.linalg

    label = record.structure.label
    for name in ("overlap", "hamiltonian", "density_matrix", "baseline", "density_coefficients", "mo_energy", "forces"):
        value = record.value(name)
        if value is not None and not np.isfinite(np.asarray(value)).all():
            raise RecordError(f"{label}: {name} holds numbers that are not finite")
    if not np.isfinite(record.energy):
        raise RecordError(f"{label}: the energy is {record.energy}")
    overlap, fock, density = record.overlap, record.hamiltonian, record.density_matrix
    for name, matrix in (("overlap", overlap), ("hamiltonian", fock), ("density_matrix", density)):
        asymmetry = float(np.abs(matrix - matrix.T).max())
        if asymmetry > 1e-10:
            raise RecordError(f"{label}: {name} differs from its transpose by {asymmetry:.1e}; expected at most 1e-10")
    count = float(np.einsum("ij,ji->", density, overlap))
    if not abs(count - record.structure.n_electrons) <= ELECTRON_COUNT_TOLERANCE:
        raise RecordError(f"{label}: tr(D S) = {count:.10f}, expected {record.structure.n_electrons} electrons")
    product = fock @ density @ overlap
    commutator = float(np.abs(product - product.T).max())
    if not commutator <= COMMUTATOR_TOLERANCE:
        raise RecordError(
            f"{label}: |FDS - SDF| = {commutator:.1e}, expected at most {COMMUTATOR_TOLERANCE:g}: the SCF is not "
            "converged; tighten method.conv_tol_grad"
        )
    eigenvalues = scipy.linalg.eigh(fock, overlap, eigvals_only=True)
    difference = float(np.abs(eigenvalues - record.mo_energy).max())
    if not difference <= EIGENVALUE_TOLERANCE:
        raise RecordError(
            f"{label}: the orbital energies differ from those of H C = S C e by {difference:.1e} Eh, "
            f"expected at most {EIGENVALUE_TOLERANCE:g}"
        )
