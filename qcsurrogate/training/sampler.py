"""The order in which molecules are seen, as a pure function of the step."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class EpochSampler:
    """Batches from an endless row of permutations, one for each epoch.

    Every epoch holds every molecule once.  A batch may reach over the end of an epoch,
    so that all batches are full.  Since a batch depends on its step alone, a run resumes
    at its exact place without any state.
    """

    def __init__(self, n_samples: int, batch_size: int, seed: int) -> None:
        if n_samples < 1 or batch_size < 1:
            raise ValueError(f"expected at least one sample and one per batch, got {n_samples} and {batch_size}")
        self.n_samples = n_samples
        self.batch_size = batch_size
        self.seed = seed
        self._latest: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, dtype=np.int64))

    def epoch(self, step: int) -> float:
        """Epochs completed after ``step`` steps."""
        return step * self.batch_size / self.n_samples

    def indices(self, step: int) -> list[int]:
        """The ``batch_size`` molecules of a step, 0 for the first."""
        first = step * self.batch_size
        return [self._sample(position) for position in range(first, first + self.batch_size)]

    def _sample(self, position: int) -> int:
        epoch, offset = divmod(position, self.n_samples)
        if self._latest[0] != epoch:
            order = np.random.default_rng([self.seed, epoch]).permutation(self.n_samples)
            self._latest = (epoch, order)
        return int(self._latest[1][offset])
