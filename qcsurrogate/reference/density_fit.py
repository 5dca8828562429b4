"""Fit of the electron density in an auxiliary basis, in the Coulomb metric.

What is fitted is rho - rho_free_atoms.  Large auxiliary bases are nearly linearly
dependent (condition numbers of 1e11 and more), which would make coefficients jump
between neighbouring geometries.  The fit is therefore stabilised by a penalty on the
coefficients over *atom-orthonormal* functions (orthonormal on each atom in the Coulomb
metric): unlike a cut on eigenvalues it varies smoothly with the geometry, and it keeps
the coefficients of the size of the density they describe.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from pyscf import gto
from pyscf.gto import Mole

from qcsurrogate.basis import BasisSet
from qcsurrogate.errors import RecordError
from qcsurrogate.reference.atoms import FreeAtoms, free_atom_mol
from qcsurrogate.structures import Structure

PENALTY = 1e-5
"""Weight of |c|^2 (atom-orthonormal) against the Coulomb error, see the module's text."""

_MAX_BYTES = 300_000_000


@dataclass(frozen=True, eq=False)
class FittedDensity:
    """Auxiliary coefficients (n_aux,) of rho - rho_free_atoms, PySCF order and normalisation.

    ``coefficients`` integrate to the exact number of electrons, ``unprojected`` are the
    plain minimum.
    """

    coefficients: NDArray[np.float64]
    unprojected: NDArray[np.float64]


def charges(aux: Mole) -> NDArray[np.float64]:
    """(n_aux,) integral of every auxiliary function over space; only s functions have one."""
    values = np.zeros(aux.nao)
    for shell, start in enumerate(aux.ao_loc_nr()[:-1]):
        if aux.bas_angular(shell) == 0:
            exponents, contraction = aux.bas_exp(shell), aux._libcint_ctr_coeff(shell)
            # libcint's coefficients multiply exp(-a r^2) Y_00 with Y_00 = 1/sqrt(4 pi).
            values[start : start + contraction.shape[1]] = (
                (np.pi / exponents) ** 1.5 @ contraction / np.sqrt(4.0 * np.pi)
            )
    return values


def fit_density(
    mol: Mole,
    basis: BasisSet,
    density_matrix: NDArray[np.float64],
    atoms: FreeAtoms,
    *,
    penalty: float = PENALTY,
) -> FittedDensity:
    """Fit the density of a molecule less that of its free atoms.

    Minimises (d|d) + penalty |c|^2 for d = rho - rho_free_atoms - sum_P c_P chi_P
    (Whitten, J. Chem. Phys. 1973, 58, 4496; Dunlap et al., J. Chem. Phys. 1979, 71,
    3396), once freely and once with the number of electrons held by a Lagrange
    multiplier.

    Args:
        mol: molecule in its orbital basis.
        basis: auxiliary basis.
        density_matrix: (n_ao, n_ao), PySCF order.
        atoms: free atoms of all elements.
        penalty: weight of the stabilisation.

    Raises:
        RecordError: if the auxiliary functions are too nearly dependent.
    """
    return _Fitter(mol, basis, penalty).total(density_matrix, atoms)


def fit_densities(
    mol: Mole,
    basis: BasisSet,
    density_matrix: NDArray[np.float64],
    spin_density_matrix: NDArray[np.float64],
    atoms: FreeAtoms,
    *,
    penalty: float = PENALTY,
) -> tuple[FittedDensity, FittedDensity]:
    """Fit rho as :func:`fit_density` does, and rho_alpha - rho_beta.

    From the spin density no free atoms are subtracted; its integral is held at the number of
    unpaired electrons.

    Args:
        mol: molecule in its orbital basis.
        basis: auxiliary basis.
        density_matrix: (n_ao, n_ao) of alpha + beta, PySCF order.
        spin_density_matrix: (n_ao, n_ao) of alpha - beta.
        atoms: free atoms of all elements.
        penalty: weight of the stabilisation.

    Raises:
        RecordError: if the auxiliary functions are too nearly dependent.
    """
    fitter = _Fitter(mol, basis, penalty)
    return fitter.total(density_matrix, atoms), fitter.spin(spin_density_matrix)


