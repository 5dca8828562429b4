"""A store of eight waters and two models trained on it for two steps: real, and made in seconds."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell has it for what it starts in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)

TINY_SPEC = """\
name: tiny
structures:
  kind: displacement
  equilibrium:
    name: water
    symbols: [O, H, H]
    positions_angstrom: [[0, 0, 0.1173], [0, 0.7572, -0.4692], [0, -0.7572, -0.4692]]
  sigma_angstrom: 0.05
  count: 8
method: {basis: sto-3g, grid_level: 0, auxiliary_basis: {even_tempered_beta: 2.5}}
split: {kind: random, train: 4, validation: 2, test: 2}
licence: CC0-1.0
citation: nobody
"""

SHORT_TRAINING = ("training.steps=2", "training.validate_every=1")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the store, the spec, the structure file and the runs lie."""
    return tmp_path_factory.mktemp("tiny")


@pytest.fixture(scope="session")
def tiny_spec(tiny_folder: Path) -> Path:
    """The spec of the tiny store."""
    path = tiny_folder / "tiny.yaml"
    path.write_text(TINY_SPEC)
    return path


@pytest.fixture(scope="session")
def tiny_store(tiny_folder: Path, tiny_spec: Path) -> Path:
    """A store: train 4, validation 2, test 2."""
    from distributed import Client, LocalCluster

    from qcsurrogate.generation import generate
    from qcsurrogate.store.spec import load_spec

    options = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "dashboard_address": ":0"}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        generate(load_spec(tiny_spec), tiny_folder / "water", client=client, quiet=True)
    return tiny_folder / "water"


@pytest.fixture(scope="session")
def tiny_runs(tiny_folder: Path, tiny_store: Path) -> dict[str, Path]:
    """Folders of a Hamiltonian and a density run."""
    from qcsurrogate.pipeline import train_surrogate

    runs = {kind: tiny_folder / "runs" / kind for kind in ("hamiltonian", "density")}
    for kind, run in runs.items():
        train_surrogate(kind, tiny_store, run, overrides=SHORT_TRAINING, quiet=True)
    return runs


@pytest.fixture(scope="session")
def water_xyz(tiny_folder: Path) -> Path:
    """One water molecule."""
    path = tiny_folder / "water.xyz"
    path.write_text("3\n\nO 0 0 0.1173\nH 0 0.7572 -0.4692\nH 0 -0.7572 -0.4692\n")
    return path
