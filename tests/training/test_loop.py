"""The loop: exact resumption, refusals, best checkpoint, interruptions."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
import yaml

from qcsurrogate.errors import TrainingError
from qcsurrogate.models.files import read_model
from qcsurrogate.training import loop
from qcsurrogate.training.checkpoint import CHECKPOINT_NAME, read_progress
from tests.training.runs import BrokenData, HookedData, run_tiny, table, tiny_config
from tests.training.tiny import TinyData, TinyModel, build_tiny


def same_tensors(first: Path, second: Path) -> bool:
    a, b = (safetensors.torch.load_file(path) for path in (first, second))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def assert_equal_runs(first: Path, second: Path) -> None:
    """Bit for bit, apart from times."""
    for name in ("model.safetensors", CHECKPOINT_NAME):
        assert same_tensors(first / name, second / name), name
    assert table(first) == table(second)


def test_a_run_leaves_everything_that_it_promises(tmp_path: Path) -> None:
    result = run_tiny(tmp_path)
    assert result.finished
    assert result.steps == 60
    assert [row["step"] for row in table(tmp_path)] == ["11", "22", "33", "44", "55", "60"]
    assert list(table(tmp_path)[0]) == ["step", "epoch", "train_loss", "learning_rate", "validation_hamiltonian_mae"]
    header = (tmp_path / "metrics.csv").read_text().splitlines()[0]
    assert header.startswith("step,epoch,time_s,cpu_time_s,train_loss,learning_rate,validation_")
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["training"]["steps"] == 60
    assert json.loads((tmp_path / "versions.json").read_text())["torch"]
    assert not list(tmp_path.glob("*.tmp"))


def test_training_lowers_the_error(tmp_path: Path) -> None:
    run_tiny(tmp_path, tiny_config(steps=300, validate_every=100, checkpoint_every=300))
    errors = [float(row["validation_hamiltonian_mae"]) for row in table(tmp_path)]
    assert errors[-1] < 0.5 * errors[0]


@pytest.mark.parametrize("optimiser", ["soap", "adamw"])
@pytest.mark.parametrize("precision", [32, 64])
def test_stopping_and_going_on_is_exact(tmp_path: Path, optimiser: str, precision: int) -> None:
    options = {"optimiser": optimiser, "precision": precision, "steps": 30}
    run_tiny(tmp_path / "whole", tiny_config(**options))
    first = run_tiny(tmp_path / "pieces", tiny_config(**options, max_minutes=1e-9))
    assert (first.finished, first.steps, first.model_path) == (False, 1, None)
    while not run_tiny(tmp_path / "pieces", tiny_config(**options, max_minutes=1e-4)).finished:
        pass
    assert_equal_runs(tmp_path / "whole", tmp_path / "pieces")


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)])
def test_sigkill_at_random_moments_changes_no_bit(tmp_path: Path, seed: int) -> None:
    driver = [sys.executable, "-m", "tests.training.kill_and_resume", str(tmp_path), str(seed)]
    done = subprocess.run(
        driver, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 2
    assert_equal_runs(tmp_path / "whole", tmp_path / "killed")


def test_rows_after_the_checkpoint_are_cut_off(tmp_path: Path) -> None:
    run_tiny(tmp_path / "whole", tiny_config(checkpoint_every=1000))

    def fail(batch: int) -> None:
        if batch == 40:
            raise RuntimeError("the machine burns")

    with pytest.raises(RuntimeError, match="burns"):
        run_tiny(tmp_path / "burnt", tiny_config(checkpoint_every=15), HookedData(fail))
    assert [row["step"] for row in table(tmp_path / "burnt")] == ["11", "22", "33"]
    assert [row["step"] for row in read_progress(tmp_path / "burnt" / CHECKPOINT_NAME).rows] == [11, 22]
    run_tiny(tmp_path / "burnt", tiny_config(checkpoint_every=15))
    assert_equal_runs(tmp_path / "whole", tmp_path / "burnt")


def test_a_finished_run_returns_at_once(tmp_path: Path) -> None:
    def never(batch: int) -> None:
        raise AssertionError("a finished run asked for a batch")

    first = run_tiny(tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert run_tiny(tmp_path, train_data=HookedData(never)) == first
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interruption_writes_a_checkpoint(tmp_path: Path, number: int) -> None:
    run_tiny(tmp_path / "whole")

    def interrupt(batch: int) -> None:
        if batch == 24:
            os.kill(os.getpid(), number)

    expected = KeyboardInterrupt if number == signal.SIGINT else SystemExit
    with pytest.raises(expected):
        run_tiny(tmp_path / "stopped", train_data=HookedData(interrupt))
    assert read_progress(tmp_path / "stopped" / CHECKPOINT_NAME).step == 25
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    run_tiny(tmp_path / "stopped")
    assert_equal_runs(tmp_path / "whole", tmp_path / "stopped")


def test_changed_configuration_is_refused_with_every_change(tmp_path: Path) -> None:
    run_tiny(tmp_path, tiny_config(max_minutes=1e-9))
    before = (tmp_path / CHECKPOINT_NAME).read_bytes()
    with pytest.raises(TrainingError) as caught:
        run_tiny(tmp_path, tiny_config(width=9, learning_rate=1e-3, checkpoint_every=3))
    words = str(caught.value)
    assert "model.width: 8 -> 9" in words
    assert "training.learning_rate: 0.003 -> 0.001" in words
    assert "checkpoint_every" not in words
    assert "train in another folder" in words
    assert (tmp_path / CHECKPOINT_NAME).read_bytes() == before


def test_harmless_changes_are_accepted(tmp_path: Path) -> None:
    run_tiny(tmp_path, tiny_config(max_minutes=1e-9))
    assert run_tiny(tmp_path, tiny_config(checkpoint_every=29)).finished
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["training"]["checkpoint_every"] == 29


def test_a_key_that_an_older_version_did_not_know_counts_as_its_default(tmp_path: Path) -> None:
    run_tiny(tmp_path, tiny_config(max_minutes=1e-9))
    path = tmp_path / CHECKPOINT_NAME
    with safetensors.safe_open(path, "pt") as file:
        (key, text), *_ = file.metadata().items()
    content = json.loads(text)
    del content["progress"]["config"]["training"]["gradient_clip"]
    safetensors.torch.save_file(safetensors.torch.load_file(path), path, {key: json.dumps(content)})
    with pytest.raises(TrainingError, match=r"training\.gradient_clip: 1\.0 -> 2\.0"):
        run_tiny(tmp_path, tiny_config(gradient_clip=2.0))
    assert run_tiny(tmp_path).finished


def test_changed_data_are_refused(tmp_path: Path) -> None:
    run_tiny(tmp_path, tiny_config(max_minutes=1e-9))
    with pytest.raises(
        TrainingError, match=r"other data; expected .*\n  hash: 'tiny' -> 'other'\ntrain in another folder; .* --from "
    ):
        run_tiny(tmp_path, dataset_hash="other")
    with pytest.raises(TrainingError, match="train: 40 -> 30"):
        run_tiny(tmp_path, train_data=TinyData(30))


def test_missing_model_and_damaged_checkpoint_are_refused(tmp_path: Path) -> None:
    run_tiny(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(TrainingError, match=r"model.safetensors' of step .* is gone"):
        run_tiny(tmp_path)
    path = tmp_path / CHECKPOINT_NAME
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(
        TrainingError, match=r"cannot resume from the checkpoint.*remove it to train from the beginning"
    ):
        run_tiny(tmp_path)


def test_nan_loss_stops_with_words_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"loss of step \d+ is nan.*smaller training.learning_rate") as caught:
        run_tiny(tmp_path, train_data=BrokenData(bad=3))
    step = int(str(caught.value).split("step ")[1].split()[0])
    if (tmp_path / CHECKPOINT_NAME).exists():
        assert read_progress(tmp_path / CHECKPOINT_NAME).step < step


def test_the_best_validation_is_saved_and_not_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([5.0, 2.0, 3.0, 2.0, 4.0, 6.0])
    written: list[dict[str, torch.Tensor]] = []

    def errors(self: TinyModel, batch: object) -> dict[str, tuple[torch.Tensor, int]]:
        written.append({k: v.clone() for k, v in self.state_dict().items()})
        return {"hamiltonian_mae": (torch.tensor(next(values)), 1)}

    monkeypatch.setattr(TinyModel, "errors", errors)
    result = run_tiny(tmp_path)
    assert result.best_step == 22  # the first of two equal ones
    model, metadata = read_model(tmp_path / "model.safetensors", build=build_tiny)
    assert metadata.metrics["validation_hamiltonian_mae"] == 2.0
    assert metadata.training == {"step": 22}
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in written[1].items())


def test_validation_averages_over_batches_by_count(tmp_path: Path) -> None:
    run_tiny(tmp_path / "one", tiny_config(validation_batch_size=15, steps=11))
    run_tiny(tmp_path / "many", tiny_config(validation_batch_size=4, steps=11))
    one, many = (float(table(tmp_path / n)[0]["validation_hamiltonian_mae"]) for n in ("one", "many"))
    assert many == pytest.approx(one, rel=1e-6)


def test_empty_sets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="training set is empty"):
        run_tiny(tmp_path, train_data=TinyData(0))


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TrainingError, match="cannot make the folder"):
        run_tiny(tmp_path / "file" / "run")


def test_two_processes_do_not_share_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_LOCK_PATIENCE_SECONDS", 0.2)

    def again(batch: int) -> None:
        run_tiny(tmp_path)

    with pytest.raises(TrainingError, match="another process is training in"):
        run_tiny(tmp_path, train_data=HookedData(again))


def test_threads_are_given_back(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    run_tiny(tmp_path, tiny_config(steps=1, threads=before + 1))
    assert torch.get_num_threads() == before


def test_a_run_is_given_more_steps(tmp_path: Path) -> None:
    """Finished or stopped: the learning rate goes on as in a run of the new length, and that resumes exactly."""
    run_tiny(tmp_path / "a", tiny_config(steps=30))
    run_tiny(tmp_path / "b", tiny_config(steps=30))
    longer = run_tiny(tmp_path / "a", tiny_config(steps=60))
    assert (longer.finished, longer.steps) == (True, 60)
    run_tiny(tmp_path / "b", tiny_config(steps=60, max_minutes=1e-9))
    assert run_tiny(tmp_path / "b", tiny_config(steps=60)).finished
    assert_equal_runs(tmp_path / "a", tmp_path / "b")
    run_tiny(tmp_path / "whole", tiny_config(steps=60))
    rates = [{row["step"]: row["learning_rate"] for row in table(tmp_path / n)} for n in ("a", "whole")]
    assert all(rates[0][step] == rates[1][step] for step in ("33", "44", "55", "60"))
    progress = read_progress(tmp_path / "b" / CHECKPOINT_NAME)
    assert progress.extensions == [{"step": 30, "from": 30, "to": 60}]
    with pytest.raises(TrainingError, match=r"training\.steps: 60 -> 40"):
        run_tiny(tmp_path / "a", tiny_config(steps=40))


def test_patience_ends_a_run_and_more_of_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    values = iter([5.0, 2.0, 3.0, 2.0, 4.0, 6.0])
    monkeypatch.setattr(TinyModel, "errors", lambda self, batch: {"hamiltonian_mae": (torch.tensor(next(values)), 1)})
    result = run_tiny(tmp_path, tiny_config(patience=2))
    assert (result.finished, result.steps, result.best_step) == (True, 44, 22)
    assert run_tiny(tmp_path, tiny_config(patience=2)) == result
    assert capfd.readouterr().err == ""
    assert run_tiny(tmp_path, tiny_config(patience=2), quiet=False) == result
    assert capfd.readouterr().err == (
        "training hamiltonian: finished early after step 44 of 60: 2 validations were not better than that of step 22; "
        "--set training.patience=N with a larger N, or null, goes on\n"
    )
    further = run_tiny(tmp_path, tiny_config(patience=3))
    assert (further.finished, further.steps, further.best_step) == (True, 55, 22)


def test_a_finished_run_says_how_it_would_go_on(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run_tiny(tmp_path, tiny_config(steps=11))
    run_tiny(tmp_path, tiny_config(steps=11), quiet=False)
    assert capfd.readouterr().err == (
        "training hamiltonian: all 11 steps were taken; --set training.steps=N with a larger N goes on\n"
    )
