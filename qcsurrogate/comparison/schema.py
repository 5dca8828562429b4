"""The content of ``metrics.json``: documented, versioned, checked when written and read.

:data:`SCHEMA_VERSION` changes with every change that a reader could notice; files of
another version are refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, Field

from qcsurrogate.density.grid import LOWEST_GRID_LEVEL
from qcsurrogate.errors import StoreError
from qcsurrogate.store.spec import SplitName

SCHEMA_VERSION: Final = 4
"""4: ``level``; no ``method`` where the labels are of another program.
3: ``calibration`` and ``expected``.
2: ``hamiltonian_frobenius_per_sqrt_n``, which version 1 took for a root mean square per electron; ``shown``;
distances in peaks instead of 0.5 Angstrom; headlines of figures only."""


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Distribution(_Frozen):
    """A figure in five numbers: count, mean, median, 95th percentile and maximum, in ``unit``."""

    unit: str
    count: int
    mean: float
    median: float
    p95: float
    max: float

    @classmethod
    def of(cls, values: ArrayLike, unit: str, **more: Any) -> Self:
        """The distribution of (n,) values.

        Raises:
            ValueError: if there is no value, or one that is not finite.
        """
        numbers = np.asarray(values, dtype=np.float64).ravel()
        if numbers.size == 0 or not np.isfinite(numbers).all():
            raise ValueError(f"expected one or more finite values to summarise, got {numbers.tolist()[:5]}")
        mean, median, p95 = numbers.mean(), np.median(numbers), np.percentile(numbers, 95)
        return cls(unit=unit, count=numbers.size, mean=mean, median=median, p95=p95, max=numbers.max(), **more)

    @property
    def numbers(self) -> tuple[float, float, float, float]:
        """Mean, median, 95th percentile and maximum."""
        return self.mean, self.median, self.p95, self.max


class FigureSummary(Distribution):
    """A named figure; one value per molecule unless the definition says otherwise."""

    title: str
    definition: str
    shown: str = Field(description="Unit in which the report shows it, with a prefix that follows from the values.")


class PairSummary(Distribution):
    """Hamiltonian error of one kind of block, over blocks.

    ``first`` and ``second`` are elements (``O``) or shells (``O 2p``); ``atoms`` says
    whether both lie on the same atom.
    """

    first: str
    second: str
    atoms: Literal["same", "different"]


class DistanceSummary(Distribution):
    """Hamiltonian error of atom pairs, over pairs, in a peak of the distances: its smallest and largest one."""

    start_angstrom: float
    stop_angstrom: float


class Breakdown(_Frozen):
    """Hamiltonian errors by element pair, shell pair and distance."""

    element_pairs: list[PairSummary]
    shell_pairs: list[PairSummary]
    distances: list[DistanceSummary]


class Settings(_Frozen):
    """What was asked for."""

    split: SplitName
    limit: int | None = Field(ge=1)
    scf_molecules: int = Field(ge=0)
    density_molecules: int = Field(ge=0)
    seed: int = Field(ge=0)
    threads: int = Field(ge=1)
    density_grid_level: int = Field(default=LOWEST_GRID_LEVEL, description="PySCF's, on which densities are compared.")


class DataDescription(_Frozen):
    """The reference: a store or a table, and the part of it that was used."""

    path: str
    name: str
    method: dict[str, Any] | None = Field(description="Kohn-Sham calculation; null of labels from elsewhere.")
    level: str = Field(description="Level of theory in words.")
    dataset_hash: str
    split_sizes: dict[str, int] = Field(description="Complete records of each split.")
    compared: int = Field(description="Molecules compared.")
    elements: list[str]
    licence: str
    citation: str


class ModelDescription(_Frozen):
    """One compared model file."""

    label: str
    kind: str
    path: str
    sha256: str
    elements: list[str]
    method: dict[str, Any] | None
    level: str
    dataset_hash: str
    trained_on_this_data: bool = Field(
        description="Whether it, and the model that it began with, were trained on this very store alone, which may "
        "have grown since; only then is its test split known to be unseen."
    )
    notes: list[str] = Field(description="Differences between model and store that do not forbid the comparison.")
    training: dict[str, Any]
    training_metrics: dict[str, float]
    versions: dict[str, str]


class ScfCounts(_Frozen):
    """One SCF: cycles, Fock builds (initial and final one included), seconds, Hartree."""

    converged: bool
    cycles: int
    fock_builds: int
    wall_time: float
    energy: float


class ScfComparison(_Frozen):
    """SCFs of one molecule with equal settings, from minao and from each Hamiltonian model."""

    key: str
    name: str
    minao: ScfCounts
    surrogates: dict[str, ScfCounts]


class Saving(_Frozen):
    """What starting an SCF at the surrogate saves, over all molecules that converged both ways.

    Ratios are totals over totals: 0.25 means a quarter of the cycles.  ``wall_time_ratio``
    includes the prediction.
    """

    molecules: int
    converged_both: int
    share_converged: float = Field(description="Share of the SCFs from the surrogate that converged.")
    share_converged_minao: float
    cycle_ratio: float | None
    fock_build_ratio: float | None
    wall_time_ratio: float | None


class Trust(_Frozen):
    """Whether what a Fock build tells without a reference ranks molecules by their true error."""

    molecules: int
    rank_correlation_density: float | None = Field(description="Spearman, commutator norm with density_nmae.")
    rank_correlation_energy: float | None = Field(description="Spearman, remaining_energy with one_shot_energy_error.")


class Calibration(_Frozen):
    """Whether the errors that a model expects of itself, without a reference, are those that it makes."""

    molecules: int
    expected: float = Field(description="Mean of the expected errors, in the figure's unit.")
    actual: float = Field(description="Mean of the figure over the same molecules.")
    within_50: float = Field(description="Share of molecules within what half of them should stay within.")
    within_80: float
    within_95: float
    rank_correlation: float | None = Field(description="Spearman, expected error with the figure.")
    ence: float | None = Field(
        description="Expected normalised calibration error: molecules sorted by expected error in up to five groups, "
        "the mean over groups of |mean expected - mean actual| / mean expected; from ten molecules on."
    )


class Molecule(_Frozen):
    """Figures of one molecule: ``values[model label][figure]``, in the figures' units."""

    key: str
    name: str
    formula: str
    atoms: int
    reference: dict[str, float] = Field(
        description="Of a store: energy, homo, lumo, gap (hartree), dipole (e bohr); of a table: its scalar labels."
    )
    values: dict[str, dict[str, float]]
    expected: dict[str, dict[str, float]] = Field(
        description="What each model expected of a figure, before any reference was known: expected[model][figure]."
    )


