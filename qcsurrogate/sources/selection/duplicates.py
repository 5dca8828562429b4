"""Structures that are the same but for motion, reflection and the order of their atoms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from qcsurrogate.sources.selection.superposition import Centred, runs, superpose_within
from qcsurrogate.structures import Structure


def geometric_duplicates(structures: Sequence[Structure], tolerance_bohr: float) -> NDArray[np.bool_]:
    """Which structures repeat an earlier one that is kept.

    Two are the same if they have the same elements, charge and spin, and their
    root-mean-square distance after the best superposition
    (:func:`qcsurrogate.sources.selection.superposition.superposition_rmsd`) is at most the
    tolerance. Only candidates are superposed: those whose sorted distances from the
    centre differ by at most sqrt(n) tolerance, and whose sorted distances between atoms
    differ by at most n tolerance (Euclidean norms; sorting never enlarges a difference).
    No pair within the tolerance fails these.

    Returns:
        (n_structures,), True for the repetitions.
    """
    repeated = np.zeros(len(structures), dtype=bool)
    alike: dict[tuple[object, ...], list[int]] = {}
    for i, s in enumerate(structures):
        alike.setdefault((s.charge, s.spin, np.sort(s.atomic_numbers).tobytes()), []).append(i)
    for indices in alike.values():
        if len(indices) > 1:
            _mark(indices, structures, tolerance_bohr, repeated)
    return repeated


def _mark(
    indices: Sequence[int], structures: Sequence[Structure], tolerance: float, repeated: NDArray[np.bool_]
) -> None:
    """Mark repetitions among structures of the same elements."""
    n_atoms = len(structures[indices[0]])
    tolerance *= 1 + 1e-6
    from_centre, between = _sorted_distances([structures[i] for i in indices])
    tree = cKDTree(from_centre)
    dropped = np.zeros(len(indices), dtype=bool)
    for own, index in enumerate(indices):
        if dropped[own]:
            continue
        near = np.array(tree.query_ball_point(from_centre[own], np.sqrt(n_atoms) * tolerance + 1e-6), dtype=np.int64)
        near = np.sort(near[(near > own) & ~dropped[near]])
        if len(near) == 0:
            continue
        close = near[np.linalg.norm(between[near] - between[own], axis=1) <= n_atoms * tolerance + 1e-4]
        here = Centred.of(structures[index])
        for other in close.tolist():
            dropped[other] = superpose_within(here, Centred.of(structures[indices[other]]), tolerance)
    repeated[np.asarray(indices)[dropped]] = True


def _sorted_distances(structures: Sequence[Structure]) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Distances from the centre (n, n_atoms), and between atoms (n, pairs), of structures of the same elements.

    Sorted within each element, and within each pair of elements.
    """
    numbers = np.sort(structures[0].atomic_numbers)
    positions = np.stack([s.positions[np.argsort(s.atomic_numbers, kind="stable")] for s in structures])
    from_centre = np.linalg.norm(positions - positions.mean(axis=1, keepdims=True), axis=2)
    first, second = np.triu_indices(len(numbers), 1)
    between = np.empty((len(structures), len(first)), dtype=np.float32)
    for i in range(0, len(structures), 1000):
        part = positions[i : i + 1000]
        between[i : i + 1000] = np.linalg.norm(part[:, first] - part[:, second], axis=2)
    _sort_within(from_centre, numbers)
    by_kind = np.argsort(1000 * numbers[first] + numbers[second], kind="stable")
    between = between[:, by_kind]
    _sort_within(between, (1000 * numbers[first] + numbers[second])[by_kind])
    return from_centre, between


def _sort_within(rows: NDArray[np.floating], sorted_labels: NDArray[np.int64]) -> None:
    """Sort every row within the columns of each label, in place."""
    for columns in runs(sorted_labels):
        rows[:, columns].sort(axis=1)
