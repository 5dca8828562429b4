"""Predicts densities for molecules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np

from qcsurrogate.basis import BasisSet
from qcsurrogate.density.expansion import complete_basis, complete_coefficients
from qcsurrogate.models.files import ModelMetadata
from qcsurrogate.prediction.surrogate import KohnShamSurrogate
from qcsurrogate.quantities.density.model import DensityModel
from qcsurrogate.quantities.density.prediction import DensityPrediction
from qcsurrogate.structures import Structure


@final
class DensitySurrogate(KohnShamSurrogate[DensityPrediction]):
    """Predicts electron densities: free atoms plus the network's expansion.

    Attributes:
        auxiliary_basis: what the network expands the density less the free atoms in.
        density_basis: the same and the free atoms: the functions of its predictions.
    """

    def __init__(self, model: DensityModel, metadata: ModelMetadata) -> None:
        super().__init__(model, metadata)
        self.model = model
        self.auxiliary_basis: BasisSet = model.density_basis
        self.density_basis: BasisSet = complete_basis(model.density_basis, self.atoms)

    def _predict_batch(self, structures: Sequence[Structure]) -> list[DensityPrediction]:
        with self.model.expecting() as told:
            found = self.model.coefficients(structures)
        return [
            DensityPrediction(
                structure,
                self.density_basis,
                complete_coefficients(
                    structure, self.auxiliary_basis, np.asarray(coefficients, dtype=np.float64), self.atoms
                ),
                uncertainty=uncertainty,
            )
            for structure, coefficients, uncertainty in zip(structures, found, told(), strict=True)
        ]
