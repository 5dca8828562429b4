"""Why structures failed, how often, and when that is often enough.

A failed attempt is kept in one small JSON file per structure, with a count for each
cause.  Below the limit of a cause the structure is tried again (``attempts/<key>.json``);
at the limit it is put aside (``errors/<key>.json``), which is the state ``error``.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, get_args

from qcsurrogate.errors import (
    BasisError,
    ConvergenceError,
    RecordError,
    SpecError,
    StructureError,
    TimeLimitError,
    suggestion,
)
from qcsurrogate.files.atomic import json_bytes, read_json, write_atomically

Cause = Literal["not_converged", "memory", "time", "worker_lost", "bad_geometry", "check_failed", "unexpected"]
CAUSES: Final[tuple[Cause, ...]] = get_args(Cause)

ATTEMPT_LIMITS: Final[Mapping[Cause, int]] = MappingProxyType(
    {
        "not_converged": 1,  # the ladder is deterministic: again would be the same
        "memory": 2,  # once more alone, with PySCF held to half
        "time": 1,
        "worker_lost": 3,
        "bad_geometry": 1,
        "check_failed": 1,
        "unexpected": 2,
    }
)
"""How many attempts of a cause put a structure aside, unless the caller says otherwise."""

_MESSAGE_LENGTH = 2000
_CAUSE_OF: Final[tuple[tuple[type[BaseException], Cause], ...]] = (
    (TimeLimitError, "time"),
    (ConvergenceError, "not_converged"),
    (RecordError, "check_failed"),
    (StructureError, "bad_geometry"),
    (BasisError, "bad_geometry"),
    (MemoryError, "memory"),
)


@dataclass(frozen=True)
class Failure:
    """A structure that failed.

    Attributes:
        total: all attempts that ever failed.
        host: where the last attempt failed.
    """

    key: str
    name: str
    cause: Cause
    message: str
    by_cause: Mapping[Cause, int] = field(default_factory=dict)
    total: int = 1
    host: str = ""

    @property
    def attempts(self) -> int:
        """Attempts that failed since the last retry was asked for."""
        return sum(self.by_cause.values())

    def to_dict(self) -> dict[str, Any]:
        """As commands print it."""
        data = asdict(self)
        return data | {"attempts": self.attempts, "total_attempts": data.pop("total")}


@dataclass(frozen=True)
class FailureGroup:
    """Failures of one cause whose messages are alike but for numbers and names."""

    cause: Cause
    pattern: str
    failures: tuple[Failure, ...]

    @property
    def attempts(self) -> int:
        """Attempts that failed, of all of them."""
        return sum(f.attempts for f in self.failures)


def cause_of(error: BaseException) -> Cause:
    """The cause that an exception of a calculation stands for."""
    return next((cause for kind, cause in _CAUSE_OF if isinstance(error, kind)), "unexpected")


def checked_limits(limits: Mapping[str, int] | None) -> dict[Cause, int]:
    """Limits of attempts for every cause: the given ones, else :data:`ATTEMPT_LIMITS`."""
    checked = dict(ATTEMPT_LIMITS)
    for name, limit in (limits or {}).items():
        checked[checked_cause(name)] = limit
        if limit < 1:
            raise SpecError(f"attempts for '{name}': expected 1 or more, got {limit}")
    return checked


def checked_cause(name: str) -> Cause:
    """A cause by its name."""
    for cause in CAUSES:
        if name == cause:
            return cause
    raise SpecError(f"no cause '{name}'; expected one of {', '.join(CAUSES)}{suggestion(name, CAUSES)}")


def record_failure(
    attempts_file: Path, errors_file: Path, cause: Cause, message: str, limit: int, host: str = ""
) -> bool:
    """Count one more failed attempt of a structure.

    Returns:
        Whether the structure is now put aside.
    """
    before = next((read_failure(path, "") for path in (errors_file, attempts_file) if path.is_file()), None)
    counts = Counter(before.by_cause if before else {})
    counts[cause] += 1
    failure = Failure(
        errors_file.stem, "", cause, message[:_MESSAGE_LENGTH], counts, (before.total if before else 0) + 1, host
    )
    put_aside = counts[cause] >= limit
    _write(errors_file if put_aside else attempts_file, failure)
    (attempts_file if put_aside else errors_file).unlink(missing_ok=True)
    return put_aside


def forgive(attempts_file: Path, errors_file: Path) -> None:
    """Let a structure that was put aside be tried again; its total of attempts is kept."""
    _write(attempts_file, replace(read_failure(errors_file, ""), by_cause={}))
    errors_file.unlink(missing_ok=True)


def _write(path: Path, failure: Failure) -> None:
    data = {
        "cause": failure.cause,
        "message": failure.message,
        "attempts": dict(failure.by_cause),
        "total": failure.total,
        "host": failure.host,
        "time": round(time.time()),
    }
    write_atomically(path, json_bytes(data))


def read_failure(path: Path, name: str) -> Failure:
    """What a file says of a structure's failed attempts; what it leaves open is taken as unexpected."""
    data = read_json(path)
    cause = data.get("cause")
    attempts = data.get("attempts")
    if not isinstance(attempts, dict):
        attempts = {"unexpected": attempts if isinstance(attempts, int) else 1}
    by_cause = {c: n for c in CAUSES if isinstance(n := attempts.get(c), int) and n > 0}
    total = data.get("total")
    return Failure(
        path.stem,
        name,
        cause if cause in CAUSES else "unexpected",
        str(data.get("message", "")),
        by_cause,
        total if isinstance(total, int) else sum(by_cause.values()),
        str(data.get("host", "")),
    )


def group_failures(failures: Iterable[Failure]) -> list[FailureGroup]:
    """Failures that are alike, together; the largest group first."""
    groups: dict[tuple[Cause, str], list[Failure]] = {}
    for failure in failures:
        groups.setdefault((failure.cause, _pattern(failure.message)), []).append(failure)
    ordered = [
        FailureGroup(cause, pattern, tuple(sorted(members, key=lambda f: (-f.total, f.name))))
        for (cause, pattern), members in groups.items()
    ]
    return sorted(ordered, key=lambda g: (-len(g.failures), g.cause, g.pattern))


def _pattern(message: str) -> str:
    """A message without what differs from structure to structure."""
    without_names = re.sub(r"structure '[^']*'( \([^)]*\))?", "structure ...", message)
    return re.sub(r"-?\d+(\.\d+)?(e[-+]?\d+)?", "#", without_names)
