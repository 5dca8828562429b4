"""The picture of a learning curve, in the style of the report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from qcsurrogate.comparison.pictures import MUTED, REFERENCE, SURROGATE, rendered
from qcsurrogate.comparison.text import readable
from qcsurrogate.curves.schema import LearningCurve, PowerLaw

_COLUMNS = 2
_PANEL_INCHES = (4.3, 3.3)
_NARROW = 10.0
"""A range below this has linear ticks."""


def draw(curve: LearningCurve, file_format: str) -> bytes:
    """One panel for each shown figure: seeds, their mean and spread, the law, the floor; ``svg`` or ``png``."""
    columns = min(_COLUMNS, len(curve.shown))
    n_rows = math.ceil(len(curve.shown) / columns)

    def panels(grid: Any) -> None:
        for axes, name in zip(grid.flat, curve.shown, strict=False):
            _panel(axes, curve, name)
        for axes in grid.flat[len(curve.shown) :]:
            axes.set_visible(False)

    size = (columns * _PANEL_INCHES[0], n_rows * _PANEL_INCHES[1])
    return rendered(panels, size, file_format, nrows=n_rows, ncols=columns, squeeze=False)


def _panel(axes: Axes, curve: LearningCurve, name: str) -> None:
    about = curve.curves[name]
    sizes, values = curve.values(name)
    spread = curve.spread(name)
    unit = readable((mean for _, mean, _, _ in spread), about.shown)
    n, mean, low, high = (np.array(column, dtype=np.float64) for column in zip(*spread, strict=True))
    mean, low, high = (array * unit.factor for array in (mean, low, high))
    axes.set(xscale="log", yscale="log" if low.min() > 0 else "linear")
    if len(values) > len(spread):
        axes.scatter(sizes, np.array(values) * unit.factor, s=14, color=SURROGATE, alpha=0.35, lw=0)
    axes.errorbar(n, mean, (mean - low, high - mean), color=SURROGATE, fmt="o", lw=1.2, ms=5, capsize=3)
    shown = [low.min(), high.max()]
    if (law := about.mean_law) is not None:
        line = np.geomspace(n[0], n[-1], 50)
        axes.plot(line, law.at(line) * unit.factor, color=REFERENCE, lw=1, ls=(0, (4, 2)), label=_law(law))
    if about.floor is not None and about.floor > 0:
        axes.axhline(about.floor * unit.factor, color=MUTED, lw=1.5, ls=":", label="floor of the labels")
        shown.append(about.floor * unit.factor)
    axes.set(title=about.title, xlabel="training molecules", ylabel=unit.label("mean error"))
    axes.title.set_fontsize(10)
    _ticks(axes, [int(size) for size in n], min(shown), max(shown))
    if axes.get_legend_handles_labels()[1]:
        axes.legend(loc="best")


def _law(law: PowerLaw) -> str:
    error = "" if law.exponent_error is None else rf" \pm {law.exponent_error:.2f}"
    return rf"$\propto N^{{{-law.exponent:.2f}{error}}}$"


def _ticks(axes: Axes, sizes: Sequence[int], low: float, high: float) -> None:
    """Every size that has room has its tick; the values have plain ones, and room of their own."""
    kept = sizes[-1:]
    room = (sizes[-1] / sizes[0]) ** 0.09
    for size in reversed(sizes[:-1]):
        if kept[0] / size >= room:
            kept = [size, *kept]
    axes.set_xticks(kept, [f"{size:,}" for size in kept])
    axes.xaxis.set_minor_locator(NullLocator())
    if axes.get_yscale() == "log":
        middle, width = math.sqrt(low * high), max(math.sqrt(high / low) * 1.25, 1.6)
        axes.set_ylim(middle / width, middle * width)
        narrow = width**2 < _NARROW
        axes.yaxis.set_major_locator(
            MaxNLocator(5, steps=[1, 2, 5, 10])
            if narrow
            else LogLocator(subs=(1.0, 2.0, 5.0) if width < _NARROW else (1.0,), numticks=8)
        )
        axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.4g}")
