"""What a run leaves in its folder beside checkpoints: names, the table of validations, versions, the result."""

from __future__ import annotations

import csv
import io
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from qcsurrogate.files.atomic import write_atomically
from qcsurrogate.training.checkpoint import Progress
from qcsurrogate.versions import installed_versions

MODEL_NAME: Final = "model.safetensors"
METRICS_NAME: Final = "metrics.csv"
CONFIG_NAME: Final = "config.yaml"
_PACKAGES = ("qcsurrogate", "torch", "e3nn", "numpy", "lightning-fabric", "safetensors", "pydantic")


@dataclass(frozen=True)
class TrainingResult:
    """How a run stands when ``train`` returns.

    Attributes:
        finished: False if ``max_minutes`` ended it before its last step.
        metrics: row of the table at ``best_step``.
        wall_time, cpu_time: seconds spent, all starts together.
    """

    model_path: Path | None
    steps: int
    finished: bool
    best_step: int | None
    metrics: Mapping[str, float]
    wall_time: float
    cpu_time: float


def result_of(out: Path, progress: Progress) -> TrainingResult:
    """How a run stands."""
    best = [row for row in progress.rows if row["step"] == progress.best_step]
    return TrainingResult(
        model_path=out / MODEL_NAME if best else None,
        steps=progress.step,
        finished=progress.finished,
        best_step=progress.best_step,
        metrics=best[0] if best else {},
        wall_time=progress.wall_time,
        cpu_time=progress.cpu_time,
    )


def write_metrics(path: Path, rows: list[dict[str, float]]) -> None:
    """Replace the table of validations; without a row there is no file."""
    if not rows:
        path.unlink(missing_ok=True)  # of a start that died before its first checkpoint
        return
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())


def versions_text(device: torch.device) -> str:
    """JSON: versions of what a run depends on, its device and threads."""
    versions = {"platform": platform.platform(), **installed_versions(_PACKAGES)}
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return json.dumps({**versions, "device": name, "threads": torch.get_num_threads()}, indent=2) + "\n"
