"""Hamiltonian errors by element pair, by shell pair and by distance.

The unit of counting is a block of the matrix, (atom, atom) or (shell, shell), with its
mean absolute error.  Blocks of one kind are of one size, so that the mean over blocks of
an element pair, or of a shell pair, is the mean over their matrix elements too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from qcsurrogate.basis import BasisSet
from qcsurrogate.comparison.metrics import block_means
from qcsurrogate.comparison.statistics import Summary, summarise
from qcsurrogate.structures import Structure
from qcsurrogate.units import ANGSTROM_PER_BOHR

Array = NDArray[np.float64]

BIN_WIDTH_ANGSTROM = 0.5

_SHELL_LETTERS = "spdfghiklm"


class PairKind(NamedTuple):
    """Two kinds of atom or shell, in a fixed order, on one atom or on two."""

    first: str
    second: str
    same_atom: bool


@dataclass(frozen=True)
class DistanceBin:
    """Blocks of atom pairs whose distance lies in [start, stop) Angstrom."""

    start_angstrom: float
    stop_angstrom: float
    summary: Summary


class BlockErrors:
    """Collects the block errors of many molecules."""

    def __init__(self, basis: BasisSet) -> None:
        self._basis = basis
        self._elements: dict[PairKind, list[Array]] = defaultdict(list)
        self._shells: dict[PairKind, list[Array]] = defaultdict(list)
        self._distances: list[Array] = []
        self._distance_errors: list[Array] = []

    def add(self, structure: Structure, predicted: Array, reference: Array) -> None:
        """Add one molecule's (n_ao, n_ao) matrices, Hartree."""
        error = np.abs(predicted - reference)
        numbers = structure.atomic_numbers
        atoms = np.arange(len(structure))
        blocks = block_means(error, self._basis.offsets(numbers))
        _group(self._elements, [chemical_symbols[z] for z in numbers], atoms, blocks)
        names, owners, starts = self._shells_of(numbers)
        _group(self._shells, names, owners, block_means(error, starts))
        i, j = np.triu_indices(len(structure), k=1)
        self._distances.append(
            np.linalg.norm(structure.positions[i] - structure.positions[j], axis=1) * ANGSTROM_PER_BOHR
        )
        self._distance_errors.append(blocks[i, j])

    def _shells_of(self, numbers: Iterable[int]) -> tuple[list[str], NDArray[np.int64], NDArray[np.int64]]:
        names, owners, starts = [], [], [0]
        for atom, z in enumerate(numbers):
            for name, size in shell_names(self._basis, int(z)):
                names.append(name)
                owners.append(atom)
                starts.append(starts[-1] + size)
        return names, np.asarray(owners), np.asarray(starts)

    def element_pairs(self) -> dict[PairKind, Summary]:
        """Errors of (atom, atom) blocks, Hartree."""
        return _summaries(self._elements)

    def shell_pairs(self) -> dict[PairKind, Summary]:
        """Errors of (shell, shell) blocks, Hartree; shells are named like ``O 2p``."""
        return _summaries(self._shells)

    def distance_points(self) -> tuple[Array, Array]:
        """(n,) distances in Angstrom and (n,) errors in Hartree of the blocks of two atoms."""
        if not self._distances:
            return np.empty(0), np.empty(0)
        return np.concatenate(self._distances), np.concatenate(self._distance_errors)

    def distance_bins(self) -> list[DistanceBin]:
        """Errors of the blocks of two atoms in bins of :data:`BIN_WIDTH_ANGSTROM`; empty bins are left out."""
        distances, errors = self.distance_points()
        which = np.floor(distances / BIN_WIDTH_ANGSTROM).astype(np.int64)
        return [
            DistanceBin(k * BIN_WIDTH_ANGSTROM, (k + 1) * BIN_WIDTH_ANGSTROM, summarise(errors[which == k], "hartree"))
            for k in np.unique(which).tolist()
        ]


def shell_names(basis: BasisSet, atomic_number: int) -> Iterator[tuple[str, int]]:
    """Name (``O 2p``, ``O 3p``; n counts from l + 1) and number of functions of every shell."""
    seen: dict[int, int] = defaultdict(int)
    for l in basis[atomic_number].angular_momenta:
        seen[l] += 1
        yield f"{chemical_symbols[atomic_number]} {seen[l] + l}{_SHELL_LETTERS[l]}", 2 * l + 1


def _group(into: dict[PairKind, list[Array]], names: list[str], owners: NDArray[np.int64], blocks: Array) -> None:
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
        into[PairKind(str(kinds[first]), str(kinds[second]), bool(same_atom))].append(values)


def _summaries(grouped: dict[PairKind, list[Array]]) -> dict[PairKind, Summary]:
    return {kind: summarise(np.concatenate(grouped[kind]), "hartree") for kind in sorted(grouped)}
