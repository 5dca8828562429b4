"""Coulomb spectra and the farthest-point choice by them."""

from __future__ import annotations

import numpy as np
import pytest

from qcsurrogate.sources.collect import collect
from qcsurrogate.sources.samplers.vibrations import sample_displacements
from qcsurrogate.sources.selection.diversity import coulomb_spectra, most_diverse
from qcsurrogate.store.spec import load_spec
from qcsurrogate.structures import Structure
from tests.molecules import FLUOROSULFONAMIDE, WATER, random_orthogonal

QM9 = list(collect(load_spec("qm9_small")).structures)


def test_spectrum_of_hydrogen_is_known() -> None:
    (spectrum,) = coulomb_spectra([Structure([1, 1], [[0, 0, 0], [0, 0, 1.4]])])
    np.testing.assert_allclose(spectrum, [0.5 + 1 / 1.4, 0.5 - 1 / 1.4], rtol=1e-6)


@pytest.mark.parametrize("improper", [False, True])
def test_spectra_are_blind_to_motion_order_and_company(improper: bool) -> None:
    order = np.random.default_rng(0).permutation(len(FLUOROSULFONAMIDE))
    moved = (FLUOROSULFONAMIDE.positions @ random_orthogonal(3, improper=improper) + 2.0)[order]
    other = Structure(FLUOROSULFONAMIDE.atomic_numbers[order], moved)
    spectra = coulomb_spectra([FLUOROSULFONAMIDE, WATER, other])
    np.testing.assert_allclose(spectra[0], spectra[2], rtol=2e-6, atol=1e-4)
    assert (spectra[1, 3:] == 0).all()
    assert np.abs(spectra[0] - spectra[1]).max() > 1


def test_the_chosen_lie_farther_apart_than_random_ones() -> None:
    chosen = most_diverse(QM9, 40, seed=0)
    assert chosen == sorted(set(chosen)) == most_diverse(QM9, 40, seed=0)
    assert len(chosen) == 40
    spectra = coulomb_spectra(QM9).astype(np.float64)

    def nearest(indices: np.ndarray) -> float:
        apart = np.linalg.norm(spectra[indices][:, None] - spectra[indices][None], axis=2)
        return float(apart[~np.eye(len(indices), dtype=bool)].min())

    drawn = [nearest(np.random.default_rng(i).choice(len(QM9), 40, replace=False)) for i in range(20)]
    assert nearest(np.array(chosen)) > 3 * max(drawn)
    covered = np.linalg.norm(spectra[:, None] - spectra[chosen][None], axis=2).min(axis=1).max()
    assert covered <= nearest(np.array(chosen)) + 1e-3  # the choice covers the rest as well as it is spread


def test_a_greedy_choice_by_hand() -> None:
    structures = [Structure([1, 1], [[0, 0, 0], [0, 0, d]]) for d in (1.0, 1.01, 1000.0, 1.02, 1.25)]
    for seed in range(5):
        assert {2} <= set(most_diverse(structures, 2, seed))
        assert len({0, 1, 3} & set(most_diverse(structures, 3, seed))) == 1


def test_no_structure_is_chosen_twice_even_among_equals() -> None:
    copies = [WATER] * 6 + sample_displacements(WATER, 0.1, 2, seed=0)
    assert len(set(most_diverse(copies, 7, seed=1))) == 7
    assert most_diverse(copies, 8, seed=1) == most_diverse(copies, 100, seed=1) == list(range(8))
