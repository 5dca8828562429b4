"""From a spec to a store: plan, compute, resume.

Only names and states travel through the Dask scheduler.  Workers read their structures
from the store's folder and commit finished records there before they report.  So
whatever dies, no finished record is lost, and starting again goes on.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
from distributed import Client

from qcsurrogate.clusters.allocation import taking_part
from qcsurrogate.clusters.settings import ClusterSettings, local_cluster
from qcsurrogate.clusters.start import connected
from qcsurrogate.clusters.watch import Connection
from qcsurrogate.errors import ClusterError, SpecError, StoreError
from qcsurrogate.files.atomic import (
    cannot_write,
    check_writable,
    disk_trouble_behind,
    exclusive_lock,
    remove_quietly,
)
from qcsurrogate.generation.driver import Driver
from qcsurrogate.generation.worker import Calculator, Orders
from qcsurrogate.reference.atoms import free_atoms
from qcsurrogate.reference.compute import compute_reference
from qcsurrogate.reference.kohn_sham import build_molecule, build_scf
from qcsurrogate.store.failures import Failure, checked_limits
from qcsurrogate.store.folder import State, StoreFolder
from qcsurrogate.store.growth import resumed
from qcsurrogate.store.header import Header
from qcsurrogate.store.plan import make_plan
from qcsurrogate.store.progress import Progress
from qcsurrogate.store.shards import read_records
from qcsurrogate.store.spec import SPLIT_NAMES, DataSpec, HashSplit
from qcsurrogate.store.store import Store
from qcsurrogate.store.upkeep import clean


@dataclass(frozen=True)
class GenerationSummary:
    """What a call of :func:`generate` did, and how the store stands.

    Attributes:
        path: the store.
        counts: number of structures by state.
        computed: records that this call computed.
        failures: all structures in the state ``error``.
        wall_time: seconds that this call took.
    """

    path: Path
    counts: dict[State, int]
    computed: int
    failures: tuple[Failure, ...]
    wall_time: float


def generate(
    spec: DataSpec,
    out: str | Path,
    *,
    cluster: ClusterSettings | None = None,
    client: Client | None = None,
    n_workers: int | None = None,
    threads: int = 1,
    quiet: bool = False,
    limit: int | None = None,
    retry_failed: bool = False,
    time_limit: float | None = None,
    attempts: Mapping[str, int] | None = None,
    calculator: Calculator = compute_reference,
) -> GenerationSummary:
    """Compute the reference records of a spec, or go on where an earlier call stopped.

    A store whose spec or structure files have come to have more structures grows by them.

    Args:
        spec: what to compute.
        out: the store's folder; on a cluster, one that every worker sees.
        cluster: where to compute, see :func:`qcsurrogate.clusters.settings.load_cluster`;
            by default in ``n_workers`` processes on this machine.
        client: a Dask client, instead of ``cluster``.
        n_workers: processes on this machine; by default one per ``threads`` cores.
        threads: OpenMP threads of each of them.
        quiet: whether to keep silent about progress.
        limit: compute at most so many structures in this call.
        retry_failed: compute failed structures once more.
        time_limit: seconds that one structure may take; by default any time.
        attempts: by cause, how many failed attempts put a structure aside; other causes
            keep those of :data:`qcsurrogate.store.failures.ATTEMPT_LIMITS`.
        calculator: what computes a record.

    Returns:
        A summary; structures that failed are in it and in the store, and stop nothing.

    Raises:
        StoreError: if the folder cannot be written or holds something else, if the disk
            is full, or if another process generates into it.
        SpecError: if the spec does not fit, or is not the one the store was begun with, but for added structures.
        StructureError, BasisError, ConvergenceError: if no plan can be made.
        ClusterError: if the cluster does not start, or its scheduler is lost.
    """

    def say(text: str) -> None:
        if not quiet:
            print(text, file=sys.stderr, flush=True)

    start = perf_counter()
    if threads < 1 or (n_workers is not None and n_workers < 1) or (limit is not None and limit < 0):
        raise SpecError(f"threads = {threads}, n_workers = {n_workers}, limit = {limit}; expected positive numbers")
    if time_limit is not None and not time_limit > 0:
        raise SpecError(f"time_limit = {time_limit}; expected a positive number of seconds")
    if cluster is not None and client is not None:
        raise SpecError("cluster and client were both given; expected one of them, or neither")
    settings = cluster or local_cluster(n_workers, threads)
    limits = checked_limits(attempts)
    folder = StoreFolder(Path(out).absolute())
    orders = Orders(str(folder.path), calculator, limits, time_limit, None if client is None else threads)
    with taking_part(settings) as allocation:  # a task of an allocation that only serves never comes back
        given = allocation if client is None else Connection(client)
        folder.prepare()
        with exclusive_lock(folder.lock_file):
            interrupted, next_shard = clean(folder)
            header = (resumed if folder.is_planned else _planned)(folder, spec, say)
            pending = _undamaged_pending(folder, header)
            driver = Driver(folder, header, orders, pending, next_shard)
            todo, alone = _todo(folder, header, interrupted, retry_failed)
            if todo := todo[:limit]:
                progress = Progress(len(todo), spec.name, quiet)
                with (
                    contextlib.closing(progress),
                    _connection(given, settings, folder, say) as connection,
                ):
                    driver.compute(todo, alone, connection, progress)
            driver.finish()
    store = Store.open(folder.path)
    failures = tuple(store.failures())
    return GenerationSummary(Path(out), store.counts(), driver.n_complete, failures, perf_counter() - start)


def _planned(folder: StoreFolder, spec: DataSpec, say: Callable[[str], None]) -> Header:
    say(f"planning {spec.name}")
    plan, collected = make_plan(spec)
    say("structures: " + ", ".join(f"{what} {n}" for what, n in collected.items()))
    if isinstance(spec.split, HashSplit):
        sizes = zip(SPLIT_NAMES, np.bincount(plan.split, minlength=len(SPLIT_NAMES)).tolist(), strict=True)
        say("split by hash: " + ", ".join(f"{name} {n}" for name, n in sizes))
    build_scf(build_molecule(plan.structures[0], spec.method), spec.method)  # an unknown functional fails here
    atoms = free_atoms(plan.elements, spec.method)
    folder.write_header(spec, plan, atoms, collected)
    return folder.read_header()


def _undamaged_pending(folder: StoreFolder, header: Header) -> set[str]:
    """Keys of pending records; one that cannot be read is removed, to be computed again."""
    sound = set()
    for key in folder.pending_keys(header.plan):
        try:
            read_records(folder.pending_file(key), [key], header.plan, header.spec)
        except StoreError:
            remove_quietly(folder.pending_file(key))
        else:
            sound.add(key)
    return sound


def _todo(
    folder: StoreFolder, header: Header, interrupted: Collection[str], retry_failed: bool
) -> tuple[list[str], set[str]]:
    """What to compute, in planned order, and what of it each in a batch of its own."""
    states = folder.states(header.plan)
    if retry_failed:
        for key in (key for key, state in states.items() if state == "error"):
            folder.forgive(key)
    wanted = ("waiting", "running", "error") if retry_failed else ("waiting", "running")
    alone = folder.tried_before().union(interrupted)
    return [key for key, state in states.items() if state in wanted], alone


@contextlib.contextmanager
def _connection(
    given: Connection | None, settings: ClusterSettings, folder: StoreFolder, say: Callable[[str], None]
) -> Iterator[Connection]:
    """The one that is given, which others look after, or to the workers of the cluster that is wanted."""
    with contextlib.ExitStack() as stack:
        try:
            check_writable(folder.scratch)
            connection = given or stack.enter_context(connected(settings, folder.scratch, say))
        except ClusterError as error:
            trouble = disk_trouble_behind(error)
            if trouble is None:
                raise
            raise cannot_write(Path(trouble.filename or folder.scratch), trouble) from error
        if connection.dashboard is not None:
            say(f"dashboard: {connection.dashboard}")
        yield connection
