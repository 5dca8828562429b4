"""Predicts densities for molecules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np

from qcsurrogate.basis import BasisSet
from qcsurrogate.models.files import ModelMetadata
from qcsurrogate.prediction.results import DensityPrediction
from qcsurrogate.prediction.surrogate import Surrogate
from qcsurrogate.quantities.density.model import DensityModel
from qcsurrogate.structures import Structure


@final
class DensitySurrogate(Surrogate[DensityPrediction]):
    """Predicts electron densities: free atoms plus the network's expansion."""

    def __init__(self, model: DensityModel, metadata: ModelMetadata) -> None:
        super().__init__(model, metadata)
        self.model = model
        self.density_basis: BasisSet = model.density_basis

    def _predict_batch(self, structures: Sequence[Structure]) -> list[DensityPrediction]:
        return [
            DensityPrediction(structure, self.density_basis, self.atoms, np.asarray(coefficients, dtype=np.float64))
            for structure, coefficients in zip(structures, self.model.coefficients(structures), strict=True)
        ]
