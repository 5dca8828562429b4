"""Does a generation survive anything?  Kill its processes at random, fill its disk, forbid it to write.

    python tests/benchmarks/chaos.py --kills 30 --seed 0

A Dask scheduler, two workers and the generating process run as processes of their own
and are killed (SIGKILL) at random moments: a worker, its nanny, the scheduler, the
client, or all of them at once; what died is started again, as a user or a service
would.  With --disk the store first lies on a small tmpfs that fills up, and becomes
read-only for a while (this needs the right to mount; see `can_mount`).

At the end every structure must be complete, or put aside with a cause; every file must
be readable, no record there twice, and every record equal to that of a quiet run within
the SCF's tolerance.  The script prints what happened and exits with 1 if any of that
fails.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from qcsurrogate.errors import StoreError
from qcsurrogate.generation import generate
from qcsurrogate.reference.compute import compute_reference
from qcsurrogate.reference.record import ReferenceRecord
from qcsurrogate.reference.settings import EvenTempered, Method
from qcsurrogate.sources.kinds import DisplacementSource
from qcsurrogate.store.spec import DataSpec, RandomSplit, load_spec
from qcsurrogate.store.store import Store

ROOT = Path(__file__).parents[2]
TOLERANCE_HARTREE = 1e-6
TARGETS = ("worker", "nanny", "scheduler", "client", "everything")

CLIENT = """
import sys
from qcsurrogate.errors import QCSurrogateError
from qcsurrogate.generation import generate
from qcsurrogate.clusters.settings import running_scheduler
from tests.benchmarks.chaos import chaos_spec, unhurried

if __name__ == "__main__":
    store, count, address = sys.argv[1:]
    try:
        generate(chaos_spec(int(count)), store, cluster=running_scheduler(address), calculator=unhurried)
    except QCSurrogateError as error:
        sys.exit(f"{type(error).__name__}: {error}")
