"""Predicted properties of a molecule."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from qcsurrogate.errors import StructureError, suggestion
from qcsurrogate.prediction.results import Prediction, read_only
from qcsurrogate.structures import Structure

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class PropertyPrediction(Prediction):
    """Values of properties.

    Attributes:
        values: by target; of atoms one row for each.
        target_units: unit of every target.

    Raises:
        StructureError: if a target has no unit.
    """

    values: Mapping[str, Array]
    target_units: Mapping[str, str]

    units: ClassVar[Mapping[str, str]] = {}
    summary_units: ClassVar[Mapping[str, str]] = {}
    conventions: ClassVar[tuple[str, ...]] = (
        "Properties are called as in the training data; 'units' has the unit of each. Vectors are (3,), tensors "
        "(3, 3), components x, y, z; what belongs to atoms has a first axis of atoms.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.values.keys() != self.target_units.keys():
            raise StructureError(
                f"the properties {', '.join(self.values)} of {self.structure.label} have units of "
                f"{', '.join(self.target_units)}; expected one for each"
            )
        kept = {name: read_only(np.array(value, dtype=np.float64)) for name, value in self.values.items()}
        object.__setattr__(self, "values", kept)

    def __getitem__(self, target: str) -> Array:
        """The value of a target, in its unit.

        Raises:
            KeyError: if it is not predicted, with a suggestion.
        """
        if target not in self.values:
            known = ", ".join(self.values)
            raise KeyError(f"no property '{target}'; expected {known}{suggestion(target, self.values)}")
        return self.values[target]

    @property
    def array_units(self) -> Mapping[str, str]:
        return self.target_units

    @property
    def figure_units(self) -> Mapping[str, str]:
        return self.target_units

    def value(self, name: str) -> Array:
        return self.values[name]

    @property
    def stored(self) -> list[str]:
        return list(self.values)

    @property
    def shared(self) -> Mapping[str, Any]:
        return {"properties": dict(self.target_units)}

    @classmethod
    def read_shared(cls, header: Mapping[str, Any]) -> dict[str, Any]:
        return {"properties": {str(name): str(unit) for name, unit in header["properties"].items()}}

    @classmethod
    def restored(
        cls, structure: Structure, shared: Mapping[str, Any], read: Callable[[str], Any], **known: Any
    ) -> Self:
        units: Mapping[str, str] = shared["properties"]
        return cls(structure, {name: np.asarray(read(name)) for name in units}, units, **known)


def of_molecules(
    structures: Iterable[Structure], values: Iterable[Mapping[str, Array]], units: Mapping[str, str]
) -> list[PropertyPrediction]:
    """One prediction for each molecule."""
    return [PropertyPrediction(s, own, units) for s, own in zip(structures, values, strict=True)]
