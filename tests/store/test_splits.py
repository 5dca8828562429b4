"""Splits: right sizes, seeded, and no molecule on both sides."""

from __future__ import annotations

import numpy as np
import pytest

from qcsurrogate.errors import SpecError
from qcsurrogate.sources.bonds import connectivity
from qcsurrogate.sources.collect import collect
from qcsurrogate.sources.samplers.vibrations import sample_displacements
from qcsurrogate.store.spec import AutoSplit, MoleculeSplit, RandomSplit, SizeSplit, load_spec
from qcsurrogate.store.splits import (
    LEFT_OUT,
    TEST,
    TRAIN,
    UNDECIDED,
    VALIDATION,
    assign_splits,
    connected_molecules,
    grown_splits,
)
from qcsurrogate.structures import Structure

QM9 = collect(load_spec("qm9_small")).structures
BY_NAME = {s.name: s for s in QM9}


def hydrogens(n: int) -> list[Structure]:
    return [Structure([1, 1], [[0, 0, 0], [0, 0, 1.2 + 0.01 * i]]) for i in range(n)]


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ((6, 1, 3), [6, 1, 3, 0]),
        ((5, 1, 2), [5, 1, 2, 2]),
        ((0.8, 0.1, 0.1), [8, 1, 1, 0]),
        ((0.9, 0, 0.1), [9, 0, 1, 0]),
    ],
)
def test_random_parts_have_the_sizes_asked_for(shares: tuple[float, ...], expected: list[int]) -> None:
    train, validation, test = shares
    split = RandomSplit(kind="random", train=train, validation=validation, test=test, seed=4)
    parts = assign_splits(split, hydrogens(10))
    assert np.bincount(parts, minlength=LEFT_OUT + 1).tolist() == expected
    np.testing.assert_array_equal(parts, assign_splits(split, hydrogens(10)))
    other = split.model_copy(update={"seed": 5})
    assert (parts != assign_splits(other, hydrogens(10))).any()


def test_too_few_structures_are_refused() -> None:
    with pytest.raises(
        SpecError, match=r"train \+ validation \+ test = 12; expected at most 10, the number of different"
    ):
        assign_splits(RandomSplit(kind="random", train=8, validation=2, test=2), hydrogens(10))
    with pytest.raises(SpecError, match=r"split\.validation: 0\.1 of 3 structures is none"):
        assign_splits(RandomSplit(kind="random", train=0.8, validation=0.1, test=0.1), hydrogens(3))


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        (1, (1, 0, 0)),
        (2, (1, 1, 0)),
        (3, (1, 1, 1)),
        (5, (3, 1, 1)),
        (10, (8, 1, 1)),
        (17, (13, 2, 2)),
        (1000, (800, 100, 100)),
    ],
)
def test_without_a_split_few_structures_are_divided_too(n: int, expected: tuple[int, ...]) -> None:
    parts = assign_splits(AutoSplit(kind="auto"), hydrogens(n))
    assert tuple(np.bincount(parts, minlength=3)) == expected
    assert n < 10 or (parts != assign_splits(AutoSplit(kind="auto", seed=1), hydrogens(n))).any()


def test_connectivity_is_blind_to_order_motion_and_shape() -> None:
    ethanol = next(s for s in QM9 if s.formula == "C2H6O" and connectivity(s) != connectivity(dimethyl_ether()))
    order = np.random.default_rng(0).permutation(len(ethanol))
    shuffled = Structure(ethanol.atomic_numbers[order], ethanol.positions[order] + 3.0)
    assert connectivity(shuffled) == connectivity(ethanol)
    for shaken in sample_displacements(ethanol, 0.04, 20, seed=0):
        assert connectivity(shaken) == connectivity(ethanol)


def dimethyl_ether() -> Structure:
    """The C2H6O in which no hydrogen is bound to oxygen."""
    for structure in QM9:
        if structure.formula == "C2H6O":
            oxygen = structure.positions[structure.atomic_numbers == 8][0]
            hydrogen = structure.positions[structure.atomic_numbers == 1]
            if np.linalg.norm(hydrogen - oxygen, axis=1).min() > 3.0:
                return structure
    raise AssertionError


