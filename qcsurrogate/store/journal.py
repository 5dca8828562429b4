"""How a generation goes: what the process that runs it writes down, and others may read.

The journal is for people and for estimates.  Nothing that a record depends on is in it,
and a missing or damaged one counts as empty.
"""

from __future__ import annotations

import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from qcsurrogate.errors import StoreError
from qcsurrogate.files.atomic import json_bytes, read_json, write_atomically

SLOWEST_KEPT = 20
_LIMIT_BYTES = 2**20


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SlowStructure(_Frozen):
    """One of the structures that took longest."""

    name: str
    seconds: float
    n_ao: int


class Journal(_Frozen):
    """The state of the present or the last run.

    Attributes:
        started, updated: seconds since 1970.
        computed: records of this run.
        failed: structures that this run put aside.
        remaining: structures that were left to do.
        workers: worker processes at the last look.
        busy_seconds: wall time of all calculations of this run together.
        expected_seconds: estimate of the time that is left, None if unknown.
        slowest: of all runs, slowest first.
        cost: moments of the cost model, see :class:`qcsurrogate.generation.batches.CostModel`.
    """

    started: float = 0.0
    updated: float = 0.0
    computed: int = 0
    failed: int = 0
    remaining: int = 0
    workers: int = 0
    busy_seconds: float = 0.0
    expected_seconds: float | None = None
    slowest: tuple[SlowStructure, ...] = Field(default=(), max_length=SLOWEST_KEPT)
    cost: tuple[float, ...] = Field(default=(), max_length=32)

    @property
    def records_per_hour(self) -> float | None:
        """Finished records per hour of this run's wall time."""
        elapsed = self.updated - self.started
        return 3600.0 * self.computed / elapsed if elapsed > 0 and self.computed else None


def write_journal(path: Path, journal: Journal) -> None:
    """Replace the journal."""
    write_atomically(path, json_bytes(journal.model_dump(mode="json")))


def read_journal(path: Path) -> Journal:
    """The journal, or an empty one where there is none that can be read."""
    try:
        return Journal.model_validate(read_json(path, _LIMIT_BYTES))
    except (StoreError, ValidationError):
        return Journal()


def now() -> float:
    """Seconds since 1970."""
    return time.time()
