"""Fit of the electron density in an auxiliary basis, in the Coulomb metric.

What is fitted is rho - rho_free_atoms.  Large auxiliary bases are nearly linearly
dependent (condition numbers of 1e11 and more), which would make coefficients jump
between neighbouring geometries.  The fit is therefore stabilised by a penalty on the
coefficients over *atom-orthonormal* functions (orthonormal on each atom in the Coulomb
metric): unlike a cut on eigenvalues it varies smoothly with the geometry, and it keeps
the coefficients of the size of the density they describe.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from pyscf import gto
from pyscf.gto import Mole

from qcsurrogate.basis import BasisSet, ElementBasis
from qcsurrogate.errors import RecordError
from qcsurrogate.reference.atoms import FreeAtoms, free_atom_in
from qcsurrogate.reference.charges import gaussians
from qcsurrogate.reference.overlapping import CUTOFF, OverlappingPairs, ThreeCentreIntegrals
from qcsurrogate.structures import Structure

PENALTY = 1e-5
"""Weight of |c|^2 (atom-orthonormal) against the Coulomb error, see the module's text."""

_SUMMED_TOGETHER = 64


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
    """The factorised normal equations of one molecule, for several densities.

    What is added up is of the size of all electrons, and the transform to atom-orthonormal
    functions takes differences of it that are up to 1e4 times as large: sums and differences are
    done in extended precision, where there is one.
    """

    def __init__(self, mol: Mole, basis: BasisSet, penalty: float) -> None:
        self.mol, self.structure = mol, Structure.from_pyscf(mol)
        numbers = self.structure.atomic_numbers.tolist()
        self._elements = [_auxiliary(basis[z]) for z in numbers]
        self.aux = gaussians(
            [
                (position, l, exponents, coefficients)
                for position, element in zip(self.structure.positions, self._elements, strict=True)
                for l, exponents, coefficients in element.shells
            ]
        )
        self._atoms = np.repeat(np.arange(len(numbers)), [len(element.shells) for element in self._elements])
        starts = basis.offsets(numbers).tolist()
        self._slices = [slice(*ends) for ends in itertools.pairwise(starts)]
        try:
            self.factor = scipy.linalg.cho_factor(self._system(penalty), lower=True, overwrite_a=True)
        except np.linalg.LinAlgError as error:
            raise RecordError(
                f"a molecule {self.structure.formula}: the functions of the auxiliary basis {basis.name} are linearly "
                f"dependent at this geometry ({error}); choose a larger even_tempered_beta, or look at the geometry"
            ) from error

    def total(self, density_matrix: NDArray[np.float64], atoms: FreeAtoms) -> FittedDensity:
        target = self._repulsion(density_matrix) - self._repulsion_of_atoms(atoms)
        return self._fit(target, self.structure.n_electrons - float(self.structure.atomic_numbers.sum()))

    def spin(self, spin_density_matrix: NDArray[np.float64]) -> FittedDensity:
        return self._fit(self._repulsion(spin_density_matrix), float(self.structure.spin))

    def _system(self, penalty: float) -> NDArray[np.float64]:
        """(n_aux, n_aux) Coulomb metric of orthonormal functions and the penalty, the lower triangle."""
        system = np.asarray(self.aux.intor("int2c2e_sph", hermi=1)).T  # symmetric, and now in Fortran's order
        round_ones = np.concatenate(
            [own.start + np.arange(e.n_s) for own, e in zip(self._slices, self._elements, strict=True)]
        )
        exact = self._transformed_s(system[np.ix_(round_ones, round_ones)])
        for k, (own, element) in enumerate(zip(self._slices, self._elements, strict=True)):
            before = slice(0, own.start)
            rows = element.transform.T @ system[own, before]
            for part, other in zip(self._slices[:k], self._elements, strict=False):
                system[own, part] = rows[:, part] @ other.transform
        system[np.ix_(round_ones, round_ones)] = exact
        for own in self._slices:
            system[own, own] = (1.0 + penalty) * np.eye(own.stop - own.start)
        return system

    def _transformed_s(self, metric: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n_s, n_s) metric of orthonormal s functions, of which differences are the largest, in extended precision."""
        extended = metric.astype(np.longdouble)
        start = 0
        for element in self._elements:
            own = slice(start, start + element.n_s)
            transform = element.transform[: element.n_s, : element.n_s].astype(np.longdouble)
            extended[own] = transform.T @ extended[own]
            extended[:, own] = extended[:, own] @ transform
            start = own.stop
        return extended.astype(np.float64)

    def _repulsion(self, density_matrix: NDArray[np.float64]) -> NDArray[np.longdouble]:
        """(n_aux,) Coulomb integrals (P | rho) with the molecular density."""
        total = np.zeros(self.aux.nao, np.longdouble)
        pairs = OverlappingPairs(self.mol, CUTOFF)
        for block, functions, values in ThreeCentreIntegrals(pairs, self._atoms, [self.aux]):
            density = density_matrix[block.first, block.second] * block.multiplicity
            whole = len(density) // _SUMMED_TOGETHER * _SUMMED_TOGETHER
            split = density[:whole].reshape(-1, _SUMMED_TOGETHER)
            parts = values[:whole].T.reshape(len(functions), -1, _SUMMED_TOGETHER)
            total[functions] += np.einsum("pks,ks->pk", parts, split).sum(1, dtype=np.longdouble)
            total[functions] += density[whole:] @ values[whole:]
        return total

    def _repulsion_of_atoms(self, atoms: FreeAtoms) -> NDArray[np.longdouble]:
        """(n_aux,) Coulomb integrals (P | rho) with the density of the free atoms."""
        known = [free_atom_in(atoms, z) for z in self.structure.atomic_numbers.tolist()]
        free = gaussians(
            [
                (position, 0, atom.exponents, np.sqrt(4.0 * np.pi) * np.eye(len(atom.exponents)))
                for position, atom in zip(self.structure.positions, known, strict=True)
            ]
        )
        integrals = gto.intor_cross("int2c2e_sph", self.aux, free)
        coefficients = np.concatenate([atom.coefficients for atom in known])
        return integrals.astype(np.longdouble) @ coefficients

    def _fit(self, target: NDArray[np.longdouble], integral: float) -> FittedDensity:
        both = [
            np.concatenate(
                [
                    (element.transform.T.astype(np.longdouble) @ values[own]).astype(np.float64)
                    for own, element in zip(self._slices, self._elements, strict=True)
                ]
            )
            for values in (target, np.concatenate([element.charges for element in self._elements]))
        ]
        charge = both[1]
        solution, response = scipy.linalg.cho_solve(self.factor, np.stack(both, axis=1)).T
        missing = integral - charge @ solution
        projected = solution + response * (missing / (charge @ response))
        return FittedDensity(self._restored(projected), self._restored(solution))

    def _restored(self, solution: NDArray[np.float64]) -> NDArray[np.float64]:
        """Coefficients of the auxiliary functions from those of the atom-orthonormal ones."""
        parts = [e.transform @ solution[own] for own, e in zip(self._slices, self._elements, strict=True)]
        return np.concatenate(parts)


@dataclass(frozen=True, eq=False)
class _AuxiliaryElement:
    """Auxiliary functions of one element: what does not depend on where its atoms are.

    Attributes:
        shells: l, exponents and libcint's coefficients of all functions of one l.
        transform: to orthonormal functions.
        charges: integrals over space.
    """

    shells: tuple[tuple[int, NDArray[np.float64], NDArray[np.float64]], ...]
    transform: NDArray[np.float64]
    charges: NDArray[np.float64]

    @property
    def n_s(self) -> int:
        """How many s functions there are; they come first."""
        return sum(len(coefficients) for l, _, coefficients in self.shells if l == 0)


@lru_cache(maxsize=256)
def _auxiliary(element: ElementBasis) -> _AuxiliaryElement:
    z = element.atomic_number
    mol = BasisSet("one element", {z: element}).build_mol(Structure(np.array([z]), np.zeros((1, 3)), spin=z % 2))
    shells = []
    for l in range(max(element.angular_momenta) + 1):
        chosen = [shell for shell in range(mol.nbas) if mol.bas_angular(shell) == l]
        if chosen:
            exponents = np.concatenate([mol.bas_exp(shell) for shell in chosen])
            coefficients = scipy.linalg.block_diag(*(mol._libcint_ctr_coeff(shell).T for shell in chosen))
            shells.append((l, exponents, coefficients))
    transform = atom_orthonormal_transform(mol, mol.intor("int2c2e_sph", hermi=1))
    return _AuxiliaryElement(tuple(shells), transform, charges(mol))


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
