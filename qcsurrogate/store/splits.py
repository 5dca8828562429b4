"""Which structures train, which validate, which test; seeded and decided once."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from qcsurrogate.errors import SpecError
from qcsurrogate.sources.bonds import connectivities_and_pieces, connectivity
from qcsurrogate.store.spec import SPLIT_NAMES, AutoSplit, HashSplit, MoleculeSplit, RandomSplit, SizeSplit, Split
from qcsurrogate.structures import Structure

TRAIN, VALIDATION, TEST, LEFT_OUT, UNDECIDED = range(5)
"""Codes of the split array; the first three index :data:`qcsurrogate.store.spec.SPLIT_NAMES`."""


def assign_splits(
    split: Split, structures: Sequence[Structure], groups: Sequence[str] | None = None
) -> NDArray[np.int64]:
    """The part of every structure.

    Returns:
        (n,) codes TRAIN, VALIDATION, TEST, or LEFT_OUT for what exceeds given counts.

    Raises:
        SpecError: if there are too few structures or molecules, or a part that should
            hold some stays empty; by hash, parts may be empty.
    """
    if isinstance(split, AutoSplit):
        return _shuffled_parts(split.counts(len(structures)), False, len(structures), split.seed, "structures")
    if isinstance(split, HashSplit):
        return grown_splits(split, structures, groups, np.full(len(structures), UNDECIDED))
    if isinstance(split, RandomSplit):
        return _shuffled_parts(split.values, split.are_fractions, len(structures), split.seed, "structures")
    if isinstance(split, SizeSplit):
        return _by_size(split, structures)
    labels = _identities(split, structures, groups)
    names = {label: index for index, label in enumerate(dict.fromkeys(labels))}
    parts = _shuffled_parts(split.values, split.are_fractions, len(names), split.seed, "molecules")
    return parts[[names[label] for label in labels]]


def grown_splits(
    split: Split, structures: Sequence[Structure], groups: Sequence[str] | None, before: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The part of every structure where the parts of some were decided before.

    What was decided stays. A structure of a molecule that has its part takes that part.
    Of other molecules a seeded hash decides: against the fractions, or, where the split
    has counts, by giving each part what it lacks in the order of the hashes.

    Args:
        before: (n,) TRAIN, VALIDATION, TEST, or UNDECIDED.

    Returns:
        (n,) codes as of :func:`assign_splits`.

    Raises:
        SpecError: if a new structure belongs to molecules of different parts, or counts
            are fewer than what is there or more than there are.
    """
    parts, new = before.copy(), np.flatnonzero(before == UNDECIDED).tolist()
    if isinstance(split, SizeSplit):
        for i in new:
            small = _size(structures[i]) <= split.largest_training_size
            validates = _hash_share(split.seed, structures[i].key) < split.validation
            parts[i] = TEST if not small else VALIDATION if validates else TRAIN
        return parts
    labels = _identities(split, structures, groups)
    known: dict[str, dict[int, int]] = {}
    for i in np.flatnonzero(before != UNDECIDED).tolist():
        known.setdefault(labels[i], {}).setdefault(int(before[i]), i)
    shares = {label: _hash_share(split.seed, label) for label in {labels[i] for i in new} - known.keys()}
    held = Counter(p for own in known.values() for p in own)
    if isinstance(split, AutoSplit):
        counts = split.counts(len(structures), (held[TRAIN], held[VALIDATION], held[TEST]))
        decided = _filled(counts, held, shares, "structures")
    elif split.are_fractions:
        stops = np.cumsum(split.values[:2])
        decided = {label: int(np.searchsorted(stops, share, side="right")) for label, share in shares.items()}
    else:
        what = "structures" if isinstance(split, RandomSplit) else "molecules"
        decided = _filled(split.values, held, shares, what)
    for i in new:
        own = known.get(labels[i])
        if own is None:
            parts[i] = decided[labels[i]]
        else:
            parts[i] = next(iter(own)) if len(own) == 1 else _part_of_kin(structures, before, labels, i, own)
    return parts


