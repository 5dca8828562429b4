"""Measures predicted properties: the error of every target, beside what needs no network."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from qcsurrogate.comparison import figures as shared
from qcsurrogate.comparison import pictures
from qcsurrogate.comparison.figures import Figure
from qcsurrogate.comparison.headline import CHEMICAL_ACCURACY_HARTREE, Rule
from qcsurrogate.comparison.judge import Judge, finite
from qcsurrogate.comparison.measure import Measured, Values
from qcsurrogate.comparison.page import Picture, Section, Table, titled
from qcsurrogate.comparison.schema import Comparison
from qcsurrogate.comparison.text import number, readable
from qcsurrogate.quantities.property.model import Learned
from qcsurrogate.quantities.property.prediction import PropertyPrediction
from qcsurrogate.quantities.property.surrogate import PropertySurrogate
from qcsurrogate.store.store import Store
from qcsurrogate.tables.records import labelled
from qcsurrogate.tables.table import Table as LabelTable
from qcsurrogate.units import DEBYE_PER_ATOMIC_UNIT, HARTREE_PER_EV

Array = NDArray[np.float64]

STANDARDISED: Final = Figure(
    "standardised_error",
    "Error of all targets",
    "1",
    "mean over targets of |error| / spread, the spread of training labels around what needs no network",
)
WORST: Final = 5
"""Molecules that are named for every target."""

_ENERGIES: Final = ("energy", "U0", "U", "H", "G", "U0_atom", "U_atom", "H_atom", "G_atom")
ACCURACY: Final = {
    "mu": 0.1 / DEBYE_PER_ATOMIC_UNIT,
    "alpha": 0.1,
    "homo": 0.043 * HARTREE_PER_EV,
    "lumo": 0.043 * HARTREE_PER_EV,
    "gap": 0.043 * HARTREE_PER_EV,
    "r2": 1.2,
    "zpve": 0.0012 * HARTREE_PER_EV,
    "Cv": 0.05,
    **dict.fromkeys(_ENERGIES, CHEMICAL_ACCURACY_HARTREE),
}
"""What is called chemical accuracy (Faber et al., J. Chem. Theory Comput. 2017, 13, 5255), in targets' units."""
_FAIR: Final = 5.0
"""Times chemical accuracy is fair still."""
_SHARED: Final = {figure.name: figure for figure in shared.SHARED}


def _figure(target: Learned) -> Figure:
    """The error of a target; a dipole's and a quadrupole's is that of all models."""
    name = f"{target.name}_error"
    if name in _SHARED and target.name in ("dipole", "quadrupole"):
        return _SHARED[name]
    difference = f"{target.name} - {target.name}_ref"
    words = f"Frobenius norm of {difference}" if target.spec.rank == "tensor" else f"|{difference}|"
    if target.spec.per_atom:
        words += ", mean over the atoms"
    if target.description:
        words += f"; {target.description}"
    return Figure(f"property_{name}" if name in _SHARED else name, target.name, target.unit, words, target.shown)


def _baseline(target: Learned) -> Figure:
    """The same without a network."""
    known = "what its elements contribute" if target.spec.references else "the mean of the training labels"
    if target.spec.readout in ("homo", "lumo", "gap"):
        known = "that of H0, shifted by a constant"
    if not target.spec.shape and target.spec.populations:
        known = "what elements and distances from the centre contribute"
    if target.spec.shape and not target.spec.references:
        known = "zero"
    own = _figure(target)
    return Figure(f"{own.name}_no_network", f"{own.title}, no network", own.unit, f"the same for {known}", own.shown)


