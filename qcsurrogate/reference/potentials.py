"""H0 of a superposition of atomic potentials, whose shape is fitted to Kohn-Sham Hamiltonians.

H0 = T + V_nuc + sum over atoms of the repulsion by Gaussian charges on that atom.  It is
analytic, so exactly clean under rotations, and one call for three-index integrals.  Lehtola,
J. Chem. Theory Comput. 2019, 15, 1593, uses potentials of free atoms in this way; here the
charges of every element are fitted to the Hamiltonians of a training set, so that they also
hold what is common to its molecules, exchange and correlation included.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase.data import atomic_numbers as number_of_symbol
from ase.data import chemical_symbols
from numpy.typing import NDArray
from pyscf import gto
from pyscf.gto import Mole

from qcsurrogate.basis import BasisSet
from qcsurrogate.errors import BasisError
from qcsurrogate.structures import Structure

_SMOOTHEST = 0.1
"""Smallest exponent, bohr^-2."""

_RATIO = 2.0

_VALENCE = 0.2
"""Exponent of the charge of an ion's atoms, bohr^-2: of 0.1 to 0.8 the one that leaves H nearest to H0."""

_MOST_BYTES = 2**27
_MOST_EXPONENTS = 64
_LARGEST = 1e6


@dataclass(frozen=True, eq=False)
class AtomicPotential:
    """Gaussian charges on an atom: the electrons that its neighbours' electrons and its own are repelled by.

    Attributes:
        exponents: (n,) of exp(-a r^2), bohr^-2, ascending.
        charges: (n,) electrons in each; together the atomic number.
    """

    exponents: NDArray[np.float64]
    charges: NDArray[np.float64]


AtomicPotentials = Mapping[int, AtomicPotential]
"""By atomic number."""


def exponents_for(atomic_number: int) -> NDArray[np.float64]:
    """A geometric series from what is smoother than an atom to what is sharper than its core."""
    sharpest = max(12.0, 3.0 * atomic_number**2)
    count = 1 + int(np.ceil(np.log(sharpest / _SMOOTHEST) / np.log(_RATIO)))
    return np.geomspace(_SMOOTHEST, sharpest, count)


def core_hamiltonian(mol: Mole) -> NDArray[np.float64]:
    """(n_ao, n_ao) kinetic energy and attraction by the nuclei, Hartree, PySCF AO order."""
    return np.asarray(mol.intor_symmetric("int1e_kin") + mol.intor_symmetric("int1e_nuc"))


def potential_hamiltonian(mol: Mole, potentials: AtomicPotentials) -> NDArray[np.float64]:
    """(n_ao, n_ao) H0 of a molecule in Hartree, PySCF AO order.

    Raises:
        BasisError: for an element without a potential.
    """
    shells = []
    for atom, z in enumerate(mol.atom_charges().tolist()):
        if z not in potentials:
            raise BasisError(f"no atomic potential for {chemical_symbols[z]}; expected one for every element")
        shells.append((mol.atom_coord(atom), potentials[z].exponents, potentials[z].charges))
    repulsion = _repulsion(mol, shells, np.zeros(len(shells), np.int64), 1)[0]
    return core_hamiltonian(mol) + _unpacked(repulsion, mol.nao)


