"""Tables of the report, and the words for numbers in them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcsurrogate.comparison.figures import FIGURE
from qcsurrogate.comparison.page import Table
from qcsurrogate.comparison.schema import Comparison, Distribution, PairSummary
from qcsurrogate.comparison.text import number
from qcsurrogate.units import MICROHARTREE_PER_HARTREE


def figure_values(comparison: Comparison, label: str, name: str) -> list[float]:
    """A figure of every molecule that has it."""
    return [m.values[label][name] for m in comparison.molecules if name in m.values.get(label, {})]


def figure_table(comparison: Comparison, label: str, names: Sequence[str], caption: str = "") -> Table | None:
    """The named figures of one model, in the units of the report; None where it has none of them."""
    found = comparison.metrics[label]
    rows = [
        (f"{FIGURE[n].title} ({FIGURE[n].shown_unit})", str(found[n].count), *five(found[n], FIGURE[n].shown_factor))
        for n in names
        if n in found
    ]
    return Table(("", "molecules", "mean", "median", "95 %", "max"), rows, caption) if rows else None


def five(summary: Distribution, factor: float) -> tuple[str, ...]:
    """Mean, median, 95th percentile and maximum as text."""
    return tuple(number(v * factor) for v in (summary.mean, summary.median, summary.p95, summary.max))


def five_of(values: Sequence[float]) -> tuple[str, ...]:
    """The same of (n,) values."""
    array = np.asarray(values)
    return tuple(number(float(v)) for v in (array.mean(), np.median(array), np.percentile(array, 95), array.max()))


def pair_table(pairs: Sequence[PairSummary], worst: int | None = None) -> Table:
    """Pairs by falling error, all or only the worst."""
    ordered = sorted(pairs, key=lambda p: p.mean, reverse=True)[:worst]
    return Table(
        ("pair", "atoms", "blocks", "mean (µEh)", "median", "95 %", "max"),
        [(f"{p.first} - {p.second}", p.atoms, f"{p.count:,}", *five(p, MICROHARTREE_PER_HARTREE)) for p in ordered],
        caption="" if worst is None or len(pairs) <= worst else f"The worst {worst} of {len(pairs)}",
        text_columns=2,
    )
