"""How long structures will take, and how they are cut into batches.

The cost model is learnt while a run goes on: log(seconds) is taken as linear in the
logarithm of a measure of size, and both numbers have a prior that a few measurements
override (Bayesian linear regression with a Gaussian prior).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

LONGEST_BATCH_SECONDS: Final = 180.0
"""Aim for the estimated work of a batch while there is plenty of it; DESIGN asks for 1 to 10 minutes."""

MOST_STRUCTURES: Final = 1000
"""Of one batch: what a batch costs in messages and memory stays small, however cheap its structures are."""

_BATCHES_PER_SLOT: Final = 4
_CAUTIOUS_SECONDS: Final = 20.0
_PRIOR_MEAN: Final = np.array([math.log(1.0), 0.85])
_PRIOR_DEVIATION: Final = np.array([2.0, 0.25])
_NOISE: Final = 0.3
_REFERENCE_SIZE: Final = 3 * 24**2


def size_measures(n_atoms: NDArray[np.int64], n_ao: NDArray[np.int64]) -> NDArray[np.float64]:
    """What the cost is a power of: atoms times squared orbitals, in units of one water in def2-SVP.

    It is the operation count of the exchange-correlation matrix on a grid of atoms;
    the exponent that is learnt takes up what screening saves and what exact exchange adds.
    """
    return n_atoms.astype(np.float64) * n_ao.astype(np.float64) ** 2 / _REFERENCE_SIZE


@dataclass
class CostModel:
    """seconds = exp(a + b log size), with a and b learnt from measured times.

    Attributes:
        precision: (2, 2) of the posterior, measurements and prior together.
        weighted: (2,) precision times mean.
        measured: how many times were measured.
    """

    precision: NDArray[np.float64] = field(default_factory=lambda: np.diag(_PRIOR_DEVIATION**-2.0))
    weighted: NDArray[np.float64] = field(default_factory=lambda: _PRIOR_MEAN * _PRIOR_DEVIATION**-2.0)
    measured: int = 0

    def learn(self, size: float, seconds: float) -> None:
        """Take one measured time into account."""
        row = np.array([1.0, math.log(size)])
        self.precision = self.precision + np.outer(row, row) / _NOISE**2
        self.weighted = self.weighted + row * (math.log(max(seconds, 1e-4)) / _NOISE**2)
        self.measured += 1

    def seconds(self, sizes: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n,) estimated seconds of structures of these sizes."""
        a, b = np.linalg.solve(self.precision, self.weighted)
        return np.asarray(np.exp(a + b * np.log(sizes)))

    def to_moments(self) -> tuple[float, ...]:
        """As numbers for the journal."""
        return (*self.precision.ravel().tolist(), *self.weighted.tolist(), float(self.measured))

    @classmethod
    def from_moments(cls, moments: Sequence[float]) -> CostModel:
        """From :meth:`to_moments`; anything else gives the prior."""
        values = np.asarray(moments, dtype=np.float64)
        if values.shape != (7,):
            return cls()
        precision = values[:4].reshape(2, 2)
        if not np.allclose(precision, precision.T) or np.linalg.eigvalsh(precision).min() <= 0:
            return cls()
        return cls(precision, values[4:6], int(values[6]))


class Queue:
    """Structures that wait, the most expensive first, equal ones in planned order."""

    def __init__(self, sizes: NDArray[np.float64], rows: NDArray[np.int64]) -> None:
        """Args:
        sizes: (n_plan,) size measures of all planned structures.
        rows: (n,) of them, in planned order, those that are to be computed.
        """
        self._rows = rows[np.argsort(-sizes[rows], kind="stable")]
        self._sizes = sizes[self._rows]
        # structures of one size are one entry here, so that an estimate of all costs little
        self._distinct, starts = np.unique(-self._sizes, return_index=True)
        self._distinct, self._stops = -self._distinct, np.append(starts[1:], len(rows))
        self._next = 0

    def __len__(self) -> int:
        return len(self._rows) - self._next

    def expected_seconds(self, model: CostModel) -> float:
        """Estimated work of all that wait."""
        if not len(self):
            return 0.0
        counts = np.diff(np.maximum(np.concatenate([[0], self._stops]), self._next))
        return float(counts @ model.seconds(self._distinct))

    def take(self, model: CostModel, slots: int) -> NDArray[np.int64]:
        """The next batch, as rows of the plan.

        A batch aims at :data:`LONGEST_BATCH_SECONDS`, at less towards the end, so that
        all slots finish together, and at less while nothing was measured yet.
        """
        aim = min(LONGEST_BATCH_SECONDS, self.expected_seconds(model) / (_BATCHES_PER_SLOT * slots))
        if model.measured < 2 * slots:
            aim = min(aim, _CAUTIOUS_SECONDS)
        if not model.measured and self._next < 2 * slots:
            aim = 0.0  # one alone at first: its time is soon known, and founds the estimate of all others
        window = slice(self._next, self._next + MOST_STRUCTURES)
        work = np.cumsum(model.seconds(self._sizes[window]))
        n = max(1, int(np.searchsorted(work, aim, side="right")))
        taken = self._rows[self._next : self._next + n]
        self._next += len(taken)
        return taken


def seconds_left(
    model: CostModel, queue: Queue, in_work: Sequence[NDArray[np.float64]], slots: int, since_last: float
) -> float:
    """Estimated wall time until all is done.

    Counting would be far off, because the most expensive structures come first.

    Args:
        model: what structures cost.
        queue: those that wait.
        in_work: for each batch that was given out, the sizes of its structures.
        slots: batches that are computed at a time.
        since_last: seconds since a batch came back; that long the slots have worked on what is in work.
    """
    batches = [float(model.seconds(sizes).sum()) for sizes in in_work]
    worked = min(since_last * min(slots, len(batches)), 0.9 * sum(batches))
    shared = (queue.expected_seconds(model) + sum(batches) - worked) / slots
    return max(shared, max(batches, default=0.0) - since_last)
