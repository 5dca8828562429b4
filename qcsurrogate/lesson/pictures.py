"""The pictures of the lesson, in the style of the report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

from qcsurrogate.comparison.pictures import INK, MUTED, SERIES, rendered
from qcsurrogate.comparison.text import number
from qcsurrogate.lesson.algebra import periodic_convolution
from qcsurrogate.lesson.contest import Result
from qcsurrogate.lesson.poses import Poses

Array = NDArray[np.float64]

_COLOURS = {1: "#dbe4ee", 6: "#3f4a5a", 7: "#3b5bdb", 8: "#e03131"}
_OTHER = "#a16207"
_VIEW = (28.0, -64.0)
_MARKERS = ("o", "s", "^", "D", "v")


def draw_poses(seen: Poses, file_format: str) -> bytes:
    """2 x 2 clouds of points: above the atoms, below what the network holds of them; left as given, right turned."""

    def panels(grid: Any) -> None:
        for row, clouds, name in ((0, seen.places, "atoms"), (1, seen.embeddings, "embeddings")):
            half = 0.55 * float(np.ptp(clouds.reshape(-1, 3), axis=0).max())
            middle = 0.5 * (clouds.reshape(-1, 3).max(axis=0) + clouds.reshape(-1, 3).min(axis=0))
            for column, pose in ((0, "as given"), (1, "turned")):
                axes = grid[row, column]
                _cloud(axes, seen, clouds[column], bonds=row == 0)
                for set_limit, centre in zip((axes.set_xlim, axes.set_ylim, axes.set_zlim), middle, strict=True):
                    set_limit(centre - half, centre + half)
                axes.set_title(f"{name}, {pose}", fontsize=10)

    return rendered(panels, (7.2, 7.0), file_format, nrows=2, ncols=2, subplot_kw={"projection": "3d"})


def _cloud(axes: Any, seen: Poses, points: Array, *, bonds: bool) -> None:
    """One panel; atoms from back to front, so that a number is hidden where its atom is."""
    axes.computed_zorder = False
    axes.view_init(*_VIEW)
    azimuth, elevation = np.radians(_VIEW[1]), np.radians(_VIEW[0])
    toward = np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])
    if bonds:
        for i, j in seen.bonds.tolist():
            axes.plot(*points[[i, j]].T, color=MUTED, lw=1.6, zorder=1)
    for order, atom in enumerate(np.argsort(points @ toward).tolist()):
        z = int(seen.atomic_numbers[atom])
        colour = _COLOURS.get(z, _OTHER)
        axes.scatter(*points[atom], s=190, color=colour, edgecolor=INK, lw=0.6, depthshade=False, zorder=2 + 2 * order)
        axes.text(
            *points[atom],
            str(z),
            color=readable_on(colour),
            ha="center",
            va="center",
            fontsize=8,
            fontweight="bold",
            zorder=3 + 2 * order,
        )
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.set_ticklabels([])
        axis.set_pane_color((0.97, 0.98, 0.99, 1.0))
    axes.set_box_aspect((1, 1, 1), zoom=1.12)


def readable_on(colour: str) -> str:
    """Ink or white, whichever has the higher contrast on a colour (WCAG 2)."""
    own = _luminance(colour) + 0.05
    return max((INK, "#ffffff"), key=lambda text: max(own / (_luminance(text) + 0.05), (_luminance(text) + 0.05) / own))


def _luminance(colour: str) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def draw_contest(results: Sequence[Result], file_format: str) -> bytes:
    """Errors over training molecules, CPU time and parameters: filled as given, open and dashed turned."""
    keys = list(dict.fromkeys(result.key for result in results))

    def panels(grid: Any) -> None:
        for colour, marker, key in zip(SERIES, _MARKERS, keys, strict=False):
            own = sorted((r for r in results if r.key == key), key=lambda r: r.n_train)
            _errors(grid[0], [r.n_train for r in own], own, colour, marker, own[0].title)
            _errors(grid[1], [own[-1].cpu_seconds], own[-1:], colour, marker, "")
            _errors(grid[2], [own[-1].n_parameters], own[-1:], colour, marker, "")
        most = f"{max(r.n_train for r in results):,} molecules"
        labels = ("training molecules", f"CPU time of training, {most} (s)", f"parameters, {most}")
        for axes, label in zip(grid, labels, strict=True):
            axes.set(xscale="log", yscale="log", xlabel=label)
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=9))
                axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
                axis.set_minor_formatter(NullFormatter())
        grid[0].set_ylabel("mean absolute test error of <r²> (a₀²)")
        sizes = sorted({r.n_train for r in results})
        grid[0].set_xticks(sizes, [f"{size:,}" for size in sizes])
        grid[0].plot([], [], color=MUTED, lw=1.4, marker="o", ms=5, label="test molecules as given")
        grid[0].plot([], [], color=MUTED, lw=1.2, ls="--", marker="o", mfc="white", ms=5, label="the same, turned")
        grid[0].figure.legend(loc="outside lower center", ncols=3)

    return rendered(panels, (10.6, 4.8), file_format, ncols=3, sharey=True)


def _errors(axes: Axes, x: Sequence[float], results: Sequence[Result], colour: str, marker: str, label: str) -> None:
    plain, turned = [r.error for r in results], [r.error_rotated for r in results]
    axes.plot(x, turned, color=colour, lw=1.2, ls="--", marker=marker, mfc="white", ms=9)
    axes.plot(x, plain, color=colour, lw=1.5, marker=marker, ms=5, label=label or None)


def draw_convolution(image: Array, kernel: Array, shift: tuple[int, int], file_format: str) -> bytes:
    """Moving and turning before and after a convolution, and what is left between the two orders."""

    def moved(x: Array) -> Array:
        return np.roll(x, shift, axis=(0, 1))

    def panels(grid: Any) -> None:
        convolved = periodic_convolution(image, kernel)
        most = float(np.abs(convolved).max())
        _pixels(grid[0, 0], image, float(image.max()), "image", "Greys", 0.0)
        _pixels(grid[1, 0], kernel, float(np.abs(kernel).max()), "kernel", "RdBu_r")
        for row, name, change in ((0, "moved", moved), (1, "turned", np.rot90)):
            before, after = periodic_convolution(change(image), kernel), change(convolved)
            _pixels(grid[row, 1], before, most, f"{name}, then convolved", "RdBu_r")
            _pixels(grid[row, 2], after, most, f"convolved, then {name}", "RdBu_r")
            left = float(np.abs(before - after).max()) / most
            _pixels(grid[row, 3], before - after, most, f"difference: up to {_percent(left)}", "RdBu_r")

    return rendered(panels, (10.6, 5.5), file_format, nrows=2, ncols=4)


def _percent(share: float) -> str:
    return "0" if share < 1e-12 else f"{number(100.0 * share, 2)} %"


def _pixels(axes: Axes, values: Array, most: float, title: str, colours: str, least: float | None = None) -> None:
    axes.imshow(values, cmap=colours, vmin=-most if least is None else least, vmax=most, interpolation="nearest")
    axes.set_title(title, fontsize=10)
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