class PropertyJudge(Judge):
    """See :class:`qcsurrogate.comparison.judge.Judge`."""

    def __init__(self, surrogate: PropertySurrogate) -> None:
        self._surrogate = surrogate
        self._targets = surrogate.model.targets
        self._drawn: dict[str, list[tuple[Array, Array]]] = defaultdict(list)

    @property
    def all_figures(self) -> Sequence[Figure]:
        return [STANDARDISED, *(f for t in self._targets for f in (_figure(t), _baseline(t)))]

    @property
    def all_rules(self) -> Sequence[Rule]:
        rules = []
        for target in self._targets:
            good = ACCURACY.get(target.name, np.inf)
            words = ("Within chemical accuracy.", "Beyond chemical accuracy.", "Far beyond chemical accuracy.")
            rules.append(
                Rule(
                    _figure(target).name,
                    f"{target.name} error",
                    (good, _FAIR * good),
                    words if np.isfinite(good) else ("", "", ""),
                    beats=(_baseline(target).name, "no network"),
                )
            )
        return rules

    def mismatches(self, store: Store | LabelTable, elements: Sequence[int]) -> list[str]:
        known = labelled(store).targets
        wrong = [f"target {t.name} is not among its labels" for t in self._targets if t.name not in known]
        return wrong + [
            f"{t.name} in {t.unit} against {known[t.name].unit}"
            for t in self._targets
            if t.name in known and known[t.name].unit != t.unit
        ]

    def measure(self, prediction: PropertyPrediction, reference: Measured, *, on_grid: bool) -> Values:
        guesses = self._surrogate.expected(reference.structure)
        values: Values = {}
        standardised = []
        for target in self._targets:
            own, truth = finite(prediction.values[target.name], target.name), reference.label(target.name)
            if own.shape != truth.shape:
                raise ValueError(f"{target.name} has the shape {own.shape}, its label {truth.shape}")
            values[_figure(target).name] = _error(own, truth, target)
            values[_baseline(target).name] = _error(guesses[target.name], truth, target)
            standardised.append(values[_figure(target).name] / target.spec.spread)
            shift = guesses[target.name] if target.spec.references else np.zeros(())
            self._drawn[target.name].append((np.ravel(truth - shift), np.ravel(own - shift)))
        return values | {STANDARDISED.name: float(np.mean(standardised))}

    def sections(self, comparison: Comparison, label: str) -> list[Section]:
        metrics = comparison.metrics[label]
        rows, worst = [], []
        for target in self._targets:
            own, without = metrics[_figure(target).name], metrics[_baseline(target).name]
            unit = readable(own.numbers, own.shown)
            share = f"{number(100 * own.mean / without.mean, 2)} %" if without.mean else ""
            rows.append((unit.label(target.name), f"{own.count:,}", *map(unit.number, own.numbers), share))
            name = _figure(target).name
            ranked = [m for m in comparison.molecules if name in m.values.get(label, {})]
            ranked.sort(key=lambda m, name=name: -m.values[label][name])  # type: ignore[misc]
            named = [f"{m.name} ({unit.text(m.values[label][name])})" for m in ranked[:WORST]]
            worst.append((target.name, ", ".join(named)))
        labels = [m.label for m in comparison.models if m.kind == self._surrogate.kind]
        return [
            Section(
                titled("Properties", label, labels),
                (
                    "Errors of molecules that the network was not trained on, if these are a test split. The last "
                    "column compares their mean with what needs no network: the contributions of the elements, or the "
                    "mean of the training labels.",
                ),
                tables=(
                    Table(("target", "molecules", "mean", "median", "95 %", "max", "of no network"), rows),
                    Table(("target", "worst molecules"), worst, text_columns=2, folded="The worst molecules by target"),
                ),
                pictures=[self._parity(target) for target in self._targets],
            )
        ]

    def _parity(self, target: Learned) -> Picture:
        truth, own = (np.concatenate(parts) for parts in zip(*self._drawn[target.name], strict=True))
        less = " less what its elements contribute" if target.spec.references else ""
        of = "component" if target.spec.shape else "atom" if target.spec.per_atom else "molecule"
        return Picture(
            f"{target.name}{less}",
            pictures.parity(truth, own, _in_drawings(target.name), target.shown),
            f"Scatter plot of predicted against reference {target.name}, with the errors below.",
            f"One point per {of} ({len(truth):,}). On the line is right; the lower panel shows how far off.",
        )


def _error(predicted: Array, truth: Array, target: Learned) -> float:
    """|difference|, its norm, or their mean over atoms."""
    wrong = np.asarray(predicted - truth)
    rows = wrong.reshape(len(wrong) if target.spec.per_atom else 1, -1)
    return float(np.linalg.norm(rows, axis=1).mean())


def _in_drawings(name: str) -> str:
    """A name from a file as text that cannot break a drawing."""
    return "".join(c if c.isalnum() or c in " ()_.-" else " " for c in name)[:40]
