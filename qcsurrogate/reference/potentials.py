"""H0 of a superposition of atomic potentials, whose shape is fitted to Kohn-Sham Hamiltonians.

H0 = T + V_nuc + sum over atoms of the repulsion by Gaussian charges on that atom.  It is
analytic, so exactly clean under rotations, and one call for three-index integrals.  Lehtola,
J. Chem. Theory Comput. 2019, 15, 1593, uses potentials of free atoms in this way; here the
charges of every element are fitted to the Hamiltonians of a training set, so that they also
hold what is common to its molecules, exchange and correlation included.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase.data import atomic_numbers as number_of_symbol
from ase.data import chemical_symbols
from numpy.typing import NDArray
from pyscf.gto import Mole

from qcsurrogate.basis import BasisSet
from qcsurrogate.errors import BasisError
from qcsurrogate.reference.charges import FeltCharges, coulomb, gaussian_charges
from qcsurrogate.reference.overlapping import OverlappingPairs, PairBlock, ThreeCentreIntegrals
from qcsurrogate.structures import Structure

_SMOOTHEST = 0.1
"""Smallest exponent, bohr^-2."""

_RATIO = 2.0

_VALENCE = 0.2
"""Exponent of the charge of an ion's atoms, bohr^-2: of 0.1 to 0.8 the one that leaves H nearest to H0."""

_SMOOTH = ((0, (0.2, 0.8)), (1, (0.4,)))
"""Angular momentum and exponents (bohr^-2) of what charge that has moved is fitted by; with 139 functions in place of
30 the potential on atoms is no better (22.5 and 23.2 mEh of 36.7 are left over for small QM9 molecules)."""

_POINT = 1e16
"""Exponent of a nucleus, bohr^-2."""

_SHARP = 0.5
"""Exponent (bohr^-2) from which on the charges of a far atom look like its nucleus."""

_FELT = 1e-10
"""Smallest contribution of a Gaussian charge to a matrix element, Hartree."""

_LONGEST = 27.0
"""Largest decay of pairs of orbitals that have more than their kinetic energy: by exp(-27) = 2e-12."""

_NEUTRAL = 1e-8
"""Charge of an atom that is taken for none where it is far."""

_PARTS = ("exponents", "charges", "electrons")
_MOST_EXPONENTS = 64
_LARGEST = 1e6


@dataclass(frozen=True, eq=False)
class AtomicPotential:
    """Gaussian charges on an atom: the electrons that its neighbours' electrons and its own are repelled by.

    Attributes:
        exponents: (n,) of exp(-a r^2), bohr^-2, ascending.
        charges: (n,) electrons in each as H0 has them, exchange and correlation included; together the atomic number.
        electrons: (n,) electrons in each as the density has them; together the atomic number.
    """

    exponents: NDArray[np.float64]
    charges: NDArray[np.float64]
    electrons: NDArray[np.float64]


AtomicPotentials = Mapping[int, AtomicPotential]
"""By atomic number."""

Shell = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
"""Position (bohr), exponents and charges of Gaussians in one place."""


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
    atoms = []
    for z in mol.atom_charges().tolist():
        if z not in potentials:
            raise BasisError(f"no atomic potential for {chemical_symbols[z]}; expected one for every element")
        atoms.append((z, potentials[z].exponents, potentials[z].charges))
    pairs = OverlappingPairs(mol, _LONGEST)
    charges = []
    for limit in (_SHARP, np.inf):  # with and without its sharp charges on the nucleus
        shells = []
        for position, (z, exponents, electrons) in zip(mol.atom_coords(), atoms, strict=True):
            kept = exponents < limit
            nucleus = electrons[~kept].sum() - z
            shells.append((position, np.append(exponents[kept], _POINT), np.append(electrons[kept], nucleus)))
        charges.append(gaussian_charges(shells))
    total = np.asarray(mol.intor_symmetric("int1e_kin"))
    for block, values in _summed(ThreeCentreIntegrals(pairs, np.arange(mol.natm), charges, _detail(pairs, potentials))):
        block.add(total, values)
    return total


