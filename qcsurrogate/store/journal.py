"""How a generation goes: what the process that runs it writes down, and others may read.

The journal is for people and for estimates.  Nothing that a record depends on is in it,
and a missing or damaged one counts as empty.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from qcsurrogate.errors import StoreError
from qcsurrogate.files.atomic import json_bytes, read_json, write_atomically

SLOWEST_KEPT = 20
_LIMIT_BYTES = 2**20


@dataclass(frozen=True)
class SlowStructure:
    """One of the structures that took longest."""

    name: str
    seconds: float
    n_ao: int


@dataclass(frozen=True)
class Journal:
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
    slowest: tuple[SlowStructure, ...] = ()
    cost: tuple[float, ...] = field(default=())

    @property
    def records_per_hour(self) -> float | None:
        """Finished records per hour of this run's wall time."""
        elapsed = self.updated - self.started
        return 3600.0 * self.computed / elapsed if elapsed > 0 and self.computed else None


def write_journal(path: Path, journal: Journal) -> None:
    """Replace the journal."""
    write_atomically(path, json_bytes(asdict(journal)))


def read_journal(path: Path) -> Journal:
    """The journal, or an empty one where there is none that can be read."""
    try:
        data = read_json(path, _LIMIT_BYTES) if path.is_file() else {}
        slowest = data.pop("slowest", [])
        return Journal(
            **{name: _number(value) for name, value in data.items() if name not in ("cost", "expected_seconds")},
            expected_seconds=None if data.get("expected_seconds") is None else _number(data["expected_seconds"]),
            slowest=tuple(
                SlowStructure(str(s["name"]), _number(s["seconds"]), int(s["n_ao"])) for s in slowest[:SLOWEST_KEPT]
            ),
            cost=tuple(_number(x) for x in data.get("cost", [])[:32]),
        )
    except (StoreError, TypeError, ValueError, KeyError, AttributeError):
        return Journal()


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"expected a number, got {value!r}")
    return value


def now() -> float:
    """Seconds since 1970."""
    return time.time()
