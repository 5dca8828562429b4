"""Geometric duplicates: found whatever was done to them, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import molecule as ase_molecule

from qcsurrogate.errors import StructureError
from qcsurrogate.sources.collect import collect
from qcsurrogate.sources.samplers.conformers import sample_conformers
from qcsurrogate.sources.samplers.vibrations import sample_displacements
from qcsurrogate.sources.selection.duplicates import geometric_duplicates
from qcsurrogate.sources.selection.superposition import superposition_rmsd
from qcsurrogate.store.spec import load_spec
from qcsurrogate.structures import Structure
from tests.molecules import FLUOROSULFONAMIDE, WATER, random_orthogonal

QM9 = list(collect(load_spec("qm9_small")).structures)
SYMMETRIC = ["CH4", "C6H6", "CO2", "C2H2", "C2H6", "BF3", "NH3", "cyclobutane", "CCl4", "P2"]


def disguised(structure: Structure, seed: int, noise: float = 0.0) -> Structure:
    """Turned, perhaps mirrored, moved, its atoms in another order."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(structure))
    rotation = random_orthogonal(seed, improper=bool(seed % 2))
    positions = structure.positions @ rotation + 5 * rng.normal(size=3) + noise * rng.normal(size=(len(structure), 3))
    return Structure(structure.atomic_numbers[order], positions[order], structure.charge, structure.spin)


@pytest.mark.parametrize("name", SYMMETRIC)
def test_disguises_of_symmetric_molecules_are_seen_through(name: str) -> None:
    structure = Structure.from_ase(ase_molecule(name))
    for seed in range(6):
        other = disguised(structure, seed)
        assert superposition_rmsd(structure, other) < 1e-6
        assert geometric_duplicates([structure, other], 1e-3).tolist() == [False, True]


def test_disguises_of_many_molecules_are_seen_through() -> None:
    chosen = QM9[::12]
    noisy = [disguised(s, i, noise=0.01) for i, s in enumerate(chosen)]
    repeated = geometric_duplicates([*chosen, *noisy], 0.05)
    assert repeated.tolist() == [False] * len(chosen) + [True] * len(chosen)
    assert not geometric_duplicates([*chosen, *noisy], 1e-4).any()


def test_all_molecules_of_the_packaged_set_are_different() -> None:
    assert not geometric_duplicates(QM9, 0.1).any()


def test_the_tolerance_is_a_root_mean_square() -> None:
    moved = WATER.positions.copy()
    moved[1] += np.array([0.0, 0.0, 0.3])
    other = WATER.moved(moved)
    exact = superposition_rmsd(WATER, other)
    assert 0.01 < exact < 0.3 / np.sqrt(3)  # the best superposition cannot be worse than none
    assert geometric_duplicates([WATER, other], exact * 1.001)[1]
    assert not geometric_duplicates([WATER, other], exact * 0.999)[1]


def test_superposition_agrees_with_a_search_over_all_orders_of_atoms() -> None:
    from itertools import permutations

    def kabsch(a: np.ndarray, b: np.ndarray) -> float:
        u, _, vt = np.linalg.svd(b.T @ a)
        return float(np.sqrt(((b @ u @ vt - a) ** 2).sum(axis=1).mean()))

    ammonia = Structure.from_ase(ase_molecule("NH3"))
    for seed in range(20):
        first, second = (sample_displacements(ammonia, 0.3, 1, seed=s)[0] for s in (seed, seed + 100))
        a, b = (s.positions - s.positions.mean(axis=0) for s in (first, second))
        expected = min(kabsch(a, b[[0, *(1 + np.array(p))]]) for p in permutations(range(3)))
        assert superposition_rmsd(first, disguised(second, seed)) == pytest.approx(expected, abs=1e-6)


def test_charge_spin_and_elements_count() -> None:
    structures = [
        WATER,
        Structure(WATER.atomic_numbers, WATER.positions, charge=2),
        Structure(WATER.atomic_numbers, WATER.positions, spin=2),
        Structure([16, 1, 1], WATER.positions),
        WATER,
    ]
    assert geometric_duplicates(structures, 0.1).tolist() == [False] * 4 + [True]
    with pytest.raises(StructureError, match=r"cannot superpose structure 'water' and .* expected the same elements"):
        superposition_rmsd(WATER, structures[3])


def test_the_first_is_kept_and_a_chain_is_not_swallowed() -> None:
    """Each is near the next; those near a kept one go, the others stay."""
    chain = [Structure([1, 1], [[0, 0, 0], [0, 0, 1.4 + 0.06 * i]]) for i in range(5)]
    assert geometric_duplicates(chain, 0.04).tolist() == [False, True, False, True, False]


def test_conformers_are_different_and_mirror_images_are_not() -> None:
    conformers = sample_conformers("CCCCO", 12, 0, optimise=True, rmsd_angstrom=0.3)
    assert len(conformers) > 3
    kept = [c for c, repeated in zip(conformers, geometric_duplicates(conformers, 0.2), strict=True) if not repeated]
    assert len(kept) > 3
    mirrored = [c.moved(c.positions * [1, 1, -1]) for c in kept]
    assert geometric_duplicates([*kept, *mirrored], 0.2).sum() == len(kept)


def test_one_atom_and_no_structure() -> None:
    assert geometric_duplicates([], 0.1).tolist() == []
    helium = Structure([2], [[0, 0, 0]])
    assert geometric_duplicates([helium, helium.moved([[9, 9, 9]])], 0.1).tolist() == [False, True]
    assert superposition_rmsd(FLUOROSULFONAMIDE, FLUOROSULFONAMIDE) < 1e-9
