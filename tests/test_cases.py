"""Small inputs that were once answered wrongly, from the file to the words at the end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qcsurrogate import cli

HYDRONIUM = np.array([[0, 0, 0.09], [0, 0.93, -0.19], [0.81, -0.47, -0.19], [-0.81, -0.47, -0.19]])
SPEC = """\
name: h3o_cations
structures: {kind: file, path: h3o_cations.xyz}
method: {xc: pbe, basis: sto-3g, grid_level: 0}
split: {kind: random, train: 0.6, validation: 0.2, test: 0.2}
"""
TINY = (
    "training.steps=4",
    "training.validate_every=2",
    "model.encoder.channels=4",
    "model.encoder.edge_channels=4",
    "model.encoder.hidden=8",
    "model.encoder.layers=1",
)


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    """Run a command in an empty folder; gives its exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def run_command(*arguments):
        return (cli.main([str(a) for a in arguments]), *capfd.readouterr())

    return run_command


def write_xyz(path, molecules, symbols, comment):
    lines = []
    for i, positions in enumerate(molecules):
        lines += [str(len(symbols)), comment.format(i)]
        lines += [f"{s} {x:.6f} {y:.6f} {z:.6f}" for s, (x, y, z) in zip(symbols, positions, strict=True)]
    Path(path).write_text("\n".join(lines) + "\n")


def test_a_model_of_cations_knows_its_charge(run, water_xyz):
    """The charge stands in the structure file alone; the method of the spec says 0."""
    generator = np.random.default_rng(0)
    molecules = HYDRONIUM + generator.normal(scale=0.03, size=(10, 4, 3))
    write_xyz("h3o_cations.xyz", molecules, "OHHH", "name=h3o_{} charge=1")
    Path("h3o_cations.yaml").write_text(SPEC)
    code, out, _ = run("generate", "h3o_cations.yaml", "--out", "store", "--workers", 1)
    assert code == 0
    assert "store: 10 complete" in out
    settings = [part for setting in TINY for part in ("--set", setting)]
    assert run("train", "hamiltonian", "store", "--out", "run", "--quiet", *settings)[0] == 0

    code, out, _ = run("predict", "run", "h3o_cations.xyz", "--out", "cations.npz")
    assert code == 0
    assert out.count("h3o_") == 10
    with np.load("cations.npz", allow_pickle=False) as file:
        assert file["000009/hamiltonian"].shape == (8, 8)
    code, out, err = run("predict", "run", water_xyz, "--out", "water.npz")
    assert (code, out) == (7, "")
    assert err == (
        "error: structure 'water' has charge 0 and spin 0 (unpaired electrons); this hamiltonian model was trained on "
        "charge 1 and spin 0 only\n"
    )
    assert not Path("water.npz").exists()
    assert run("predict", "run", water_xyz, "h3o_cations.xyz", "--out", "water.npz", "--strict")[0] == 7
