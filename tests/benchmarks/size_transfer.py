"""Question: how do errors grow when molecules are larger than any that was trained on?

    python tests/benchmarks/size_transfer.py prepare --qm9 qm9_geometries.npz --clusters water_clusters --out transfer
    qcsurrogate generate transfer/clusters.yaml --out transfer/clusters          # 1 to 4 waters train, 5 and 6 test
    qcsurrogate generate tests/benchmarks/unseen.yaml --out transfer/small ...   # or any store of QM9's small molecules
    qcsurrogate generate transfer/larger.yaml --out transfer/larger              # 7, 8 and 9 heavy atoms, test only
    qcsurrogate train hamiltonian ...; qcsurrogate compare MODEL --data STORE --out REPORT
    python tests/benchmarks/size_transfer.py table REPORT/metrics.json ...

`prepare` writes geometries and specs: molecules of QM9 drawn with seed 0, and clusters of waters cut out of minima of
clusters of up to four, each molecule shaken.  `table` prints medians (worst) by number of non-hydrogen atoms.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.formula import Formula
from ase.io import read, write

SHAKEN = 0.05
"""Standard deviation of every coordinate of a water that is trained on, Angstrom."""

FIGURES = {
    "hamiltonian_mae": "H, Eh",
    "occupied_energy_mae": "occupied, Eh",
    "lumo_error": "LUMO, Eh",
    "occupied_subspace_defect": "space missed",
    "dipole_error": "dipole, e bohr",
}
LARGER_SPEC = """\
name: larger
structures: {kind: file, path: larger.xyz}
method: {xc: b3lyp, basis: def2-svp, auxiliary_basis: {even_tempered_beta: 1.6}}
targets: {density_coefficients: false}
split: {kind: random, train: 1, validation: 0, test: %d, seed: 0}
"""
CLUSTERS_SPEC = """\
name: water_clusters
structures: {kind: file, path: clusters.xyz}
method: {xc: pbe, basis: def2-svp, auxiliary_basis: {even_tempered_beta: 1.8}}
targets: {density_coefficients: false}
split: {kind: by_size, largest_training_size: 4, validation: 0.15, seed: 0}
"""


def larger_molecules(path: Path, per_size: int) -> list[Atoms]:
    """QM9 molecules of 7, 8 and 9 heavy atoms."""
    data = np.load(path, allow_pickle=False)
    first = np.concatenate([[0], np.cumsum(data["num_atoms"])])
    numbers, positions = data["atomic_numbers"], data["positions_angstrom"]
    heavy = np.add.reduceat(numbers > 1, first[:-1])
    found = []
    for size in (7, 8, 9):
        for k in np.random.default_rng(size).choice(np.flatnonzero(heavy == size), per_size, replace=False):
            part = slice(first[k], first[k + 1])
            found.append(Atoms(numbers[part], positions[part], info={"name": f"gdb_{data['gdb_index'][k]}"}))
    return found


def nearest_waters(cluster: Atoms, first: int, size: int) -> Atoms:
    """A molecule and those nearest to it; every three atoms are one, O first."""
    oxygens = cluster.positions[::3]
    chosen = np.sort(np.argsort(np.linalg.norm(oxygens - oxygens[first], axis=1))[:size])
    return cluster[np.concatenate([np.arange(3 * k, 3 * k + 3) for k in chosen])]


def water_clusters(folder: Path, per_size: int, n_test: int) -> list[Atoms]:
    """Clusters of 1 to 4 that are shaken, then minima of 5 and 6."""
    rng = np.random.default_rng(0)
    minima = {n: read(folder / f"W{n}_geoms_all.xyz", index=":", format="xyz") for n in (3, 4, 5, 6)}
    found = []
    for size in (1, 2, 3, 4):
        for k in range(per_size):
            source = minima[4][rng.integers(len(minima[4]))]
            cut = nearest_waters(source, int(rng.integers(4)), size)
            cut.positions += rng.normal(scale=SHAKEN, size=cut.positions.shape)
            cut.info = {"name": f"shaken_{size}_{k}"}
            found.append(cut)
    for size in (5, 6):
        for k in rng.choice(len(minima[size]), n_test, replace=False):
            cluster = minima[size][k]
            cluster.info = {"name": f"minimum_{size}_{k}"}
            found.append(cluster)
    return found


def prepare(options: argparse.Namespace) -> None:
    """Write the geometries and the specs."""
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    larger = larger_molecules(Path(options.qm9), options.larger)
    write(out / "larger.xyz", larger, format="extxyz")
    (out / "larger.yaml").write_text(LARGER_SPEC % (len(larger) - 1))
    write(out / "clusters.xyz", water_clusters(Path(options.clusters), options.each, options.tested), format="extxyz")
    (out / "clusters.yaml").write_text(CLUSTERS_SPEC)


def table(options: argparse.Namespace) -> None:
    """Print medians (and worst) of the molecules of each size."""
    print("| report | heavy atoms | molecules | " + " | ".join(FIGURES.values()) + " | cycles / minao |")
    print("|---" * (4 + len(FIGURES)) + "|")
    for path in options.reports:
        report = json.loads(Path(path).read_text())
        label = report["models"][0]["label"]
        runs = {run["key"]: run["surrogates"][label]["cycles"] / run["minao"]["cycles"] for run in report["scf"]}
        sizes: dict[int, list[dict[str, Any]]] = {}
        for molecule in report["molecules"]:
            counts = Formula(molecule["formula"]).count()
            sizes.setdefault(sum(n for symbol, n in counts.items() if symbol != "H"), []).append(molecule)
        for size, molecules in sorted(sizes.items()):
            cells = []
            for name in FIGURES:
                values = [m["values"][label][name] for m in molecules]
                cells.append(f"{np.median(values):.2e} ({max(values):.2e})")
            saved = [runs[m["key"]] for m in molecules if m["key"] in runs]
            cells.append(f"{np.mean(saved):.2f} ({len(saved)})" if saved else "")
            print(f"| {path} | {size} | {len(molecules)} | " + " | ".join(cells) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    making = commands.add_parser("prepare")
    making.add_argument("--qm9", required=True)
    making.add_argument("--clusters", required=True)
    making.add_argument("--out", required=True)
    making.add_argument("--larger", type=int, default=6, help="molecules of each size")
    making.add_argument("--each", type=int, default=45, help="training clusters of each size")
    making.add_argument("--tested", type=int, default=6, help="test clusters of each size")
    making.set_defaults(run=prepare)
    telling = commands.add_parser("table")
    telling.add_argument("reports", nargs="+")
    telling.set_defaults(run=table)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
