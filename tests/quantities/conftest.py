"""A store of closed shells, radicals and ions, all in one: real, and made in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.io import write
from distributed import Client, LocalCluster

from qcsurrogate.generation import generate
from qcsurrogate.reference.record import ReferenceRecord
from qcsurrogate.store.spec import load_spec
from qcsurrogate.store.store import Store

SPEC = """\
name: mixed
structures: {kind: file, path: mixed.xyz}
method: {xc: lda, basis: sto-3g, grid_level: 0, auxiliary_basis: def2-universal-jfit, spin_treatment: unrestricted,
         conv_tol: 1.0e-9}
split: {kind: random, train: 8, validation: 2, test: 2}
licence: CC0-1.0
citation: nobody
"""
STATES = {  # symbols, positions in Angstrom, charge, spin
    "water": ("OH2", [[0, 0, 0.1], [0, 0.76, -0.47], [0, -0.76, -0.47]], 0, 0),
    "cation": ("OH2", [[0, 0, 0.1], [0, 0.80, -0.47], [0, -0.80, -0.47]], 1, 1),
    "imidogen": ("NH", [[0, 0, 0], [0.3, 0.4, 0.9]], 0, 2),
    "hydroxide": ("OH", [[0, 0, 0], [0.2, 0.4, 0.9]], -1, 0),
}


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("open_shell")


@pytest.fixture(scope="package")
def store(folder: Path) -> Store:
    """Three geometries of each state."""
    rng = np.random.default_rng(0)
    frames = []
    for name, (symbols, positions, charge, spin) in STATES.items():
        for k in range(3):
            moved = np.array(positions, dtype=float) + rng.normal(scale=0.03, size=(len(positions), 3))
            frames.append(Atoms(symbols, moved, info={"name": f"{name}_{k}", "charge": charge, "spin": spin}))
    write(folder / "mixed.xyz", frames, format="extxyz")
    (folder / "mixed.yaml").write_text(SPEC)
    options: dict[str, Any] = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "dashboard_address": ":0"}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        generate(load_spec(folder / "mixed.yaml"), folder / "store", client=client, quiet=True)
    return Store.open(folder / "store")


@pytest.fixture(scope="package")
def records(store: Store) -> dict[str, ReferenceRecord]:
    """One of each state."""
    return {r.structure.name[:-2]: r for r in store.read_many(store.keys()) if r.structure.name.endswith("_0")}