"""


def chaos_spec(count: int) -> DataSpec:
    """Displaced waters in a small basis: a real calculation of a tenth of a second."""
    water = load_spec("water_demo").structures.equilibrium  # type: ignore[union-attr]
    return DataSpec(
        name="chaos",
        structures=DisplacementSource(kind="displacement", equilibrium=water, sigma_angstrom=0.05, count=count, seed=5),
        method=Method(basis="sto-3g", grid_level=0, auxiliary_basis=EvenTempered(even_tempered_beta=2.5)),
        split=RandomSplit(kind="random", train=0.8, validation=0.1, test=0.1),
        shard_size=20,
    )


def unhurried(*arguments: Any, **options: Any) -> ReferenceRecord:
    """A real record, and then some time to be killed in."""
    record = compute_reference(*arguments, **options)
    time.sleep(0.5)
    return record


@dataclass
class Cluster:
    """A scheduler, workers and a client, each in a process of its own."""

    folder: Path
    store: Path
    count: int
    workers: int = 2
    port: int = 0
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    client_ends: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def start(self, name: str) -> None:
        """Start one process under a name."""
        python = sys.executable
        local = f"--local-directory={self.folder / 'dask'}"
        command = {
            "scheduler": [
                python,
                "-m",
                "distributed.cli.dask_scheduler",
                "--host",
                "127.0.0.1",
                "--port",
                str(self.port),
            ],
            "client": [python, "-c", CLIENT, str(self.store), str(self.count), self.address],
        }.get(name, [python, "-m", "distributed.cli.dask_worker", self.address, "--nthreads", "1", local])
        if name == "scheduler":
            command += ["--dashboard-address", "127.0.0.1:0"]
        elif name != "client":
            command += ["--worker-port", "0", "--dashboard-address", "127.0.0.1:0", "--death-timeout", "60"]
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0",
            "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "10s",
            "TMPDIR": str(self.folder),
        }
        with open(self.folder / f"{name}.log", "ab") as log:
            self.processes[name] = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)

    def keep_up(self) -> bool:
        """Start again what has ended; returns whether the client has finished its work."""
        for name in ("scheduler", *(f"worker_{i}" for i in range(self.workers)), "client"):
            process = self.processes.get(name)
            if process is None:
                self.start(name)
            elif process.poll() is not None:
                if name == "client":
                    self.client_ends[str(process.returncode)] += 1
                    if process.returncode == 0:
                        return True
                self.start(name)
        return False

    def kill(self, target: str, generator: np.random.Generator) -> None:
        """SIGKILL one process, or all."""
        worker = self.processes[f"worker_{generator.integers(self.workers)}"]
        if target == "worker":
            victims = _children(worker.pid)
        elif target == "nanny":
            victims = [worker.pid]
        elif target == "everything":
            victims = [pid for p in self.processes.values() for pid in (p.pid, *_children(p.pid))]
        else:
            victims = [self.processes[target].pid]
        for pid in victims:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if target == "everything":
            for process in self.processes.values():
                process.wait()

    def end(self) -> None:
        """Kill whatever still runs."""
        self.kill("everything", np.random.default_rng(0))


def _children(pid: int) -> list[int]:
    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def kill_at_random(folder: Path, store: Path, count: int, kills: int, seed: int) -> dict[str, Any]:
    """Generate while processes are killed at random, then to the end; returns what happened."""
    generator = np.random.default_rng(seed)
    cluster = Cluster(folder, store, count)
    more = generator.choice(TARGETS, max(0, kills - len(TARGETS)), p=[0.35, 0.1, 0.15, 0.25, 0.15])
    targets = generator.permutation([*TARGETS, *more])[:kills]  # each of them at least once
    done: Counter[str] = Counter()
    start = time.monotonic()
    try:
        for target in targets.tolist():
            finished = cluster.keep_up()
            if finished:
                raise SystemExit(f"everything was finished after {done.total()} kills; take more structures")
            deadline = time.monotonic() + generator.uniform(2.0, 8.0)
            while time.monotonic() < deadline:
                time.sleep(0.2)
                cluster.keep_up()
            cluster.kill(target, generator)
            done[target] += 1
        print(f"{kills} kills in {time.monotonic() - start:.0f} s; now to the end", flush=True)
        deadline = time.monotonic() + 900
        while not cluster.keep_up():
            if time.monotonic() > deadline:
                raise SystemExit(f"not finished 900 s after the last kill; see the logs in '{folder}'")
            time.sleep(0.5)
    finally:
        cluster.end()
    log = (folder / "client.log").read_text().replace(cluster.address, "ADDRESS").replace(str(folder), "...")
    said = Counter(line for line in log.splitlines() if re.match(r"\w+Error: ", line))
    seconds = round(time.monotonic() - start)
    return {
        "kills": dict(done),
        "client_ends": dict(cluster.client_ends),
        "client_said": dict(said),
        "seconds": seconds,
    }


def differences(store: Path, quiet: Path) -> list[str]:
    """Everything that is wrong with a store when it is compared with that of a quiet run."""
    problems = []
    found, expected = Store.open(store), Store.open(quiet)
    counts = found.counts()
    if counts["waiting"] or counts["running"]:
        problems.append(f"structures neither complete nor put aside: {counts}")
    problems += [f"{f.name} was put aside without a cause" for f in found.failures() if f.cause == "unexpected"]
    listed = [key for shard in found.folder.manifests() for key in shard.keys]
    singles = [path.stem for path in found.folder.pending.glob("*.record")]
    twice = [key for key, n in Counter(listed + singles).items() if n > 1]
    if twice:
        problems.append(f"{len(twice)} records are there more than once")
    leftovers = list(found.path.rglob("*.tmp"))
    if leftovers:
        problems.append(f"unfinished files: {leftovers}")
    keys = found.keys()
    for record, reference in zip(found.read_many(keys), expected.read_many(keys), strict=True):
        for name in ("hamiltonian", "energy", "overlap"):
            difference = np.abs(np.asarray(record.value(name)) - np.asarray(reference.value(name))).max()
            if not difference <= TOLERANCE_HARTREE:
                problems.append(f"{record.structure.name}: {name} differs from the quiet run by {difference:.1e}")
    return problems


def can_mount() -> bool:
    """Whether this process may mount a tmpfs."""
    return os.geteuid() == 0 and shutil.which("mount") is not None and _mount_works()


def _mount_works() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True).returncode:
            return False
        return subprocess.run(["umount", folder], capture_output=True).returncode == 0


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A tmpfs of a size, mounted in a folder."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    """Change a mounted tmpfs."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def disk_trouble(folder: Path, count: int) -> dict[str, Any]:
    """Fill a disk, forbid writing, give room again; returns the errors that a user saw."""
    said = []
    store = folder / "disk" / "store"
    with small_disk(folder / "disk", "300k") as disk:
        for options in ("size=340k", "ro", "rw,size=380k", "size=400k", "ro", "rw,size=64m"):
            try:
                generate(chaos_spec(count), store, n_workers=2, quiet=True)
            except StoreError as error:
                said.append(str(error).replace(str(folder), "..."))
            else:
                raise SystemExit("a full or read-only disk went unnoticed")
            if Store.open(store).verify() != Store.open(store).counts()["complete"]:
                raise SystemExit("a record that counts as complete cannot be read")
            remount(disk, options)
        generate(chaos_spec(count), store, n_workers=2, quiet=True)
        shutil.copytree(store, folder / "after_disk_trouble")
    return {"said": said}


def main() -> int:
    """Run it, print it, judge it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--structures", type=int, default=0, help="default: enough for the kills")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--disk", action="store_true", help="full and read-only disks too; needs the right to mount")
    options = parser.parse_args()
    count = options.structures or 60 + 12 * options.kills
    with tempfile.TemporaryDirectory(prefix="chaos_") as name:
        folder = Path(name)
        generate(chaos_spec(count), folder / "quiet", n_workers=2, quiet=True)
        result: dict[str, Any] = kill_at_random(folder, folder / "store", count, options.kills, options.seed)
        problems = differences(folder / "store", folder / "quiet")
        store = Store.open(folder / "store")
        result["states"] = store.counts()
        result["put_aside"] = {f.name: dict(f.by_cause) for f in store.failures()}
        if options.disk:
            if not can_mount():
                raise SystemExit("--disk needs the right to mount a tmpfs (root)")
            small = min(count, 120)
            result["disk"] = disk_trouble(folder, small)
            generate(chaos_spec(small), folder / "quiet_small", n_workers=2, quiet=True)
            problems += differences(folder / "after_disk_trouble", folder / "quiet_small")
    print(json.dumps(result, indent=2))
    print("\n".join(problems) if problems else "nothing lost, nothing twice, nothing different")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
