"""The content of ``learning_curve.json``, and the law that is fitted to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from qcsurrogate.comparison.schema import FigureSummary, Settings

Array = NDArray[np.float64]

CURVE_VERSION: Final = 1


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PowerLaw(_Frozen):
    """error = prefactor * N^(-exponent), by least squares in the logarithms."""

    prefactor: float = Field(description="In the figure's unit.")
    exponent: float
    exponent_error: float | None = Field(description="Standard error from the scatter; null for two points.")

    @classmethod
    def fit(cls, sizes: Sequence[int], values: Sequence[float]) -> PowerLaw | None:
        """Law of (n,) sizes and errors; None for fewer than two different sizes, or an error that is not positive."""
        if len(set(sizes)) < 2 or min(values) <= 0:
            return None
        x, y = np.log(np.asarray(sizes, dtype=np.float64)), np.log(np.asarray(values))
        centred = x - x.mean()
        slope = float(centred @ y / (centred @ centred))
        residual = y - y.mean() - slope * centred
        error = None
        if len(x) > 2:
            error = float(np.sqrt(residual @ residual / (len(x) - 2) / (centred @ centred)))
        prefactor = float(np.exp(y.mean() - slope * x.mean()))
        return cls(prefactor=prefactor, exponent=-slope, exponent_error=error)

    def at(self, sizes: Array) -> Array:
        """Errors (n,) at sizes (n,)."""
        return self.prefactor * sizes**-self.exponent


class Point(_Frozen):
    """One model: trained on the first ``size`` keys of the order of its seed, measured on the test split."""

    size: int
    seed: int
    run: str = Field(description="Its folder, from that of the curve.")
    model_sha256: str
    best_step: int = Field(description="Of the best validation; the model is that of this step.")
    cpu_time_s: float = Field(description="Of the training up to this step.")
    failures: int = Field(description="Measurements that failed.")
    headline: dict[str, str] = Field(description="Figures of the comparison's headline, and their titles there.")
    figures: dict[str, FigureSummary]


class Curve(_Frozen):
    """One figure against the number of training molecules, in ``unit``."""

    title: str
    unit: str
    shown: str
    definition: str
    floor: float | None = Field(description="What the same figure is without any error of the network, if known.")
    mean_law: PowerLaw | None = Field(description="Of the means over test molecules.")
    median_law: PowerLaw | None = Field(description="Of the medians, which outliers do not move.")


class LearningCurve(_Frozen):
    """All of ``learning_curve.json``."""

    schema_name: Literal["qcsurrogate-learning-curve"] = "qcsurrogate-learning-curve"
    schema_version: Literal[1] = CURVE_VERSION
    created: str
    versions: dict[str, str]
    kind: str
    data: str = Field(description="Name of the store's spec.")
    dataset_hash: str
    split_sizes: dict[str, int]
    config: dict[str, Any] = Field(description="Of every run, but for the seed; the preset's name included.")
    settings: Settings = Field(description="Of every comparison.")
    sizes: list[int]
    seeds: list[int]
    points: list[Point]
    unfinished: list[str] = Field(description="Folders of runs that ended at max_minutes; the same command goes on.")
    shown: list[str] = Field(description="The figures of the picture and of the text.")
    curves: dict[str, Curve] = Field(description="By figure.")

    def values(self, figure: str, statistic: str = "mean") -> tuple[list[int], list[float]]:
        """Sizes and values (n,) of a figure, point by point."""
        found = [(p.size, float(getattr(p.figures[figure], statistic))) for p in self.points if figure in p.figures]
        return [size for size, _ in found], [value for _, value in found]

    def spread(self, figure: str) -> list[tuple[int, float, float, float]]:
        """For each size the mean over seeds of the mean over molecules, its smallest and its largest value."""
        sizes, values = self.values(figure)
        rows = []
        for size in sorted(set(sizes)):
            own = [value for n, value in zip(sizes, values, strict=True) if n == size]
            rows.append((size, sum(own) / len(own), min(own), max(own)))
        return rows