class _Fitter:
    """The factorised normal equations of one molecule, for several densities."""

    def __init__(self, mol: Mole, basis: BasisSet, penalty: float) -> None:
        self.mol, self.structure = mol, Structure.from_pyscf(mol)
        self.aux = basis.build_mol(self.structure)
        metric = self.aux.intor("int2c2e_sph", hermi=1)
        self.transform = atom_orthonormal_transform(self.aux, metric)
        system = _transformed(metric, self.transform, self.aux.aoslice_by_atom()[:, 2:])
        system[np.diag_indices_from(system)] += penalty
        try:
            self.factor = scipy.linalg.cho_factor(system, lower=True)
        except np.linalg.LinAlgError as error:
            raise RecordError(
                f"a molecule {self.structure.formula}: the functions of the auxiliary basis {basis.name} are linearly "
                f"dependent at this geometry ({error}); choose a larger even_tempered_beta, or look at the geometry"
            ) from error

    def total(self, density_matrix: NDArray[np.float64], atoms: FreeAtoms) -> FittedDensity:
        free, free_coefficients = free_atom_mol(self.structure, atoms)
        target = _coulomb_with_density(self.mol, self.aux, density_matrix)
        target -= gto.intor_cross("int2c2e_sph", self.aux, free) @ free_coefficients
        return self._fit(target, self.structure.n_electrons - float(self.structure.atomic_numbers.sum()))

    def spin(self, spin_density_matrix: NDArray[np.float64]) -> FittedDensity:
        return self._fit(_coulomb_with_density(self.mol, self.aux, spin_density_matrix), float(self.structure.spin))

    def _fit(self, target: NDArray[np.float64], integral: float) -> FittedDensity:
        charge = self.transform.T @ charges(self.aux)
        solution = scipy.linalg.cho_solve(self.factor, self.transform.T @ target)
        response = scipy.linalg.cho_solve(self.factor, charge)
        missing = integral - charge @ solution
        projected = solution + response * (missing / (charge @ response))
        return FittedDensity(self.transform @ projected, self.transform @ solution)


def atom_orthonormal_transform(aux: Mole, metric: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n_aux, n_aux) block-diagonal matrix to functions orthonormal on each atom.

    Symmetric (Loewdin) orthonormalisation of the functions of one atom, l and m among
    each other, so that it mixes nothing that a rotation would mix and no neighbour
    changes it.
    """
    transform = np.zeros_like(metric)
    starts = aux.ao_loc_nr()
    for atom in range(aux.natm):
        shells = aux.atom_shell_ids(atom)
        for l in sorted({int(aux.bas_angular(s)) for s in shells}):
            first = [
                starts[s] + c * (2 * l + 1) for s in shells if aux.bas_angular(s) == l for c in range(aux.bas_nctr(s))
            ]
            index = np.asarray(first)
            block = metric[np.ix_(index, index)]
            values, vectors = np.linalg.eigh(block)
            root = (vectors / np.sqrt(values)) @ vectors.T
            for m in range(2 * l + 1):
                transform[np.ix_(index + m, index + m)] = root
    return transform


def _transformed(
    metric: NDArray[np.float64], transform: NDArray[np.float64], atoms: NDArray[np.int64]
) -> NDArray[np.float64]:
    """transform^T metric transform for a transform that mixes functions of one atom only.

    Args:
        metric, transform: (n_aux, n_aux).
        atoms: (n_atoms, 2) first function of every atom and the one after its last.
    """
    system = metric.copy()
    for first, end in atoms.tolist():
        system[:, first:end] = system[:, first:end] @ transform[first:end, first:end]
    for first, end in atoms.tolist():
        system[first:end] = transform[first:end, first:end].T @ system[first:end]
    return system


def _coulomb_with_density(mol: Mole, aux: Mole, density_matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n_aux,) Coulomb integrals (P | rho) with the molecular density, in blocks of P."""
    both = gto.conc_mol(mol, aux)
    n_pairs = mol.nao * (mol.nao + 1) // 2
    packed = 2.0 * density_matrix[np.tril_indices(mol.nao)]
    packed[np.cumsum(np.arange(1, mol.nao + 1)) - 1] *= 0.5
    starts = aux.ao_loc_nr()
    values = np.empty(aux.nao)
    most = max(1, _MAX_BYTES // (8 * n_pairs))
    shell = 0
    while shell < aux.nbas:
        stop = shell + 1
        while stop < aux.nbas and starts[stop + 1] - starts[shell] <= most:
            stop += 1
        shells = (0, mol.nbas, 0, mol.nbas, mol.nbas + shell, mol.nbas + stop)
        integrals = both.intor("int3c2e_sph", aosym="s2ij", shls_slice=shells)
        values[starts[shell] : starts[stop]] = packed @ integrals
        shell = stop
    return values
