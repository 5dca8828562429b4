"""What does a generation of very many structures cost beside its calculations?

    python tests/benchmarks/scale.py --structures 100000          # computed, by a stand-in of a millisecond
    python tests/benchmarks/scale.py --plan-only 1000000          # planned and opened again

The stand-in calculator returns numbers of the right shapes (water, STO-3G: 7 orbitals).
Scheduler and two workers are processes of their own.  Printed as JSON: planning, plan
and manifest sizes, overhead per record, memory of the scheduler and of the generating
process, and the start-up time of a resume when nothing is left to do.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from qcsurrogate.clusters.settings import running_scheduler
from qcsurrogate.generation import generate
from qcsurrogate.sources.kinds import DisplacementSource
from qcsurrogate.store.folder import StoreFolder
from qcsurrogate.store.header import plan_file
from qcsurrogate.store.plan import make_plan, read_plan, write_plan
from qcsurrogate.store.spec import DataSpec, RandomSplit
from qcsurrogate.store.store import Store
from tests.benchmarks.chaos import Cluster
from tests.store import fakes

MIB = 2**20


def spec(count: int) -> DataSpec:
    """Displaced waters in the smallest basis."""
    return DataSpec(
        name="scale",
        structures=DisplacementSource(
            kind="displacement", equilibrium=fakes.WATER, sigma_angstrom=0.05, count=count, seed=1
        ),
        method=fakes.CHEAP,
        split=RandomSplit(kind="random", train=0.8, validation=0.1, test=0.1),
    )


def own_memory() -> float:
    """Highest memory of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def plan_only(folder: Path, count: int) -> dict[str, Any]:
    """Plan, write the plan, read it back as a resume does."""
    start = time.perf_counter()
    plan = make_plan(spec(count))[0]
    planned = time.perf_counter()
    write_plan(folder / "plan.h5", plan)
    written = time.perf_counter()
    after_planning = own_memory()
    again = read_plan(folder / "plan.h5")
    read = time.perf_counter()
    dict.fromkeys(again.keys, "waiting")
    _ = again.index
    indexed = time.perf_counter()
    return {
        "structures": len(again),
        "make_plan_s": planned - start,
        "write_plan_s": written - planned,
        "read_plan_s": read - written,
        "index_s": indexed - read,
        "plan_mib": (folder / "plan.h5").stat().st_size / MIB,
        "peak_memory_of_planning_mib": after_planning,
    }


class Memory:
    """Looks at a process's memory every second."""

    def __init__(self, pid: int) -> None:
        self.values: list[float] = []
        self._process, self._stop = psutil.Process(pid), threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._stop.wait(1.0) and self._process.is_running():
            try:
                self.values.append(self._process.memory_info().rss / MIB)
            except psutil.NoSuchProcess:
                return

    def end(self) -> dict[str, float]:
        """At a tenth of the run, at its end, at most; MiB."""
        self._stop.set()
        self._thread.join()
        return {
            "at_a_tenth": self.values[len(self.values) // 10],
            "at_the_end": self.values[-1],
            "most": max(self.values),
        }


def computed(folder: Path, count: int) -> dict[str, Any]:
    """Generate for real, with a calculator that costs next to nothing."""
    out = folder / "store"
    start = time.perf_counter()
    generate(spec(count), out, limit=0, quiet=True, calculator=fakes.pretend)
    planned = time.perf_counter()
    plan = Store.open(out).plan
    trial = [plan.structures[i] for i in range(200)]
    before = time.perf_counter()
    for structure in trial:
        fakes.pretend(structure, spec(count).method, spec(count).targets, {})
    calculator_s = (time.perf_counter() - before) / len(trial)
    cluster = Cluster(folder, out, count)
    for name in ("scheduler", "worker_0", "worker_1"):
        cluster.start(name)
    time.sleep(10)
    memory = Memory(cluster.processes["scheduler"].pid)
    started = time.perf_counter()
    try:
        summary = generate(
            spec(count), out, cluster=running_scheduler(cluster.address), calculator=fakes.pretend, quiet=True
        )
    finally:
        cluster.end()
    wall = time.perf_counter() - started
    resumed = time.perf_counter()
    generate(spec(count), out, quiet=True, calculator=fakes.pretend)
    resume = time.perf_counter() - resumed
    opened = time.perf_counter()
    store = Store.open(out)
    open_s = time.perf_counter() - opened
    shards = list(StoreFolder(out).shards.iterdir())
    return {
        "structures": count,
        "complete": summary.counts["complete"],
        "planning_s": planned - start,
        "wall_s": wall,
        "records_per_s": count / wall,
        "calculator_ms": 1000 * calculator_s,
        "overhead_per_record_ms_of_a_worker": 1000 * (2 * wall / count - calculator_s),
        "scheduler_memory_mib": memory.end(),
        "client_peak_memory_mib": own_memory(),
        "plan_mib": plan_file(out).stat().st_size / MIB,
        "manifests": sum(p.suffix == ".json" for p in shards),
        "manifests_mib": sum(p.stat().st_size for p in shards if p.suffix == ".json") / MIB,
        "shards_mib": sum(p.stat().st_size for p in shards if p.suffix == ".h5") / MIB,
        "resume_with_nothing_left_s": resume,
        "open_store_s": open_s,
        "records_in_store": len(store),
    }


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--structures", type=int, default=2000)
    parser.add_argument("--plan-only", type=int, metavar="N")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory(prefix="scale_") as name:
        folder = Path(name)
        n = options.plan_only
        result = plan_only(folder, n) if n else computed(folder, options.structures)
    json.dump({k: round(v, 3) if isinstance(v, float) else v for k, v in result.items()}, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
