"""Where a generation runs: a YAML file of one of eight kinds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args

from pydantic import BaseModel, Field, field_validator, model_validator

from qcsurrogate.clusters.fields import Count, Encrypted, FolderOrFile, Line, Memory, Networked, Settings, Word
from qcsurrogate.clusters.queue_settings import QueueSettings
from qcsurrogate.errors import SpecError, suggestion
from qcsurrogate.files.shipped import Shipped
from qcsurrogate.files.yaml_model import read_yaml, validate

SHIPPED = Shipped("cluster file", "workflows/clusters")
"""Examples to copy and edit."""


class LocalSettings(Settings):
    """Processes on this machine."""

    kind: Literal["local"] = "local"
    workers: Annotated[Count | None, Field(description="Processes; default: one per ``threads`` cores.")] = None
    memory: Annotated[Memory | None, Field(description="Per worker; default: an equal share of all.")] = None
    scratch: Annotated[Line | None, Field(description="Folder for temporary files; default: inside the store.")] = None
    tls: Annotated[bool, Field(description="Whether even processes of one machine talk through TLS.")] = False
    tls_folder: Annotated[FolderOrFile, Field(description="Folder of the keys.")] = "~/.qcsurrogate/tls"


class SshSettings(Networked):
    """Worker processes on machines that can be reached through SSH without a password."""

    kind: Literal["ssh"]
    hosts: Annotated[tuple[Word, ...], Field(min_length=1, description="Machines.")]
    workers: Annotated[Count, Field(description="Worker processes in all; dealt out to the hosts in turn.")]
    memory: Annotated[Memory, Field(description="Of each worker.")]
    username: Annotated[Word | None, Field(description="Name on the hosts; default: as here.")] = None
    port: Annotated[int, Field(ge=1, le=65535, description="Port of the SSH servers.")] = 22
    key_file: Annotated[
        FolderOrFile | None, Field(description="Private SSH key; default: the agent's and ~/.ssh's.")
    ] = None
    known_hosts: Annotated[
        FolderOrFile | None, Field(description="File of host keys; default: ~/.ssh/known_hosts.")
    ] = None


class SchedulerSettings(Encrypted):
    """A scheduler that runs already, with workers of its own."""

    kind: Literal["scheduler"]
    address: Annotated[Word, Field(description="Such as tls://10.0.0.1:8786.")]

    @field_validator("address")
    @classmethod
    def _has_protocol(cls, address: str) -> str:
        if not re.fullmatch(r"(tcp|tls)://[^/]+:\d+", address):
            raise ValueError(f"expected tls://HOST:PORT (or tcp://HOST:PORT), got {address!r}")
        return address

    @model_validator(mode="before")
    @classmethod
    def _tls_by_address(cls, data: Any) -> Any:
        """Loopback may be plain without asking; everything else only if ``tls: false`` is said."""
        if isinstance(data, dict) and "tls" not in data and _is_plain_loopback(str(data.get("address"))):
            return {**data, "tls": False}
        return data

    @model_validator(mode="after")
    def _encrypted_or_asked(self) -> SchedulerSettings:
        if self.tls and self.address.startswith("tcp://"):
            raise ValueError(
                f"address = '{self.address}' is not encrypted: who reaches it runs programs as you; expected "
                "tls://HOST:PORT. Start the scheduler with keys, or say 'tls: false' where the network is yours alone"
            )
        if not self.tls and self.address.startswith("tls://"):
            raise ValueError(f"address = '{self.address}' is encrypted, but 'tls: false' is said; leave one out")
        return self


def _is_plain_loopback(address: str) -> bool:
    return re.fullmatch(r"tcp://(127(\.\d+){3}|localhost|\[::1\]):\d+", address) is not None


class SlurmRunnerSettings(Encrypted):
    """All processes of one ``srun``: task 0 schedules, task 1 drives, the others work."""

    kind: Literal["slurm_runner"]
    memory: Annotated[Memory, Field(description="Of each worker.")]
    interface: Annotated[Word | None, Field(description="Network interface, such as 'ib0'.")] = None
    scratch: Annotated[
        str | None, Field(description="Folder for temporary files on each node; may hold $VARIABLES. Default $TMPDIR.")
    ] = None
    startup_seconds: Annotated[
        float, Field(gt=0, description="Seconds that the tasks may take to find their scheduler.")
    ] = 600.0


ClusterSettings = LocalSettings | QueueSettings | SshSettings | SchedulerSettings | SlurmRunnerSettings

_KINDS = {
    str(get_args(kind.model_fields["kind"].annotation)[0]): kind
    for kind in cast(tuple[type[BaseModel], ...], get_args(ClusterSettings))
}


def load_cluster(source: str | Path) -> ClusterSettings:
    """Settings from a YAML file, or from a shipped one by its name.

    Raises:
        SpecError: if the file is missing or does not fit; the message names file, key,
            what was expected and what was got.
    """
    path = SHIPPED.find(source)
    return parse_cluster(read_yaml(path), str(path))


def parse_cluster(data: Mapping[str, Any], source: str) -> ClusterSettings:
    """Settings from plain data; ``source`` is what messages call it."""
    kind = data.get("kind")
    if kind not in _KINDS:
        got = "nothing" if kind is None else repr(kind)
        raise SpecError(f"{source}: kind: expected one of {list(_KINDS)}, got {got}{suggestion(str(kind), _KINDS)}")
    settings: Any = validate(_KINDS[kind], data, source)
    return settings


def local_cluster(n_workers: int | None = None, threads: int = 1, *, dashboard: bool = False) -> LocalSettings:
    """Processes on this machine: what ``generate`` uses without a cluster file."""
    return validate(LocalSettings, {"workers": n_workers, "threads": threads, "dashboard": dashboard}, "options")


def running_scheduler(address: str, threads: int = 1, *, tls_folder: str | None = None) -> SchedulerSettings:
    """A scheduler that runs already: what ``--scheduler ADDRESS`` means.

    Raises:
        SpecError: if the address is not one, or plain TCP beyond this machine.
    """
    data = {"kind": "scheduler", "address": address, "threads": threads}
    return validate(SchedulerSettings, data | ({"tls_folder": tls_folder} if tls_folder else {}), "--scheduler")
