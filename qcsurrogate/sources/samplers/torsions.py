"""Torsion scans: parts of a molecule turned rigidly about its bonds."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from scipy.spatial.transform import Rotation

from qcsurrogate.errors import StructureError
from qcsurrogate.sources.bonds import bonded, relative_lengths
from qcsurrogate.structures import Structure

MAXIMUM_GEOMETRIES: Final = 1_000_000

_MULTIPLE_BOND: Final = 0.9
"""A bond shorter than this many times the covalent radii is double or triple (C=C 0.88, C-C 1.0)."""

_LINEAR: Final = np.cos(np.deg2rad(175.0))
_CLASH: Final = 1.25
"""Atoms not bound before clash when nearer than this many times the covalent radii: they would be bound."""


@dataclass(frozen=True)
class TorsionScan:
    """The geometries of a scan.

    Attributes:
        structures: in the order of the angles, the last dihedral fastest.
        angles: (n, n_dihedrals) turned from the molecule's own, degrees; NaN where a
            dihedral was not the one scanned.
        clashes: geometries left out because turned parts ran into each other.
    """

    structures: tuple[Structure, ...]
    angles: NDArray[np.float64]
    clashes: int


def rotatable_dihedrals(structure: Structure) -> list[tuple[int, int, int, int]]:
    """One dihedral for each bond about which a molecule turns, by the central atoms' order.

    Bonds outside rings, not double or triple (a length below 0.9 times the sum of the
    covalent radii), between atoms that have further neighbours not in line with it.
    """
    bonds = bonded(structure)
    lengths = relative_lengths(structure)
    found = []
    for j, k in zip(*np.nonzero(np.triu(bonds)), strict=True):
        if lengths[j, k] < _MULTIPLE_BOND or _far_side(bonds, int(j), int(k)) is None:
            continue
        ends = [_bent_neighbour(structure, bonds, int(a), int(b)) for a, b in ((j, k), (k, j))]
        if ends[0] is not None and ends[1] is not None:
            found.append((ends[0], int(j), int(k), ends[1]))
    return found


def scan_torsions(
    structure: Structure,
    dihedrals: Sequence[tuple[int, int, int, int]],
    steps: int,
    *,
    grid: bool = False,
) -> TorsionScan:
    """Turn the smaller side of each dihedral's central bond in equal steps through a circle.

    The first geometry is the molecule itself; bond lengths and angles stay. A geometry in
    which atoms that were not bound come as near as bound ones is left out and counted.
    Without dihedrals there is the molecule only.

    Args:
        structure: where to start.
        dihedrals: four atom indices each, from 0, bound in a row i-j-k-l.
        steps: angles per dihedral, 360 / steps degrees apart.
        grid: all combinations of angles, instead of one dihedral after the other.

    Raises:
        StructureError: for indices that are no bonded row, a bond in a ring, or more than
            a million geometries.
    """
    bonds = bonded(structure)
    moving = [_moving_atoms(structure, bonds, dihedral) for dihedral in dihedrals]
    n_geometries = steps ** len(dihedrals) if grid else 1 + (steps - 1) * len(dihedrals)
    if n_geometries > MAXIMUM_GEOMETRIES:
        raise StructureError(
            f"{structure.label}: {steps} steps of {len(dihedrals)} dihedrals are {n_geometries} geometries; expected "
            f"at most {MAXIMUM_GEOMETRIES}"
        )
    may_touch = relative_lengths(structure) < _CLASH
    made, angles, clashes = [], [], 0
    width = len(str(max(n_geometries - 1, 0)))
    for number, turned in enumerate(_combinations(len(dihedrals), steps, grid)):
        positions = structure.positions
        for (_, j, k, _), side, angle in zip(dihedrals, moving, turned, strict=True):
            if angle > 0:
                positions = _turned(positions, j, k, side, angle)
        name = f"{structure.name or structure.formula}_{number:0{width}d}"
        try:
            candidate = structure.moved(positions, name)
        except StructureError:
            clashes += 1
            continue
        if ((relative_lengths(candidate) < _CLASH) & ~may_touch & ~np.eye(len(structure), dtype=bool)).any():
            clashes += 1
            continue
        made.append(candidate)
        angles.append(turned)
    return TorsionScan(tuple(made), np.array(angles).reshape(len(made), len(dihedrals)), clashes)


def _combinations(n_dihedrals: int, steps: int, grid: bool) -> Iterator[tuple[float, ...]]:
    circle = [360.0 * step / steps for step in range(steps)]
    if grid or not n_dihedrals:
        yield from itertools.product(circle, repeat=n_dihedrals)
        return
    for scanned in range(n_dihedrals):
        for angle in circle[min(scanned, 1) :]:
            yield tuple(angle if d == scanned else np.nan for d in range(n_dihedrals))


def _turned(
    positions: NDArray[np.float64], j: int, k: int, side: NDArray[np.int64], degrees: float
) -> NDArray[np.float64]:
    """Positions with one side of the bond j-k turned such that the dihedral grows."""
    axis = positions[k] - positions[j]
    sign = 1.0 if k in side else -1.0
    rotation = Rotation.from_rotvec(sign * np.deg2rad(degrees) * axis / np.linalg.norm(axis))
    turned = positions.copy()
    turned[side] = positions[j] + rotation.apply(positions[side] - positions[j])
    return turned


def _moving_atoms(
    structure: Structure, bonds: NDArray[np.bool_], dihedral: tuple[int, int, int, int]
) -> NDArray[np.int64]:
    """The smaller side of a dihedral's central bond."""
    n_atoms = len(structure)
    if len(set(dihedral)) != 4 or not all(0 <= atom < n_atoms for atom in dihedral):
        raise StructureError(
            f"{structure.label}: dihedral {list(dihedral)}; expected four different atoms from 0 to {n_atoms - 1}"
        )
    for a, b in itertools.pairwise(dihedral):
        if not bonds[a, b]:
            raise StructureError(
                f"{structure.label}: dihedral {list(dihedral)}: atoms {a} ({structure.symbols[a]}) and {b} "
                f"({structure.symbols[b]}) are not bound; expected four atoms in a row"
            )
    far = _far_side(bonds, dihedral[1], dihedral[2])
    if far is None:
        raise StructureError(
            f"{structure.label}: dihedral {list(dihedral)}: the bond {dihedral[1]}-{dihedral[2]} is part of a ring; "
            "expected one about which a part of the molecule can turn"
        )
    near = np.setdiff1d(_component(bonds, dihedral[1]), far)
    return far if len(far) <= len(near) else near


def _far_side(bonds: NDArray[np.bool_], j: int, k: int) -> NDArray[np.int64] | None:
    """The atoms on k's side of the bond j-k, or None if it is part of a ring."""
    cut = bonds.copy()
    cut[j, k] = cut[k, j] = False
    side = _component(cut, k)
    return None if j in side else side


def _component(bonds: NDArray[np.bool_], atom: int) -> NDArray[np.int64]:
    labels = connected_components(bonds, directed=False)[1]
    return np.flatnonzero(labels == labels[atom])


def _bent_neighbour(structure: Structure, bonds: NDArray[np.bool_], atom: int, other: int) -> int | None:
    """A neighbour of an atom that is not in line with its bond to ``other``; heavy ones first."""
    along = structure.positions[other] - structure.positions[atom]
    neighbours = [n for n in np.flatnonzero(bonds[atom]).tolist() if n != other]
    for neighbour in sorted(neighbours, key=lambda n: (-int(structure.atomic_numbers[n]), n)):
        back = structure.positions[neighbour] - structure.positions[atom]
        if along @ back / np.linalg.norm(along) / np.linalg.norm(back) > _LINEAR:
            return int(neighbour)
    return None