def test_connectivity_tells_isomers_and_charges_apart() -> None:
    isomers = [s for s in QM9 if s.formula == "C4H8O"]
    assert len({connectivity(s) for s in isomers}) > len(isomers) - 3
    ammonium = BY_NAME["gdb_2"]
    charged = Structure(ammonium.atomic_numbers, ammonium.positions, charge=2)
    assert connectivity(charged) != connectivity(ammonium)
    ring = Structure([6] * 6, 2.6 * np.array([[np.cos(t), np.sin(t), 0] for t in np.arange(6) * np.pi / 3]))
    triangle = 1.5 * np.array([[np.cos(t), np.sin(t), 0] for t in np.arange(3) * 2 * np.pi / 3])
    two_rings = Structure([6] * 6, np.concatenate([triangle, triangle + np.array([20.0, 0, 0])]))
    assert connectivity(ring) == connectivity(ring.moved(ring.positions * 1.01))
    assert connectivity(ring) != connectivity(two_rings)


@pytest.mark.parametrize("identity", ["connectivity", "formula", "group"])
def test_no_molecule_stands_on_both_sides(identity: str) -> None:
    molecules = QM9[20:40]
    structures = [s for molecule in molecules for s in sample_displacements(molecule, 0.01, 3, seed=0)]
    groups = [s.name.rpartition("_")[0] for s in structures]
    split = MoleculeSplit(kind="by_molecule", identity=identity, train=0.6, validation=0.2, test=0.2, seed=1)
    parts = assign_splits(split, structures, groups)
    label = {
        "connectivity": [connectivity(s) for s in structures],
        "formula": [s.formula for s in structures],
        "group": groups,
    }[identity]
    sides = {name: set(parts[[n == name for n in label]].tolist()) for name in label}
    assert all(len(side) == 1 for side in sides.values())
    assert set(parts.tolist()) == {TRAIN, VALIDATION, TEST}


def test_molecules_of_one_kind_cannot_be_divided() -> None:
    with pytest.raises(SpecError, match=r"split\.validation: 0\.1 of 1 molecules is none"):
        assign_splits(MoleculeSplit(kind="by_molecule", train=0.8, validation=0.1, test=0.1), hydrogens(9))
    with pytest.raises(SpecError, match="'group' needs groups: an npz file with an array 'groups'"):
        assign_splits(
            MoleculeSplit(kind="by_molecule", identity="group", train=0.8, validation=0.1, test=0.1), hydrogens(9)
        )


def stretched(structure: Structure, hydrogen: int, atom: int, factor: float) -> Structure:
    """One hydrogen drawn away from the atom it is bound to."""
    positions = np.array(structure.positions)
    positions[hydrogen] = positions[atom] + factor * (positions[hydrogen] - positions[atom])
    return structure.moved(positions, f"{structure.name} x {factor:.1f}")


def hydroxyl(structure: Structure) -> tuple[int, int]:
    """A hydrogen bound to oxygen, and the oxygen."""
    oxygen = int(np.flatnonzero(structure.atomic_numbers == 8)[0])
    distances = np.linalg.norm(structure.positions - structure.positions[oxygen], axis=1)
    hydrogens = np.flatnonzero(structure.atomic_numbers == 1)
    return int(hydrogens[distances[hydrogens].argmin()]), oxygen


def ethanol() -> Structure:
    return next(s for s in QM9 if s.formula == "C2H6O" and s.name != dimethyl_ether().name)


WATER = BY_NAME["gdb_3"]


@pytest.mark.parametrize("molecule", [WATER, ethanol()], ids=["water", "ethanol"])
@pytest.mark.parametrize("seed", range(5))
def test_a_stretched_bond_is_no_new_molecule(molecule: Structure, seed: int) -> None:
    frames = [stretched(molecule, *hydroxyl(molecule), 1 + 0.1 * i) for i in range(20)]
    assert len({connectivity(frame) for frame in frames}) > 1, "the bond breaks on the way"
    others = [s for s in QM9[20:29] if s.formula != molecule.formula]
    split = MoleculeSplit(kind="by_molecule", train=0.6, validation=0.2, test=0.2, seed=seed)
    parts = assign_splits(split, [*frames[::2], *others, *frames[1::2]])
    assert len(set(parts[:10]) | set(parts[-10:])) == 1
    assert set(parts.tolist()) == {TRAIN, VALIDATION, TEST}