def _detail(pairs: OverlappingPairs, potentials: AtomicPotentials) -> NDArray[np.int8]:
    """(n_pairs, n_atoms) 0 where an atom is not felt, 1 where only its diffuse charges look different from a point."""
    numbers, squares = pairs.mol.atom_charges(), pairs.squares()
    detail = np.zeros(squares.shape, np.int8)
    p, decays = pairs.exponents[:, None], pairs.decays[:, None]
    for z in np.unique(numbers).tolist():
        exponents, charges = potentials[z].exponents, potentials[z].charges
        sizes = np.log(np.maximum(np.abs(charges), 1e-30) / _FELT) - decays
        reaches = sizes * (p + exponents) / (p * exponents)  # squares of distances
        own = numbers == z
        if abs(charges.sum() - z) > _NEUTRAL:
            detail[:, own] = 1
        for level in (reaches, reaches[:, exponents >= _SHARP]):
            if level.shape[1]:
                detail[:, own] += squares[:, own] < level.max(1)[:, None]
    return np.minimum(detail, 2)


def _summed(integrals: ThreeCentreIntegrals) -> Iterator[tuple[PairBlock, NDArray[np.float64]]]:
    """Blocks of pairs and (n_pairs,) sums over all charges."""
    for block, parts in itertools.groupby(integrals, key=lambda part: part[0]):
        yield block, sum(values.sum(1) for _, _, values in parts)


def charge_hamiltonian(mol: Mole, charges: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n_ao, n_ao) what an electron feels of atoms that are not neutral, Hartree, PySCF AO order.

    Args:
        mol: the molecule.
        charges: (n_atoms,) of each atom, e; spread over a Gaussian as wide as a valence shell.
    """
    felt = FeltCharges(mol, [(0, (_VALENCE,))])
    return felt.potential(-charges * (_VALENCE / np.pi) ** 1.5 * np.sqrt(4.0 * np.pi))


def response_hamiltonian(mol: Mole, potentials: AtomicPotentials, density: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n_ao, n_ao) Coulomb potential of what a density differs by from neutral atoms, Hartree, PySCF AO order.

    The difference is fitted, in the Coulomb metric, by two charges and one dipole on every
    atom: enough for how charge has moved between atoms, at a fraction of the price of H0.

    Args:
        mol: the molecule.
        potentials: with the electrons of its neutral atoms.
        density: (n_ao, n_ao) density matrix, PySCF AO order.
    """
    felt = FeltCharges(mol, _SMOOTH)
    felt.keep()
    atoms = [(mol.atom_coord(i), potentials[z].exponents, potentials[z].electrons) for i, z in _numbered(mol)]
    moments = felt.moments(density) - coulomb(felt.charges, gaussian_charges(atoms)).sum(1)
    return felt.potential(np.linalg.solve(coulomb(felt.charges, felt.charges), moments))


def _numbered(mol: Mole) -> list[tuple[int, int]]:
    return list(enumerate(mol.atom_charges().tolist()))


def _valence_charges(mol: Mole, electrons: NDArray[np.float64]) -> list[Shell]:
    return [(mol.atom_coord(i), np.array([_VALENCE]), np.array([n])) for i, n in enumerate(electrons)]


def fit_potentials(
    samples: Iterable[tuple[Structure, NDArray[np.float64], NDArray[np.float64]]], basis: BasisSet
) -> dict[int, AtomicPotential]:
    """The charges of H0 and the electrons of atoms that come nearest to converged calculations, every atom neutral.

    Both by linear least squares with one constraint for each element: all its charges are
    together its atomic number, so that a far atom is not felt.  ``charges`` minimise
    X (H - H0) X, X = S^(-1/2), over all elements of all samples: what is left over is what a
    network has to learn, and in the basis itself errors that weigh little would be blown up
    by X.  ``electrons`` minimise the Coulomb energy of what the density differs by.
    The charge of an ion is not theirs to describe; it is taken as spread evenly over its atoms.

    Args:
        samples: molecules, their converged Hamiltonians (Hartree) and density matrices, both (n_ao, n_ao) in PySCF
            AO order; unrestricted: the mean and the sum of both spins.
        basis: of these matrices.
    """
    elements = sorted(basis.elements)
    exponents = {z: exponents_for(z) for z in elements}
    starts = np.cumsum([0, *(len(exponents[z]) for z in elements)])
    n = int(starts[-1])
    normal, right = np.zeros((2, n, n)), np.zeros((2, n))
    seen: set[int] = set()
    for structure, hamiltonian, density in samples:
        mol = basis.build_mol(structure)
        shells, columns = [], []
        for z, position in zip(structure.atomic_numbers.tolist(), structure.positions, strict=True):
            for k, exponent in enumerate(exponents[z]):
                shells.append((position, np.array([exponent]), np.ones(1)))
                columns.append(starts[elements.index(z)] + k)
        repulsion = _repulsion(mol, shells, np.array(columns), n)
        missing = np.full(len(structure), structure.charge / len(structure))
        target = hamiltonian - core_hamiltonian(mol) - charge_hamiltonian(mol, missing)

        values, vectors = np.linalg.eigh(mol.intor_symmetric("int1e_ovlp"))
        inverse_root = (vectors * values**-0.5) @ vectors.T
        matrices = [*repulsion, target]
        features = np.reshape([inverse_root @ matrix @ inverse_root for matrix in matrices], (n + 1, -1))
        normal[0] += features[:n] @ features[:n].T
        right[0] += features[:n] @ features[n]

        sums = np.zeros((n, len(shells)))
        sums[columns, np.arange(len(shells))] = 1.0
        own, spread = gaussian_charges(shells), gaussian_charges(_valence_charges(mol, missing))
        normal[1] += sums @ coulomb(own, own) @ sums.T
        right[1] += repulsion.reshape(n, -1) @ density.ravel() + sums @ coulomb(own, spread).sum(1)
        seen.update(structure.atomic_numbers.tolist())
    neutral = np.zeros((len(elements), n))
    for i in range(len(elements)):
        neutral[i, starts[i] : starts[i + 1]] = 1.0
    charges, electrons = (_constrained(*both, neutral, elements) for both in zip(normal, right, strict=True))
    return {
        z: AtomicPotential(exponents[z], charges[starts[i] : starts[i + 1]], electrons[starts[i] : starts[i + 1]])
        for i, z in enumerate(elements)
        if z in seen
    }


