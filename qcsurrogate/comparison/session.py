"""Goes through the molecules, predicts, measures, and keeps what fails."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from qcsurrogate.comparison.collect import Collection, name_of
from qcsurrogate.comparison.figures import SHARED, Figure
from qcsurrogate.comparison.judge import Judge, finite
from qcsurrogate.comparison.measure import Measured, Reference, References, energy_values, scf_values
from qcsurrogate.comparison.schema import ScfComparison, ScfCounts
from qcsurrogate.comparison.subjects import Subject
from qcsurrogate.errors import DomainError, QCSurrogateError, SpecError
from qcsurrogate.prediction.results import Prediction
from qcsurrogate.reference.evaluation import ScfRun, run_scf
from qcsurrogate.reference.settings import Method
from qcsurrogate.registry import find_quantity
from qcsurrogate.store.progress import counted
from qcsurrogate.store.store import Store
from qcsurrogate.structures import Structure
from qcsurrogate.tables.table import Table

_BATCH = 32
_FAILURES = (QCSurrogateError, ArithmeticError, ValueError, RuntimeError)
"""What one molecule may run into without ending the comparison."""


class Session:
    """One pass of some models over some molecules of a store; fills ``collection``."""

    def __init__(
        self, subjects: Sequence[Subject], store: Store | Table, collection: Collection, *, threads: int, quiet: bool
    ) -> None:
        self._subjects = subjects
        self.judges = {s.label: find_quantity(s.surrogate.kind).judge(s.surrogate) for s in subjects}
        self._starters = [s for s in subjects if self.judges[s.label].starts_scf]
        self._collection = collection
        self._threads = threads
        self._quiet = quiet
        elements = {int(z) for s in collection.structures.values() for z in s.atomic_numbers}
        self._references = References(store, sorted(elements))
        self.figures = {label: self._figures(judge) for label, judge in self.judges.items()}

    @staticmethod
    def _figures(judge: Judge) -> list[Figure]:
        """Everything that may be measured of one model, in the order of the report."""
        figures = {f.name: f for f in (*judge.all_figures, *SHARED)}
        if taken := {f.name for f in judge.all_figures if f != figures[f.name]}:
            raise SpecError(f"the figure '{min(taken)}' is defined already; give yours another name")
        return list(figures.values())

    def reference(self, key: str) -> Any:
        """What is known of one molecule; of a store a :class:`Reference`."""
        return self._references.one(key)

    def measure(self, keys: Sequence[str], on_grid: set[str]) -> None:
        """Predict every molecule with every model, and measure all but the SCFs.

        Raises:
            DomainError: if a model fails on every molecule.
        """
        for key, reference, predictions in counted(self._predicted(keys), len(keys), "comparing", self._quiet):
            self._collection.add_reference(key, reference)
            for label, prediction in predictions.items():
                if not prediction.domain.inside:
                    self._collection.outside[label].append(name_of(reference.structure, key))
                try:
                    measured = self.judges[label].measure(prediction, reference, on_grid=key in on_grid)
                    self._collection.values[label][key] |= measured
                    self._collection.expected[label][key] = prediction.expected_errors
                except _FAILURES as error:
                    self._collection.fail(key, label, "comparison", error)
        for subject in self._subjects:
            if not any(self._collection.values[subject.label].values()):
                first = next(f for f in self._collection.failures if f.model == subject.label)
                raise DomainError(
                    f"the {subject.label} model '{subject.path}' could not be compared on any of {len(keys)} "
                    f"molecules; the first one, '{first.name}', failed with: {first.message}"
                )

    def _predicted(self, keys: Sequence[str]) -> Iterator[tuple[str, Measured, dict[str, Prediction]]]:
        """Molecules with their predictions by label, a batch at a time; failed predictions are left out."""
        for start in range(0, len(keys), _BATCH):
            batch = keys[start : start + _BATCH]
            references = list(self._references.many(batch))
            predicted = {s.label: self._predict(s, batch, [r.structure for r in references]) for s in self._subjects}
            for key, reference in zip(batch, references, strict=True):
                yield key, reference, {label: p[key] for label, p in predicted.items() if key in p}

    def _predict(self, subject: Subject, keys: Sequence[str], structures: Sequence[Structure]) -> dict[str, Prediction]:
        """Predictions by key; of a failed batch one by one, to find out which molecules are to blame."""
        try:
            return dict(zip(keys, subject.predict(list(structures)), strict=True))
        except _FAILURES as error:
            if len(keys) > 1:
                singly = [self._predict(subject, [key], [s]) for key, s in zip(keys, structures, strict=True)]
                return {key: prediction for found in singly for key, prediction in found.items()}
            self._collection.fail(keys[0], subject.label, "prediction", error)
            return {}

    def run_scfs(self, keys: Sequence[str]) -> None:
        """Run SCFs from minao and from every model that has a density matrix; a failing molecule is only noted."""
        if not self._starters or not keys:
            return
        self._warm_up(keys[0], self.reference(keys[0]).method)
        for i, key in counted(enumerate(keys), len(keys), "running SCFs", self._quiet):
            reference = self.reference(key)
            try:
                # who goes first alternates, so that neither starting point profits from a warm machine
                self._compare_scfs(key, reference, minao_first=i % 2 == 0)
            except _FAILURES as error:
                self._collection.fail(key, "", "SCF", error)

    def _warm_up(self, key: str, method: Method) -> None:
        """What is paid once per process (loading libraries, first allocations) must not enter a time."""
        structure = self._collection.structures[key]
        try:
            run_scf(structure, method, threads=self._threads)
            for subject in self._starters:
                subject.predict(structure)
        except _FAILURES as error:
            self._collection.fail(key, "", "warm-up", error)

    def _compare_scfs(self, key: str, reference: Reference, *, minao_first: bool) -> None:
        minao = self._run(reference) if minao_first else None
        surrogates: dict[str, ScfRun] = {}
        times: dict[str, float] = {}
        for subject in self._starters:
            start = time.perf_counter()
            prediction = subject.predict(reference.structure)
            density_matrix = finite(prediction.density_matrix, "density matrix")
            times[subject.label] = time.perf_counter() - start
            surrogates[subject.label] = self._run(reference, density_matrix)
            orbitals = self.judges[subject.label].orbitals(prediction, reference)
            if orbitals is None:
                raise TypeError(f"the judge of {subject.label} starts SCFs, but gives no orbitals")
            values = self._collection.values[subject.label][key]
            calibration = subject.surrogate.metadata.energy_calibration
            values["prediction_time"] = times[subject.label]
            values |= energy_values(orbitals, reference, calibration, self._threads)
        minao = minao or self._run(reference)
        self._note_scfs(key, minao, surrogates, times)

    def _run(self, reference: Reference, density_matrix: np.ndarray | None = None) -> ScfRun:
        run = run_scf(reference.structure, reference.method, density_matrix, threads=self._threads)
        if not np.isfinite(run.energy):
            raise ArithmeticError(f"the SCF ended at the energy {run.energy}")
        return run

    def _note_scfs(self, key: str, minao: ScfRun, surrogates: dict[str, ScfRun], times: dict[str, float]) -> None:
        self._collection.scf.append(
            ScfComparison(
                key=key,
                name=name_of(self._collection.structures[key], key),
                minao=ScfCounts(**vars(minao)),
                surrogates={label: ScfCounts(**vars(run)) for label, run in surrogates.items()},
            )
        )
        for label, run in surrogates.items():
            if run.converged and minao.converged:
                self._collection.values[label][key] |= scf_values(run, minao, times[label])
            else:
                starts = [n for n, r in (("minao", minao), ("the surrogate", run)) if not r.converged]
                self._collection.fail(key, label, "SCF", f"not converged from {' and from '.join(starts)}")