def test_what_is_one_molecule_does_not_depend_on_the_order() -> None:
    atoms = WATER.moved(WATER.positions * 6, "atoms")
    frames = [WATER, stretched(WATER, *hydroxyl(WATER), 3.0), atoms, ethanol(), *hydrogens(3), dimethyl_ether()]
    groups = ["", "", "", "a", "", "a", "", ""]
    labels = connected_molecules(frames, groups)
    assert [labels.index(label) for label in labels] == [0, 0, 0, 3, 3, 3, 3, 7]
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(len(frames))
        shuffled = connected_molecules([frames[i] for i in order], [groups[i] for i in order])
        assert shuffled == [labels[i] for i in order]
    assert connected_molecules([]) == []


def test_a_broken_frame_joins_all_isomers_of_its_charge_alone() -> None:
    broken = stretched(ethanol(), *hydroxyl(ethanol()), 3.0)
    frames = [ethanol(), dimethyl_ether(), WATER]
    assert len(set(connected_molecules(frames))) == 3
    one, two, other, joined = connected_molecules([*frames, broken])
    assert one == two == joined != other
    ion = Structure(broken.atomic_numbers, broken.positions, charge=2)
    assert len(set(connected_molecules([*frames, ion]))) == 4


def beside(first: Structure, second: Structure, distance: float) -> Structure:
    positions = np.concatenate([first.positions, second.positions + np.array([distance, 0, 0])])
    return Structure(np.concatenate([first.atomic_numbers, second.atomic_numbers]), positions)


def test_two_molecules_side_by_side_are_one_system_at_every_distance() -> None:
    methane, ammonia = BY_NAME["gdb_1"], BY_NAME["gdb_2"]
    pairs = [(WATER, WATER), (WATER, methane), (ammonia, methane), (ammonia, ammonia)]
    frames = [beside(a, b, distance) for a, b in pairs for distance in (6.0, 8.0, 20.0)]
    labels = connected_molecules([*frames, WATER, methane, ammonia])
    systems = [set(labels[i : i + 3]) for i in range(0, 12, 3)]
    assert [len(system) for system in systems] == [1, 1, 1, 1]
    assert len(set(labels)) == 4 + 3


def test_frames_of_one_trajectory_cannot_be_divided_by_molecule() -> None:
    frames = [stretched(ethanol(), *hydroxyl(ethanol()), 1 + 0.2 * i) for i in range(10)]
    with pytest.raises(SpecError, match=r"split\.validation: 0\.1 of 1 molecules is none"):
        assign_splits(MoleculeSplit(kind="by_molecule", train=0.8, validation=0.1, test=0.1), frames)


def test_a_group_that_some_lack_is_no_identity() -> None:
    split = MoleculeSplit(kind="by_molecule", identity="group", train=1, validation=1, test=1)
    with pytest.raises(SpecError, match="'group' needs groups"):
        assign_splits(split, hydrogens(3), ["a", "", "b"])


def test_by_size_tests_on_the_larger_ones() -> None:
    parts = assign_splits(SizeSplit(kind="by_size", largest_training_size=5, validation=0.1), QM9)
    sizes = np.array([(s.atomic_numbers > 1).sum() for s in QM9])
    assert (parts[sizes == 6] == TEST).all()
    assert set(parts[sizes < 6].tolist()) == {TRAIN, VALIDATION}
    assert (parts == VALIDATION).sum() == 17
    with pytest.raises(SpecError, match=r"largest_training_size: 6 leaves 759 of 759 .* from 1 to 6"):
        assign_splits(SizeSplit(kind="by_size", largest_training_size=6), QM9)


def test_what_a_default_split_grows_by_keeps_its_shares() -> None:
    split, structures = AutoSplit(kind="auto"), QM9[:40]
    before = np.full(40, UNDECIDED)
    before[:1] = assign_splits(split, structures[:1])
    for n in (2, 3, 9, 14, 15, 40):
        before[:n] = grown_splits(split, structures[:n], None, before[:n])
        counts = np.bincount(before[:n], minlength=3)
        assert counts.sum() == n
        assert tuple(counts) == (split.counts(n) if n != 15 else (12, 2, 1)), n  # one more cannot fill two parts
