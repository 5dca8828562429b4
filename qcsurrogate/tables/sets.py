"""What a data set offers to training and comparison, whether it is a store of references or a table of labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from qcsurrogate.errors import SpecError, suggestion

if TYPE_CHECKING:
    from qcsurrogate.reference.atoms import FreeAtoms
    from qcsurrogate.reference.settings import Method
    from qcsurrogate.store.spec import SplitName
    from qcsurrogate.structures import Structure

Array = NDArray[np.float64]
Rank = Literal["scalar", "vector", "tensor"]

COMPONENTS: Final[Mapping[Rank, tuple[int, ...]]] = {"scalar": (), "vector": (3,), "tensor": (3, 3)}
"""Shape of one value."""


class Description(Protocol):
    """What a data set says about itself.

    Attributes:
        method: the Kohn-Sham calculation that all its references share; None where they are of
            another program, or where there are no labels at all.
        level: level of theory of the labels in words; empty where nothing is known of it.
    """

    @property
    def name(self) -> str: ...
    @property
    def licence(self) -> str: ...
    @property
    def citation(self) -> str: ...
    @property
    def level(self) -> str: ...
    @property
    def method(self) -> Method | None: ...
    def identity(self) -> dict[str, Any]:
        """Everything that must stay the same, as plain data."""


class StructureSet(Protocol):
    """Structures in three parts, by key: a store or a table.

    Attributes:
        path: where it lies, as messages call it.
        atoms: free atoms of the method; none without one.
    """

    @property
    def path(self) -> Path: ...
    @property
    def spec(self) -> Description: ...
    @property
    def atoms(self) -> FreeAtoms: ...
    def keys(self, split: SplitName | None = None) -> list[str]:
        """Keys of what can be used, in a fixed order; all, or those of one part."""

    def structure(self, key: str) -> Structure:
        """The structure of a key."""

    def training_on(self, keys: Iterable[str]) -> Self:
        """The same as if its training part held these alone."""

    def dataset_hash(self) -> str:
        """Identity of its content."""

    def has_been(self, dataset_hash: str) -> bool:
        """Whether this is its :meth:`dataset_hash`, or was before it grew."""

    def size_before(self, dataset_hash: str) -> int | None:
        """How many structures it had when its hash was this one, if it has grown since."""


@dataclass(frozen=True)
class Target:
    """A quantity that every structure of a set has.

    Attributes:
        name: such as ``U0``.
        unit: of its values.
        description: what it is.
        rank: what one value is, and how it turns with the molecule.
        per_atom: whether every atom has one.
        extensive: whether it grows with the number of atoms, so that a part of it can be told from
            the composition alone.
        norm_only: whether a vector is known by its length alone; its values are then scalars.
        atom_references: by atomic number what the atoms of a molecule have when they are apart, in
            ``unit``; what is left is what a network learns. None where the quantity has no such.
        shown: unit in which reports show it, of :mod:`qcsurrogate.comparison.text`; ``unit`` if empty.
    """

    name: str
    unit: str
    description: str
    rank: Rank = "scalar"
    per_atom: bool = False
    extensive: bool = False
    norm_only: bool = False
    atom_references: Mapping[int, float] | None = None
    shown: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one value in :meth:`LabelledSet.labels`."""
        return () if self.norm_only else COMPONENTS[self.rank]

    @property
    def width(self) -> int:
        """Numbers of one value."""
        return prod(self.shape)

    def of_atoms(self, atomic_numbers: NDArray[np.int64]) -> float:
        """The sum of the atom references of a molecule; zero without any."""
        references = self.atom_references
        return 0.0 if references is None else float(sum(references[z] for z in atomic_numbers.tolist()))


class LabelledSet(StructureSet, Protocol):
    """Structures with numbers that belong to them."""

    @property
    def targets(self) -> Mapping[str, Target]:
        """Everything that it holds, by name."""

    def labels(self, names: Sequence[str], keys: Sequence[str]) -> dict[str, list[Array]]:
        """Values of some targets, one array for each key.

        Args:
            names: of :attr:`targets`.
            keys: of this set.

        Returns:
            For every name, for every key, an array of :attr:`Target.shape`, with a first axis of
            atoms if it is ``per_atom``; in :attr:`Target.unit`, atom references included.
        """


def find_targets(known: LabelledSet, names: Sequence[str]) -> list[Target]:
    """Targets of a set by their names.

    Raises:
        SpecError: if there is none of such a name (with a suggestion), if one is named twice, or no one.
    """
    held = ", ".join(known.targets)
    if not held:
        raise SpecError(f"'{known.path}' holds structures and no labels; expected a table with labels, or a store")
    if not names:
        raise SpecError(f"no target was named; expected some of {held}, such as model.targets=[...]")
    for name in names:
        if name not in known.targets:
            raise SpecError(
                f"'{known.path}' holds no target '{name}'; expected some of {held}{_near(name, known.targets)}"
            )
        if list(names).count(name) > 1:
            raise SpecError(f"the target '{name}' is named twice; expected each once")
    return [known.targets[name] for name in names]


def _near(name: str, known: Iterable[str]) -> str:
    """A suggestion that takes upper and lower case for the same."""
    lower = {other.lower(): other for other in known}
    exact = lower.get(name.lower())
    return f"; did you mean '{exact}'?" if exact else suggestion(name, lower.values())
