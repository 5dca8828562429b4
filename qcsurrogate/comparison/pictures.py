"""The pictures of the report: matplotlib figures as self-contained SVG.

Nothing in a picture comes from a file's text (names of molecules stand in the captions,
which the template escapes), so that no name can break a drawing.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, ScalarFormatter
from numpy.typing import NDArray

from qcsurrogate.comparison.showcase import Levels, PlaneDensities
from qcsurrogate.comparison.subjects import Curve
from qcsurrogate.comparison.text import number
from qcsurrogate.units import ANGSTROM_PER_BOHR, EV_PER_HARTREE, MICROHARTREE_PER_HARTREE, MILLIELECTRONVOLT_PER_HARTREE

Array = NDArray[np.float64]

INK = "#1f2937"
MUTED = "#94a3b8"
REFERENCE = "#334155"
SURROGATE = "#0d7d72"
ACCENT = "#c2410c"
SERIES = (SURROGATE, ACCENT, "#4f46e5", "#a16207", "#be185d")

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
    "svg.hashsalt": "qcsurrogate",  # the same data gives the same file
}
_SIZE = (4.8, 3.7)
_RASTERISE_ABOVE = 1500
_LINEAR_BELOW = 3.0
_MARKED_POINTS = 40
_IN_PLANE_ANGSTROM = 0.3


@contextmanager
def _canvas(size: tuple[float, float] = _SIZE) -> Iterator[tuple[Canvas, Axes]]:
    with mpl.rc_context(_STYLE):
        canvas = Canvas(figsize=size, layout="constrained")
        yield canvas, canvas.subplots()


def _svg(canvas: Canvas) -> str:
    """A drawing as a data URI."""
    buffer = io.BytesIO()
    canvas.savefig(buffer, format="svg", dpi=160, metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def _scale(axes: Axes, which: str) -> None:
    """Logarithmic axes with a handful of plain numbers; linear where a factor of three covers everything."""
    for name in which:
        axis = axes.xaxis if name == "x" else axes.yaxis
        low, high = axes.dataLim.intervalx if name == "x" else axes.dataLim.intervaly
        if low <= 0 or high / low < _LINEAR_BELOW:
            axis.set_major_locator(MaxNLocator(5))
            continue
        axes.set(**{f"{name}scale": "log"})
        axis.set_major_locator(_logarithmic_ticks(high / low))
        axis.set_major_formatter(_plain_numbers)
        axis.set_minor_formatter(NullFormatter())


def _logarithmic_ticks(ratio: float) -> LogLocator:
    """1, 2, 5, 10 for a few decades at most, powers of ten for more."""
    return LogLocator(subs=(1.0, 2.0, 5.0) if ratio < 80 else (1.0,), numticks=8)


def _plain_numbers(value: float, _: float | None = None) -> str:
    if 1e3 <= abs(value) < 1e7:
        return f"{value:,.0f}"
    return f"{value:.3g}" if 1e-4 <= abs(value) < 1e3 or value == 0 else f"{value:.0e}"


def _floored(values: Array) -> Array:
    """Values for a logarithmic axis: what is zero is drawn at half of the smallest positive one."""
    positive = values[values > 0]
    return np.maximum(values, 0.5 * float(positive.min()) if len(positive) else 1e-12)


def parity(reference: Array, predicted: Array, label: str) -> str:
    """Predicted against reference energies (n,) in eV, and their difference below."""
    with mpl.rc_context(_STYLE):
        canvas = Canvas(figsize=(4.8, 4.6), layout="constrained")
        upper, lower = canvas.subplots(2, 1, sharex=True, height_ratios=(3, 1.2))
        low, high = float(min(reference.min(), predicted.min())), float(max(reference.max(), predicted.max()))
        pad = 0.05 * (high - low) or 0.5
        limits = (low - pad, high + pad)
        many = len(reference) > _RASTERISE_ABOVE
        upper.plot(limits, limits, color=MUTED, lw=1)
        upper.scatter(reference, predicted, s=11, color=SURROGATE, alpha=0.6, lw=0, rasterized=many)
        upper.set(xlim=limits, ylim=limits, ylabel="surrogate (eV)")
        lower.axhline(0.0, color=MUTED, lw=1)
        lower.scatter(reference, 1e3 * (predicted - reference), s=9, color=SURROGATE, alpha=0.6, lw=0, rasterized=many)
        lower.set(xlabel=f"{label}, reference (eV)", ylabel="error (meV)")
        canvas.align_ylabels()
        return _svg(canvas)


def element_heat_map(elements: Sequence[str], same_atom: Array, different_atoms: Array) -> str:
    """Mean errors (µEh) of blocks of one atom (n,), and of pairs of atoms (n, n), NaN where there is none."""
    return _heat_map(
        [*elements, "one atom"],
        elements,
        np.vstack([different_atoms, same_atom]),
        size=(max(3.6, 1.6 + 0.75 * len(elements)), max(2.9, 1.2 + 0.6 * (len(elements) + 1))),
        annotate=True,
        rule=len(elements),
    )


def shell_heat_map(shells: Sequence[str], errors: Array) -> str:
    """Mean errors (µEh) of blocks of pairs of shells, (n, n), NaN where there is none."""
    side = max(4.0, 1.4 + 0.34 * len(shells))
    return _heat_map(shells, shells, errors, size=(side + 0.6, side), annotate=len(shells) <= 10, rule=None)


def _heat_map(
    rows: Sequence[str],
    columns: Sequence[str],
    values: Array,
    *,
    size: tuple[float, float],
    annotate: bool,
    rule: int | None,
) -> str:
    with _canvas(size) as (canvas, axes):
        floored = _floored(values[np.isfinite(values)])
        low, high = float(floored.min()), float(floored.max())
        narrow = high / low < _LINEAR_BELOW
        norm = Normalize(0.0, 1.3 * high) if narrow else LogNorm(low, high)
        image = axes.imshow(np.ma.masked_invalid(np.maximum(values, low)), cmap="YlGnBu", norm=norm, aspect="auto")
        axes.set_xticks(range(len(columns)), columns, rotation=90 if len(columns) > 6 else 0)
        axes.set_yticks(range(len(rows)), rows)
        axes.grid(False)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        if rule is not None:
            axes.axhline(rule - 0.5, color="white", lw=5)
        if annotate:
            for (i, j), value in np.ndenumerate(values):
                if np.isfinite(value):
                    dark = norm(max(value, low)) > 0.55
                    axes.text(
                        j, i, number(value, 2), ha="center", va="center", fontsize=8, color="white" if dark else INK
                    )
        ticks = MaxNLocator(5) if narrow else _logarithmic_ticks(high / low)
        bar = canvas.colorbar(image, ax=axes, shrink=0.9, ticks=ticks, format=_plain_numbers)
        bar.minorticks_off()
        bar.set_label("mean error (µEh)")
        bar.outline.set_visible(False)
        return _svg(canvas)


def error_by_distance(distances: Array, errors: Array, bins: Sequence[tuple[float, float, float]]) -> str:
    """Block errors (n,) in Hartree over distances (n,) in Angstrom; bins are (start, stop, mean)."""
    with _canvas() as (canvas, axes):
        axes.scatter(
            distances,
            _floored(errors) * MICROHARTREE_PER_HARTREE,
            s=7,
            color=MUTED,
            alpha=0.45,
            lw=0,
            rasterized=len(errors) > _RASTERISE_ABOVE,
            label="pair of atoms",
        )
        for i, (start, stop, mean) in enumerate(bins):
            axes.plot(
                [start, stop],
                [max(mean * MICROHARTREE_PER_HARTREE, 1e-6)] * 2,
                color=SURROGATE,
                lw=3,
                solid_capstyle="butt",
                label="mean" if i == 0 else None,
            )
        axes.set(xlabel="distance (Å)", ylabel="mean error of the block (µEh)")
        _scale(axes, "y")
        axes.legend(loc="best", fontsize=9)
        return _svg(canvas)


def level_diagram(levels: Levels) -> str:
    """Orbital energies of one molecule: reference left, surrogate right, differences beside."""
    shown = _frontier(levels)
    with _canvas((4.8, 5.2)) as (canvas, axes):
        reference = levels.reference * EV_PER_HARTREE
        predicted = levels.predicted * EV_PER_HARTREE
        for i in shown:
            style: Any = "-" if i < levels.n_occupied else (0, (3, 1.2))
            axes.plot([0.0, 0.8], [reference[i]] * 2, color=REFERENCE, lw=2.2, ls=style)
            axes.plot([1.4, 2.2], [predicted[i]] * 2, color=SURROGATE, lw=2.2, ls=style)
            axes.plot([0.8, 1.4], [reference[i], predicted[i]], color=MUTED, lw=0.7)
        low, high = min(reference[shown].min(), predicted[shown].min()), reference[shown].max()
        high = max(high, predicted[shown].max())
        pad = 0.06 * (high - low) or 0.5
        spread = _spread([float(predicted[i]) for i in shown], 0.045 * (high - low + 2 * pad))
        for i, height in zip(shown, spread, strict=True):
            difference = (levels.predicted[i] - levels.reference[i]) * MILLIELECTRONVOLT_PER_HARTREE
            axes.plot([2.2, 2.35], [predicted[i], height], color=MUTED, lw=0.6)
            axes.text(2.4, height, f"{difference:+.3g} meV", va="center", fontsize=8)
        homo, lumo = levels.n_occupied - 1, levels.n_occupied
        for i, name in ((homo, "HOMO"), (lumo, "LUMO")):
            if i in shown:
                axes.text(-0.08, reference[i], name, va="center", ha="right", fontsize=8)
        axes.set(
            xlim=(-0.75, 3.5), ylim=(min(low, *spread) - pad, max(high, *spread) + pad), ylabel="orbital energy (eV)"
        )
        axes.set_xticks([0.4, 1.8, 2.9], ["reference", "surrogate", "difference"])
        axes.tick_params(axis="x", length=0)
        axes.grid(axis="x", visible=False)
        axes.spines["bottom"].set_visible(False)
        return _svg(canvas)


CORE_HARTREE = -2.0
"""Below this, an orbital is core."""

_EMPTY_LEVELS = 4
_OCCUPIED_LEVELS = 14


def _frontier(levels: Levels) -> list[int]:
    """Valence orbitals, at most 14 occupied ones, and the lowest four empty ones."""
    occupied = [i for i in range(levels.n_occupied) if levels.reference[i] > CORE_HARTREE][-_OCCUPIED_LEVELS:]
    empty = range(levels.n_occupied, min(levels.n_occupied + _EMPTY_LEVELS, len(levels.reference)))
    return [*occupied, *empty] or list(range(levels.n_occupied))


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


def plane_picture(shown: PlaneDensities, name: str | None, limit: float) -> str:
    """A density, or a named difference, on the molecule's plane with its nuclei marked.

    Args:
        shown: the densities.
        name: which difference; None for the Kohn-Sham density itself.
        limit: the largest value of the colour scale of differences, electrons / bohr^3.
    """
    width = shown.plane.half_width * ANGSTROM_PER_BOHR
    extent = (-width, width, -width, width)
    with _canvas((4.4, 3.8)) as (canvas, axes):
        if name is None:
            image = axes.imshow(
                np.maximum(shown.kohn_sham, 1e-3), origin="lower", extent=extent, cmap="Blues", norm=LogNorm(1e-3, 10.0)
            )
        else:
            image = axes.imshow(
                shown.differences[name], origin="lower", extent=extent, cmap="RdBu_r", vmin=-limit, vmax=limit
            )
        line = np.linspace(-width, width, len(shown.kohn_sham))
        levels = (0.01, 0.05, 0.1, 0.3, 1.0)
        if shown.kohn_sham.max() > levels[0]:
            axes.contour(line, line, shown.kohn_sham, levels=levels, colors="#64748b", linewidths=0.5, alpha=0.6)
        in_plane, heights = shown.plane.coordinates(shown.structure.positions)
        for (x, y), height, symbol in zip(
            in_plane * ANGSTROM_PER_BOHR, heights * ANGSTROM_PER_BOHR, shown.structure.symbols, strict=True
        ):
            opacity = 0.45 if abs(height) > _IN_PLANE_ANGSTROM else 0.95
            axes.text(
                x,
                y,
                symbol,
                ha="center",
                va="center",
                fontsize=8,
                alpha=opacity,
                bbox={"boxstyle": "circle,pad=0.18", "fc": "white", "ec": REFERENCE, "lw": 0.7, "alpha": opacity},
            )
        axes.set(xlabel="Å", ylabel="Å", aspect="equal")
        axes.grid(False)
        numbers = ScalarFormatter(useMathText=True)
        numbers.set_powerlimits((-2, 3))
        bar = canvas.colorbar(image, ax=axes, shrink=0.82, format=None if name is None else numbers)
        bar.set_label("e / bohr³")
        bar.outline.set_visible(False)
        return _svg(canvas)


def boxes(values: Mapping[str, Sequence[float]], label: str, highlighted: Sequence[str]) -> str:
    """One horizontal box per name, logarithmic, with every value as a point."""
    names = list(values)
    with _canvas((5.2, 1.1 + 0.55 * len(names))) as (canvas, axes):
        rng = np.random.default_rng(0)
        for height, name in enumerate(reversed(names)):
            points = _floored(np.asarray(values[name]))
            colour = SURROGATE if name in highlighted else MUTED
            low, first, median, third, high = np.percentile(points, (5, 25, 50, 75, 95))
            axes.fill_betweenx([height - 0.25, height + 0.25], first, third, color=colour, alpha=0.2, lw=0)
            axes.plot([low, high], [height] * 2, color=colour, lw=1)
            axes.plot([median] * 2, [height - 0.25, height + 0.25], color=colour, lw=2.2)
            heights = height + rng.uniform(-0.16, 0.16, len(points))
            axes.scatter(points, heights, s=6, color=colour, alpha=0.6, lw=0, zorder=3)
        axes.set(xlabel=label)
        axes.set_yticks(range(len(names)), list(reversed(names)))
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        _scale(axes, "x")
        return _svg(canvas)


def cycle_histogram(minao: Sequence[int], surrogate: Sequence[int]) -> str:
    """How many SCFs took how many cycles."""
    with _canvas((4.8, 3.2)) as (canvas, axes):
        highest = max([*minao, *surrogate])
        cycles = np.arange(1, highest + 1)
        for shift, values, colour, label in (
            (-0.2, surrogate, SURROGATE, "from the surrogate"),
            (0.2, minao, MUTED, "from minao"),
        ):
            counts = np.bincount(values, minlength=highest + 1)[1:]
            axes.bar(cycles + shift, counts, width=0.4, color=colour, label=label)
        axes.set(xlabel="SCF cycles", ylabel="molecules", xlim=(0.3, highest + 0.7))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="x", visible=False)
        canvas.legend(loc="outside upper center", ncols=2, fontsize=9)
        return _svg(canvas)


def trust_scatter(commutators: Sequence[float], errors: Sequence[float], label: str) -> str:
    """A true error over the commutator norm (mEh), both logarithmic."""
    with _canvas((4.8, 3.4)) as (canvas, axes):
        axes.scatter(
            _floored(np.asarray(commutators)) * 1e3,
            _floored(np.asarray(errors)),
            s=22,
            color=SURROGATE,
            alpha=0.75,
            lw=0,
        )
        axes.set(xlabel="|FDS - SDF| (mEh): no reference needed", ylabel=label)
        _scale(axes, "xy")
        return _svg(canvas)


def learning_curve(curves: Mapping[str, Curve], label: str) -> str:
    """Columns of a training log over minutes."""
    with _canvas((4.8, 3.2)) as (canvas, axes):
        for colour, (name, curve) in zip(SERIES, curves.items(), strict=False):
            marker = "o" if len(curve.values) < _MARKED_POINTS else None
            axes.plot(curve.minutes, curve.values, color=colour, lw=1.5, marker=marker, ms=3, label=name)
        _scale(axes, "y")
        axes.set(xlabel="training time (minutes)", ylabel=label)
        if len(curves) > 1:
            canvas.legend(loc="outside upper center", ncols=2, fontsize=9)
        return _svg(canvas)


def spread_of_errors(values: Mapping[str, Sequence[float]], label: str) -> str:
    """Share of molecules whose error is at most so large, one line per name."""
    with _canvas((4.8, 3.2)) as (canvas, axes):
        for colour, (name, numbers) in zip(SERIES, values.items(), strict=False):
            ordered = np.sort(_floored(np.asarray(numbers)))
            axes.step(
                ordered, 100.0 * np.arange(1, len(ordered) + 1) / len(ordered), color=colour, where="post", label=name
            )
        axes.set(xlabel=label, ylabel="molecules (%)", ylim=(0, 102))
        _scale(axes, "x")
        if len(values) > 1:
            axes.legend(fontsize=9, loc="lower right")
        return _svg(canvas)