def charge_hamiltonian(mol: Mole, charges: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n_ao, n_ao) what an electron feels of atoms that are not neutral, Hartree, PySCF AO order.

    Args:
        mol: the molecule.
        charges: (n_atoms,) of each atom, e; spread over a Gaussian as wide as a valence shell.
    """
    missing = [(mol.atom_coord(i), np.array([_VALENCE]), np.array([-q])) for i, q in enumerate(charges)]
    repulsion = _repulsion(mol, missing, np.zeros(len(missing), np.int64), 1)[0]
    return _unpacked(repulsion, mol.nao)


def fit_potentials(
    samples: Iterable[tuple[Structure, NDArray[np.float64]]], basis: BasisSet
) -> dict[int, AtomicPotential]:
    """Charges with which H0 comes nearest to given Hamiltonians, every atom neutral.

    Linear least squares over all elements of X (H - H0) X, X = S^(-1/2), of all samples: what
    is left over is what a network has to learn, and in the basis itself errors that weigh
    little would be blown up by X.  One constraint for each element: its charges are together
    its atomic number, so that a far atom is not felt.
    The charge of an ion is not theirs to describe; it is taken as spread evenly over its atoms.

    Args:
        samples: molecules and their (n_ao, n_ao) converged Hamiltonians, Hartree, PySCF AO order.
        basis: of these matrices.
    """
    elements = sorted(basis.elements)
    exponents = {z: exponents_for(z) for z in elements}
    starts = np.cumsum([0, *(len(exponents[z]) for z in elements)])
    normal, right = np.zeros((starts[-1], starts[-1])), np.zeros(starts[-1])
    seen: set[int] = set()
    for structure, hamiltonian in samples:
        mol = basis.build_mol(structure)
        shells, columns = [], []
        for z, position in zip(structure.atomic_numbers.tolist(), structure.positions, strict=True):
            for k, exponent in enumerate(exponents[z]):
                shells.append((position, np.array([exponent]), np.ones(1)))
                columns.append(starts[elements.index(z)] + k)
        values, vectors = np.linalg.eigh(mol.intor_symmetric("int1e_ovlp"))
        inverse_root = (vectors * values**-0.5) @ vectors.T
        packed = _repulsion(mol, shells, np.array(columns), int(starts[-1]))
        known = core_hamiltonian(mol)
        if structure.charge:
            known += charge_hamiltonian(mol, np.full(len(structure), structure.charge / len(structure)))
        matrices = [*(_unpacked(row, mol.nao) for row in packed), hamiltonian - known]
        *features, target = (inverse_root @ matrix @ inverse_root for matrix in matrices)
        flat = np.reshape(features, (len(packed), -1))
        normal += flat @ flat.T
        right += flat @ target.ravel()
        seen.update(structure.atomic_numbers.tolist())
    neutral = np.zeros((len(elements), starts[-1]))
    for i in range(len(elements)):
        neutral[i, starts[i] : starts[i + 1]] = 1.0
    scale = np.sqrt(np.maximum(np.diag(normal), 1e-12))
    system = np.block(
        [
            [normal / np.outer(scale, scale), neutral.T / scale[:, None]],
            [neutral / scale, np.zeros((len(elements), len(elements)))],
        ]
    )
    solution = np.linalg.lstsq(system, np.concatenate([right / scale, elements]), rcond=1e-12)[0]
    charges = solution[: starts[-1]] / scale
    return {
        z: AtomicPotential(exponents[z], charges[starts[i] : starts[i + 1]])
        for i, z in enumerate(elements)
        if z in seen
    }


def potentials_to_dict(potentials: AtomicPotentials) -> dict[str, Any]:
    """Plain data for JSON."""
    return {
        chemical_symbols[z]: {"exponents": p.exponents.tolist(), "charges": p.charges.tolist()}
        for z, p in sorted(potentials.items())
    }


def potentials_from_dict(data: Mapping[str, Any]) -> dict[int, AtomicPotential]:
    """From :func:`potentials_to_dict`; numbers are checked, nothing is evaluated.

    Raises:
        BasisError: if something in it is no atomic potential.
    """
    found = {}
    try:
        for symbol, entry in data.items():
            exponents, charges = (np.array(entry[name], dtype=np.float64) for name in ("exponents", "charges"))
            sound = exponents.ndim == 1 and exponents.shape == charges.shape and 0 < len(exponents) <= _MOST_EXPONENTS
            if not (sound and (exponents > 0).all() and np.isfinite(exponents).all()):
                raise ValueError("expected positive exponents and as many charges")
            if not (np.abs(charges) < _LARGEST).all() or set(entry) != {"exponents", "charges"}:
                raise ValueError("expected finite charges, and nothing else")
            found[number_of_symbol[symbol]] = AtomicPotential(exponents, charges)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BasisError(
            "atomic potentials are written as {symbol: {exponents: [...], charges: [...]}}; got something else "
            f"({type(error).__name__}: {error})"
        ) from error
    return found


def _repulsion(
    mol: Mole,
    shells: Sequence[tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]],
    columns: NDArray[np.int64],
    n_columns: int,
) -> NDArray[np.float64]:
    """(n_columns, n_ao (n_ao + 1) / 2) repulsion by Gaussian charges, those of one column added up.

    Args:
        mol: the molecule.
        shells: position, exponents and charges of each.
        columns: (n_shells,) where each belongs.
        n_columns: how many there are.
    """
    n_pairs = mol.nao * (mol.nao + 1) // 2
    total = np.zeros((n_columns, n_pairs))
    step = max(1, _MOST_BYTES // (8 * n_pairs))
    for first in range(0, len(shells), step):
        part = shells[first : first + step]
        both = gto.conc_mol(mol, _charges_mol(part))
        slices = (0, mol.nbas, 0, mol.nbas, mol.nbas, both.nbas)
        integrals = both.intor("int3c2e", aosym="s2ij", shls_slice=slices)
        np.add.at(total, columns[first : first + step], integrals.T)
    return total


def _charges_mol(
    shells: Sequence[tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]],
) -> Mole:
    """A molecule whose s functions are Gaussian charge distributions."""
    atm = np.zeros((len(shells), gto.ATM_SLOTS), np.int32)
    bas = np.zeros((len(shells), gto.BAS_SLOTS), np.int32)
    env: list[NDArray[np.float64]] = [np.zeros(gto.PTR_ENV_START)]
    place = gto.PTR_ENV_START
    for i, (position, exponents, charges) in enumerate(shells):
        n = len(exponents)
        # libcint multiplies s functions by 1 / sqrt(4 pi); each Gaussian integrates to its charge
        coefficients = charges * (exponents / np.pi) ** 1.5 * np.sqrt(4.0 * np.pi)
        atm[i, gto.PTR_COORD] = place
        bas[i, [gto.ATOM_OF, gto.NPRIM_OF, gto.NCTR_OF]] = i, n, 1
        bas[i, [gto.PTR_EXP, gto.PTR_COEFF]] = place + 3, place + 3 + n
        env += [np.asarray(position), exponents, coefficients]
        place += 3 + 2 * n
    fake = gto.Mole()
    fake._atm, fake._bas, fake._env, fake._built = atm, bas, np.concatenate(env), True
    return fake


def _unpacked(triangle: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    matrix = np.empty((n, n))
    rows, columns = np.tril_indices(n)
    matrix[rows, columns] = triangle
    matrix[columns, rows] = triangle
    return matrix
