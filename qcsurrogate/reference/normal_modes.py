"""Equilibrium geometry and harmonic modes at the level of the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from ase.data import atomic_masses
from numpy.typing import NDArray
from pyscf import lib

from qcsurrogate.errors import ConvergenceError, StructureError
from qcsurrogate.reference.harmonic import HarmonicModes
from qcsurrogate.reference.kohn_sham import run_kohn_sham
from qcsurrogate.reference.settings import Method
from qcsurrogate.structures import Structure
from qcsurrogate.units import (
    ANGSTROM_PER_BOHR,
    BOHR_PER_ANGSTROM,
    ELECTRON_MASS_PER_DALTON,
    EV_PER_HARTREE,
)

_FORCE_TOLERANCE = 1e-5
_MAX_STEPS = 200
_LINEAR_BOHR = 0.02
"""A molecule is linear whose atoms lie nearer to its axis (root mean square by mass).  Relaxed to the tolerance above,
a linear one is off by 1e-4 or so, and turning it about its axis is then a bend, which must not be projected out."""


def harmonic_modes(structure: Structure, method: Method) -> HarmonicModes:
    """Relax a structure and diagonalise its mass-weighted Hessian.

    Translations and rotations are projected out before the diagonalisation: 3n - 6 modes
    are left, 3n - 5 of a linear molecule, none of an atom.

    Raises:
        ConvergenceError: if the relaxation or an SCF on its way does not converge.
        StructureError: if the relaxed structure is not a minimum.
    """
    if len(structure) == 1:
        return HarmonicModes(structure, np.zeros(0), np.zeros((0, 1, 3)))
    with lib.with_omp_threads(1):
        relaxed = relax(structure, method)
        scf = _converged(relaxed, method)
        hessian = np.asarray(scf.Hessian().kernel())
    n = len(relaxed)
    masses = atomic_masses[relaxed.atomic_numbers] * ELECTRON_MASS_PER_DALTON
    root = np.repeat(np.sqrt(masses), 3)
    weighted = hessian.transpose(0, 2, 1, 3).reshape(3 * n, 3 * n) / np.outer(root, root)
    internal = _internal_space(relaxed, masses)
    values, vectors = np.linalg.eigh(internal.T @ (0.5 * (weighted + weighted.T)) @ internal)
    if values.min() <= 0:
        raise StructureError(
            f"{relaxed.label}: the relaxed geometry is no minimum (lowest squared frequency {values.min():.2e} a.u.); "
            "start from another geometry"
        )
    displacements = ((internal @ vectors) / root[:, None]).T.reshape(-1, n, 3)
    return HarmonicModes(relaxed, np.sqrt(values), displacements)


def _internal_space(structure: Structure, masses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Orthonormal mass-weighted directions without translation and rotation, (3n, 3n - 5 or 6)."""
    root = np.sqrt(masses)
    centred = structure.positions - masses @ structure.positions / masses.sum()
    rigid = []
    for axis in np.eye(3):
        rigid.append((root[:, None] * axis).ravel())
        rigid.append((root[:, None] * np.cross(axis, centred)).ravel())
    vectors, values, _ = np.linalg.svd(np.asarray(rigid).T, full_matrices=True)
    rank = int((values > _LINEAR_BOHR * np.sqrt(masses.sum())).sum())
    return np.asarray(vectors[:, rank:])


def relax(structure: Structure, method: Method) -> Structure:
    """The nearest minimum, by BFGS to a largest force of 1e-5 Hartree/bohr."""
    from ase.optimize import BFGS

    atoms = structure.to_ase()
    atoms.calc = KohnShamForces(structure, method)
    force_tolerance = _FORCE_TOLERANCE * EV_PER_HARTREE / ANGSTROM_PER_BOHR
    if not BFGS(atoms, logfile=None).run(fmax=force_tolerance, steps=_MAX_STEPS):
        raise ConvergenceError(
            f"relaxing {structure.label} did not reach {_FORCE_TOLERANCE:g} Eh/bohr in {_MAX_STEPS} steps; "
            "start from a geometry nearer to the minimum"
        )
    return structure.moved(atoms.positions * BOHR_PER_ANGSTROM)


class KohnShamForces(Calculator):
    """Energy and forces of the reference method, for ASE's optimisers and for dynamics; one thread."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012  (declared so by ASE)

    def __init__(self, structure: Structure, method: Method) -> None:
        super().__init__()
        self.structure, self.method = structure, method

    def calculate(
        self,
        atoms: Any = None,
        properties: Any = ("energy", "forces"),
        system_changes: Any = all_changes,
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        if self.atoms is None:
            raise StructureError("asked for forces without atoms")
        with lib.with_omp_threads(1):  # sums of several threads differ from run to run
            scf = _converged(self.structure.moved(self.atoms.positions * BOHR_PER_ANGSTROM), self.method)
            gradient = scf.nuc_grad_method()
            gradient.grid_response = True
            forces = -np.asarray(gradient.kernel())
        self.results = {
            "energy": scf.e_tot * EV_PER_HARTREE,
            "forces": forces * EV_PER_HARTREE / ANGSTROM_PER_BOHR,
        }


def _converged(structure: Structure, method: Method) -> Any:
    """A PySCF object on the CPU, whatever the backend: Hessians are needed of it."""
    return run_kohn_sham(structure, method.model_copy(update={"backend": "pyscf"})).scf
