"""Pictures: molecules beside what was made of them."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from ase.data import covalent_radii
from ase.data.colors import jmol_colors
from matplotlib.axes import Axes
from numpy.typing import NDArray

from qcsurrogate.comparison.pictures import INK, MUTED, rendered
from qcsurrogate.quantities.autoencoder.prediction import AutoencoderPrediction
from qcsurrogate.sources.bonds import bonded
from qcsurrogate.units import ANGSTROM_PER_BOHR

Array = NDArray[np.float64]

_WRONG: Final = "#be123c"


def beside(predictions: Sequence[AutoencoderPrediction]) -> str:
    """Molecules in the upper row, their reconstructions below, seen along the shortest principal axis, as a data URI.

    Lines are the bonds of the molecule, drawn again between the same atoms below; atoms that were made as
    another element have a red rim.
    """

    def draw(axes: Any) -> None:
        for column, prediction in zip(np.reshape(axes, (2, -1)).T, predictions, strict=True):
            structure = prediction.structure
            centre = structure.positions.mean(0)
            view = np.linalg.svd(structure.positions - centre, full_matrices=True)[2]
            bonds = np.argwhere(np.triu(bonded(structure))).astype(np.int64)
            made = prediction.reconstructed_positions
            numbers = prediction.reconstructed_numbers.astype(np.int64)
            own = (structure.positions - centre) @ view.T
            for axis, places, kinds in zip(
                column, (own, (made - centre) @ view.T), (structure.atomic_numbers, numbers), strict=True
            ):
                _molecule(axis, places * ANGSTROM_PER_BOHR, kinds, bonds, kinds != structure.atomic_numbers)
                reach = 1.1 + np.abs(own[:, :2]).max() * ANGSTROM_PER_BOHR
                axis.set(xlim=(-reach, reach), ylim=(-reach, reach))
            column[0].set_title(structure.formula, fontsize=9)
        first = np.reshape(axes, (2, -1))[:, 0]
        for axis, name in zip(first, ("molecule", "reconstruction"), strict=True):
            axis.set_ylabel(name)

    return data_uri(rendered(draw, (2.0 * len(predictions), 4.2), nrows=2, ncols=len(predictions)))


def _molecule(
    axes: Axes, places: Array, numbers: NDArray[np.int64], bonds: NDArray[np.int64], wrong: NDArray[np.bool_]
) -> None:
    """Atoms as discs, near ones above far ones; places (n, 3) in Angstrom."""
    for i, j in bonds:
        axes.plot(places[[i, j], 0], places[[i, j], 1], color=MUTED, lw=1.5, zorder=1)
    order = np.argsort(places[:, 2])
    axes.scatter(
        places[order, 0],
        places[order, 1],
        s=170 * covalent_radii[numbers[order]],
        c=jmol_colors[numbers[order]],
        edgecolors=[_WRONG if bad else INK for bad in wrong[order]],
        linewidths=[2.0 if bad else 0.6 for bad in wrong[order]],
        zorder=2,
    )
    axes.set(aspect="equal", xticks=[], yticks=[])
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def data_uri(content: bytes) -> str:
    """An SVG drawing for a page."""
    return "data:image/svg+xml;base64," + base64.b64encode(content).decode()
