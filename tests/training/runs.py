"""Runs of the tiny network, as the tests and the driver of the SIGKILL test start them."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict

from qcsurrogate.models.files import ModelMetadata
from qcsurrogate.training.config import RunConfig, TrainingConfig
from qcsurrogate.training.loop import train
from qcsurrogate.training.outputs import TrainingResult
from tests.training.tiny import TinyBatch, TinyData, TinyModel, tiny_metadata


class TinySettings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    width: int = 8


def tiny_config(width: int = 8, **training: Any) -> RunConfig[TinySettings]:
    settings = {"steps": 60, "validate_every": 11, "checkpoint_every": 7, "batch_size": 6, "device": "cpu"}
    return RunConfig(model=TinySettings(width=width), training=TrainingConfig(**{**settings, **training}))


def run_tiny(
    out: Path,
    config: RunConfig[TinySettings] | None = None,
    train_data: TinyData | None = None,
    dataset_hash: str = "tiny",
    *,
    quiet: bool = True,
) -> TrainingResult:
    """One start of a run in ``out``, from a fresh network."""
    config = config or tiny_config()
    dtype = torch.float64 if config.training.precision == 64 else torch.float32
    torch.manual_seed(config.training.seed)
    model = TinyModel(width=config.model.width)

    def on_metadata(metrics: Mapping[str, float], provenance: Mapping[str, Any]) -> ModelMetadata:
        return tiny_metadata(model, metrics).model_copy(update={"training": {"step": provenance["step"]}})

    return train(
        model,
        TinyData(40, dtype=dtype) if train_data is None else train_data,
        TinyData(15, seed=1, dtype=dtype),
        config,
        out,
        on_metadata=on_metadata,
        dataset_hash=dataset_hash,
        quiet=quiet,
    )


def table(out: Path) -> list[dict[str, str]]:
    """``metrics.csv`` without its time columns."""
    with (out / "metrics.csv").open() as file:
        return [{k: v for k, v in row.items() if "time" not in k} for row in csv.DictReader(file)]


class BrokenData(TinyData):
    """Data with a NaN label at one index."""

    def __init__(self, bad: int) -> None:
        super().__init__()
        self.targets[bad] = float("nan")


class HookedData(TinyData):
    """Data that call ``hook(n)`` before the n-th batch (counted from 0)."""

    def __init__(self, hook: Any) -> None:
        super().__init__()
        self._hook, self._count = hook, 0

    def batch(self, indices: Sequence[int]) -> TinyBatch:
        self._hook(self._count)
        self._count += 1
        return super().batch(indices)
