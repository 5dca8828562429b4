"""Settings of batch systems: one job per worker."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from dask.utils import parse_timedelta
from pydantic import BaseModel, Field, field_validator, model_validator

from qcsurrogate.clusters.fields import (
    FROZEN,
    Count,
    Duration,
    FolderOrFile,
    Line,
    Memory,
    Networked,
    Word,
)

_WALLTIME = re.compile(r"(?:(\d+)-)?(\d{1,4}):([0-5]\d)(?::([0-5]\d))?")
_RETIREMENT_SECONDS = 300
"""Seconds before the walltime at which every worker has retired, at the latest."""


def walltime_seconds(text: str) -> int:
    """Seconds of ``HH:MM:SS`` or ``D-HH:MM:SS``."""
    match = _WALLTIME.fullmatch(text)
    if match is None:
        raise ValueError(f"expected HH:MM:SS or D-HH:MM:SS, got {text!r}")
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


class Adaptive(BaseModel):
    """As many workers as there is work for, within limits."""

    model_config = FROZEN

    minimum: Annotated[int, Field(ge=0, description="Workers to keep even without work.")] = 0
    maximum: Annotated[Count, Field(description="Workers at most.")]

    @model_validator(mode="after")
    def _in_order(self) -> Adaptive:
        if self.minimum > self.maximum:
            raise ValueError(f"minimum = {self.minimum}, maximum = {self.maximum}; expected minimum <= maximum")
        return self


class _Jobs(Networked):
    """One job per worker, in a batch system; the scheduler runs where ``generate`` runs."""

    workers: Annotated[Count | None, Field(description="Jobs to keep up. Either this or ``adaptive``.")] = None
    adaptive: Annotated[Adaptive | None, Field(description="Limits of the number of jobs.")] = None
    memory: Annotated[Memory, Field(description="Of each job, such as '8 GiB'.")]
    walltime: Annotated[str, Field(description="Of each job, in quotes: 'HH:MM:SS' or 'D-HH:MM:SS'.")]
    queue: Annotated[Word | None, Field(description="Queue (partition) to submit to.")] = None
    account: Annotated[Word | None, Field(description="Account or project that pays.")] = None
    extra_directives: Annotated[
        tuple[Line, ...], Field(description="Further directives, without '#SBATCH' or the like.")
    ] = ()
    lifetime: Annotated[
        Duration | None, Field(description="A worker retires after this; default: derived from the walltime.")
    ] = None
    lifetime_stagger: Annotated[
        Duration | None, Field(description="Lifetimes differ by up to this, either way; default: derived.")
    ] = None
    job_name: Annotated[Word, Field(max_length=15, description="Name of the jobs.")] = "qcsurrogate"
    logs: Annotated[
        FolderOrFile | None,
        Field(description="Folder for the jobs' output, seen by every node; default: inside the store."),
    ] = None

    @field_validator("walltime", mode="before")
    @classmethod
    def _in_quotes(cls, value: Any) -> Any:
        if isinstance(value, int):  # YAML reads 24:00:00 as a number of seconds, and 1:30 as 90
            raise ValueError(f"expected text in quotes, such as '24:00:00', got the number {value}")
        return value

    @field_validator("walltime")
    @classmethod
    def _a_walltime(cls, text: str) -> str:
        if walltime_seconds(text) < 60:
            raise ValueError(f"expected at least one minute, got {text!r}")
        return text

    @model_validator(mode="after")
    def _fits_together(self) -> _Jobs:
        if (self.workers is None) == (self.adaptive is None):
            raise ValueError("expected either 'workers' or 'adaptive'")
        if self.longest_seconds > self.walltime_seconds:
            raise ValueError(
                f"lifetime + lifetime_stagger = {self.longest_seconds:.0f} s; expected at most the walltime of "
                f"{self.walltime_seconds} s, or the queue kills workers before they retire"
            )
        if self.stagger_seconds >= self.lifetime_seconds:
            raise ValueError(f"lifetime_stagger = {self.stagger_seconds:.0f} s; expected less than the lifetime")
        return self

    @property
    def walltime_seconds(self) -> int:
        """Seconds that the queue gives a job."""
        return walltime_seconds(self.walltime)

    @property
    def stagger_seconds(self) -> float:
        """Largest deviation of a lifetime, 5 % of the walltime and at most 10 minutes by default."""
        if self.lifetime_stagger is not None:
            return float(parse_timedelta(self.lifetime_stagger))
        return min(600.0, 0.05 * self.walltime_seconds)

    @property
    def lifetime_seconds(self) -> float:
        """When a worker retires; by default, all have 5 minutes (or a tenth of the walltime) before its end."""
        if self.lifetime is not None:
            return float(parse_timedelta(self.lifetime))
        margin = min(float(_RETIREMENT_SECONDS), 0.1 * self.walltime_seconds)
        return self.walltime_seconds - margin - self.stagger_seconds

    @property
    def longest_seconds(self) -> float:
        """The longest life of a worker."""
        return self.lifetime_seconds + self.stagger_seconds

    @property
    def most_workers(self) -> int:
        """Jobs at most."""
        return self.workers if self.workers is not None else self.adaptive.maximum if self.adaptive else 1


class SlurmSettings(_Jobs):
    """Jobs of SLURM (``sbatch``)."""

    kind: Literal["slurm"]
    partition: Annotated[Word | None, Field(description="Partition; the same as ``queue``.")] = None

    @model_validator(mode="after")
    def _one_name(self) -> SlurmSettings:
        if self.queue is not None and self.partition is not None:
            raise ValueError("expected either 'partition' or 'queue': they mean the same")
        return self


class PbsSettings(_Jobs):
    """Jobs of PBS or Torque (``qsub``)."""

    kind: Literal["pbs"]
    resource_spec: Annotated[
        Line | None, Field(description="After '#PBS -l'; default: select=1:ncpus=THREADS:mem=MEMORY.")
    ] = None


class SgeSettings(_Jobs):
    """Jobs of Grid Engine (``qsub``)."""

    kind: Literal["sge"]
    parallel_environment: Annotated[
        Word | None, Field(description="Of one node, such as 'smp'; needed where threads > 1.")
    ] = None
    resource_spec: Annotated[
        Line | None, Field(description="After '#$ -l', such as 'h_vmem=2G': how memory is asked for differs by site.")
    ] = None

    @model_validator(mode="after")
    def _has_slots(self) -> SgeSettings:
        if self.threads > 1 and self.parallel_environment is None:
            raise ValueError("parallel_environment: missing; expected the one for threads of one node, such as 'smp'")
        return self


class LsfSettings(_Jobs):
    """Jobs of LSF (``bsub``)."""

    kind: Literal["lsf"]


QueueSettings = SlurmSettings | PbsSettings | SgeSettings | LsfSettings
