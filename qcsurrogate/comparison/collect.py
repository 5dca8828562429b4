"""Everything that a comparison gathers while it goes through the molecules."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from qcsurrogate.comparison.figures import Figure
from qcsurrogate.comparison.measure import Measured, Values
from qcsurrogate.comparison.metrics import rank_correlation
from qcsurrogate.comparison.schema import (
    Calibration,
    Failure,
    FigureSummary,
    Molecule,
    Saving,
    ScfComparison,
    Trust,
)
from qcsurrogate.errors import QCSurrogateError
from qcsurrogate.prediction.uncertainty import ExpectedError
from qcsurrogate.structures import Structure


@dataclass
class Collection:
    """What was measured so far.

    Attributes:
        structures: of all compared molecules, by key, in order.
        references: reference figures of each molecule.
        values: values[label][key][figure].
        expected: what was expected of a figure, and what half, 80 and 95 % stay within: expected[label][key][figure].
        scf: one entry per molecule of the SCF part.
        failures: what could not be measured.
        outside: names of molecules outside of each model's training data, or not known to be inside.
    """

    structures: dict[str, Structure] = field(default_factory=dict)
    references: dict[str, dict[str, float]] = field(default_factory=dict)
    values: dict[str, dict[str, Values]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(dict)))
    expected: dict[str, dict[str, Mapping[str, ExpectedError]]] = field(default_factory=lambda: defaultdict(dict))
    scf: list[ScfComparison] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    outside: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add_reference(self, key: str, reference: Measured) -> None:
        """Note a molecule and the figures of its record or row."""
        self.references[key] = reference.figures

    def fail(self, key: str, model: str, stage: str, error: BaseException | str) -> None:
        """Note that a molecule could not be measured in one respect."""
        plain = isinstance(error, str | QCSurrogateError)
        message = str(error) if plain else f"{type(error).__name__}: {error}"
        self.failures.append(
            Failure(key=key, name=name_of(self.structures[key], key), model=model, stage=stage, message=message)
        )

    def summaries(self, figures: Mapping[str, Iterable[Figure]]) -> dict[str, dict[str, FigureSummary]]:
        """Every figure of a model that has a value, in the order of the definitions."""
        return {
            label: {
                f.name: FigureSummary.of(
                    numbers, f.unit, title=f.title, definition=f.definition, shown=f.shown or f.unit
                )
                for f in figures[label]
                if (numbers := [values[f.name] for values in molecules.values() if f.name in values])
            }
            for label, molecules in self.values.items()
        }

    def savings(self) -> dict[str, Saving]:
        """What each model that starts SCFs saves them."""
        labels = sorted({label for row in self.scf for label in row.surrogates})
        return {label: self._saving(label) for label in labels}

    def _saving(self, label: str) -> Saving:
        rows = [row for row in self.scf if label in row.surrogates]
        both = [row for row in rows if row.minao.converged and row.surrogates[label].converged]
        measured = [self.values[label][row.key] for row in both]

        def ratio(figure: str) -> float | None:
            return sum(v[figure] for v in measured) / sum(v[f"{figure}_minao"] for v in measured) if measured else None

        return Saving(
            molecules=len(rows),
            converged_both=len(both),
            share_converged=sum(row.surrogates[label].converged for row in rows) / len(rows),
            share_converged_minao=sum(row.minao.converged for row in rows) / len(rows),
            cycle_ratio=ratio("scf_cycles"),
            fock_build_ratio=ratio("scf_fock_builds"),
            wall_time_ratio=ratio("scf_wall_time"),
        )

    def trust(self) -> dict[str, Trust]:
        """How well one Fock build ranks the molecules by error, for each model that starts SCFs."""
        return {
            label: Trust(
                molecules=sum("commutator_norm" in v for v in molecules.values()),
                rank_correlation_density=rank_correlation(*self.paired(label, "commutator_norm", "density_nmae")),
                rank_correlation_energy=rank_correlation(
                    *self.paired(label, "remaining_energy", "one_shot_energy_error")
                ),
            )
            for label, molecules in self.values.items()
            if any("commutator_norm" in v for v in molecules.values())
        }

    def calibrations(self) -> dict[str, dict[str, Calibration]]:
        """Of each model that expects errors of itself, whether they are those that it makes."""
        found: dict[str, dict[str, Calibration]] = {}
        for label, molecules in self.expected.items():
            both: dict[str, list[tuple[ExpectedError, float]]] = defaultdict(list)
            for key, figures in molecules.items():
                for name, expected in figures.items():
                    if name in self.values[label][key]:
                        both[name].append((expected, self.values[label][key][name]))
            if both:
                found[label] = {name: calibration(pairs) for name, pairs in both.items()}
        return found

    def paired(self, label: str, first: str, second: str) -> tuple[list[float], list[float]]:
        """Two figures of all molecules that have both."""
        both = [v for v in self.values[label].values() if first in v and second in v]
        return [v[first] for v in both], [v[second] for v in both]

    def molecules(self) -> list[Molecule]:
        """Every molecule with all its figures."""
        return [
            Molecule(
                key=key,
                name=name_of(structure, key),
                formula=structure.formula,
                atoms=len(structure),
                reference=self.references[key],
                values={label: dict(by_key[key]) for label, by_key in self.values.items() if key in by_key},
                expected={
                    label: {name: e.value for name, e in by_key[key].items()}
                    for label, by_key in self.expected.items()
                    if by_key.get(key)
                },
            )
            for key, structure in self.structures.items()
            if key in self.references
        ]


def calibration(pairs: Sequence[tuple[ExpectedError, float]]) -> Calibration:
    """Expected errors of one figure against what they turned out to be."""
    expected, actual = np.array([e.value for e, _ in pairs]), np.array([error for _, error in pairs])
    within = [float(np.mean([error <= e.within[k] for e, error in pairs])) for k in range(3)]
    groups = np.array_split(np.argsort(expected, kind="stable"), min(5, len(pairs) // 5)) if len(pairs) >= 10 else []
    off = [abs(expected[g].mean() - actual[g].mean()) / expected[g].mean() for g in groups]
    return Calibration(
        molecules=len(pairs),
        expected=float(expected.mean()),
        actual=float(actual.mean()),
        within_50=within[0],
        within_80=within[1],
        within_95=within[2],
        rank_correlation=rank_correlation(expected.tolist(), actual.tolist()),
        ence=float(np.mean(off)) if off else None,
    )


def name_of(structure: Structure, key: str) -> str:
    """What tables call a molecule."""
    return structure.name or f"{structure.formula} {key[:8]}"
