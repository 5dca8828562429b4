"""Predicts densities for molecules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray

from qcsurrogate.basis import BasisSet
from qcsurrogate.density.expansion import complete_basis, complete_coefficients, complete_spin_coefficients
from qcsurrogate.models.files import ModelMetadata
from qcsurrogate.prediction.surrogate import KohnShamSurrogate
from qcsurrogate.prediction.uncertainty import Uncertainty
from qcsurrogate.quantities.density.model import DensityModel
from qcsurrogate.quantities.density.prediction import DensityPrediction
from qcsurrogate.structures import Structure


@final
class DensitySurrogate(KohnShamSurrogate[DensityPrediction]):
    """Predicts electron densities: free atoms plus the network's expansion; unrestricted, spin densities too.

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
            self._prediction(structure, np.atleast_2d(coefficients).astype(np.float64), uncertainty)
            for structure, coefficients, uncertainty in zip(structures, found, told(), strict=True)
        ]

    def _prediction(
        self, structure: Structure, components: NDArray[np.float64], uncertainty: Uncertainty | None
    ) -> DensityPrediction:
        """From (n_components, n_aux) coefficients over the auxiliary basis."""
        total, spin = components if len(components) == 2 else (components[0], np.zeros_like(components[0]))
        return DensityPrediction(
            structure,
            self.density_basis,
            complete_coefficients(structure, self.auxiliary_basis, total, self.atoms),
            complete_spin_coefficients(structure, self.auxiliary_basis, spin),
            uncertainty=uncertainty,
        )
