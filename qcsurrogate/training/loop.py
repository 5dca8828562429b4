"""The training loop: from a network and data to the best model file, resumable at every step."""

from __future__ import annotations

import copy
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import torch
from lightning_fabric import Fabric
from torch import Tensor

from qcsurrogate.errors import StoreError, TrainingError
from qcsurrogate.files.atomic import TEMPORARY_SUFFIX, exclusive_lock, make_folder, write_atomically
from qcsurrogate.files.yaml_model import dump_yaml
from qcsurrogate.interrupts import Interrupts
from qcsurrogate.models.files import ModelMetadata, read_model, write_model
from qcsurrogate.training.averaging import MovingAverage
from qcsurrogate.training.checkpoint import (
    CHECKPOINT_NAME,
    Progress,
    read_progress,
    restore_checkpoint,
    write_checkpoint,
)
from qcsurrogate.training.config import RunConfig, TrainingConfig
from qcsurrogate.training.optimisers import learning_rate_factor, make_optimisers, set_learning_rate
from qcsurrogate.training.outputs import (
    CONFIG_NAME,
    METRICS_NAME,
    MODEL_NAME,
    TrainingResult,
    result_of,
    versions_text,
    write_metrics,
)
from qcsurrogate.training.reporting import Reporter
from qcsurrogate.training.resuming import check_same_run, is_over, plain, why_over, with_new_defaults
from qcsurrogate.training.sampler import EpochSampler

if TYPE_CHECKING:
    from qcsurrogate.models.base import SurrogateModel

FEW_MOLECULES: Final = 20
"""Sets with fewer molecules are mentioned."""
_MEANING_OF_FEW: Final = {
    "training": "the model will know little beyond them; expect errors on others far above those of training",
    "validation": "its error is a rough estimate, and the choice of the best step depends on chance",
}

_LOCK_PATIENCE_SECONDS: Final = 5.0
"""One that was killed may hold the lock for a moment still."""


class TrainingData(Protocol):
    """What a dataset has to offer: batches, with a method ``to(device)``, in the precision of the training."""

    def __len__(self) -> int: ...

    def batch(self, indices: Sequence[int]) -> Any:
        """These molecules together."""


MakeMetadata = Callable[[Mapping[str, float], Mapping[str, Any]], ModelMetadata]
"""From the metrics and the provenance of a model that is about to be written, what its file says."""


def train(
    model: SurrogateModel,
    train_data: TrainingData,
    validation_data: TrainingData,
    config: RunConfig[Any],
    out: str | Path,
    *,
    on_metadata: MakeMetadata,
    dataset_hash: str,
    notes: Sequence[str] = (),
    quiet: bool = False,
) -> TrainingResult:
    """Train ``model``, or go on where an earlier start in ``out`` stopped.

    Writes ``model.safetensors`` (moving average of the weights at the best validation),
    ``metrics.csv``, ``config.yaml``, ``versions.json`` and ``checkpoint.safetensors``.
    On a CPU, a run that was killed at any moment and started again ends with the same
    bits as one that was not.

    A run may be given more ``training.steps`` than it had, finished or not: from the step
    it has reached on, the learning rate is that of a run of the new length at the same
    step (after a finished run it jumps from zero to that cosine).  The model file's
    provenance holds every such change under ``extensions``.  Fewer steps are refused.
    With ``training.patience`` a run is finished when so many validations in a row were
    not better than the best; a larger patience lets it go on.

    A run whose configuration names an ``origin`` begins with the weights that ``model``
    has: they are validated, and are the best model until a better one is found.

    Args:
        model: with its normalisation set, untrained unless it is fine-tuned; holds the latest
            weights afterwards.
        train_data, validation_data: neither may be empty.
        config: of network and training.
        out: the run's folder, made if it does not exist.
        on_metadata: makes the metadata of a model file from metrics and provenance.
        dataset_hash: identity of the data; a resumed run must have the same.
        notes: what to tell when the run begins.
        quiet: say nothing.

    Raises:
        TrainingError: if data are missing, if the folder holds a run with another
            configuration or other data, if it cannot be written, or if a loss or metric
            is not finite.
        KeyboardInterrupt, SystemExit: on Ctrl-C or SIGTERM, after a checkpoint.
    """
    for name, data in (("training", train_data), ("validation", validation_data)):
        if len(data) == 0:
            raise TrainingError(
                f"the {name} set is empty; expected at least one molecule: generate more or change the split"
            )
    dataset = {"hash": dataset_hash, "train": len(train_data), "validation": len(validation_data)}
    progress = Progress(plain(config), dataset, plain(model.description()))
    out = Path(out)
    threads = torch.get_num_threads()
    with _storage_trouble():
        make_folder(out)
        with exclusive_lock(out / ".lock", "training in", _LOCK_PATIENCE_SECONDS):
            for leftover in out.glob(f"*{TEMPORARY_SUFFIX}"):
                leftover.unlink()
            if (out / CHECKPOINT_NAME).exists():
                earlier = read_progress(out / CHECKPOINT_NAME)
                earlier.config = with_new_defaults(earlier.config, config)
                check_same_run(out, earlier, progress)
                if earlier.finished and is_over(earlier, config.training):
                    if not quiet:
                        print(f"training {model.kind}: {why_over(earlier, config.training)}", file=sys.stderr)
                    return result_of(out, earlier)
            try:
                run = _Run(model, train_data, validation_data, config.training, out, on_metadata, progress)
                return run.go(notes, quiet=quiet)
            finally:
                torch.set_num_threads(threads)


