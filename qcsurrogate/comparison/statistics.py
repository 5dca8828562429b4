"""How every figure of a comparison is summarised."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Summary:
    """A distribution in five numbers, all in ``unit``.

    Attributes:
        count: how many values went in.
        mean, median, p95, max: of these values; p95 is the 95th percentile.
    """

    unit: str
    count: int
    mean: float
    median: float
    p95: float
    max: float


def summarise(values: ArrayLike, unit: str) -> Summary:
    """Mean, median, 95th percentile and maximum of (n,) values.

    Raises:
        ValueError: if there is no value, or one that is not finite.
    """
    numbers = np.asarray(values, dtype=np.float64).ravel()
    if numbers.size == 0 or not np.isfinite(numbers).all():
        raise ValueError(f"expected one or more finite values to summarise, got {numbers.tolist()[:5]}")
    return Summary(
        unit=unit,
        count=int(numbers.size),
        mean=float(numbers.mean()),
        median=float(np.median(numbers)),
        p95=float(np.percentile(numbers, 95)),
        max=float(numbers.max()),
    )