def _filled(
    counts: tuple[float, float, float], held: Counter[int], shares: dict[str, float], what: str
) -> dict[str, int]:
    """The part of every label: what each part lacks of its count, in the order of the shares; the rest is left out."""
    order = sorted(shares, key=lambda label: (shares[label], label))
    decided, start = dict.fromkeys(order, LEFT_OUT), 0
    for part, (name, count) in enumerate(zip(SPLIT_NAMES, counts, strict=True)):
        stop = start + int(count) - held[part]
        if stop < start:
            raise SpecError(
                f"split.{name}: {count:g} is fewer than the {held[part]} {what} that the store has there; "
                "expected counts that stay or grow"
            )
        if stop > len(order):
            n = sum(held.values()) + len(order)
            raise SpecError(
                f"split: train + validation + test = {sum(counts):g}; expected at most {n}, the number of different "
                f"{what}"
            )
        decided.update(dict.fromkeys(order[start:stop], part))
        start = stop
    return decided


def _part_of_kin(
    structures: Sequence[Structure], before: NDArray[np.int64], labels: Sequence[str], new: int, own: dict[int, int]
) -> int:
    """The part of a structure whose molecule stands in several: that of its equals in charge, elements and bonds."""
    kin = [i for i in np.flatnonzero(before != UNDECIDED).tolist() if labels[i] == labels[new]]
    same = connectivity(structures[new])
    parts = {int(before[i]) for i in kin if connectivity(structures[i]) == same}
    if len(parts) != 1:
        (one, first), (other, second) = sorted(own.items())[:2]
        raise SpecError(
            f"split: {structures[new].label} may be the same molecule as {structures[first].label} in "
            f"{SPLIT_NAMES[one]} and {structures[second].label} in {SPLIT_NAMES[other]}, so that it fits into neither "
            "part; leave it out, or generate into another folder, where the split is decided for all of them at once"
        )
    return parts.pop()


def _hash_share(seed: int, label: str) -> float:
    """A number in [0, 1) that depends on nothing but seed and label."""
    return int.from_bytes(hashlib.sha256(f"{seed} {label}".encode()).digest()[:6], "big") / 2**48


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
    for name, share, count in zip(SPLIT_NAMES, shares, counts, strict=True):
        if share > 0 and count == 0:
            raise SpecError(f"split.{name}: {share:g} of {n} {what} is none; give more {what} or set it to 0")
    parts = np.full(n, LEFT_OUT, dtype=np.int64)
    order = np.random.default_rng(seed).permutation(n)
    stops = np.cumsum(counts)
    for part, (start, stop) in enumerate(zip((0, *stops[:2]), stops, strict=True)):
        parts[order[start:stop]] = part
    return parts


def _by_size(split: SizeSplit, structures: Sequence[Structure]) -> NDArray[np.int64]:
    sizes = np.array([_size(s) for s in structures])
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


def _size(structure: Structure) -> int:
    return int((structure.atomic_numbers > 1).sum())


def _identities(
    split: AutoSplit | RandomSplit | MoleculeSplit | HashSplit,
    structures: Sequence[Structure],
    groups: Sequence[str] | None,
) -> list[str]:
    """A label for every structure; those with the same one belong into one part."""
    if isinstance(split, AutoSplit | RandomSplit) or split.identity == "structure":
        return [s.key for s in structures]
    if split.identity == "group":
        if groups is None or not all(groups):
            raise SpecError(
                "split.identity: 'group' needs groups: an npz file with an array 'groups' (one entry per structure), "
                "`group=...` in every comment line of an xyz file, or a sampler; or take connectivity or formula"
            )
        return list(groups)
    if split.identity == "formula":
        return [formula_of(s) for s in structures]
    return connected_molecules(structures, groups)


def connected_molecules(structures: Sequence[Structure], groups: Sequence[str] | None = None) -> list[str]:
    """A label for every structure; the same for those that may be the same molecule.

    The same molecule are structures of equal connectivity; a structure in several pieces,
    and so perhaps one that was stretched until its bonds broke, and all structures of its
    formula and charge; and structures of the same group that is not empty. What is true of
    a and b, and of b and c, is true of a and c. The order of structures is nothing.
    """
    bonds, pieces = connectivities_and_pieces(structures)
    broken = {formula_of(structures[i]) for i in np.flatnonzero(pieces > 1).tolist()}
    nodes = {("bonds", label): i for i, label in enumerate(dict.fromkeys(bonds))}
    links: set[tuple[int, int]] = set()
    for i, label in enumerate(bonds):
        others = [("formula", formula_of(structures[i]))] if broken else []
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


def formula_of(structure: Structure) -> str:
    """Formula and charge."""
    return f"{structure.formula} {structure.charge}"
