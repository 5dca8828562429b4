"""Many geometries in flat arrays, as a file holds them: not yet checked, little memory."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from qcsurrogate.errors import StructureError
from qcsurrogate.structures import FlatStructures, Structure, joined_arrays
from qcsurrogate.units import BOHR_PER_ANGSTROM

MAXIMUM_STRUCTURES = 10_000_000
MAXIMUM_ATOMS = 100_000
"""Atoms of one structure."""


@dataclass(frozen=True, eq=False)
class Geometries(FlatStructures):
    """Geometries of a file, in its order.

    Attributes:
        source: the file, as messages call it.
        groups: n labels, or None where the file has none.
        unreadable: files of an archive or folder that were left out because they could
            not be read.
        properties: (n, 15) numbers of the comment lines of QM9's own files; None where not all have some.
    """

    source: str = ""
    groups: tuple[str, ...] | None = None
    unreadable: int = 0
    properties: NDArray[np.float64] | None = None

    def taken(self, indices: NDArray[np.int64]) -> Geometries:
        """Some of them, in the order given."""
        groups = None if self.groups is None else tuple(self.groups[i] for i in indices.tolist())
        properties = None if self.properties is None else self.properties[indices]
        return replace(self.take(indices), groups=groups, properties=properties)

    def structures(self, *, skip_bad: bool = False) -> tuple[list[Structure], NDArray[np.int64]]:
        """Checked structures.

        Args:
            skip_bad: leave bad geometries out, where otherwise the first is an error.

        Returns:
            The structures, and the index of each in the file.

        Raises:
            StructureError: for a bad geometry; names the file, the structure's number
                (from 1) and name, and says how many more are bad.
        """
        made = self.checked()
        bad = [(i, error) for i, error in enumerate(made) if isinstance(error, StructureError)]
        if bad and not skip_bad:
            number, error = bad[0]
            more = f"; {len(bad) - 1} more are bad" if len(bad) > 1 else ""
            raise StructureError(
                f"'{self.source}': {error}{more} (number {number + 1} of {len(made)}; a spec's `skip_bad: true` "
                "leaves bad ones out)"
            ) from error
        kept = np.array([i for i, structure in enumerate(made) if isinstance(structure, Structure)], dtype=np.int64)
        return [structure for structure in made if isinstance(structure, Structure)], kept


def joined(parts: Sequence[Geometries]) -> Geometries:
    """Geometries of several files; groups only where each file has them."""
    if len(parts) == 1:
        return parts[0]
    grouped = all(part.groups is not None for part in parts)
    properties = [part.properties for part in parts if part.properties is not None]
    return Geometries(
        **joined_arrays(parts),
        source=f"{parts[0].source} and {len(parts) - 1} more files",
        groups=tuple(label for part in parts for label in part.groups or ()) if grouped else None,
        unreadable=sum(part.unreadable for part in parts),
        properties=np.concatenate(properties) if len(properties) == len(parts) else None,
    )


class GeometryList:
    """Geometries as a reader finds them, one after the other."""

    def __init__(self, source: str, charge: int, spin: int) -> None:
        self.source, self.charge, self.spin = source, charge, spin
        self.unreadable = 0
        self._counts, self._numbers, self._coordinates = array("q"), array("h"), array("d")
        self._charges, self._spins = array("q"), array("q")
        self._names: list[str] = []
        self._groups: list[str | None] = []
        self._described, self._properties = array("q"), array("d")

    def __len__(self) -> int:
        return len(self._counts)

    def add(
        self,
        atomic_numbers: Sequence[int],
        positions_angstrom: Iterable[float],
        charge: int | None = None,
        spin: int | None = None,
        name: str = "",
        group: str | None = None,
        properties: Sequence[float] = (),
    ) -> None:
        """Append one; ``positions_angstrom`` is flat: x, y, z of the first atom, and so on."""
        if len(self) >= MAXIMUM_STRUCTURES:
            raise StructureError(f"'{self.source}' holds more than {MAXIMUM_STRUCTURES} structures; split it")
        if properties:
            self._described.append(len(self))
            self._properties.extend(properties)
        self._counts.append(len(atomic_numbers))
        self._numbers.extend(atomic_numbers)
        self._coordinates.extend(positions_angstrom)
        self._charges.append(self.charge if charge is None else charge)
        self._spins.append(self.spin if spin is None else spin)
        self._names.append(name)
        self._groups.append(group)

    def name_since(self, start: int, stem: str) -> None:
        """Name what came without a name since ``start``: ``stem``, numbered if there are several."""
        several = len(self) > start + 1
        for i in range(start, len(self)):
            self._names[i] = self._names[i] or (f"{stem}_{i - start}" if several else stem)

    def cut(self, start: int) -> None:
        """Forget what came since ``start``, and count one file as unreadable."""
        n_atoms = sum(self._counts[start:])
        described = sum(i >= start for i in self._described[-(len(self) - start) :]) if len(self) > start else 0
        width = len(self._properties) // max(1, len(self._described))
        for values, length in (
            (self._counts, n := len(self) - start),
            (self._numbers, n_atoms),
            (self._coordinates, 3 * n_atoms),
            (self._charges, n),
            (self._spins, n),
            (self._names, n),
            (self._groups, n),
            (self._described, described),
            (self._properties, described * width),
        ):
            del values[len(values) - length :]
        self.unreadable += 1

    def finished(self) -> Geometries:
        """All of them."""
        if not len(self):
            raise StructureError(f"cannot read '{self.source}': it holds no structure")
        grouped = all(label is not None for label in self._groups)
        n, described = len(self), len(self._described) == len(self)
        return Geometries(
            np.array(self._counts, dtype=np.int64),
            np.array(self._numbers, dtype=np.int64),
            np.array(self._coordinates, dtype=np.float64).reshape(-1, 3) * BOHR_PER_ANGSTROM,
            np.array(self._charges, dtype=np.int64),
            np.array(self._spins, dtype=np.int64),
            np.array(self._names, dtype=object),
            source=self.source,
            groups=tuple(str(label) for label in self._groups) if grouped else None,
            unreadable=self.unreadable,
            properties=np.array(self._properties, dtype=np.float64).reshape(n, -1) if described else None,
        )
