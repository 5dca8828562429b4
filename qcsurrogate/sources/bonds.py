"""Bonds from distances, and what follows from them: which molecules are the same."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase.data import covalent_radii
from numpy.typing import NDArray

from qcsurrogate.structures import Structure, equal_sizes
from qcsurrogate.units import BOHR_PER_ANGSTROM

BOND_FACTOR = 1.25
"""A bond is a distance below this many times the sum of the covalent radii."""

_APART = np.int16(2**13)
"""Bonds between atoms of different molecules; twice this is still an int16."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX = ((np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)), (np.uint64(27), np.uint64(0x94D049BB133111EB)))


def relative_lengths(structure: Structure) -> NDArray[np.float64]:
    """Distances as multiples of the sum of the two covalent radii, (n_atoms, n_atoms)."""
    return _relative_lengths(structure.atomic_numbers[None], structure.positions[None])[0]


def bonded(structure: Structure) -> NDArray[np.bool_]:
    """Which atoms are bound to each other, (n_atoms, n_atoms), False on the diagonal."""
    bonds = relative_lengths(structure) < BOND_FACTOR
    np.fill_diagonal(bonds, val=False)
    return np.asarray(bonds)


def connectivity(structure: Structure) -> str:
    """A hash of a molecule's charge, elements and bonds; the order of atoms is nothing.

    Atoms are labelled by element, then repeatedly by the labels of all others and how
    many bonds away they are (a refinement after B. Weisfeiler and A. Lehman, 1968), so
    conformers and stereoisomers share a hash.
    """
    return connectivities([structure])[0]


def connectivities(structures: Sequence[Structure]) -> list[str]:
    """:func:`connectivity` of many structures, those of equal size together."""
    return connectivities_and_pieces(structures)[0]


def connectivities_and_pieces(structures: Sequence[Structure]) -> tuple[list[str], NDArray[np.int64]]:
    """:func:`connectivity` of many structures, and (n,) the number of pieces that no bond holds together."""
    hashes = [""] * len(structures)
    pieces = np.zeros(len(structures), dtype=np.int64)
    for size, indices in equal_sizes(np.array([len(s) for s in structures], dtype=np.int64)):
        numbers = np.stack([structures[i].atomic_numbers for i in indices])
        positions = np.stack([structures[i].positions for i in indices])
        charges = np.array([structures[i].charge for i in indices], dtype=np.int64)
        between = bonds_between(_relative_lengths(numbers, positions) < BOND_FACTOR)
        first = (between < _APART).argmax(axis=2)  # of the atoms that each hangs together with
        pieces[indices] = (first == np.arange(size)).sum(axis=1)
        labels = _refined(numbers, between)
        molecules = _mixed(_mixed(labels).sum(axis=1) + _mixed(charges.astype(np.uint64)))
        for i, value in zip(indices.tolist(), molecules.tolist(), strict=True):
            hashes[i] = f"{value:016x}"
    return hashes, pieces


def bonds_between(bonds: NDArray[np.bool_]) -> NDArray[np.int16]:
    """Bonds on the shortest way between any two atoms (R. W. Floyd, Commun. ACM 5, 345 (1962)).

    Args:
        bonds: (batch, n_atoms, n_atoms), symmetric.

    Returns:
        (batch, n_atoms, n_atoms); one large number where there is no way.
    """
    n_atoms = bonds.shape[1]
    between = np.where(bonds, np.int16(1), _APART)
    between[:, np.arange(n_atoms), np.arange(n_atoms)] = 0
    for middle in range(n_atoms):
        np.minimum(between, between[:, :, middle, None] + between[:, middle, None, :], out=between)
    return np.minimum(between, _APART)


def _relative_lengths(numbers: NDArray[np.int64], positions: NDArray[np.float64]) -> NDArray[np.float64]:
    radii = covalent_radii[numbers] * BOHR_PER_ANGSTROM
    squared = sum((positions[:, :, None, k] - positions[:, None, :, k]) ** 2 for k in range(3))
    return np.asarray(np.sqrt(squared) / (radii[:, :, None] + radii[:, None, :]))


def _refined(numbers: NDArray[np.int64], between: NDArray[np.int16]) -> NDArray[np.uint64]:
    """Labels (batch, n_atoms) that no further round would divide.

    A multiset of neighbours enters as the sum of their 64-bit hashes. Every molecule
    stops by itself, so that its labels do not depend on what else is in the batch.
    """
    labels = _mixed(numbers.astype(np.uint64))
    distance_hashes = _mixed(between.astype(np.uint64) + np.uint64(1))
    active = np.arange(len(numbers))
    n_kinds = _n_different(labels)
    for _ in range(numbers.shape[1]):
        own = labels[active]
        refined = _mixed(own + _mixed(distance_hashes[active] ^ own[:, None, :]).sum(axis=2))
        labels[active] = refined
        before, n_kinds[active] = n_kinds[active], _n_different(refined)
        active = active[n_kinds[active] != before]
        if len(active) == 0:
            break
    return labels


def _n_different(labels: NDArray[np.uint64]) -> NDArray[np.int64]:
    ordered = np.sort(labels, axis=1)
    return np.asarray(1 + (ordered[:, 1:] != ordered[:, :-1]).sum(axis=1))


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A bijection that scatters 64-bit numbers (splitmix64: G. L. Steele et al., OOPSLA 2014)."""
    values = values + _GOLDEN
    for shift, factor in _MIX:
        values = (values ^ (values >> shift)) * factor
    return np.asarray(values ^ (values >> np.uint64(31)))
