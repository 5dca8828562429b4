"""The pictures of the report: matplotlib figures as self-contained SVG.

Nothing in a picture comes from a file's text (names of molecules stand in the captions,
which the template escapes), so that no name can break a drawing.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, Concatenate, ParamSpec, cast

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, PercentFormatter
from numpy.typing import ArrayLike, NDArray

from qcsurrogate.comparison.showcase import PlaneDensities
from qcsurrogate.comparison.subjects import Curve
from qcsurrogate.comparison.text import Unit, number, readable
from qcsurrogate.units import ANGSTROM_PER_BOHR, EV_PER_HARTREE

Array = NDArray[np.float64]
P = ParamSpec("P")

INK = "#1f2937"
MUTED = "#94a3b8"
REFERENCE = "#334155"
SURROGATE = "#0d7d72"
SERIES = (SURROGATE, "#c2410c", "#4f46e5", "#a16207", "#be185d")

_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "font.family": "DejaVu Sans",
    "axes.edgecolor": "#cbd5e1",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#eef2f6",
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.hashsalt": "qcsurrogate",  # the same data gives the same file
}
_RASTERISE_ABOVE = 1500
_LINEAR_BELOW = 10.0
_MARKED_POINTS = 40
_IN_PLANE_ANGSTROM = 0.3
_DARK = 0.55


def rendered(
    draw: Callable[[Any], None], size: tuple[float, float], file_format: str = "svg", **subplots: Any
) -> bytes:
    """A file with what ``draw`` draws into axes, in the style of all pictures; the same data gives the same file."""
    with mpl.rc_context(_STYLE):
        canvas = Canvas(figsize=size, layout="constrained")
        draw(canvas.subplots(**subplots))
        buffer = io.BytesIO()
        dated = {"Date": None} if file_format == "svg" else {}
        canvas.savefig(buffer, format=file_format, dpi=160, metadata=dated)
    return buffer.getvalue()


def _drawn(
    size: tuple[float, float] = (4.8, 3.4), **subplots: Any
) -> Callable[[Callable[Concatenate[Any, P], None]], Callable[P, str]]:
    """Make what draws into axes return the drawing as a data URI."""

    def decorate(draw: Callable[Concatenate[Any, P], None]) -> Callable[P, str]:
        @wraps(draw)
        def drawing(*args: P.args, **kwargs: P.kwargs) -> str:
            content = rendered(lambda axes: draw(axes, *args, **kwargs), size, **subplots)
            return "data:image/svg+xml;base64," + base64.b64encode(content).decode()

        return drawing

    return decorate


def _resize(axes: Axes, width: float, height: float) -> None:
    """Inches of the whole drawing."""
    cast(Canvas, axes.figure).set_size_inches(width, height)


def _scale(axes: Axes, which: str) -> None:
    """Logarithmic axes with a handful of plain numbers; linear where a factor of ten covers everything."""
    for name in which:
        axis = axes.xaxis if name == "x" else axes.yaxis
        low, high = axes.dataLim.intervalx if name == "x" else axes.dataLim.intervaly
        if low <= 0 or high / low < _LINEAR_BELOW:
            axis.set_major_locator(_linear_ticks())
        else:
            axes.set(**{f"{name}scale": "log"})
            axis.set_major_locator(_logarithmic_ticks(high / low))
            axis.set_minor_formatter(NullFormatter())
        axis.set_major_formatter(_plain_numbers)


def _linear_ticks() -> MaxNLocator:
    return MaxNLocator(5, steps=[1, 2, 5, 10])


def _logarithmic_ticks(ratio: float) -> LogLocator:
    """1, 2, 5, 10 for a few decades at most, powers of ten for more."""
    return LogLocator(subs=(1.0, 2.0, 5.0) if ratio < 80 else (1.0,), numticks=8)


def _plain_numbers(value: float, _: float | None = None) -> str:
    return f"{value:,.10g}" if value == 0 or 1e-4 <= abs(value) < 1e7 else number(value, 1)


def _floored(values: ArrayLike) -> Array:
    """Values for a logarithmic axis: what is zero is drawn at half of the smallest positive one."""
    array = np.asarray(values, dtype=np.float64)
    positive = array[array > 0]
    return np.maximum(array, 0.5 * float(positive.min()) if len(positive) else 1e-12)


@_drawn((4.8, 4.6), nrows=2, sharex=True, height_ratios=(3, 1.2))
def parity(both: Sequence[Axes], reference: Array, predicted: Array, label: str, shown: str = "eV") -> None:
    """Predicted against reference values (n,), and their difference below; energies in Hartree unless ``shown``."""
    upper, lower = both
    unit = readable([float(np.abs(predicted - reference).max())], shown)
    axis = Unit("eV", EV_PER_HARTREE) if shown == "eV" else readable([float(np.abs(reference).max())], shown)
    dots: dict[str, Any] = {"color": SURROGATE, "alpha": 0.6, "lw": 0, "rasterized": len(reference) > _RASTERISE_ABOVE}
    x, y = reference * axis.factor, predicted * axis.factor
    low, high = min(x.min(), y.min()), max(x.max(), y.max())
    pad = 0.05 * (high - low) or 0.5
    limits = (low - pad, high + pad)
    upper.plot(limits, limits, color=MUTED, lw=1)
    upper.scatter(x, y, s=11, **dots)
    upper.set(xlim=limits, ylim=limits, ylabel=axis.label("surrogate"))
    lower.axhline(0.0, color=MUTED, lw=1)
    lower.scatter(x, (predicted - reference) * unit.factor, s=9, **dots)
    lower.set(xlabel=axis.label(f"{label}, reference"), ylabel=unit.label("error"))
    lower.yaxis.set_major_formatter(_plain_numbers)
    upper.figure.align_ylabels()


@_drawn()
def heat_map(axes: Axes, rows: Sequence[str], columns: Sequence[str], values: Array, rule: int | None = None) -> None:
    """Mean errors (n_rows, n_columns) in Hartree, NaN where there is none.

    Names such as ``O 2p`` are grouped by what stands before the blank, which only the first
    of a group shows.  Above the row ``rule`` stands a line.  Columns without a value are left out.
    """
    filled = np.flatnonzero(np.isfinite(values).any(axis=0)).tolist()
    columns, values = [columns[j] for j in filled], values[:, filled]
    # a shell's label needs 0.2 inches at 8 points; a number in a cell 0.45 x 0.22
    annotated = len(columns) <= 10
    width, height = (0.55, 0.26 if len(rows) > 10 else 0.45) if annotated else (0.2, 0.2)
    _resize(axes, max(3.6, 1.9 + width * len(columns)), max(2.4, 0.7 + height * len(rows)))
    unit = readable(values.ravel(), "hartree")
    shown = values * unit.factor
    high = float(np.nanmax(shown)) or 1.0
    low = max(float(_floored(shown[np.isfinite(shown)]).min()), 1e-4 * high)
    narrow = high / low < _LINEAR_BELOW
    norm = Normalize(0.0, 1.3 * high) if narrow else LogNorm(low, high)
    image = axes.imshow(np.ma.masked_invalid(np.maximum(shown, low)), cmap="YlGnBu", norm=norm, aspect="auto")
    for axis, names, draw in ((axes.xaxis, columns, axes.axvline), (axes.yaxis, rows, axes.axhline)):
        groups = [name.split(" ")[0] for name in names]
        firsts = [i for i, group in enumerate(groups) if group not in groups[:i]]
        grouped = len(firsts) < len(names)
        short = [name if i in firsts else name.split(" ")[-1] for i, name in enumerate(names)]
        axis.set_ticks(range(len(names)), short, fontsize=8 if grouped else 10)
        for i in firsts[1:] if grouped else []:
            draw(i - 0.5, color="white", lw=1.5)
    axes.tick_params(axis="x", rotation=0 if annotated else 90)
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    if rule is not None:
        axes.axhline(rule - 0.5, color="white", lw=5)
    for (i, j), value in np.ndenumerate(values):
        if annotated and np.isfinite(value):
            colour = "white" if norm(max(float(shown[i, j]), low)) > _DARK else INK
            axes.text(j, i, unit.number(value, digits=2), ha="center", va="center", fontsize=8, color=colour)
    ticks = _linear_ticks() if narrow else _logarithmic_ticks(high / low)
    _colour_bar(axes, image, unit.label("mean error"), ticks=ticks, format=_plain_numbers)


def _colour_bar(axes: Axes, image: Any, label: str, **options: Any) -> None:
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.85, **options)
    bar.minorticks_off()
    bar.set_label(label)
    bar.outline.set_visible(False)


@_drawn()
def scatter(
    axes: Axes,
    x: ArrayLike,
    y: ArrayLike,
    labels: tuple[str, str],
    *,
    logarithmic: str = "xy",
    bars: Sequence[tuple[float, float, float]] = (),
) -> None:
    """Points (n,), and as bars the means of stretches: (start, stop, mean)."""
    x, y = (_floored(v) if name in logarithmic else np.asarray(v) for v, name in ((x, "x"), (y, "y")))
    dots: Any = {"s": 7, "color": MUTED, "alpha": 0.45} if bars else {"s": 22, "color": SURROGATE, "alpha": 0.75}
    axes.scatter(x, y, lw=0, rasterized=len(x) > _RASTERISE_ABOVE, label="pair of atoms", **dots)
    for i, (start, stop, mean) in enumerate(bars):
        label = "" if i else "mean"
        axes.plot([start - 0.01, stop + 0.01], [max(mean, y.min())] * 2, color=SURROGATE, lw=3, label=label)
    axes.set(xlabel=labels[0], ylabel=labels[1])
    _scale(axes, logarithmic)
    if bars:
        axes.figure.legend(loc="outside upper center", ncols=2)


@_drawn()
def calibration(axes: Axes, expected: ArrayLike, actual: ArrayLike, label: str) -> None:
    """Actual over expected errors (n,), both logarithmic, with the line where they agree; ``label`` takes which one."""
    x, y = _floored(expected), _floored(actual)
    both = np.array([min(x.min(), y.min()), max(x.max(), y.max())]) * (0.1, 10.0)
    axes.fill_between(both, both / 2, both * 2, color=MUTED, alpha=0.15, lw=0)
    axes.plot(both, both, color=MUTED, lw=1)
    axes.scatter(x, y, s=22, color=SURROGATE, alpha=0.75, lw=0, rasterized=len(x) > _RASTERISE_ABOVE)
    axes.set(xscale="log", yscale="log", xlabel=label.format("expected"), ylabel=label.format("actual"))
    for axis, values, limit in ((axes.xaxis, x, axes.set_xlim), (axes.yaxis, y, axes.set_ylim)):
        width = max(float(np.sqrt(values.max() / values.min())) * 1.3, 3.0)
        middle = float(np.sqrt(values.max() * values.min()))
        limit(middle / width, middle * width)
        axis.set_major_locator(_logarithmic_ticks(width**2))
        axis.set_major_formatter(_plain_numbers)
        axis.set_minor_formatter(NullFormatter())


@_drawn((4.8, 5.2))
def level_diagram(axes: Axes, reference: Array, predicted: Array, n_occupied: int) -> None:
    """Orbital energies (n,) of one molecule in Hartree: reference left, surrogate right, differences beside."""
    shown = _frontier(reference, n_occupied)
    unit = readable((predicted - reference)[shown], "eV")
    left, right = reference * EV_PER_HARTREE, predicted * EV_PER_HARTREE
    both = np.concatenate([left[shown], right[shown]])
    pad = 0.06 * float(np.ptp(both)) or 0.5
    spread = _spread([float(right[i]) for i in shown], 0.045 * (float(np.ptp(both)) + 2 * pad))
    for i, height in zip(shown, spread, strict=True):
        style: Any = "-" if i < n_occupied else (0, (3, 1.2))
        axes.plot([0.0, 0.8], [left[i]] * 2, color=REFERENCE, lw=2.2, ls=style)
        axes.plot([1.4, 2.2], [right[i]] * 2, color=SURROGATE, lw=2.2, ls=style)
        axes.plot([0.8, 1.4], [left[i], right[i]], color=MUTED, lw=0.7)
        axes.plot([2.2, 2.35], [right[i], height], color=MUTED, lw=0.6)
        axes.text(2.4, height, unit.number(predicted[i] - reference[i], sign=True), va="center", fontsize=8)
        if name := {n_occupied - 1: "HOMO", n_occupied: "LUMO"}.get(i):
            axes.text(-0.08, left[i], name, va="center", ha="right", fontsize=8)
    axes.set(xlim=(-0.75, 3.7), ylim=(min(both.min(), *spread) - pad, max(both.max(), *spread) + pad))
    axes.set(ylabel="orbital energy (eV)")
    axes.set_xticks([0.4, 1.8, 3.0], ["reference", "surrogate", unit.label("difference")])
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="x", visible=False)
    axes.spines["bottom"].set_visible(False)


CORE_HARTREE = -2.0
"""Below this, an orbital is core."""

_EMPTY_LEVELS = 4
_OCCUPIED_LEVELS = 14


def _frontier(reference: Array, n_occupied: int) -> list[int]:
    """Valence orbitals, at most 14 occupied ones, and the lowest four empty ones."""
    occupied = [i for i in range(n_occupied) if reference[i] > CORE_HARTREE][-_OCCUPIED_LEVELS:]
    empty = range(n_occupied, min(n_occupied + _EMPTY_LEVELS, len(reference)))
    return [*occupied, *empty] or list(range(n_occupied))


def _spread(heights: Sequence[float], distance: float) -> list[float]:
    """Ascending label heights moved apart until neighbours are ``distance`` away, as little as needed."""
    groups: list[tuple[float, int]] = []  # centre and size of runs of labels that touch
    for height in heights:
        centre, size = height, 1
        while groups and centre - 0.5 * size * distance < groups[-1][0] + 0.5 * groups[-1][1] * distance:
            other, count = groups.pop()
            centre, size = (centre * size + other * count) / (size + count), size + count
        groups.append((centre, size))
    return [centre + (k - 0.5 * (size - 1)) * distance for centre, size in groups for k in range(size)]


@_drawn((4.4, 3.8))
def plane_picture(axes: Axes, shown: PlaneDensities, name: str | None, limit: float) -> None:
    """A density, or a named difference, on the molecule's plane with its nuclei marked.

    Args:
        shown: the densities.
        name: which difference; None for the Kohn-Sham density itself.
        limit: the largest value of the colour scale of differences, electrons / bohr^3.
    """
    width = shown.plane.half_width * ANGSTROM_PER_BOHR
    field: dict[str, Any] = {"origin": "lower", "extent": (-width, width, -width, width)}
    unit = readable([1.0 if name is None else limit], "e bohr^-3")
    if name is None:
        image = axes.imshow(np.maximum(shown.kohn_sham, 1e-3), cmap="Blues", norm=LogNorm(1e-3, 10.0), **field)
    else:
        ends = limit * unit.factor
        image = axes.imshow(shown.differences[name] * unit.factor, cmap="RdBu_r", vmin=-ends, vmax=ends, **field)
    line = np.linspace(-width, width, len(shown.kohn_sham))
    levels = (0.01, 0.05, 0.1, 0.3, 1.0)
    if shown.kohn_sham.max() > levels[0]:
        axes.contour(line, line, shown.kohn_sham, levels=levels, colors="#64748b", linewidths=0.5, alpha=0.6)
    in_plane, heights = (a * ANGSTROM_PER_BOHR for a in shown.plane.coordinates(shown.structure.positions))
    for (x, y), height, symbol in zip(in_plane, heights, shown.structure.symbols, strict=True):
        opacity = 0.45 if abs(height) > _IN_PLANE_ANGSTROM else 0.95
        box = {"boxstyle": "circle,pad=0.18", "fc": "white", "ec": REFERENCE, "lw": 0.7, "alpha": opacity}
        axes.text(x, y, symbol, ha="center", va="center", fontsize=8, alpha=opacity, bbox=box)
    axes.set(xlabel="Å", ylabel="Å", aspect="equal")
    axes.grid(False)
    _colour_bar(axes, image, unit.symbol, format=_plain_numbers)


@_drawn()
def boxes(axes: Axes, values: Mapping[str, Sequence[float]], label: str, highlighted: Sequence[str]) -> None:
    """One horizontal box per name, logarithmic, with every value as a point."""
    names = list(values)[::-1]
    _resize(axes, 5.2, 1.1 + 0.55 * len(names))
    rng = np.random.default_rng(0)
    for height, name in enumerate(names):
        points = _floored(values[name])
        colour = SURROGATE if name in highlighted else MUTED
        low, first, median, third, high = np.percentile(points, (5, 25, 50, 75, 95))
        axes.fill_betweenx([height - 0.25, height + 0.25], first, third, color=colour, alpha=0.2, lw=0)
        axes.plot([low, high], [height] * 2, color=colour, lw=1)
        axes.plot([median] * 2, [height - 0.25, height + 0.25], color=colour, lw=2.2)
        heights = height + rng.uniform(-0.16, 0.16, len(points))
        axes.scatter(points, heights, s=6, color=colour, alpha=0.6, lw=0, zorder=3)
    axes.set(xlabel=label)
    axes.set_yticks(range(len(names)), names)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    _scale(axes, "x")


@_drawn()
def cycle_histogram(axes: Axes, minao: Sequence[int], surrogate: Sequence[int]) -> None:
    """How many SCFs took how many cycles."""
    highest = max([*minao, *surrogate])
    kinds = (-0.2, surrogate, SURROGATE, "from the surrogate"), (0.2, minao, MUTED, "from minao")
    for shift, values, colour, label in kinds:
        counts = np.bincount(values, minlength=highest + 1)[1:]
        axes.bar(np.arange(1, highest + 1) + shift, counts, width=0.4, color=colour, label=label)
    axes.set(xlabel="SCF cycles", ylabel="molecules", xlim=(0.3, highest + 0.7))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="x", visible=False)
    axes.figure.legend(loc="outside upper center", ncols=2)


@_drawn()
def learning_curve(axes: Axes, curves: Mapping[str, Curve], stored: str, label: str) -> None:
    """Columns of a training log, whose values have one stored unit, over time."""
    values = readable((v for c in curves.values() for v in c.values), stored)
    time = readable([max(c.seconds[-1] for c in curves.values())], "s")
    for colour, (name, curve) in zip(SERIES, curves.items(), strict=False):
        marker = "o" if len(curve.values) < _MARKED_POINTS else None
        x, y = np.asarray(curve.seconds) * time.factor, np.asarray(curve.values) * values.factor
        axes.plot(x, y, color=colour, lw=1.5, marker=marker, ms=3, label=name)
    _scale(axes, "y")
    axes.set(xlabel=time.label("training time"), ylabel=values.label(label))
    if len(curves) > 1:
        axes.figure.legend(loc="outside upper center", ncols=2)


@_drawn()
def spread_of_errors(axes: Axes, values: ArrayLike, label: str) -> None:
    """Share of molecules whose error is at most so large."""
    axes.ecdf(_floored(values), color=SURROGATE)
    axes.set(xlabel=label, ylabel="molecules")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    _scale(axes, "x")
