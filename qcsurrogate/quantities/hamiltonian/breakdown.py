"""Hamiltonian errors by element pair, by shell pair and by distance.

The unit of counting is a block of the matrix, (atom, atom) or (shell, shell), with its
mean absolute error.  Blocks of one kind are of one size, so that the mean over blocks of
an element pair, or of a shell pair, is the mean over their matrix elements too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.signal import find_peaks

from qcsurrogate.basis import BasisSet
from qcsurrogate.comparison.metrics import block_means
from qcsurrogate.comparison.schema import Breakdown, DistanceSummary, PairSummary
from qcsurrogate.structures import Structure
from qcsurrogate.units import ANGSTROM_PER_BOHR

Array = NDArray[np.float64]
Kind = tuple[str, str, bool]
"""Two kinds of atom or shell, in a fixed order, and whether they are on one atom."""

SHELL_LETTERS = "spdfghiklm"

_STEP_ANGSTROM = 0.01
_BLUR_ANGSTROM = 0.03
_VALLEY = 2.0
_WIDEST_ANGSTROM = 1.2
_MANY = 0.02


class BlockErrors:
    """Collects the block errors of many molecules.

    Attributes:
        distances, errors: lists over molecules, of (n_pairs,) distances in Angstrom and errors in
            Hartree of the blocks of two atoms.
    """

    def __init__(self, basis: BasisSet) -> None:
        self._basis = basis
        self._elements: dict[Kind, list[Array]] = defaultdict(list)
        self._shells: dict[Kind, list[Array]] = defaultdict(list)
        self.distances: list[Array] = []
        self.errors: list[Array] = []

    def add(self, structure: Structure, predicted: Array, reference: Array) -> None:
        """Add one molecule's ([2,] n_ao, n_ao) matrices, Hartree; of two spins the mean of their errors."""
        n = predicted.shape[-1]
        error = np.abs(predicted - reference).reshape(-1, n, n).mean(axis=0)
        numbers = structure.atomic_numbers
        atoms = np.arange(len(structure))
        blocks = block_means(error, self._basis.offsets(numbers))
        _group(self._elements, [chemical_symbols[z] for z in numbers], atoms, blocks)
        names, owners, starts = self._shells_of(numbers)
        _group(self._shells, names, owners, block_means(error, starts))
        i, j = np.triu_indices(len(structure), k=1)
        separations = np.linalg.norm(structure.positions[i] - structure.positions[j], axis=1)
        self.distances.append(separations * ANGSTROM_PER_BOHR)
        self.errors.append(blocks[i, j])

    def _shells_of(self, numbers: Iterable[int]) -> tuple[list[str], NDArray[np.int64], NDArray[np.int64]]:
        shells = [(name, atom, size) for atom, z in enumerate(numbers) for name, size in shell_names(self._basis, z)]
        names, owners, sizes = zip(*shells, strict=True)
        return list(names), np.asarray(owners), np.cumsum([0, *sizes])

    def summary(self) -> Breakdown:
        """Errors in Hartree of (atom, atom) blocks, of (shell, shell) blocks, and by distance."""
        return Breakdown(
            element_pairs=_summaries(self._elements),
            shell_pairs=_summaries(self._shells),
            distances=by_distance(np.concatenate(self.distances), np.concatenate(self.errors)),
        )


def by_distance(distances: Array, errors: Array) -> list[DistanceSummary]:
    """Errors (n,) of each peak of the distances (n,), Angstrom."""
    if not len(distances):
        return []
    which = np.digitize(distances, peak_borders(distances))
    return [
        DistanceSummary.of(
            errors[which == k],
            "hartree",
            start_angstrom=distances[which == k].min(),
            stop_angstrom=distances[which == k].max(),
        )
        for k in np.unique(which)
    ]


def peak_borders(distances: Array) -> list[float]:
    """Where the peaks of (n,) distances part, Angstrom: in gaps, and in valleys of less than half of both peaks.

    What is left, wider than 1.2 Angstrom and holds more than 2 % of them is no peak (distant
    pairs lie everywhere): it is parted where its middle half is emptiest.
    """
    edges = np.arange(distances.min() - 0.2, distances.max() + 0.2 + _STEP_ANGSTROM, _STEP_ANGSTROM)
    density = gaussian_filter1d(np.histogram(distances, edges)[0].astype(float), _BLUR_ANGSTROM / _STEP_ANGSTROM)
    depth = -np.log(density + 0.003 * density.max())  # few distant pairs make no valleys
    borders = find_peaks(depth, prominence=np.log(_VALLEY))[0].tolist()
    pending = list(zip([0, *borders], [*borders, len(density)], strict=True))
    while pending:
        start, stop = pending.pop()
        many = density[start:stop].sum() > _MANY * density.sum()
        if many and (stop - start) * _STEP_ANGSTROM > _WIDEST_ANGSTROM:
            quarter = (stop - start) // 4
            middle = start + quarter + int(depth[start + quarter : stop - quarter].argmax())
            borders.append(middle)
            pending += [(start, middle), (middle, stop)]
    return [float(edges[b]) + 0.5 * _STEP_ANGSTROM for b in sorted(borders)]


def shell_names(basis: BasisSet, atomic_number: int) -> Iterator[tuple[str, int]]:
    """Name (``O 2p``, ``O 3p``; n counts from l + 1) and number of functions of every shell."""
    seen: dict[int, int] = defaultdict(int)
    for l in basis[atomic_number].angular_momenta:
        seen[l] += 1
        yield f"{chemical_symbols[atomic_number]} {seen[l] + l}{SHELL_LETTERS[l]}", 2 * l + 1


def _group(into: dict[Kind, list[Array]], names: list[str], owners: NDArray[np.int64], blocks: Array) -> None:
    """Sort the blocks i <= j of a symmetric matrix into their kinds."""
    kinds, kind_of = np.unique(names, return_inverse=True)
    i, j = np.triu_indices(len(names))
    low, high = np.minimum(kind_of[i], kind_of[j]), np.maximum(kind_of[i], kind_of[j])
    same = (owners[i] == owners[j]).astype(np.int64)
    codes = (low * len(kinds) + high) * 2 + same
    order = np.argsort(codes, kind="stable")
    present, starts = np.unique(codes[order], return_index=True)
    for code, values in zip(present.tolist(), np.split(blocks[i, j][order], starts[1:]), strict=True):
        pair, same_atom = divmod(code, 2)
        first, second = divmod(pair, len(kinds))
        into[str(kinds[first]), str(kinds[second]), bool(same_atom)].append(values)


def _summaries(grouped: dict[Kind, list[Array]]) -> list[PairSummary]:
    return [
        PairSummary.of(
            np.concatenate(grouped[kind]),
            "hartree",
            first=kind[0],
            second=kind[1],
            atoms="same" if kind[2] else "different",
        )
        for kind in sorted(grouped)
    ]
