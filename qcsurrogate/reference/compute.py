"""From a structure to a checked reference record."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from pyscf import lib

from qcsurrogate.errors import RecordError
from qcsurrogate.reference.atoms import FreeAtoms
from qcsurrogate.reference.backend import host
from qcsurrogate.reference.deadline import Deadline
from qcsurrogate.reference.density_fit import charges, fit_densities, fit_density
from qcsurrogate.reference.kohn_sham import ConvergedSCF, solve
from qcsurrogate.reference.record import FIELDS, OPEN_SHELL_FIELDS, ReferenceRecord
from qcsurrogate.reference.settings import Method, Targets
from qcsurrogate.structures import Structure

ELECTRON_COUNT_TOLERANCE = 1e-8
EIGENVALUE_TOLERANCE = 1e-5
COMMUTATOR_TOLERANCE = 1e-4
SYMMETRY_TOLERANCE = 1e-10
FORCE_TOLERANCE = 1e-6


def compute_reference(
    structure: Structure,
    method: Method,
    targets: Targets,
    atoms: FreeAtoms,
    *,
    threads: int = 1,
    max_memory_mb: int = 4000,
    seconds: float | None = None,
) -> ReferenceRecord:
    """Converge the SCF, fit the density, check everything, return the record.

    Args:
        structure: a molecule; of any charge and spin if the method is unrestricted.
        method: level of theory.
        targets: optional quantities.
        atoms: free atoms of all elements of the molecule at this method.
        threads: OpenMP threads that PySCF may use.
        max_memory_mb: memory that PySCF may use.
        seconds: wall time allowed; asked for between SCF cycles and between the parts of a
            record, so that one Fock build may run over it. None for no limit.

    Raises:
        ConvergenceError: if the SCF does not converge.
        TimeLimitError: if it takes longer than ``seconds``.
        RecordError: if the converged record fails one of its checks.
        StructureError, BasisError, SpecError: if it cannot be set up.
    """
    start = time.perf_counter()
    deadline = Deadline(structure.label, seconds)
    with lib.with_omp_threads(threads):
        scf = solve(structure, method, deadline, threads, max_memory_mb)
        deadline.check("the SCF")
        coefficients = _coefficients(structure, method, atoms, scf) if targets.density_coefficients else {}
        deadline.check("the density fit")
        forces = _forces(scf) if targets.forces else None
        record = ReferenceRecord(
            structure=structure,
            overlap=scf.overlap,
            hamiltonian=scf.hamiltonian,
            spin_hamiltonian=scf.spin_hamiltonian,
            density_matrix=scf.density_matrix,
            spin_density_matrix=scf.spin_density_matrix,
            energy=scf.energy,
            mo_energy=scf.mo_energy,
            mo_occ=scf.mo_occ,
            mo_energy_beta=scf.mo_energy_beta,
            mo_occ_beta=scf.mo_occ_beta,
            spin_square=scf.spin_square,
            dipole=_dipole(structure, scf),
            converged=True,
            cycles=scf.cycles,
            ladder_step=scf.ladder_step,
            stability=scf.stability,
            on_gpu=scf.on_gpu if method.backend == "gpu4pyscf" else None,
            wall_time=time.perf_counter() - start,
            core_hamiltonian=scf.core_hamiltonian if targets.core_hamiltonian else None,
            forces=forces,
            **coefficients,
        )
    check_record(record)
    return record


def _coefficients(
    structure: Structure, method: Method, atoms: FreeAtoms, scf: ConvergedSCF
) -> dict[str, NDArray[np.float64]]:
    basis = method.density_basis(structure.atomic_numbers)
    integrals = charges(basis.build_mol(structure))
    advice = f"the auxiliary basis {basis.name} may be too nearly dependent: choose a larger even_tempered_beta"
    found: dict[str, NDArray[np.float64]] = {}
    if scf.spin_density_matrix is None:
        total = fit_density(scf.mol, basis, scf.density_matrix, atoms)
    else:
        total, spin = fit_densities(scf.mol, basis, scf.density_matrix, scf.spin_density_matrix, atoms)
        unpaired = float(integrals @ spin.coefficients)
        if not abs(unpaired - structure.spin) <= ELECTRON_COUNT_TOLERANCE:
            raise RecordError(
                f"{structure.label}: the fitted spin density integrates to {unpaired:.10f}, expected {structure.spin} "
                f"unpaired electrons; {advice}"
            )
        found["spin_density_coefficients"] = spin.coefficients
        found["spin_density_coefficients_unprojected"] = spin.unprojected
    count = float(structure.atomic_numbers.sum() + integrals @ total.coefficients)
    if not abs(count - structure.n_electrons) <= ELECTRON_COUNT_TOLERANCE:
        raise RecordError(
            f"{structure.label}: the fitted density holds {count:.10f} electrons, expected {structure.n_electrons}; "
            f"{advice}"
        )
    found["density_coefficients"] = total.coefficients
    found["density_coefficients_unprojected"] = total.unprojected
    return found


def _forces(scf: ConvergedSCF) -> NDArray[np.float64]:
    """Minus the slope of the energy, the response of the grid that moves with its atoms included."""
    gradient = scf.scf.nuc_grad_method()
    gradient.grid_response = True
    return -host(gradient.kernel())


def _dipole(structure: Structure, scf: ConvergedSCF) -> NDArray[np.float64]:
    """Nuclear less electronic dipole about the origin, e bohr."""
    integrals = scf.mol.intor_symmetric("int1e_r")
    nuclear = structure.atomic_numbers @ structure.positions
    return np.asarray(nuclear - np.einsum("xij,ji->x", integrals, scf.density_matrix))


def check_record(record: ReferenceRecord) -> None:
    """The checks that every record passes before it is kept.

    Finite, symmetric, and for each set of orbitals tr(D S) = N, [F, D] = 0 in the metric S,
    H C = S C e; forces add up to zero.

    Raises:
        RecordError: naming the structure, the check, the value expected and found.
    """
    label = record.structure.label
    _check_numbers(record, label)
    if record.forces is not None:
        drift = float(np.abs(record.forces.sum(axis=0)).max())
        if not drift <= FORCE_TOLERANCE:
            raise RecordError(
                f"{label}: the forces add up to {drift:.1e} Eh/bohr, expected at most {FORCE_TOLERANCE:g}: they lack "
                "the response of the integration grid, or belong to another geometry"
            )
    for orbitals in _orbital_sets(record, label):
        _check_orbitals(orbitals, record.overlap, label)


@dataclass(frozen=True, eq=False)
class _OrbitalSet:
    spin: str
    hamiltonian: NDArray[np.float64]
    density_matrix: NDArray[np.float64]
    mo_energy: NDArray[np.float64]
    mo_occ: NDArray[np.float64]
    n_electrons: int


def _orbital_sets(record: ReferenceRecord, label: str) -> list[_OrbitalSet]:
    """The orbitals of both spins together, or of each."""
    structure = record.structure
    present = [name for name in OPEN_SHELL_FIELDS if record.value(name) is not None]
    if not present and structure.spin == 0:
        return [
            _OrbitalSet(
                "",
                record.hamiltonian,
                record.density_matrix,
                record.mo_energy,
                record.mo_occ,
                structure.n_electrons,
            )
        ]
    energies, occupations = record.mo_energy_beta, record.mo_occ_beta
    if len(present) != len(OPEN_SHELL_FIELDS) or energies is None or occupations is None:
        missing = [name for name in OPEN_SHELL_FIELDS if name not in present]
        raise RecordError(
            f"{label}: the record of a molecule of spin {structure.spin} lacks {', '.join(missing)}; "
            "expected all of them (unrestricted) or, for spin 0, none (restricted)"
        )
    n_beta = (structure.n_electrons - structure.spin) // 2
    alpha = (record.hamiltonian_alpha, record.density_matrix_alpha, record.mo_energy, record.mo_occ)
    beta = (record.hamiltonian_beta, record.density_matrix_beta, energies, occupations)
    return [_OrbitalSet(" of alpha", *alpha, n_beta + structure.spin), _OrbitalSet(" of beta", *beta, n_beta)]


def _check_numbers(record: ReferenceRecord, label: str) -> None:
    for field in FIELDS:
        value: Any = record.value(field.name)
        if value is None or field.dtype != "float64":
            continue
        array = np.asarray(value)
        if not np.isfinite(array).all():
            if array.ndim == 0:
                raise RecordError(f"{label}: the {field.name} is {float(array)}; expected a finite number")
            raise RecordError(f"{label}: {field.name} holds numbers that are not finite")
        if field.shape == "triangle":
            asymmetry = float(np.abs(array - array.T).max())
            if asymmetry > SYMMETRY_TOLERANCE:
                raise RecordError(
                    f"{label}: {field.name} differs from its transpose by {asymmetry:.1e}; "
                    f"expected at most {SYMMETRY_TOLERANCE:g}"
                )


def _check_orbitals(orbitals: _OrbitalSet, overlap: NDArray[np.float64], label: str) -> None:
    fock, density, spin = orbitals.hamiltonian, orbitals.density_matrix, orbitals.spin
    count = float(np.einsum("ij,ji->", density, overlap))
    if not abs(count - orbitals.n_electrons) <= ELECTRON_COUNT_TOLERANCE:
        raise RecordError(f"{label}: tr(D S){spin} = {count:.10f}, expected {orbitals.n_electrons} electrons")
    if not abs(orbitals.mo_occ.sum() - orbitals.n_electrons) <= ELECTRON_COUNT_TOLERANCE:
        raise RecordError(
            f"{label}: the orbital occupations{spin} add up to {orbitals.mo_occ.sum():g}, "
            f"expected {orbitals.n_electrons} electrons"
        )
    product = fock @ density @ overlap
    commutator = float(np.abs(product - product.T).max())
    if not commutator <= COMMUTATOR_TOLERANCE:
        raise RecordError(
            f"{label}: |FDS - SDF|{spin} = {commutator:.1e}, expected at most {COMMUTATOR_TOLERANCE:g}: the SCF is "
            "not converged; tighten method.conv_tol_grad"
        )
    try:
        eigenvalues = scipy.linalg.eigh(fock, overlap, eigvals_only=True)
    except np.linalg.LinAlgError as error:
        raise RecordError(f"{label}: H C = S C e{spin} cannot be solved ({error}); the overlap is singular") from error
    difference = float(np.abs(eigenvalues - orbitals.mo_energy).max())
    if not difference <= EIGENVALUE_TOLERANCE:
        raise RecordError(
            f"{label}: the orbital energies{spin} differ from those of H C = S C e by {difference:.1e} Eh, "
            f"expected at most {EIGENVALUE_TOLERANCE:g}"
        )