class _Run:
    """One start of a run: what the loop works with."""

    def __init__(
        self,
        model: SurrogateModel,
        train_data: TrainingData,
        validation_data: TrainingData,
        config: TrainingConfig,
        out: Path,
        on_metadata: MakeMetadata,
        progress: Progress,
    ) -> None:
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        if config.device == "cuda" and not torch.cuda.is_available():
            raise TrainingError("training.device=cuda, but PyTorch sees no GPU; use cpu or auto")
        model.forget_uncertainty()
        self.config, self.out, self.on_metadata = config, out, on_metadata
        self.train_data, self.validation_data = train_data, validation_data
        self.fabric = Fabric(accelerator=config.device, devices=1, precision=f"{config.precision}-true")  # type: ignore[arg-type]
        self.model = model
        self.network = self.fabric.setup_module(model)
        self.network.mark_forward_method("loss")
        self.optimisers = make_optimisers(model.parameters(), model.preconditioned_parameters(), config)
        self.average = MovingAverage(model, config.ema_decay)
        self.sampler = EpochSampler(len(train_data), config.batch_size, config.seed)
        self.networks = {"model": model, "average": self.average.network}
        torch.manual_seed(config.seed)
        self.progress = progress
        if self._checkpoint_path.exists():
            restored = restore_checkpoint(self._checkpoint_path, self.networks, self.optimisers)
            earlier_steps = restored.config["training"].get("steps", config.steps)
            if earlier_steps != config.steps:
                restored.extensions.append({"step": restored.step, "from": earlier_steps, "to": config.steps})
            restored.config = progress.config  # harmless settings and the number of steps may have changed
            restored.finished = False
            self.progress = restored
        self._began = time.monotonic(), time.process_time()
        self._spent_before = self.progress.wall_time, self.progress.cpu_time

    def go(self, notes: Sequence[str], *, quiet: bool) -> TrainingResult:
        """Take all steps that are left."""
        progress, config = self.progress, self.config
        write_atomically(self.out / CONFIG_NAME, dump_yaml(progress.config).encode())
        write_atomically(self.out / "versions.json", versions_text(self.fabric.device).encode())
        write_metrics(self.out / METRICS_NAME, progress.rows)
        reporter = Reporter(
            f"training {self.model.kind}",
            config.steps,
            progress.step,
            quiet=quiet,
            tensorboard=self.out / "tensorboard" if config.tensorboard else None,
        )
        with reporter, Interrupts() as interrupts:
            if progress.step:
                reporter.say(f"going on after step {progress.step}")
            for name, data in (("training", self.train_data), ("validation", self.validation_data)):
                if len(data) < FEW_MOLECULES:
                    reporter.say(f"the {name} set holds only {_molecules(len(data))}: {_MEANING_OF_FEW[name]}")
            if progress.step == 0:
                for note in notes:
                    reporter.say(note)
                if progress.config["origin"] is not None:
                    reporter.validated(0, self._validate_origin(), best=True)
            while not progress.finished:
                loss = self._step()
                reporter.stepped(progress.step, loss)
                progress.finished = progress.step >= config.steps
                if progress.finished or progress.step % config.validate_every == 0:
                    row = self._validate()
                    reporter.validated(progress.step, row, best=progress.best_step == progress.step)
                    progress.finished = is_over(progress, config)
                    if progress.finished and progress.step < config.steps:
                        reporter.say(why_over(progress, config))
                out_of_time = config.max_minutes is not None and self._minutes() >= config.max_minutes
                stop = out_of_time or interrupts.received is not None
                if progress.finished:  # before the checkpoint that says so
                    self._fit_uncertainty()
                if progress.finished or stop or progress.step % config.checkpoint_every == 0:
                    self._note_times()
                    write_checkpoint(self._checkpoint_path, progress, self.networks, self.optimisers)
                if stop and not progress.finished:
                    self._fit_uncertainty()
                if interrupts.received is not None and not progress.finished:
                    reporter.say(f"stopped after step {progress.step}; start it again to go on")
                    interrupts.raise_received()
                if stop and not progress.finished:
                    reporter.say(f"{config.max_minutes:g} minutes are over after step {progress.step}")
                    break
        return result_of(self.out, progress)

    @property
    def _checkpoint_path(self) -> Path:
        return self.out / CHECKPOINT_NAME

    def _learning_rate(self, step: int) -> float:
        factor = learning_rate_factor(step, self.config.steps, self.config.warmup_steps)
        return self.config.learning_rate * factor

    def _step(self) -> float:
        step = self.progress.step
        batch = self.train_data.batch(self.sampler.indices(step)).to(self.fabric.device)
        set_learning_rate(self.optimisers, self._learning_rate(step))
        self.model.train()
        loss = self.network.loss(batch)
        for optimiser in self.optimisers:
            optimiser.zero_grad()
        self.fabric.backward(loss)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.gradient_clip)
        value, size = torch.stack((loss.detach().double(), norm.double())).tolist()  # one wait for the device
        for name, number in (("loss", value), ("gradient", size)):
            if not math.isfinite(number):
                raise TrainingError(
                    f"the {name} of step {step + 1} is {number}, expected a finite number; the run in '{self.out}' "
                    f"stopped before it changed a weight: look for broken labels with `qcsurrogate inspect`, or train "
                    f"in another folder with a smaller training.learning_rate (now {self.config.learning_rate:g}) "
                    "or training.precision=64"
                )
        for optimiser in self.optimisers:
            optimiser.step()
        self.progress.step += 1
        self.progress.loss_sum += value
        self.progress.loss_count += 1
        self.average.update(self.model, self.progress.step)
        return value

    def _validate_origin(self) -> dict[str, float]:
        """The row of step 0, and its model; the training loss is that of the first batch."""
        batch = self.train_data.batch(self.sampler.indices(0)).to(self.fabric.device)
        with torch.no_grad():
            self.progress.loss_sum, self.progress.loss_count = float(self.average.network.loss(batch)), 1
        return self._validate()

    def _validate(self) -> dict[str, float]:
        """Validate the average; adds a row to the table and writes the model if it is the best."""
        progress, model = self.progress, self.average.network
        errors = self._validation_errors()
        self._note_times()
        row = {
            "step": progress.step,
            "epoch": self.sampler.epoch(progress.step),
            "time_s": progress.wall_time,
            "cpu_time_s": progress.cpu_time,
            "train_loss": progress.loss_sum / progress.loss_count,
            "learning_rate": self._learning_rate(max(progress.step - 1, 0)),
            **{f"validation_{name}": value for name, value in errors.items()},
        }
        for name, value in row.items():
            if not math.isfinite(value):
                raise TrainingError(
                    f"{name} is {value} at step {progress.step}, expected a finite number; look for broken labels "
                    f"with `qcsurrogate inspect`, or train in another folder with a smaller training.learning_rate"
                )
        progress.loss_sum, progress.loss_count = 0.0, 0
        progress.rows.append(row)
        value = errors[model.monitored]
        if progress.best_value is None or value < progress.best_value:
            progress.best_step, progress.best_value = progress.step, value
            metrics = {k: v for k, v in row.items() if k == "train_loss" or k.startswith("validation_")}
            provenance = {
                "config": progress.config,
                "dataset": progress.dataset,
                "step": progress.step,
                "extensions": progress.extensions,
                "wall_time_s": progress.wall_time,
                "cpu_time_s": progress.cpu_time,
            }
            write_model(self.out / MODEL_NAME, model, self.on_metadata(metrics, provenance))
        write_metrics(self.out / METRICS_NAME, progress.rows)
        return row

    def _fit_uncertainty(self) -> None:
        """The best model so far learns how large its errors are, on the CPU, and is written again."""
        path, network = self.out / MODEL_NAME, self.average.network
        if self.progress.best_step is None:
            return
        best, metadata = read_model(path, build=lambda kind, description: copy.deepcopy(network))
        if best.fit_uncertainty(self.train_data, self.validation_data, batch_size=self.config.validation_batch_size):
            write_model(path, best, metadata)

    @torch.no_grad()
    def _validation_errors(self) -> dict[str, float]:
        model = self.average.network
        sums: dict[str, Tensor] = {}
        counts: dict[str, int] = {}
        size = self.config.validation_batch_size
        for first in range(0, len(self.validation_data), size):
            indices = range(first, min(first + size, len(self.validation_data)))
            batch = self.validation_data.batch(indices).to(self.fabric.device)
            for name, (total, count) in model.errors(batch).items():
                sums[name] = sums.get(name, 0.0) + total.double()
                counts[name] = counts.get(name, 0) + count
        return {name: float(sums[name]) / max(counts[name], 1) for name in sums}

    def _minutes(self) -> float:
        return (time.monotonic() - self._began[0]) / 60

    def _note_times(self) -> None:
        self.progress.wall_time = self._spent_before[0] + time.monotonic() - self._began[0]
        self.progress.cpu_time = self._spent_before[1] + time.process_time() - self._began[1]


def _molecules(n: int) -> str:
    return "1 molecule" if n == 1 else f"{n} molecules"


@contextmanager
def _storage_trouble() -> Iterator[None]:
    try:
        yield
    except StoreError as error:
        raise TrainingError(f"training cannot go on: {error}") from error
