"""Which structures train, which validate, which test; seeded and decided once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from qcsurrogate.errors import SpecError
from qcsurrogate.sources.bonds import connectivities
from qcsurrogate.store.spec import AutoSplit, MoleculeSplit, RandomSplit, SizeSplit, Split
from qcsurrogate.structures import Structure

TRAIN, VALIDATION, TEST, LEFT_OUT = range(4)
"""Codes of the split array; the first three index :data:`qcsurrogate.store.spec.SPLIT_NAMES`."""


def assign_splits(
    split: Split, structures: Sequence[Structure], groups: Sequence[str] | None = None
) -> NDArray[np.int64]:
    """The part of every structure.

    Args:
        split: how to divide.
        structures: what to divide.
        groups: a label per structure, where the source has its own.

    Returns:
        (n,) codes TRAIN, VALIDATION, TEST, or LEFT_OUT for what exceeds given counts.

    Raises:
        SpecError: if there are too few structures or molecules, or a part that should
            hold some stays empty.
    """
    if isinstance(split, AutoSplit):
        return _shuffled_parts(split.counts(len(structures)), False, len(structures), split.seed, "structures")
    if isinstance(split, RandomSplit):
        return _shuffled_parts(split.values, split.are_fractions, len(structures), split.seed, "structures")
    if isinstance(split, SizeSplit):
        return _by_size(split, structures)
    labels = _molecules(split, structures, groups)
    names = {label: index for index, label in enumerate(dict.fromkeys(labels))}
    parts = _shuffled_parts(split.values, split.are_fractions, len(names), split.seed, "molecules")
    return parts[[names[label] for label in labels]]


def _shuffled_parts(
    shares: tuple[float, float, float], are_fractions: bool, n: int, seed: int, what: str
) -> NDArray[np.int64]:
    if are_fractions:
        train, validation = (round(n * share) for share in shares[:2])
        train = min(train, n)
        validation = min(validation, n - train)
        counts = (train, validation, n - train - validation)
    else:
        counts = (int(shares[0]), int(shares[1]), int(shares[2]))
    if sum(counts) > n:
        raise SpecError(
            f"split: train + validation + test = {sum(counts)}; expected at most {n}, the number of different {what}"
        )
    for name, share, count in zip(("train", "validation", "test"), shares, counts, strict=True):
        if share > 0 and count == 0:
            raise SpecError(f"split.{name}: {share:g} of {n} {what} is none; give more {what} or set it to 0")
    parts = np.full(n, LEFT_OUT, dtype=np.int64)
    order = np.random.default_rng(seed).permutation(n)
    stops = np.cumsum(counts)
    for part, (start, stop) in enumerate(zip((0, *stops[:2]), stops, strict=True)):
        parts[order[start:stop]] = part
    return parts


def _by_size(split: SizeSplit, structures: Sequence[Structure]) -> NDArray[np.int64]:
    sizes = np.array([int((s.atomic_numbers > 1).sum()) for s in structures])
    small = np.flatnonzero(sizes <= split.largest_training_size)
    n_validation = round(len(small) * split.validation)
    if len(small) - n_validation < 1 or len(small) == len(structures):
        raise SpecError(
            f"split.largest_training_size: {split.largest_training_size} leaves {len(small)} of {len(structures)} "
            f"structures to train on; their sizes run from {sizes.min()} to {sizes.max()} non-hydrogen atoms"
        )
    parts = np.full(len(structures), TEST, dtype=np.int64)
    parts[small] = TRAIN
    parts[np.random.default_rng(split.seed).permutation(small)[:n_validation]] = VALIDATION
    return parts


def _molecules(split: MoleculeSplit, structures: Sequence[Structure], groups: Sequence[str] | None) -> list[str]:
    if split.identity == "group":
        if groups is None:
            raise SpecError(
                "split.identity: 'group' needs groups: an npz file with an array 'groups' (one entry per structure), "
                "`group=...` in every comment line of an xyz file, or a sampler; or take connectivity or formula"
            )
        return list(groups)
    if split.identity == "formula":
        return [f"{s.formula} {s.charge}" for s in structures]
    return connectivities(structures)