def _constrained(
    normal: NDArray[np.float64], right: NDArray[np.float64], sums: NDArray[np.float64], totals: Sequence[int]
) -> NDArray[np.float64]:
    """x that solves normal x = right as far as sums x = totals allows."""
    scale = np.sqrt(np.maximum(np.diag(normal), 1e-12))
    system = np.block(
        [
            [normal / np.outer(scale, scale), sums.T / scale[:, None]],
            [sums / scale, np.zeros((len(totals), len(totals)))],
        ]
    )
    solution = np.linalg.lstsq(system, np.concatenate([right / scale, totals]), rcond=1e-12)[0]
    return np.asarray(solution[: len(right)] / scale)


def potentials_to_dict(potentials: AtomicPotentials) -> dict[str, Any]:
    """Plain data for JSON."""
    return {
        chemical_symbols[z]: {name: getattr(p, name).tolist() for name in _PARTS} for z, p in sorted(potentials.items())
    }


def potentials_from_dict(data: Mapping[str, Any]) -> dict[int, AtomicPotential]:
    """From :func:`potentials_to_dict`; numbers are checked, nothing is evaluated.

    Raises:
        BasisError: if something in it is no atomic potential.
    """
    found = {}
    try:
        for symbol, entry in data.items():
            exponents, *numbers = (np.array(entry[name], dtype=np.float64) for name in _PARTS)
            sound = exponents.ndim == 1 and 0 < len(exponents) <= _MOST_EXPONENTS
            if not (sound and (exponents > 0).all() and np.isfinite(exponents).all()):
                raise ValueError("expected positive exponents")
            if not all(part.shape == exponents.shape and (np.abs(part) < _LARGEST).all() for part in numbers):
                raise ValueError("expected as many finite charges and electrons as exponents")
            if set(entry) != set(_PARTS):
                raise ValueError("expected nothing else")
            found[number_of_symbol[symbol]] = AtomicPotential(exponents, *numbers)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BasisError(
            "atomic potentials are written as {symbol: {exponents: [...], charges: [...], electrons: [...]}}; got "
            "something else "
            f"({type(error).__name__}: {error})"
        ) from error
    return found


def _repulsion(
    mol: Mole,
    shells: Sequence[Shell],
    columns: NDArray[np.int64],
    n_columns: int,
) -> NDArray[np.float64]:
    """(n_columns, n_ao, n_ao) repulsion by Gaussian charges, those of one column added up.

    Args:
        mol: the molecule.
        shells: position, exponents and charges of each.
        columns: (n_shells,) where each belongs.
        n_columns: how many there are.
    """
    total = np.zeros((n_columns, mol.nao, mol.nao))
    sums = np.zeros((len(shells), n_columns))
    sums[np.arange(len(shells)), columns] = 1.0
    positions = np.array([position for position, _, _ in shells])
    atoms = ((positions[:, None] - mol.atom_coords()) ** 2).sum(-1).argmin(1)
    for pairs, functions, values in ThreeCentreIntegrals(
        OverlappingPairs(mol, _LONGEST), atoms, [gaussian_charges(shells)]
    ):
        for matrix, column in zip(total, (values @ sums[functions]).T, strict=True):
            pairs.add(matrix, column)
    return total
