"""What the settings of all clusters have in common: fields, and how they are checked."""

from __future__ import annotations

import re
import shlex
from typing import Annotated, Any

from dask.utils import parse_bytes, parse_timedelta
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

FROZEN = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

_SCRATCH = re.compile(r"[A-Za-z0-9_./@%+=:,~${}-]+(?: +[A-Za-z0-9_./@%+=:,~${}-]+)*")


def _one_line(text: str) -> str:
    if not text.strip() or "\n" in text or "\r" in text:
        raise ValueError(f"expected one line of text, got {text!r}")
    return text


def _one_word(text: str) -> str:
    if shlex.quote(text) != text:
        raise ValueError(
            f"expected letters, digits and _ . / @ % + = : , - only (it goes into shell scripts), got {text!r}"
        )
    return text


def _path(text: str) -> str:
    _program(text.removeprefix("~") or "/")
    return text


def _program(text: str) -> str:
    _one_word(text.replace(" ", ""))  # blanks are quoted in scripts
    return text


def _memory(text: str) -> str:
    try:
        size = parse_bytes(text)
    except ValueError as error:
        raise ValueError(f"expected a size such as '8 GiB', got {text!r}") from error
    if size < 2**28:
        raise ValueError(f"expected at least 256 MiB, got {text!r}: Python and PySCF alone need that")
    return text


def _duration(text: str) -> str:
    try:
        seconds = parse_timedelta(text)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"expected a time such as '50 minutes', got {text!r}") from error
    if seconds <= 0:
        raise ValueError(f"expected a time above zero, got {text!r}")
    return text


Line = Annotated[str, AfterValidator(_one_line)]
Word = Annotated[str, Field(min_length=1), AfterValidator(_one_word)]
FolderOrFile = Annotated[str, Field(min_length=1), AfterValidator(_path)]
Program = Annotated[str, Field(min_length=1), AfterValidator(_program)]
Memory = Annotated[str, AfterValidator(_memory)]
Duration = Annotated[str, AfterValidator(_duration)]
Count = Annotated[int, Field(ge=1, le=100_000)]


class Settings(BaseModel):
    model_config = FROZEN

    threads: Annotated[int, Field(ge=1, le=1024, description="OpenMP threads of each worker process.")] = 1
    dashboard: Annotated[
        bool | Word, Field(description="false; true: 127.0.0.1:8787 of the scheduler's node; or an address HOST:PORT.")
    ] = False

    @property
    def dashboard_address(self) -> str:
        """Where the scheduler's web server listens."""
        if isinstance(self.dashboard, str):
            return self.dashboard
        return "127.0.0.1:8787" if self.dashboard else "127.0.0.1:0"


class Encrypted(Settings):
    tls: Annotated[bool, Field(description="Whether processes talk through TLS, with keys of their own.")] = True
    tls_folder: Annotated[
        FolderOrFile, Field(description="Folder of the keys, seen by every node; made if it is not there.")
    ] = "~/.qcsurrogate/tls"


class Started(Settings):
    """What is common where worker processes are started by us."""

    scratch: Annotated[
        str | None,
        Field(description="Folder for temporary files on the workers' node; $VARIABLES are its own. Default $TMPDIR."),
    ] = None
    prologue: Annotated[
        tuple[Line, ...], Field(description="Shell lines before a worker starts, such as 'module load gcc'.")
    ] = ()
    python: Annotated[Program | None, Field(description="Python of the workers; default: the one running now.")] = None
    startup_seconds: Annotated[
        float, Field(gt=0, description="Seconds that a running job may be without its worker before it is replaced.")
    ] = 600.0
    look_every_seconds: Annotated[float, Field(gt=0, description="Seconds between looks at the jobs.")] = 30.0
    failures_allowed: Annotated[
        int, Field(ge=1, description="Jobs in a row that may end before a worker comes up, until generation gives up.")
    ] = 5

    @field_validator("scratch")
    @classmethod
    def _a_path(cls, text: str | None) -> str | None:
        if text is not None and not _SCRATCH.fullmatch(text):
            raise ValueError(f"expected a path that may hold $VARIABLES, got {text!r}")
        return text


class Networked(Started, Encrypted):
    """Workers on other nodes; the scheduler runs where ``generate`` runs."""

    interface: Annotated[Word | None, Field(description="Network interface of workers, such as 'ib0'.")] = None
    scheduler_interface: Annotated[
        Word | None, Field(description="Network interface of the node where generate runs; default: as the workers.")
    ] = None
    scheduler_port: Annotated[int, Field(ge=0, le=65535, description="TCP port of the scheduler; 0: any.")] = 0

    @property
    def scheduler_options(self) -> dict[str, Any]:
        """What Dask's scheduler is started with."""
        return {
            "port": self.scheduler_port,
            "interface": self.scheduler_interface or self.interface,
            "dashboard": bool(self.dashboard),
            "dashboard_address": self.dashboard_address,
        }
