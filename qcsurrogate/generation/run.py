"""From a spec to a store, through Dask: plan, compute, resume.

Only keys and states travel through the scheduler.  A worker reads the plan from the
store's folder, computes a structure, and commits the finished record there before it
reports.  So whatever dies, no finished record is lost, and starting again goes on.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import warnings
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import resource_tracker
from pathlib import Path
from time import perf_counter
from types import FrameType
from typing import Any, Protocol

import dask
from dask.system import CPU_COUNT
from distributed import Client, Future, KilledWorker, LocalCluster, wait

from qcsurrogate.errors import SpecError, StoreError
from qcsurrogate.reference.atoms import FreeAtoms, free_atoms
from qcsurrogate.reference.compute import compute_reference
from qcsurrogate.reference.kohn_sham import build_molecule, build_scf
from qcsurrogate.reference.record import ReferenceRecord
from qcsurrogate.reference.settings import Method, Targets
from qcsurrogate.store.files import exclusive_lock, is_disk_trouble, remove_quietly
from qcsurrogate.store.folder import Failure, Header, State, StoreFolder, source_digest
from qcsurrogate.store.plan import make_plan
from qcsurrogate.store.progress import Progress
from qcsurrogate.store.shards import read_records, write_records
from qcsurrogate.store.spec import DataSpec, differences
from qcsurrogate.store.store import Store
from qcsurrogate.structures import Structure

DEATHS_ALLOWED = 3
"""Workers that may die over one structure before it is recorded as failed."""

_BATCHES_PER_SLOT = 8
_LARGEST_BATCH = 4
_LOOK_EVERY_SECONDS = 0.5
_MEMORY_MB = 4000


class Calculator(Protocol):
    """What computes a record: :func:`qcsurrogate.reference.compute.compute_reference`."""

    def __call__(
        self,
        structure: Structure,
        method: Method,
        targets: Targets,
        atoms: FreeAtoms,
        *,
        threads: int = 1,
        max_memory_mb: int = _MEMORY_MB,
    ) -> ReferenceRecord: ...


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
    client: Client | None = None,
    n_workers: int | None = None,
    threads: int = 1,
    quiet: bool = False,
    limit: int | None = None,
    retry_failed: bool = False,
    calculator: Calculator = compute_reference,
) -> GenerationSummary:
    """Compute the reference records of a spec, or go on where an earlier call stopped.

    Args:
        spec: what to compute.
        out: the store's folder; on a cluster, one that every worker sees.
        client: a Dask client; by default a cluster of local processes is made.
        n_workers: processes of that local cluster; by default one per ``threads`` cores.
        threads: threads of each PySCF calculation.
        quiet: whether to keep silent about progress.
        limit: compute at most so many structures in this call.
        retry_failed: compute failed structures once more.
        calculator: what computes a record.

    Returns:
        A summary; structures that failed are in it and in the store, and stop nothing.

    Raises:
        StoreError: if the folder cannot be written or holds something else, if the disk
            is full, or if another process generates into it.
        SpecError: if the spec does not fit, or is not the one the store was begun with.
        StructureError, BasisError, ConvergenceError: if no plan can be made.
    """
    start = perf_counter()
    if threads < 1 or (n_workers is not None and n_workers < 1) or (limit is not None and limit < 0):
        raise SpecError(f"threads = {threads}, n_workers = {n_workers}, limit = {limit}; expected positive numbers")
    folder = StoreFolder(Path(out).absolute())
    folder.prepare()
    with exclusive_lock(folder.lock_file):
        folder.clean()
        header = _resumed(spec, folder) if folder.is_planned else _planned(spec, folder, quiet)
        run = _Run(folder, header, calculator, threads, _undamaged_pending(folder, header))
        todo = _todo(folder, header, retry_failed)[:limit]
        if todo:
            progress = Progress(len(todo), spec.name, quiet)
            with contextlib.closing(progress), _connected(client, n_workers, threads, folder) as dask_client:
                run.compute(todo, dask_client, progress)
        run.compact(everything="waiting" not in folder.states(header.plan).values())
    store = Store.open(folder.path)
    return GenerationSummary(Path(out), store.counts(), run.n_complete, tuple(store.failures()), perf_counter() - start)


def _planned(spec: DataSpec, folder: StoreFolder, quiet: bool) -> Header:
    if not quiet:
        print(f"planning {spec.name}", file=sys.stderr, flush=True)
    plan = make_plan(spec)
    build_scf(build_molecule(plan.structures[0], spec.method), spec.method)  # an unknown functional fails here
    atoms = free_atoms(plan.elements, spec.method)
    folder.write_header(spec, plan, atoms)
    return folder.read_header()


def _resumed(spec: DataSpec, folder: StoreFolder) -> Header:
    header = folder.read_header()
    changes = differences(header.spec, spec)
    if changes:
        raise SpecError(
            f"'{folder.path}' was begun with another spec; expected the same. Changed:\n  "
            + "\n  ".join(changes)
            + "\nGenerate into another folder, or take the changes back."
        )
    digest = source_digest(spec)
    if digest is not None and digest != folder.source_digest():
        raise SpecError(
            f"structures.path: the file's content is not that from which '{folder.path}' was planned; expected the "
            "same file. Generate into another folder, or put the file back."
        )
    return header


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


def _todo(folder: StoreFolder, header: Header, retry_failed: bool) -> list[str]:
    wanted = ("waiting", "running", "error") if retry_failed else ("waiting", "running")
    return [key for key, state in folder.states(header.plan).items() if state in wanted]


class _Run:
    """One run over the structures that are to be computed."""

    def __init__(
        self, folder: StoreFolder, header: Header, calculator: Calculator, threads: int, pending: set[str]
    ) -> None:
        self.folder = folder
        self.header = header
        self.calculator = calculator
        self.threads = threads
        self.pending = pending
        self.noted: set[str] = set()
        self.n_complete = 0

    def compute(self, todo: Sequence[str], client: Client, progress: Progress) -> None:
        """Compute structures, a bounded number of batches in flight at a time.

        Raises:
            StoreError: if a worker cannot write, or the scheduler is lost.
        """
        untried, alone = deque(todo), deque[str]()
        deaths: Counter[str] = Counter()
        in_flight: dict[Future[Any], tuple[str, ...]] = {}
        try:
            with _interrupts_noted() as interrupted:
                while (untried or alone or in_flight) and not interrupted.is_set():
                    slots = max(1, sum(client.nthreads().values()))  # workers may join and leave
                    while (untried or alone) and len(in_flight) <= 2 * slots:
                        batch = (alone.popleft(),) if alone else _next_batch(untried, slots)
                        in_flight[self._submit(client, batch, _memory_mb(slots))] = batch
                    for future in _first_done(in_flight):
                        if future.status in ("lost", "pending"):  # its worker died with the result: it is run again
                            continue
                        batch = in_flight.pop(future)
                        result = _outcomes_or_death(future)
                        if isinstance(result, KilledWorker):
                            result, again = self._after_death(batch, deaths)
                            alone.extend(again)
                        self._note(result, progress)
                    progress.show()
            if interrupted.is_set():
                raise KeyboardInterrupt
        finally:
            if in_flight:
                client.cancel(list(in_flight))

    def _submit(self, client: Client, batch: tuple[str, ...], memory_mb: int) -> Future[Any]:
        return client.submit(
            compute_batch, str(self.folder.path), batch, self.calculator, self.threads, memory_mb, pure=False
        )

    def _after_death(self, batch: tuple[str, ...], deaths: Counter[str]) -> tuple[list[Outcome], list[str]]:
        """What a batch left behind whose worker died, and what of it to try again alone."""
        done = self.folder.pending_keys(self.header.plan) | {p.stem for p in self.folder.errors.glob("*.json")}
        outcomes = [Outcome(key, failed=self.folder.error_file(key).is_file()) for key in batch if key in done]
        again = []
        for key in batch:
            if key in done:
                continue
            self.folder.unmark_running(key)
            deaths[key] += len(batch) == 1
            if deaths[key] < DEATHS_ALLOWED:
                again.append(key)
                continue
            label = self.header.plan.structures[self.header.plan.index[key]].label
            message = (
                f"{label}: the worker process died {DEATHS_ALLOWED} times over it, perhaps for lack of memory; "
                f"use fewer workers or leave it out"
            )
            self.folder.write_failure(key, "WorkerDied", message)
            outcomes.append(Outcome(key, failed=True))
        return outcomes, again

    def _note(self, outcomes: Iterable[Outcome], progress: Progress) -> None:
        for outcome in outcomes:
            if outcome.key in self.noted:
                continue
            self.noted.add(outcome.key)
            if not outcome.failed:
                self.n_complete += 1
                self.pending.add(outcome.key)
            progress.advance(failed=outcome.failed)
        self.compact()

    def compact(self, *, everything: bool = False) -> None:
        """Move pending records into shards: full ones, and at the end the rest too."""
        size = self.header.spec.shard_size
        order = self.header.plan.index
        while len(self.pending) >= size or (everything and self.pending):
            keys = sorted(self.pending, key=order.__getitem__)[:size]
            self.folder.write_shard(keys, self.header.plan, self.header.spec)
            self.pending.difference_update(keys)


@dataclass(frozen=True)
class Outcome:
    """What became of one structure."""

    key: str
    failed: bool


def compute_batch(
    path: str, keys: Sequence[str], calculator: Calculator, threads: int, max_memory_mb: int
) -> list[Outcome]:
    """Compute structures of a store and commit each as soon as it is finished.

    This runs on the workers. A structure that fails, for whatever reason, is recorded.

    Raises:
        StoreError: if the store cannot be read or written.
    """
    folder = StoreFolder(Path(path))
    header = _header(path, folder.header_file.stat().st_mtime_ns)
    return [_compute_one(folder, header, key, calculator, threads, max_memory_mb) for key in keys]


@lru_cache(maxsize=2)
def _header(path: str, _modified: int) -> Header:
    return StoreFolder(Path(path)).read_header()


def _compute_one(
    folder: StoreFolder, header: Header, key: str, calculator: Calculator, threads: int, max_memory_mb: int
) -> Outcome:
    spec, plan = header.spec, header.plan
    if folder.pending_file(key).is_file():  # Dask ran this task before, and lost the answer
        return Outcome(key, failed=False)
    folder.mark_running(key)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            record = calculator(
                plan.structures[plan.index[key]],
                spec.method,
                spec.targets,
                header.atoms,
                threads=threads,
                max_memory_mb=max_memory_mb,
            )
        write_records(folder.pending_file(key), [(key, record)], plan, spec)
        remove_quietly(folder.error_file(key))
        return Outcome(key, failed=False)
    except StoreError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and is_disk_trouble(error):
            raise StoreError(f"cannot work in '{path_of(error, folder)}': {error}; free some space") from error
        folder.write_failure(key, type(error).__name__, str(error) or type(error).__name__)
        return Outcome(key, failed=True)
    finally:
        folder.unmark_running(key)


def path_of(error: OSError, folder: StoreFolder) -> str:
    """The file an error speaks of, or else the store."""
    return str(error.filename or folder.path)


def _next_batch(keys: deque[str], slots: int) -> tuple[str, ...]:
    """A few structures while there are many left, single ones towards the end."""
    size = max(1, min(_LARGEST_BATCH, len(keys) // (_BATCHES_PER_SLOT * slots)))
    return tuple(keys.popleft() for _ in range(size))


def _first_done(futures: Iterable[Future[Any]]) -> set[Future[Any]]:
    try:
        return set(wait(list(futures), timeout=_LOOK_EVERY_SECONDS, return_when="FIRST_COMPLETED").done)
    except TimeoutError:
        return set()


def _outcomes_or_death(future: Future[Any]) -> list[Outcome] | KilledWorker:
    """What a task that is done has to say, or the death of the workers that tried it.

    Raises:
        StoreError: if the task could not write, or if the scheduler dropped it.
    """
    try:
        outcomes: list[Outcome] = future.result()
    except KilledWorker as death:
        return death
    except CancelledError as error:
        raise StoreError("the Dask scheduler dropped a task; start again: everything finished is kept") from error
    return outcomes


def _memory_mb(slots: int) -> int:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20
    return max(500, min(_MEMORY_MB, int(0.6 * total / slots)))


@contextlib.contextmanager
def _connected(client: Client | None, n_workers: int | None, threads: int, folder: StoreFolder) -> Iterator[Client]:
    """The given client, or one of a cluster of local processes that lives as long as this."""
    if client is not None:
        yield client
        return
    n_workers = n_workers or max(1, CPU_COUNT // threads)
    environment = {
        **{f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "MKL", "OPENBLAS", "NUMEXPR")},
        "PYSCF_TMPDIR": str(folder.scratch),
        "TMPDIR": str(folder.scratch),
        "PYTHONWARNINGS": "ignore",
    }
    settings = {
        "distributed.nanny.pre-spawn-environ": environment,
        "distributed.scheduler.allowed-failures": 0,
        "distributed.scheduler.worker-saturation": 1.0,
        "distributed.deploy.lost-worker-timeout": "1 day",  # a worker that died may take its time to come back
        "distributed.logging": {"distributed": "critical"},
        "temporary-directory": str(folder.scratch),
    }
    with contextlib.ExitStack() as stack:
        stack.enter_context(dask.config.set(settings))
        with _interrupts_held_back():
            cluster = LocalCluster(
                n_workers=n_workers,
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                worker_dashboard_address="127.0.0.1:0",
                local_directory=str(folder.scratch),
                silence_logs=logging.CRITICAL,
            )
            stack.enter_context(cluster)
            local = stack.enter_context(Client(cluster))
        yield local


@contextlib.contextmanager
def _interrupts_noted() -> Iterator[threading.Event]:
    """Note Ctrl-C instead of raising it wherever the program is; a second one is raised.

    Raised inside a callback of a C library (h5py has some), it would be swallowed.
    """
    noted = threading.Event()
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield noted
        return

    def note(_number: int, _frame: FrameType | None) -> None:
        noted.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, note)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Let Ctrl-C wait until the cluster stands, and never reach its processes.

    Threads and processes inherit the mask, so that only the calling thread, which
    leaves the store in order, ever sees the interrupt.
    """
    resource_tracker.ensure_running()  # it would unblock the signal if it were started inside
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
