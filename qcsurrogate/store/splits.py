"""Which structures train, which validate, which test; seeded and decided once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from qcsurrogate.errors import SpecError
from qcsurrogate.sources.bonds import connectivities_and_pieces
from qcsurrogate.store.spec import MoleculeSplit, RandomSplit, SizeSplit, Split
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
    """A label for every structure; those with the same one are the same molecule."""
    if split.identity == "group":
        if groups is None or not all(groups):
            raise SpecError(
                "split.identity: 'group' needs groups: an npz file with an array 'groups' (one entry per structure), "
                "`group=...` in every comment line of an xyz file, or a sampler; or take connectivity or formula"
            )
        return list(groups)
    if split.identity == "formula":
        return [_formula(s) for s in structures]
    return connected_molecules(structures, groups)


def connected_molecules(structures: Sequence[Structure], groups: Sequence[str] | None = None) -> list[str]:
    """A label for every structure; the same for those that may be the same molecule.

    The same molecule are structures of equal connectivity; a structure in several pieces,
    and so perhaps one that was stretched until its bonds broke, and all structures of its
    formula and charge; and structures of the same group that is not empty. What is true of
    a and b, and of b and c, is true of a and c. The order of structures is nothing.
    """
    bonds, pieces = connectivities_and_pieces(structures)
    broken = {_formula(structures[i]) for i in np.flatnonzero(pieces > 1)}
    nodes = {("bonds", label): i for i, label in enumerate(dict.fromkeys(bonds))}
    links: set[tuple[int, int]] = set()
    for i, label in enumerate(bonds):
        others = [("formula", _formula(structures[i]))] if broken else []
        others = [other for other in others if other[1] in broken]
        others += [("group", groups[i])] if groups is not None and groups[i] else []
        links.update((nodes["bonds", label], nodes.setdefault(other, len(nodes))) for other in others)
    rows, columns = np.array(sorted(links), dtype=np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=(len(nodes), len(nodes)))
    _, owner = connected_components(graph, directed=False)
    smallest: dict[int, str] = {}
    for label in sorted(set(bonds)):
        smallest.setdefault(int(owner[nodes["bonds", label]]), label)
    return [smallest[int(owner[nodes["bonds", label]])] for label in bonds]


def _formula(structure: Structure) -> str:
    return f"{structure.formula} {structure.charge}"
