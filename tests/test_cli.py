"""Every command on a tiny store: output, exit codes, and the words of its errors."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from qcsurrogate import cli
from qcsurrogate.demo import DemoResult, Target
from qcsurrogate.generation import GenerationSummary
from qcsurrogate.store.failures import Failure
from tests.conftest import SHORT_TRAINING

SHORT = [part for setting in SHORT_TRAINING for part in ("--set", setting)]


@pytest.fixture
def run(capsys):
    """Run a command; gives its exit code, standard output and standard error."""

    def run_command(*arguments):
        try:
            code = cli.main([str(a) for a in arguments])
        except SystemExit as stop:
            code = stop.code
        return (code, *capsys.readouterr())

    return run_command


def in_a_process(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "qcsurrogate", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1])},
        text=True,
        **options,
    )


def one_line_error(err):
    """The message of an error: one line in front, and no traceback."""
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def test_help_is_immediate_and_complete():
    start = time.perf_counter()
    with in_a_process("--help", stdout=subprocess.PIPE) as process:
        out = process.communicate(timeout=60)[0]
    assert time.perf_counter() - start < 2.0  # 0.05 s alone; other processes may be busy
    for word in (
        "generate",
        "status",
        "inspect",
        "train",
        "predict",
        "compare",
        "schema",
        "demo",
        "learning-curve",
        "exit codes",
    ):
        assert word in out


def test_help_imports_nothing_heavy():
    code = (
        "import sys, qcsurrogate.cli as cli; cli.build_parser().format_help(); "
        "sys.exit(bool({'torch', 'numpy', 'pyscf', 'h5py', 'dask', 'pydantic'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(cli.__file__).parents[1])


@pytest.mark.parametrize(
    "command",
    ["init", "generate", "status", "inspect", "train", "predict", "compare", "schema", "demo", "learning-curve"],
)
def test_every_command_has_an_example(run, command):
    code, out, _ = run(command, "--help")
    assert code == 0
    assert f"example:\n  qcsurrogate {command}" in out
    example = out.split("example:\n  qcsurrogate ")[1].splitlines()[0].split(" > ")[0]
    cli.build_parser().parse_args(example.split())


def test_version(run):
    code, out, _ = run("--version")
    assert code == 0
    assert out.startswith("qcsurrogate ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["trian"], "did you mean 'train'?"),
        (["train", "hamiltonion", "x", "--out", "y"], "did you mean 'hamiltonian'?"),
        (["train", "density", "x", "--out", "y", "--qiet"], "unrecognized arguments: --qiet; did you mean '--quiet'?"),
        (["generate", "water_demo"], "the following arguments are required: --out"),
        (["generate", "x", "--out", "y", "--workers", "0"], "0 is not a number of 1 or more"),
        (["compare", "x", "--data", "y", "--out", "z", "--seed", "-1"], "'-1' is not a whole number"),
    ],
)
def test_unknown_options_are_refused(run, arguments, words):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert words in one_line_error(err)


def test_generate_goes_on_with_a_finished_store(run, tiny_spec, tiny_store):
    code, out, err = run("generate", tiny_spec, "--out", tiny_store, "--json", "--quiet")
    assert (code, err) == (0, "")
    data = json.loads(out)
    assert data["states"] == {"waiting": 0, "running": 0, "complete": 8, "error": 0}
    assert data["computed"] == 0


def test_generate_refuses_another_spec_for_a_store(run, tiny_spec, tiny_store):
    code, _, err = run("generate", tiny_spec, "--out", tiny_store, "--set", "method.xc=b3lyp")
    assert code == 2
    assert "method.xc: 'pbe' -> 'b3lyp'" in err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["nowhere.yaml"], 2, "cannot find the spec 'nowhere.yaml'"),
        (["SPEC", "--set", "method.xcc=pbe"], 2, "did you mean 'xc'?"),
        (["SPEC", "--set", "method.xc"], 2, "cannot use --set 'method.xc'; expected KEY=VALUE"),
        (["SPEC", "--set", "method.conv_tol=-1"], 2, "method.conv_tol"),
        (["SPEC", "--set", "structures.equilibrium.symbols=[O, H, Xq]"], 2, "Xq"),
        (["SPEC", "--set", "method.charge=1"], 3, "cannot have spin 0"),
        (["SPEC", "--set", "method.basis=def2-nothing"], 3, "no basis 'def2-nothing'"),
        (["rmd17_ethanol", "--set", "structures.path=nowhere.npz"], 3, "nowhere.npz"),
    ],
)
def test_generate_refuses_bad_specs(run, tiny_spec, tmp_path, arguments, code, words):
    arguments = [tiny_spec if a == "SPEC" else a for a in arguments]
    found, out, err = run("generate", *arguments, "--out", tmp_path / "store", "--quiet")
    assert (found, out) == (code, "")
    assert words in err
    assert "Traceback" not in err


def test_generate_into_a_folder_that_cannot_be_made(run, tiny_spec, water_xyz):
    code, _, err = run("generate", tiny_spec, "--out", water_xyz / "store", "--quiet")
    assert code == 5
    assert "cannot make the folder" in one_line_error(err)


def test_status(run, tiny_store):
    code, out, _ = run("status", tiny_store)
    assert code == 0
    assert "8 structures" in out
    assert "train 4, validation 2, test 2" in out
    code, out, err = run("status", tiny_store, "--json")
    assert (code, err) == (0, "")
    data = json.loads(out)
    assert data["complete_by_split"] == {"train": 4, "validation": 2, "test": 2}
    assert data["failures"] == []


def test_status_of_no_store(run, tmp_path):
    code, _, err = run("status", tmp_path)
    assert code == 5
    assert "is no store" in one_line_error(err)


def test_inspect(run, tiny_store, tiny_runs):
    for path, kind in (
        (tiny_store, "store"),
        (tiny_store / "shards" / "shard_00000.h5", "shard"),
        (tiny_runs["density"], "density model"),
        (tiny_runs["hamiltonian"] / "model.safetensors", "hamiltonian model"),
    ):
        code, out, err = run("inspect", path, "--json")
        assert (code, err) == (0, "")
        assert json.loads(out)["kind"] == kind
        code, out, _ = run("inspect", path)
        assert code == 0
        assert f"kind: {kind}" in out


def test_inspect_shows_odd_labels_and_provenance(run, tiny_store, tiny_runs):
    records = json.loads(run("inspect", tiny_store, "--json")[1])["records"]
    assert records["count"] == 8
    assert records["converged_by"] == {"DIIS": 8}
    assert records["energy_hartree"]["min"] < -75.0
    assert records["energy_hartree"]["max_of"].startswith("water")
    data = json.loads(run("inspect", tiny_runs["density"], "--json")[1])
    assert data["citation"] == "nobody"
    assert data["parameters"] > 0
    assert data["training"]["config"]["training"]["steps"] == 2


def test_inspect_refuses_damage_and_other_files(run, tiny_store, tiny_runs, tmp_path):
    damaged = tmp_path / "model.safetensors"
    damaged.write_bytes((tiny_runs["density"] / "model.safetensors").read_bytes()[:-100])
    other = tmp_path / "notes.txt"
    other.write_text("no molecules")
    alone = tmp_path / "alone.h5"
    alone.write_bytes((tiny_store / "shards" / "shard_00000.h5").read_bytes())
    for path, code, words in (
        (damaged, 6, "cannot use the model file"),
        (alone, 5, "does not lie in a store"),
        (other, 2, "got something else"),
        (tmp_path / "nowhere", 2, "a path where nothing is"),
    ):
        found, out, err = run("inspect", path)
        assert (found, out) == (code, "")
        assert words in one_line_error(err)


def test_train_goes_on_and_reports(run, tiny_store, tiny_runs):
    code, out, _ = run("train", "density", tiny_store, "--out", tiny_runs["density"], "--json", "--quiet", *SHORT)
    assert code == 0
    data = json.loads(out)
    assert data["finished"]
    assert data["steps"] == 2
    assert Path(data["model"]).is_file()
    assert all(np.isfinite(value) for value in data["metrics"].values())


@pytest.mark.parametrize(
    ("settings", "code", "words"),
    [
        (["training.stepps=3"], 2, "did you mean 'steps'?"),
        (["training.steps=0"], 2, "training.steps"),
        (["model.encoder.chanels=3"], 2, "did you mean 'channels'?"),
        (["steps"], 2, "cannot use --set 'steps'; expected KEY=VALUE"),
        (["training.steps=1"], 8, "training.steps: 2 -> 1"),
        (["training.seed=3"], 8, "training.seed: 0 -> 3"),
    ],
)
def test_train_refuses_bad_or_changed_settings(run, tiny_store, tiny_runs, settings, code, words):
    chosen = [part for setting in settings for part in ("--set", setting)]
    found, _, err = run(
        "train", "hamiltonian", tiny_store, "--out", tiny_runs["hamiltonian"], "--quiet", *SHORT, *chosen
    )
    assert found == code
    assert words in err
    assert "Traceback" not in err


def test_train_without_a_store_or_a_config(run, tiny_store, tmp_path):
    code, _, err = run("train", "density", tmp_path / "nowhere", "--out", tmp_path / "run")
    assert code == 5
    assert "cannot find the store" in one_line_error(err)
    code, _, err = run("train", "density", tiny_store, "--out", tmp_path / "run", "--config", tmp_path / "no.yaml")
    assert code == 2
    assert "cannot find the file" in one_line_error(err)


def test_predict_hamiltonians(run, tiny_runs, water_xyz, tmp_path):
    code, out, err = run("predict", tiny_runs["hamiltonian"], water_xyz, "--out", tmp_path / "out.npz", "--json")
    assert (code, err) == (0, "")
    entry = json.loads(out)["structures"][0]
    with np.load(tmp_path / "out.npz", allow_pickle=False) as file:
        assert file["000000/hamiltonian"].shape == (7, 7)
        np.testing.assert_allclose(file["000000/dipole"], entry["dipole"])
    cube = ["--cube", "density", "--resolution", "1.0"]
    code, out, err = run("predict", tiny_runs["hamiltonian"], water_xyz, "--out", tmp_path / "out.npz", *cube)
    assert code == 0
    assert (tmp_path / "out.cube").is_file()
    assert "gap" in out
    assert "wrote" in err


def test_predict_says_what_is_outside_and_strict_refuses(run, tiny_runs, tmp_path):
    far = tmp_path / "far.xyz"
    far.write_text("3\n\nO 0 0 0.1173\nH 0 0.7572 -0.4692\nH 0 -2.0 -1.5\n")
    arguments = ("predict", tiny_runs["hamiltonian"], far, "--out", tmp_path / "far.npz")
    code, out, err = run(*arguments, "--json")
    assert code == 0
    assert json.loads(out)["structures"][0]["domain"]["inside"] is False
    assert "outside the training data" in err
    assert run(*arguments, "--quiet")[2].startswith("warning: structure 'far': outside the training data: ")
    (tmp_path / "far.npz").unlink()
    code, out, err = run(*arguments, "--strict")
    assert (code, out) == (7, "")
    assert "strict: " in one_line_error(err)
    assert not (tmp_path / "far.npz").exists()


def test_predict_densities_with_cubes(run, tiny_runs, water_xyz, tmp_path):
    arguments = ["--cube", "density", "--resolution", "1.0", "--margin", "2", "--json", "--quiet"]
    code, out, err = run(
        "predict", tiny_runs["density"], water_xyz, water_xyz, "--out", tmp_path / "out.h5", *arguments
    )
    assert (code, err) == (0, "")
    data = json.loads(out)
    assert [Path(path).name for path in data["cubes"]] == ["out_0_water.cube", "out_1_water.cube"]
    assert all(Path(path).is_file() for path in data["cubes"])
    assert data["structures"][1]["electron_count"] == pytest.approx(10.0, abs=1e-8)
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["000001/density_coefficients"].attrs["units"] == "e bohr^-1.5"


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("3\n\nO 0 0 0\nH 0 0\nH 0 1 0\n", 3, "expected three co"),
        ("3\n\nO 0 0 0\nH 0 0 nan\nH 0 1 0\n", 3, "expected finite numbers"),
        ("3\n\nO 0 0 0\nH 0 0 1\nH 0 0 1.01\n", 3, "Angstrom apart"),
        ("2\n\nO 0 0 0\nH 0 0 1\n", 3, "9 electrons"),
        ("1\n\nNe 0 0 0\n", 7, "trained on H, O only"),
    ],
)
def test_predict_refuses_bad_structures(run, tiny_runs, tmp_path, text, code, words):
    bad = tmp_path / "bad.xyz"
    bad.write_text(text)
    found, out, err = run("predict", tiny_runs["hamiltonian"], bad, "--out", tmp_path / "out.npz")
    assert (found, out) == (code, "")
    assert words in one_line_error(err)
    assert not (tmp_path / "out.npz").exists()


def test_predict_refuses_bad_files_and_options(run, tiny_runs, water_xyz, tmp_path):
    for arguments, code, words in (
        ([tiny_runs["density"], tmp_path / "no.xyz", "--out", tmp_path / "o.npz"], 3, "cannot find the structure file"),
        ([tmp_path / "no", water_xyz, "--out", tmp_path / "o.npz"], 6, "cannot find the model file"),
        ([tmp_path, water_xyz, "--out", tmp_path / "o.npz"], 6, "holds no model.safetensors"),
        ([tiny_runs["density"], water_xyz, "--out", tmp_path / "o.txt"], 2, "expected the ending .npz or .h5"),
        ([tiny_runs["density"], water_xyz, "--out", tmp_path / "no" / "o.npz"], 9, "cannot write the predictions"),
        (
            [tiny_runs["density"], water_xyz, "--out", tmp_path / "o.npz", "--device", "abacus"],
            2,
            "cannot use the device",
        ),
    ):
        found, out, err = run("predict", *arguments)
        assert (found, out) == (code, ""), err
        assert words in one_line_error(err)


def test_compare(run, tiny_runs, tiny_store, tmp_path):
    arguments = ["--data", tiny_store, "--out", tmp_path / "report", "--scf-molecules", "1", "--density-molecules", "1"]
    code, out, err = run("compare", *tiny_runs.values(), *arguments, "--json", "--quiet")
    assert (code, err) == (0, "")
    assert json.loads(out)["data"]["compared"] == 2
    assert (tmp_path / "report" / "report.html").is_file()
    assert json.loads((tmp_path / "report" / "metrics.json").read_text()) == json.loads(out)


def test_compare_refuses(run, tiny_runs, tiny_store, tmp_path):
    for arguments, code, words in (
        (
            [tiny_runs["density"], "--data", tiny_store, "--out", tmp_path / "r", "--split", "tset"],
            2,
            "did you mean 'test'?",
        ),
        ([tiny_runs["density"], "--data", tmp_path, "--out", tmp_path / "r"], 5, "is no store"),
        ([tmp_path / "no", "--data", tiny_store, "--out", tmp_path / "r"], 6, "cannot find the model file"),
    ):
        found, out, err = run("compare", *arguments, "--quiet")
        assert (found, out) == (code, ""), err
        assert words in one_line_error(err)


@pytest.mark.parametrize(("of", "key"), [("spec", "method"), ("hamiltonian", "training"), ("density", "model")])
def test_schema_is_json(run, of, key):
    code, out, err = run("schema", of)
    assert (code, err) == (0, "")
    schema = json.loads(out)
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert key in schema["properties"]


def test_tracebacks_are_shown_on_request(run, monkeypatch, tmp_path):
    from qcsurrogate.errors import StoreError

    monkeypatch.setenv("QCSURROGATE_TRACEBACK", "1")
    with pytest.raises(StoreError):
        run("status", tmp_path)


def test_ctrl_c_ends_with_130(run, monkeypatch, tiny_store):
    def interrupted(path):
        raise KeyboardInterrupt

    monkeypatch.setattr("qcsurrogate.inspection.status", interrupted)
    code, out, err = run("status", tiny_store)
    assert (code, out) == (130, "")
    assert "interrupted" in err


def test_a_closed_pipe_is_no_traceback():
    with in_a_process("schema", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode in (141, -signal.SIGPIPE)


def test_failed_structures_are_told_and_do_not_fail_the_command(run, tiny_spec, tmp_path, monkeypatch):
    failure = Failure("key", "water_3", "not_converged", "SCF for 'water_3' did not converge")

    def summary(complete):
        counts = {"waiting": 0, "running": 0, "complete": complete, "error": 1}
        return GenerationSummary(tmp_path, counts, complete, (failure,), 1.0)

    monkeypatch.setattr("qcsurrogate.generation.generate", lambda *_, **__: summary(7))
    code, out, err = run("generate", tiny_spec, "--out", tmp_path)
    assert code == 0
    assert "7 complete, 1 error" in out
    assert "1 structures failed; the first: SCF for 'water_3' did not converge" in err
    monkeypatch.setattr("qcsurrogate.generation.generate", lambda *_, **__: summary(0))
    assert run("generate", tiny_spec, "--out", tmp_path, "--quiet")[0] == 4


def test_training_into_a_place_that_cannot_be_written(run, tiny_store, water_xyz):
    code, _, err = run("train", "density", tiny_store, "--out", water_xyz / "run", "--quiet", *SHORT)
    assert code == 8
    assert "cannot make the folder" in one_line_error(err)


@pytest.mark.parametrize(("value", "code", "mark"), [(4.0, 0, "PASS"), (40.0, 1, "FAIL")])
def test_the_demo_ends_with_its_verdict(run, tmp_path, monkeypatch, value, code, mark):
    targets = (Target("Hamiltonian MAE", value, 20.0, "uEh"), Target("cycles", 0.4, 0.5, ""))
    result = DemoResult(targets, tmp_path / "report.html", tmp_path / "metrics.json", 60.0)
    monkeypatch.setattr("qcsurrogate.demo.demo", lambda out, quiet: result)
    found, out, _ = run("demo", "--out", tmp_path)
    assert found == code
    lines = out.splitlines()
    assert lines[0].split() == [mark, "Hamiltonian", "MAE", f"{value:.3f}", "uEh", "(target:", "<=", "20)"]
    assert lines[-1] == f"report: {tmp_path / 'report.html'}"
    found, out, _ = run("demo", "--out", tmp_path, "--json")
    assert found == code
    assert [target["passed"] for target in json.loads(out)["targets"]] == [mark == "PASS", True]
