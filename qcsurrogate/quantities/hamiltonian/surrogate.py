"""Predicts Hamiltonians for molecules: the baseline, computed, and the network's correction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np

from qcsurrogate.models.files import ModelMetadata
from qcsurrogate.prediction.surrogate import Surrogate
from qcsurrogate.quantities.hamiltonian.model import HamiltonianModel
from qcsurrogate.quantities.hamiltonian.prediction import HamiltonianPrediction
from qcsurrogate.reference.baseline import baseline_hamiltonian
from qcsurrogate.structures import Structure


@final
class HamiltonianSurrogate(Surrogate[HamiltonianPrediction]):
    """Predicts Kohn-Sham Hamiltonians: the free-atom baseline plus the network's correction."""

    def __init__(self, model: HamiltonianModel, metadata: ModelMetadata) -> None:
        super().__init__(model, metadata)
        self.model = model

    def _predict_batch(self, structures: Sequence[Structure]) -> list[HamiltonianPrediction]:
        corrections = self.model.delta_matrices(structures)
        results = []
        for structure, correction in zip(structures, corrections, strict=True):
            mol = self.orbital_basis.build_mol(structure)
            baseline = baseline_hamiltonian(mol, self.method, self.atoms)
            hamiltonian = baseline + np.asarray(correction, dtype=np.float64)
            results.append(HamiltonianPrediction(structure, self.orbital_basis, hamiltonian))
        return results
