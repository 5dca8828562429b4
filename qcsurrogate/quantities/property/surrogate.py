"""Predicts properties of molecules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from qcsurrogate.models.files import ModelMetadata
from qcsurrogate.prediction.surrogate import Surrogate
from qcsurrogate.quantities.property.model import Array, PropertyModel
from qcsurrogate.quantities.property.prediction import PropertyPrediction, of_molecules
from qcsurrogate.structures import Structure


@final
class PropertySurrogate(Surrogate[PropertyPrediction]):
    """Predicts the properties that its model was trained on.

    Attributes:
        targets: their names.
        units: unit of each.
    """

    def __init__(self, model: PropertyModel, metadata: ModelMetadata) -> None:
        super().__init__(model, metadata)
        self.model = model
        self.targets: tuple[str, ...] = tuple(model.units)
        self.units = dict(model.units)

    def _predict_batch(self, structures: Sequence[Structure]) -> list[PropertyPrediction]:
        return of_molecules(structures, self.model.predict(structures), self.units)

    def expected(self, structure: Structure) -> dict[str, Array]:
        """What one would say of a molecule without a network: its elements' share, H0's levels, or the mean."""
        return self.model.expected([structure])[0]
