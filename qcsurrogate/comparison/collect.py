"""Everything that a comparison gathers while it goes through the molecules."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from qcsurrogate.comparison.figures import Figure
from qcsurrogate.comparison.measure import Reference, Values
from qcsurrogate.comparison.metrics import rank_correlation
from qcsurrogate.comparison.schema import Failure, FigureSummary, Molecule, Saving, ScfComparison, Trust
from qcsurrogate.errors import QCSurrogateError
from qcsurrogate.structures import Structure


@dataclass
class Collection:
    """What was measured so far.

    Attributes:
        structures: of all compared molecules, by key, in order.
        references: reference figures of each molecule.
        values: values[label][key][figure].
        scf: one entry per molecule of the SCF part.
        failures: what could not be measured.
        outside: names of molecules outside of each model's training data, or not known to be inside.
    """

    structures: dict[str, Structure] = field(default_factory=dict)
    references: dict[str, dict[str, float]] = field(default_factory=dict)
    values: dict[str, dict[str, Values]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(dict)))
    scf: list[ScfComparison] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    outside: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add_reference(self, key: str, reference: Reference) -> None:
        """Note a molecule and the figures of its record."""
        orbitals = reference.orbitals
        figures = {"energy": reference.record.energy, "homo": orbitals.homo}
        if np.isfinite(orbitals.lumo):
            figures |= {"lumo": orbitals.lumo, "gap": orbitals.gap}
        self.references[key] = figures | {"dipole": float(np.linalg.norm(reference.record.dipole))}

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
        """How well the commutator norm ranks the molecules by error, for each model that starts SCFs."""
        return {
            label: Trust(
                molecules=sum("commutator_norm" in v for v in molecules.values()),
                rank_correlation_density=rank_correlation(*self.paired(label, "commutator_norm", "density_nmae")),
                rank_correlation_energy=rank_correlation(
                    *self.paired(label, "commutator_norm", "one_shot_energy_error")
                ),
            )
            for label, molecules in self.values.items()
            if any("commutator_norm" in v for v in molecules.values())
        }

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
            )
            for key, structure in self.structures.items()
            if key in self.references
        ]


def name_of(structure: Structure, key: str) -> str:
    """What tables call a molecule."""
    return structure.name or f"{structure.formula} {key[:8]}"