class Failure(_Frozen):
    """A molecule that could not be compared in one respect."""

    key: str
    name: str
    model: str
    stage: str
    message: str


class HeadlineItem(_Frozen):
    """One of the few figures that a user wants first."""

    model: str
    name: str = Field(description="The figure in metrics.")
    title: str
    value: float
    unit: str
    shown: str = Field(description="The value as the report prints it.")
    rating: Literal["good", "fair", "poor"]
    verdict: str


class Comparison(_Frozen):
    """All of ``metrics.json``."""

    schema_name: Literal["qcsurrogate-comparison"] = "qcsurrogate-comparison"
    schema_version: Literal[4] = SCHEMA_VERSION
    created: str
    elapsed_s: float
    versions: dict[str, str]
    settings: Settings
    data: DataDescription
    models: list[ModelDescription]
    headline: list[HeadlineItem]
    metrics: dict[str, dict[str, FigureSummary]] = Field(description="metrics[model label][figure].")
    breakdowns: dict[str, Breakdown] = Field(description="Of each model of a matrix.")
    saving: dict[str, Saving] = Field(description="Of each model that starts SCFs.")
    trust: dict[str, Trust] = Field(description="Of each model that starts SCFs.")
    calibration: dict[str, dict[str, Calibration]] = Field(
        description="calibration[model label][figure], of each model that expects errors of itself."
    )
    scf: list[ScfComparison]
    molecules: list[Molecule]
    failures: list[Failure]

    def values(self, label: str, figure: str) -> list[float]:
        """A figure of every molecule that has it."""
        return [m.values[label][figure] for m in self.molecules if figure in m.values.get(label, {})]

    def to_json(self) -> str:
        """The text of the file; plain JSON without NaN."""
        return json.dumps(self.model_dump(mode="json"), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def read_comparison(path: str | Path) -> Comparison:
    """Read a ``metrics.json``.

    Raises:
        StoreError: if the file is missing, or not of this schema and version.
    """
    path = Path(path)
    again = "write it again with 'qcsurrogate compare'"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version = content.get("schema_version") if isinstance(content, dict) else None
        if isinstance(version, int) and version != SCHEMA_VERSION:
            raise StoreError(f"'{path}' is of schema version {version}, expected {SCHEMA_VERSION}; {again}")
        return Comparison.model_validate(content)
    except OSError as error:
        raise StoreError(f"cannot read '{path}' ({error.strerror or error}); expected a metrics.json") from error
    except ValueError as error:  # no UTF-8, no JSON, or not of the schema
        reason = str(error).splitlines()[0]
        raise StoreError(
            f"'{path}' is not a qcsurrogate-comparison of schema version {SCHEMA_VERSION}: {reason}; {again}"
        ) from error
