"""What does a predicted Hamiltonian cost, part by part, beside its SCF and as molecules grow?

    python tests/benchmarks/prediction_speed.py run/model.safetensors molecule batch
    python tests/benchmarks/prediction_speed.py run/model.safetensors alkanes --largest 60

MODEL is a Hamiltonian model of H and C (whose weights do not matter here); ``molecule`` is
cyclohexene, 16 atoms and 134 functions of def2-SVP, side by side with its B3LYP SCF;
``batch`` 100 molecules of QM9; ``alkanes`` all-trans C2, C4, C8 ... Everything goes through
``load(MODEL).predict`` and asks for orbital energies, on one thread unless --threads says
otherwise.  Parts are exclusive: they add up to the whole.  Medians, as JSON.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import resource
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
from ase.data import atomic_numbers
from pyscf import gto, lib
from pyscf.scf import hf

from qcsurrogate.basis import BasisSet
from qcsurrogate.data.graphs import GraphSettings
from qcsurrogate.domain import OutsideTrainingDomain
from qcsurrogate.prediction.surrogate import load
from qcsurrogate.quantities.hamiltonian import model as hamiltonian
from qcsurrogate.reference import orthogonal
from qcsurrogate.reference.evaluation import run_scf
from qcsurrogate.reference.settings import Method
from qcsurrogate.sources.collect import collect
from qcsurrogate.sources.kinds import PackagedSource
from qcsurrogate.structures import Structure
from qcsurrogate.units import BOHR_PER_ANGSTROM

_CYCLOHEXENE = """
C -1.2419 -0.4755 -0.0831; C 0.0107 -1.2176 -0.5410; C 1.2357 -0.8019 0.2778; C 1.3097 0.6784 0.5157
C 0.2811 1.5093 0.2906; C -1.0618 1.0411 -0.1896; H -1.4626 -0.7462 0.9575; H -2.1051 -0.7872 -0.6820
H 0.1898 -1.0042 -1.6026; H -0.1397 -2.2997 -0.4558; H 2.1416 -1.1330 -0.2426; H 1.2202 -1.3077 1.2505
H 2.2518 1.0765 0.8843; H 0.4041 2.5758 0.4620; H -1.8490 1.5354 0.3909; H -1.1848 1.3564 -1.2325
"""

_PARTS: tuple[tuple[Any, str, str], ...] = (
    (GraphSettings, "graph", "graph"),
    (hamiltonian, "collate", "graph"),
    (BasisSet, "build_mol", "integrals of T, V and S"),
    (gto.Mole, "intor", "integrals of T, V and S"),
    (orthogonal, "potential_hamiltonian", "integrals of H0"),
    (orthogonal, "response_hamiltonian", "integrals of its response"),
    (hamiltonian.HamiltonianModel, "starting_points", "products in the orthogonalised basis"),
    (orthogonal.StartingPoint, "hamiltonian", "products in the orthogonalised basis"),
    (np.linalg, "eigh", "S^-1/2 and H0 diagonalisation"),
    (hamiltonian, "rows_of_batch", "cutting H0's blocks"),
    (hamiltonian.HamiltonianModel, "forward", "network"),
    (hamiltonian.HamiltonianModel, "corrections", "assembly"),
    (hf, "eig", "final diagonalisation"),
)


class Stopwatch:
    """Seconds that each part spent in itself, not in others that it calls."""

    clock = staticmethod(time.perf_counter)

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._running: list[str] = []
        self._since = 0.0

    def _switch(self) -> None:
        now = self.clock()
        if self._running:
            part = self._running[-1]
            self.seconds[part] = self.seconds.get(part, 0.0) + now - self._since
        self._since = now

    @contextmanager
    def timing(self, part: str) -> Iterator[None]:
        """Time what happens inside."""
        self._switch()
        self._running.append(part)
        try:
            yield
        finally:
            self._switch()
            self._running.pop()

    def watched(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        """The function, timed."""

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.timing(part):
                return function(*args, **kwargs)

        return timed


def parts_of(call: Callable[[], object]) -> dict[str, float]:
    """Seconds of every part of a call; 'the rest' is what none of them holds."""
    watch = Stopwatch()
    with ExitStack() as stack:
        for owner, name, part in _PARTS:
            stack.enter_context(mock.patch.object(owner, name, watch.watched(getattr(owner, name), part)))
        with watch.timing("the rest"):
            call()
    return watch.seconds


def medians(call: Callable[[], object], repeats: int) -> dict[str, float]:
    """Milliseconds: the median of the whole and of every part, after one call that does not count."""
    call()
    runs = [parts_of(call) for _ in range(repeats)]
    return {
        "all": round(1000 * statistics.median(sum(run.values()) for run in runs), 2),
        **{part: round(1000 * statistics.median(run[part] for run in runs), 2) for part in runs[0]},
    }


def cyclohexene() -> Structure:
    """16 atoms, MMFF geometry."""
    rows = [atom.split() for atom in _CYCLOHEXENE.strip().replace("\n", ";").split(";")]
    positions = np.array([[float(x) for x in row[1:]] for row in rows]) * BOHR_PER_ANGSTROM
    return Structure(np.array([atomic_numbers[row[0]] for row in rows]), positions, name="cyclohexene")


def alkane(n_carbons: int) -> Structure:
    """An all-trans alkane: C-C 1.53, C-H 1.09 angstrom, C-C-C 112.5, H-C-H 107 degrees."""
    half, spread = np.radians(112.5) / 2, np.radians(107.0) / 2
    numbers, positions = [], []
    for k in range(n_carbons):
        side = 1.0 if k % 2 == 0 else -1.0
        carbon = np.array([k * 1.53 * np.sin(half), side * 0.5 * 1.53 * np.cos(half), 0.0])
        numbers.append(6)
        positions.append(carbon)
        for up in (1.0, -1.0):
            numbers.append(1)
            positions.append(carbon + 1.09 * np.array([0.0, side * np.cos(spread), up * np.sin(spread)]))
        for end, out in ((0, -1.0), (n_carbons - 1, 1.0)):
            if k == end:  # where the chain would go on
                numbers.append(1)
                positions.append(carbon + 1.09 * np.array([out * np.sin(half), -side * np.cos(half), 0.0]))
    return Structure(
        np.array(numbers), np.array(positions) * BOHR_PER_ANGSTROM, name=f"C{n_carbons}H{2 * n_carbons + 2}"
    )


def qm9(count: int) -> Sequence[Structure]:
    """Molecules that come with the package, spread over its list."""
    spec = SimpleNamespace(structures=PackagedSource(kind="packaged", name="qm9_small"), method=Method())
    found = collect(spec).structures
    return [found[i] for i in np.linspace(0, len(found) - 1, count).astype(int)]


def exponents(sizes: Sequence[int], costs: Sequence[dict[str, float]]) -> dict[str, float]:
    """Slope of log(cost) against log(atoms) of every part, and of all but the final diagonalisation."""
    columns = {part: [cost[part] for cost in costs] for part in costs[0]}
    columns["all but the final diagonalisation"] = [c["all"] - c["final diagonalisation"] for c in costs]
    logs = np.log(np.array(sizes, dtype=float))
    return {
        part: round(float(np.polyfit(logs, np.log(np.maximum(values, 1e-3)), 1)[0]), 2)
        for part, values in columns.items()
    }


def molecule(predict: Callable[[list[Structure]], object], method: Method, options: argparse.Namespace) -> Any:
    """A molecule against its SCF."""
    structure = cyclohexene()
    b3lyp = method.model_copy(update={"xc": "b3lyp"})
    scf = []
    for _ in range(options.scf_repeats):
        start = Stopwatch.clock()
        run_scf(structure, b3lyp, threads=options.threads)
        scf.append(Stopwatch.clock() - start)
    seconds, found = statistics.median(scf), medians(lambda: predict([structure]), options.repeats)
    return {"ms": found, "scf_s": round(seconds, 2), "times_faster": round(1000 * seconds / found["all"], 1)}


def batch(predict: Callable[[list[Structure]], object], options: argparse.Namespace) -> Any:
    """A hundred molecules."""
    structures = list(qm9(100))
    atoms = sum(map(len, structures))
    return {"molecules": len(structures), "atoms": atoms, "ms": medians(lambda: predict(structures), options.repeats)}


def alkanes(predict: Callable[[list[Structure]], object], basis: BasisSet, options: argparse.Namespace) -> Any:
    """All-trans alkanes of growing length."""
    rows, atoms, costs = [], [], []
    for n in (n for n in (2, 4, 8, 15, 30, 45, 60) if n <= options.largest):
        structure = alkane(n)
        costs.append(medians(functools.partial(predict, [structure]), options.repeats if n < 30 else 1))
        atoms.append(len(structure))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        n_functions = basis.n_functions(structure.atomic_numbers)
        sizes = {"carbons": n, "atoms": len(structure), "functions": n_functions, "peak_mib": round(peak)}
        rows.append({**sizes, "ms": costs[-1]})
    long = [k for k, n in enumerate(atoms) if n >= 26]  # from C8 on, where a part is no longer a constant
    found = {"all sizes": exponents(atoms, costs)}
    if len(long) > 1:
        found["from 26 atoms on"] = exponents([atoms[k] for k in long], [costs[k] for k in long])
    return {"sizes": rows, "exponents": found}


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("what", nargs="+", choices=["molecule", "batch", "alkanes"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: for a machine that others use")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--scf-repeats", type=int, default=1)
    parser.add_argument("--largest", type=int, default=30, help="carbon atoms of the longest alkane, at most 60")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.clock == "cpu":
        Stopwatch.clock = staticmethod(time.process_time)
    warnings.simplefilter("ignore", OutsideTrainingDomain)
    surrogate: Any = load(options.model)

    def predict(structures: list[Structure]) -> object:
        return [prediction.mo_energy for prediction in surrogate.predict(structures)]

    result: dict[str, Any] = {
        "threads": options.threads,
        "clock": options.clock,
        "load_average": round(os.getloadavg()[0], 1),
        "repeats": options.repeats,
        "settings": surrogate.model.settings.model_dump(mode="json"),
    }
    with lib.with_omp_threads(options.threads):
        for what in options.what:
            if what == "molecule":
                result[what] = molecule(predict, surrogate.method, options)
            elif what == "batch":
                result[what] = batch(predict, options)
            else:
                result[what] = alkanes(predict, surrogate.orbital_basis, options)
    json.dump(result, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
