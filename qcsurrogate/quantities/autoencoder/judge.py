"""Measures how well molecules come back from their embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final

import numpy as np

from qcsurrogate.comparison.embedding_map import draw_map, projected
from qcsurrogate.comparison.figures import Figure
from qcsurrogate.comparison.headline import Rule
from qcsurrogate.comparison.judge import Judge, finite
from qcsurrogate.comparison.measure import Measured, Values
from qcsurrogate.comparison.page import Picture, Section, Table, titled
from qcsurrogate.comparison.schema import Comparison
from qcsurrogate.comparison.text import number
from qcsurrogate.quantities.autoencoder.drawing import beside, data_uri
from qcsurrogate.quantities.autoencoder.prediction import AutoencoderPrediction
from qcsurrogate.quantities.autoencoder.surrogate import AutoencoderSurrogate
from qcsurrogate.units import ANGSTROM_PER_BOHR

RECONSTRUCTED_ANGSTROM: Final = 0.1
"""A molecule is reconstructed if its elements and its number of atoms are right and its RMSD is at most this."""
_DRAWN: Final = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Quantiles of the RMSD whose molecules are drawn."""
_COLOURS: Final = (("gap", "hartree"), ("energy", "hartree"))
"""By what a map is coloured, if it is known of all molecules: the first of these; else by the number of atoms."""


class AutoencoderJudge(Judge):
    """See :class:`qcsurrogate.comparison.judge.Judge`."""

    figures: ClassVar[Sequence[Figure]] = (
        Figure(
            "reconstruction_rmsd",
            "Reconstruction",
            "angstrom",
            "root-mean-square distance of the atoms from where they were made again, in the predicted pose and order",
            "Å",
        ),
        Figure("extent", "Extent of the molecule, no network", "angstrom", "the same for all atoms in the centre", "Å"),
        Figure("wrong_elements", "Wrong elements", "share", "share of the atoms made again as another element"),
        Figure("wrong_size", "Wrong number of atoms", "share", "1 where the embedding speaks of another number"),
        Figure(
            "not_reconstructed",
            "Not reconstructed",
            "share",
            f"1 unless elements and number of atoms are right and the RMSD is within {RECONSTRUCTED_ANGSTROM} Angstrom",
        ),
    )
    rules: ClassVar[Sequence[Rule]] = (
        Rule(
            "reconstruction_rmsd",
            "Reconstruction",
            (RECONSTRUCTED_ANGSTROM, 0.5),
            (
                "Bond lengths come back.",
                "Shape and connectivity come back, bond lengths do not.",
                "The embedding knows the shape only roughly.",
            ),
            beats=("extent", "all atoms in the centre"),
        ),
        Rule("wrong_elements", "Wrong elements", (0.001, 0.05)),
    )

    def __init__(self, surrogate: AutoencoderSurrogate) -> None:
        self._surrogate = surrogate
        self._seen: list[tuple[AutoencoderPrediction, dict[str, float]]] = []

    def measure(self, prediction: AutoencoderPrediction, reference: Measured, *, on_grid: bool) -> Values:
        finite(prediction.reconstructed_positions, "reconstruction")
        structure = prediction.structure
        extent = float(np.sqrt(np.square(structure.positions - structure.positions.mean(0)).sum(1).mean()))
        rmsd, wrong = prediction.reconstruction_rmsd * ANGSTROM_PER_BOHR, 1.0 - prediction.right_elements
        size = float(prediction.reconstructed_size != len(structure))
        failed = float(wrong > 0 or size > 0 or rmsd > RECONSTRUCTED_ANGSTROM)
        self._seen.append((prediction, reference.figures))
        return {
            "reconstruction_rmsd": rmsd,
            "extent": extent * ANGSTROM_PER_BOHR,
            "wrong_elements": wrong,
            "wrong_size": size,
            "not_reconstructed": failed,
        }

    def sections(self, comparison: Comparison, label: str) -> list[Section]:
        metrics = comparison.metrics[label]
        rmsd = metrics["reconstruction_rmsd"]
        shares = [
            ("within 0.1 Å, all elements right", 1.0 - metrics["not_reconstructed"].mean),
            ("elements right, of all atoms", 1.0 - metrics["wrong_elements"].mean),
            ("number of atoms right", 1.0 - metrics["wrong_size"].mean),
        ]
        rows = [(name, f"{rmsd.count:,}", f"{number(100 * share)} %") for name, share in shares]
        ranked = sorted((p for p, _ in self._seen), key=lambda p: p.reconstruction_rmsd)
        places = dict.fromkeys(round(q * (len(ranked) - 1)) for q in _DRAWN)
        shown = [ranked[i] for i in places]
        told = ", ".join(
            f"{p.structure.name or p.structure.formula} ({p.reconstruction_rmsd * ANGSTROM_PER_BOHR:.2f} Å)"
            for p in shown
        )
        labels = [m.label for m in comparison.models if m.kind == self._surrogate.kind]
        return [
            Section(
                titled("Molecules from their embeddings", label, labels),
                (
                    "A molecule is embedded, made again from the embedding alone, and put where it was by the pose and "
                    "the order that the network reads off it.",
                ),
                tables=(Table(("reconstructed", "molecules", "share"), rows),),
                pictures=(
                    Picture(
                        "Molecules and reconstructions",
                        beside(shown),
                        "Drawings of molecules, each above its reconstruction, from small to large errors.",
                        f"From small to large errors: {told}. Atoms with a red rim came back as another element.",
                        wide=True,
                    ),
                    self._map(),
                ),
            )
        ]

    def _map(self) -> Picture:
        points, shares = projected(np.stack([p.embedding for p, _ in self._seen]))
        label, values = "number of atoms", np.array([float(len(p.structure)) for p, _ in self._seen])
        for name, unit in _COLOURS:
            if all(name in figures for _, figures in self._seen):
                label, values = f"{name} ({unit})", np.array([figures[name] for _, figures in self._seen])
                break
        return Picture(
            "Map of the molecules",
            data_uri(draw_map(points, shares, values, label)),
            f"Scatter plot of embeddings on two principal components, coloured by {label}.",
            f"Embeddings of {len(points):,} molecules on their two principal components; colour: {label}.",
        )
