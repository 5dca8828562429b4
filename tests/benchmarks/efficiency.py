"""How much longer does `generate` take than the same calculations in a bare loop, and how large are its files?

    python tests/benchmarks/efficiency.py water 200
    python tests/benchmarks/efficiency.py qm9 60

Both run in two processes of one thread each, one after the other, on structures that
were planned before: the bare loop is ``multiprocessing.Pool(2)`` over
:func:`compute_reference` (largest first, one at a time, results thrown away), and
includes starting its processes, as ``generate`` includes starting its workers.  The order of
the two alternates over ``--repeats``; medians and the ratio are printed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SINGLE = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS")}


def spec(kind: str, count: int) -> Any:
    """Water at 500 K, or the first molecules of qm9_small; the shipped specs otherwise."""
    from qcsurrogate.store.spec import load_spec

    if kind == "water":
        return load_spec("water_thermal", {"structures.count": count, "split": split(count)})
    return load_spec("qm9_small", {"structures.limit": count, "split": split(count)})


def split(count: int) -> dict[str, Any]:
    """Everything trains but two."""
    return {"kind": "random", "train": count - 2, "validation": 1, "test": 1}


def one(task: Any) -> int:
    """One calculation of the bare loop."""
    from qcsurrogate.reference.compute import compute_reference

    structure, method, targets, atoms = task
    return compute_reference(structure, method, targets, atoms, threads=1).cycles


def bare_loop(kind: str, count: int, folder: Path) -> float:
    """Seconds of the bare loop over the planned structures of a store."""
    from qcsurrogate.store.folder import StoreFolder

    start = time.perf_counter()
    header = StoreFolder(folder / "plan").read_header()
    data = spec(kind, count)
    order = sorted(range(count), key=lambda i: -int(header.plan.n_ao[i]))
    tasks = [(header.plan.structures[i], data.method, data.targets, header.atoms) for i in order]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        for _ in pool.imap_unordered(one, tasks):
            pass
    return time.perf_counter() - start


def generation(kind: str, count: int, folder: Path) -> float:
    """Seconds of ``generate`` on a copy of the planned store, as a program of its own would take them."""
    import shutil

    from qcsurrogate.generation import generate

    shutil.rmtree(folder / "store", ignore_errors=True)
    shutil.copytree(folder / "plan", folder / "store")
    start = time.perf_counter()
    summary = generate(spec(kind, count), folder / "store", n_workers=2, quiet=True)
    if summary.counts["complete"] != count:
        raise SystemExit(f"{summary.counts}")
    return time.perf_counter() - start


def in_a_process(what: str, kind: str, count: int, folder: Path) -> float:
    """Measured in a fresh interpreter."""
    command = [sys.executable, __file__, kind, str(count), "--only", what, "--folder", str(folder)]
    environment = os.environ | SINGLE | {"PYTHONPATH": str(ROOT)}
    return float(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


def sizes(folder: Path) -> dict[str, float]:
    """Bytes of the store's files against its matrices as raw float64."""
    from qcsurrogate.store.store import Store

    store = Store.open(folder / "store")
    raw = everything = 0
    for record in store.read_many(store.keys()):
        matrices = [record.overlap, record.hamiltonian, record.density_matrix]
        raw += sum(m.nbytes for m in matrices if m is not None)
        everything += sum(
            c.nbytes for c in (record.density_coefficients, record.density_coefficients_unprojected) if c is not None
        )
    files = sum(path.stat().st_size for path in (folder / "store").rglob("*") if path.is_file())
    return {
        "raw_matrices_mib": raw / 2**20,
        "coefficients_mib": everything / 2**20,
        "files_mib": files / 2**20,
        "files_over_raw_matrices": files / raw,
    }


def main() -> None:
    """Measure both, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["water", "qm9"], nargs="?", default="water")
    parser.add_argument("count", type=int, nargs="?", default=200)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--only", choices=["bare", "generate"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    kind, count = options.kind, options.count
    if options.only:
        measure = bare_loop if options.only == "bare" else generation
        print(measure(kind, count, options.folder))
        return
    from qcsurrogate.generation import generate

    with tempfile.TemporaryDirectory(prefix="efficiency_") as name:
        folder = Path(name)
        generate(spec(kind, count), folder / "plan", limit=0, quiet=True)
        times: dict[str, list[float]] = {"bare": [], "generate": []}
        for i in range(options.repeats):
            for what in ("bare", "generate") if i % 2 == 0 else ("generate", "bare"):
                times[what].append(in_a_process(what, kind, count, folder))
        bare, generated = (statistics.median(times[what]) for what in ("bare", "generate"))
        result = {
            "kind": kind,
            "structures": count,
            "load_average": os.getloadavg()[0],
            "seconds": times,
            "ratio_of_medians": generated / bare,
            **sizes(folder),
        }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
