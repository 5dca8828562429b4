"""Predicts Hamiltonians for molecules: H0, computed, and the network's correction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from qcsurrogate.models.files import ModelMetadata
from qcsurrogate.prediction.surrogate import KohnShamSurrogate
from qcsurrogate.quantities.hamiltonian.model import HamiltonianModel
from qcsurrogate.quantities.hamiltonian.prediction import HamiltonianPrediction
from qcsurrogate.reference.orthogonal import each_spin
from qcsurrogate.structures import Structure


@final
class HamiltonianSurrogate(KohnShamSurrogate[HamiltonianPrediction]):
    """Predicts Kohn-Sham Hamiltonians: H0 plus the network's correction."""

    def __init__(self, model: HamiltonianModel, metadata: ModelMetadata) -> None:
        super().__init__(model, metadata)
        self.model = model

    def _predict_batch(self, structures: Sequence[Structure]) -> list[HamiltonianPrediction]:
        starts = self.model.starting_points(structures)
        with self.model.expecting() as told:
            corrections = self.model.corrections(structures, starts)
        return [
            HamiltonianPrediction(
                structure,
                self.orbital_basis,
                each_spin(start.hamiltonian(correction)),
                start.baseline,
                uncertainty=uncertainty,
            )
            for structure, start, correction, uncertainty in zip(structures, starts, corrections, told(), strict=True)
        ]
