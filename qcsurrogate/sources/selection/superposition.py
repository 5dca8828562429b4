"""How far two structures are from each other after the best superposition."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from qcsurrogate.errors import StructureError
from qcsurrogate.structures import Structure

_ROUNDS = 20
"""Assignments and rotations in turn; two or three are the rule."""


@dataclass(frozen=True, eq=False)
class Centred:
    """A structure with its atoms sorted by element and its centre at the origin.

    Attributes:
        atomic_numbers: (n_atoms,) ascending.
        positions: (n_atoms, 3) in bohr.
        surroundings: (n_atoms, n_atoms) distances of every atom from all atoms, sorted
            within each element.
    """

    atomic_numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    surroundings: NDArray[np.float64]

    @classmethod
    def of(cls, structure: Structure) -> Centred:
        """From a structure."""
        order = np.argsort(structure.atomic_numbers, kind="stable")
        numbers, positions = structure.atomic_numbers[order], structure.positions[order]
        distances = np.linalg.norm(positions[:, None] - positions[None], axis=2)
        surroundings = np.concatenate([np.sort(distances[:, m], axis=1) for m in runs(numbers)], axis=1)
        return cls(numbers, positions - positions.mean(axis=0), surroundings)


def runs(labels: NDArray[np.int64]) -> list[slice]:
    """Where equal labels stand, in sorted labels."""
    starts = [0, *(1 + np.flatnonzero(np.diff(labels))).tolist(), len(labels)]
    return [slice(start, stop) for start, stop in pairwise(starts)]


def superposition_rmsd(first: Structure, second: Structure) -> float:
    """Root-mean-square distance of the atoms after the best superposition, bohr.

    The best over rotations, reflections and exchanges of atoms of one element. Starts
    are made from pairs of atoms that could lie on a fixed pair of the other structure;
    from each, assignment (H. W. Kuhn, Nav. Res. Logist. Q. 2, 83 (1955)) and rotation
    (W. Kabsch, Acta Crystallogr. A 32, 922 (1976)) improve each other.
    """
    one, other = Centred.of(first), Centred.of(second)
    if one.atomic_numbers.tolist() != other.atomic_numbers.tolist():
        raise StructureError(f"cannot superpose {first.label} and {second.label}: expected the same elements")
    return min(_improved(one, other, start, 0.0) for start in _starts(one, other, np.inf))


def superpose_within(one: Centred, other: Centred, tolerance: float) -> bool:
    """Whether the best superposition of structures of the same elements is within a tolerance, bohr.

    With displacements d_i about a common centre, sum |d_i|^2 <= n tolerance^2, and so
    the squared changes of all distances between atoms, sum over ordered pairs of
    |d_i - d_j|^2, add up to at most 2 n^2 tolerance^2: what cannot keep this under any
    assignment of atoms to atoms is refused before anything is turned.
    """
    n_atoms = len(one.atomic_numbers)
    cost = 0.0
    for members in runs(one.atomic_numbers):
        changes = one.surroundings[members][:, None] - other.surroundings[members][None]
        squared = np.einsum("ijk,ijk->ij", changes, changes)
        cost += squared[linear_sum_assignment(squared)].sum()
    if cost > 2.0 * (n_atoms * tolerance) ** 2 * (1 + 1e-9) + 1e-12:
        return False
    slack = np.sqrt(2.0 * n_atoms) * tolerance + 1e-6
    return any(_improved(one, other, start, tolerance) <= tolerance for start in _starts(one, other, slack))


def _starts(one: Centred, other: Centred, slack: float) -> Iterator[NDArray[np.float64]]:
    """Orthogonal matrices that lay two atoms of ``other`` on two chosen atoms of ``one``."""
    numbers, fixed, moving = one.atomic_numbers, one.positions, other.positions
    a, b = _reference_pair(numbers, fixed)
    frame = _frame(fixed[a], fixed[b])
    far_fixed, far_moving = np.linalg.norm(fixed, axis=1), np.linalg.norm(moving, axis=1)
    for i in np.flatnonzero((numbers == numbers[a]) & (np.abs(far_moving - far_fixed[a]) <= slack)):
        apart = np.linalg.norm(moving - moving[i], axis=1)
        fits = (numbers == numbers[b]) & (np.abs(far_moving - far_fixed[b]) <= slack)
        fits &= np.abs(apart - np.linalg.norm(fixed[a] - fixed[b])) <= slack
        for j in np.flatnonzero(fits):
            if i != j or a == b:
                turned = _frame(moving[i], moving[j]).T
                yield turned @ frame
                yield turned @ np.diag([1.0, 1.0, -1.0]) @ frame


def _reference_pair(numbers: NDArray[np.int64], positions: NDArray[np.float64]) -> tuple[int, int]:
    """Two atoms of rare elements that span a good triangle with the centre.

    In a linear molecule every triangle is flat: then any two do, because turning about
    the axis changes nothing.
    """
    counts = (numbers[:, None] == numbers[None]).sum(axis=1)
    areas = np.linalg.norm(np.cross(positions[:, None], positions[None]), axis=2)
    largest = float(areas.max())
    useful = areas > 0.1 * largest if largest > 1e-3 else np.ones_like(areas, dtype=bool)
    np.fill_diagonal(useful, val=len(numbers) == 1)
    cost = np.where(useful, counts[:, None] * counts[None] - 1e-3 * areas / max(largest, 1e-3), np.inf)
    a, b = np.unravel_index(int(np.argmin(cost)), cost.shape)
    return int(a), int(b)


def _frame(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows: unit vectors along a, across it towards b, and upright on both."""
    x = a if a @ a > 1e-6 else b
    x = x / np.linalg.norm(x) if x @ x > 1e-12 else np.array([1.0, 0.0, 0.0])
    y = b - (b @ x) * x
    if y @ y < 1e-6:
        y = np.eye(3)[int(np.argmin(np.abs(x)))]
        y = y - (y @ x) * x
    y = y / np.linalg.norm(y)
    return np.stack([x, y, np.cross(x, y)])


def _improved(one: Centred, other: Centred, rotation: NDArray[np.float64], enough: float) -> float:
    """The distance that assignment and rotation in turn reach from a first rotation."""
    fixed, moving = one.positions, other.positions
    classes = runs(one.atomic_numbers)
    partner: NDArray[np.int64] | None = None
    rmsd = np.inf
    for _ in range(_ROUNDS):
        before, partner = partner, _assigned(fixed, moving @ rotation, classes)
        if before is not None and (partner == before).all():
            break
        partners = moving[partner]
        u, _, vt = np.linalg.svd(partners.T @ fixed)
        rotation = u @ vt  # reflections are allowed: no sign is mended
        changes = partners @ rotation - fixed
        rmsd = float(np.sqrt((changes * changes).sum() / len(fixed)))
        if rmsd <= enough:
            break
    return rmsd


def _assigned(fixed: NDArray[np.float64], moved: NDArray[np.float64], classes: Sequence[slice]) -> NDArray[np.int64]:
    """For every atom of ``fixed`` its partner, such that the sum of squares is smallest."""
    partner = np.arange(len(fixed))
    for members in classes:
        if members.stop - members.start == 1:
            continue
        changes = fixed[members][:, None] - moved[members][None]
        squared = np.einsum("ijk,ijk->ij", changes, changes)
        partner[members] = members.start + linear_sum_assignment(squared)[1]
    return partner
