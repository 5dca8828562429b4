"""Growing, nested parts of a training split."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from qcsurrogate.errors import SpecError
from qcsurrogate.structures import Structure, symbols_of
from qcsurrogate.tables.sets import StructureSet


def checked_sizes(sizes: Sequence[int], available: int) -> list[int]:
    """Numbers of training molecules, ascending.

    Raises:
        SpecError: if there is none, or one is not positive, there twice or larger than what is available.
    """
    ascending = sorted(sizes)
    if not ascending or ascending[0] < 1:
        raise SpecError(f"sizes: expected one or more numbers of 1 or more, got {list(sizes)}")
    if twice := [size for size, following in itertools.pairwise(ascending) if size == following]:
        raise SpecError(f"sizes: {twice[0]} is there twice; expected each size once")
    if ascending[-1] > available:
        raise SpecError(
            f"sizes: {ascending[-1]} is more than the {available} complete molecules of the training split; expected "
            f"at most {available}: generate more, or leave it out"
        )
    return ascending


def nested_order(store: StructureSet, seed: int) -> tuple[list[str], int]:
    """The training split in the order in which molecules join.

    The order is random, but the first molecules are those, in it, with which every element,
    and every charge and spin, of validation and test is known: without them nothing could
    be measured.

    Returns:
        Keys, and how many of them come first.

    Raises:
        SpecError: if validation or test hold an element, or a charge and spin, that the training split lacks.
    """
    keys = store.keys("train")
    needed: set[object] = set()
    for split in ("validation", "test"):
        for key in store.keys(split):
            needed |= _traits(store.structure(key))
    shuffled = [keys[i] for i in np.random.default_rng(seed).permutation(len(keys))]
    first: dict[str, None] = {}
    for key in shuffled:
        brings = _traits(store.structure(key)) & needed
        if brings:
            first[key] = None
            needed -= brings
    if needed:
        raise SpecError(
            f"validation or test of '{store.path}' hold {_words(needed)}, which its training split lacks; expected "
            "nothing new there: change the split of the spec"
        )
    return [*first, *(key for key in shuffled if key not in first)], len(first)


def _traits(structure: Structure) -> set[object]:
    """What a model must have seen: elements, and charge and spin."""
    return {*structure.atomic_numbers.tolist(), (structure.charge, structure.spin)}


def _words(traits: set[object]) -> str:
    elements = symbols_of({z for z in traits if isinstance(z, int)})
    states = [f"charge {t[0]} with spin {t[1]}" for t in traits if isinstance(t, tuple)]
    return ", ".join([*elements, *sorted(states)])
