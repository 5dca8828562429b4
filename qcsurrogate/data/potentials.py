"""H0 of a store: its potentials, fitted to a part of the training split."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcsurrogate.data.datasets import read_split
from qcsurrogate.reference.potentials import AtomicPotential, fit_potentials
from qcsurrogate.store.store import Store

MOLECULES_TO_FIT = 48
"""Training molecules from which the charges of H0 are found: about ten numbers for each element."""


def potentials_of(store: Store, elements: Sequence[int]) -> dict[int, AtomicPotential]:
    """The potentials of H0, fitted to molecules that are spread over the training split of a store."""
    keys, _ = read_split(store, "train", progress=False, unrestricted=True)
    basis = store.spec.method.orbital_basis(elements)
    chosen = [keys[i] for i in np.unique(np.linspace(0, len(keys) - 1, MOLECULES_TO_FIT).round().astype(int))]
    known: set[int] = set()
    for key in chosen:
        known.update(store.structure(key).atomic_numbers.tolist())
    for key in keys:  # a rare element is fitted too
        if not known.issuperset(own := store.structure(key).atomic_numbers.tolist()):
            chosen.append(key)
            known.update(own)
    return fit_potentials(((r.structure, r.hamiltonian, r.density_matrix) for r in store.read_many(chosen)), basis)
