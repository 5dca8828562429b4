"""Embeds molecules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray

from qcsurrogate.basis import BasisSet
from qcsurrogate.errors import DomainError
from qcsurrogate.models.files import ModelMetadata
from qcsurrogate.prediction.surrogate import DEFAULT_BATCH_SIZE, Surrogate
from qcsurrogate.quantities.autoencoder.model import AutoencoderModel
from qcsurrogate.quantities.autoencoder.prediction import AutoencoderPrediction
from qcsurrogate.structures import Structure


@final
class AutoencoderSurrogate(Surrogate[AutoencoderPrediction]):
    """Embeds molecules, and makes them again from their embeddings.

    Attributes:
        n_points: atoms of the largest molecule that it can take.
    """

    def __init__(self, model: AutoencoderModel, metadata: ModelMetadata) -> None:
        super().__init__(model, metadata)
        self.model, self.n_points = model, model.n_points

    def check_domain(self, structure: Structure, basis: BasisSet | None = None) -> None:
        super().check_domain(structure, basis)
        if len(structure) > self.n_points:
            raise DomainError(
                f"{structure.label} has {len(structure)} atoms; the largest training molecule of this autoencoder has "
                f"{self.n_points}: train one on larger molecules"
            )

    def embed(self, structures: Sequence[Structure], *, batch_size: int = DEFAULT_BATCH_SIZE) -> NDArray[np.float64]:
        """(n_structures, embedding) embeddings, without the warnings of :meth:`predict`.

        Raises:
            DomainError: for elements, a charge, a spin or a size that the model was not trained on.
        """
        for structure in structures:
            self.check_domain(structure)
        rows = [
            row
            for first in range(0, len(structures), batch_size)
            for row in self.model.predict_arrays(structures[first : first + batch_size])
        ]
        return np.array(rows).reshape(len(structures), self.model.settings.embedding)

    def _predict_batch(self, structures: Sequence[Structure]) -> list[AutoencoderPrediction]:
        made = self.model.reconstruct(self.model.graph(structures))
        ends = np.cumsum([len(s) for s in structures])[:-1]
        positions, numbers = (np.split(x.cpu().double().numpy(), ends) for x in (made.positions, made.numbers))
        return [
            AutoencoderPrediction(s, embedding, own + s.positions.mean(0), kinds, float(size))
            for s, embedding, own, kinds, size in zip(
                structures, made.embeddings.cpu().double().numpy(), positions, numbers, made.sizes.tolist(), strict=True
            )
        ]
