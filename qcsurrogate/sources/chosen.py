"""Which of the structures of a source are kept, and a count of those that are not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import atomic_numbers as number_of_symbol
from numpy.typing import NDArray

from qcsurrogate.sources.kinds import FileSource, PackagedSource, Source, Subset
from qcsurrogate.sources.selection.diversity import most_diverse
from qcsurrogate.sources.selection.duplicates import geometric_duplicates
from qcsurrogate.structures import Structure
from qcsurrogate.units import BOHR_PER_ANGSTROM


@dataclass(frozen=True, eq=False)
class Collected:
    """Structures of a source.

    Attributes:
        structures: in the order of the source.
        groups: a label for each, where the source has some.
        report: what happened, in order: ``read`` or ``sampled``, then one entry
            ``left out: <why>`` for everything that was; counts.
    """

    structures: Sequence[Structure]
    groups: Sequence[str] | None
    report: dict[str, int]

    def keeping(self, indices: Iterable[int], reason: str) -> Collected:
        """Those at some indices; the others are reported under a reason."""
        kept = list(indices)
        n_lost = len(self.structures) - len(kept)
        if n_lost == 0:
            return self
        return Collected(
            [self.structures[i] for i in kept],
            None if self.groups is None else [self.groups[i] for i in kept],
            self.report | {f"left out: {reason}": n_lost},
        )

    def summary(self) -> str:
        """The report in a line."""
        return ", ".join(f"{what}: {count}" for what, count in self.report.items())


def choose(source: Source, found: Collected) -> Collected:
    """Subset, then duplicates, then the limit of a file, then diversity."""
    subset = source.subset or Subset()
    found = found.keeping(np.flatnonzero(_fits(subset, found.structures)).tolist(), "outside the subset")
    if source.deduplicate is not None and found.structures:
        tolerance = source.deduplicate.tolerance_angstrom * BOHR_PER_ANGSTROM
        repeated = geometric_duplicates(found.structures, tolerance)
        found = found.keeping(np.flatnonzero(~repeated).tolist(), "duplicate")
    if isinstance(source, FileSource | PackagedSource) and source.limit is not None:
        found = found.keeping(_limited(len(found.structures), source.limit, source.seed), "limit")
    if subset.diverse is not None:
        kept = most_diverse(found.structures, subset.diverse, subset.seed, embedding=subset.embedding)
        found = found.keeping(kept, "less diverse")
    return found


def _limited(n: int, limit: int, seed: int | None) -> list[int]:
    if limit >= n:
        return list(range(n))
    if seed is None:
        return list(range(limit))
    chosen = np.random.default_rng(seed).choice(n, limit, replace=False)
    return [int(i) for i in np.sort(chosen)]


def _fits(subset: Subset, structures: Sequence[Structure]) -> NDArray[np.bool_]:
    """Which structures meet the conditions; diversity is another matter."""
    fits = np.ones(len(structures), dtype=bool)
    if not structures:
        return fits
    counts = np.array([len(s) for s in structures])
    numbers = np.concatenate([s.atomic_numbers for s in structures])
    starts = np.cumsum(counts) - counts

    def atoms_of(selected: NDArray[np.bool_]) -> NDArray[np.int64]:
        return np.asarray(np.add.reduceat(selected.astype(np.int64), starts))

    heavy = atoms_of(numbers > 1)
    for values, least, most in (
        (counts, subset.min_atoms, subset.max_atoms),
        (heavy, subset.min_heavy_atoms, subset.max_heavy_atoms),
    ):
        fits &= (values >= (least or 0)) & (most is None or values <= most)
    if subset.elements is not None:
        fits &= atoms_of(np.isin(numbers, [number_of_symbol[e] for e in subset.elements])) == counts
    for symbol in subset.required_elements:
        fits &= atoms_of(numbers == number_of_symbol[symbol]) > 0
    if subset.charges is not None:
        fits &= np.isin([s.charge for s in structures], subset.charges)
    if subset.spins is not None:
        fits &= np.isin([s.spin for s in structures], subset.spins)
    return fits
