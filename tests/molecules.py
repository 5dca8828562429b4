"""Molecules and rotations that several tests share."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qcsurrogate.reference.atoms import FreeAtoms
from qcsurrogate.structures import Structure


def molecule(symbols_and_positions: str, name: str) -> Structure:
    """From lines ``symbol x y z`` in bohr."""
    from ase.data import atomic_numbers

    rows = [line.split() for line in symbols_and_positions.strip().splitlines()]
    numbers = np.array([atomic_numbers[row[0]] for row in rows])
    return Structure(numbers, np.array([[float(x) for x in row[1:]] for row in rows]), name=name)


WATER = molecule("O 0.02 0.1 -0.2\nH 1.4 1.0 0.1\nH -1.3 1.2 0.3", "water")

# one molecule with all of H, C, N, O, F and S, in no special orientation
FLUOROSULFONAMIDE = molecule(
    """
    S  0.10 -0.20  0.30
    O  2.40  1.30  0.60
    F -1.10  0.60 -2.50
    N -1.70  1.20  2.40
    H -3.40  1.70  1.90
    H -1.10  2.00  4.00
    C  0.70 -3.50  0.90
    H  2.50 -4.00  0.10
    H  0.60 -4.00  2.90
    """,
    "S(O)(F)(NH2)CH2",
)


def random_orthogonal(seed: int, *, improper: bool) -> NDArray[np.float64]:
    """A random rotation, or a rotation times the inversion of one axis."""
    matrix, triangle = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    matrix = matrix * np.sign(np.diag(triangle))
    if (np.linalg.det(matrix) < 0) != improper:
        matrix[:, 0] *= -1
    return matrix


def superposed(structure: Structure, atoms: FreeAtoms, points: ArrayLike) -> NDArray[np.float64]:
    """(n,) density of the free atoms of a molecule at (n, 3) points, from the definition."""
    pairs = zip(structure.atomic_numbers.tolist(), structure.positions, strict=True)
    return np.sum([atoms[z].density(np.linalg.norm(np.asarray(points) - p, axis=1)) for z, p in pairs], axis=0)
