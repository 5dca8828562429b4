"""Whether a run may go on: what must agree with its checkpoint, and whether it is over."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from qcsurrogate.errors import TrainingError
from qcsurrogate.files.nested import differences
from qcsurrogate.training.checkpoint import CHECKPOINT_NAME, Progress
from qcsurrogate.training.config import HARMLESS_KEYS, RunConfig, TrainingConfig
from qcsurrogate.training.outputs import MODEL_NAME


def is_over(progress: Progress, config: TrainingConfig) -> bool:
    """Whether all steps were taken, or as many validations as patience allows were not better than the best."""
    since_best = sum(row["step"] > (progress.best_step or 0) for row in progress.rows)
    return progress.step >= config.steps or (config.patience is not None and since_best >= config.patience)


def why_over(progress: Progress, config: TrainingConfig) -> str:
    """Why a run is finished, and how it would go on."""
    if progress.step >= config.steps:
        return f"all {config.steps} steps were taken; --set training.steps=N with a larger N goes on"
    return (
        f"finished early after step {progress.step} of {config.steps}: {config.patience} validations were not better "
        f"than that of step {progress.best_step}; --set training.patience=N with a larger N, or null, goes on"
    )


def check_same_run(out: Path, earlier: Progress, now: Progress) -> None:
    """Refuse to resume a run with another configuration, network or data, or whose model is gone.

    Raises:
        TrainingError: that names what changed.
    """
    pairs = {
        "another configuration": (
            _that_must_agree(earlier.config, now.config),
            _that_must_agree(now.config, now.config),
        ),
        "other data": (earlier.dataset, now.dataset),
        "another network": (earlier.network, now.network),
    }
    for what, (old, new) in pairs.items():
        changes = differences(old, new)
        if changes:
            more = f" and {len(changes) - 10} more" if len(changes) > 10 else ""
            remedy = "set them back, or train in another folder (or remove this one)"
            if old is earlier.dataset:
                remedy = f"train in another folder; where the store has grown, --from {out} begins with this model"
            raise TrainingError(
                f"'{out}' holds a run with {what}; expected the same to resume it, got changes:\n  "
                + "\n  ".join(line[:200] for line in changes[:10])
                + f"{more}\n{remedy}"
            )
    if earlier.best_step is not None and not (out / MODEL_NAME).is_file():
        raise TrainingError(
            f"'{out / MODEL_NAME}' of step {earlier.best_step} is gone, expected it beside the checkpoint; "
            f"put it back, or remove '{out / CHECKPOINT_NAME}' to train from the beginning"
        )


def with_new_defaults(earlier: dict[str, Any], config: RunConfig[Any]) -> dict[str, Any]:
    """A configuration of an older version: a key it did not know has its default."""
    try:
        return {
            "preset": earlier.get("preset"),
            "model": plain(type(config.model).model_validate(earlier["model"])),
            "training": plain(TrainingConfig.model_validate(earlier["training"])),
            "origin": earlier.get("origin"),
        }
    except ValidationError:
        return earlier  # a key has gone; the comparison names it


def _that_must_agree(config: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without what may have changed: harmless settings, a number of steps that has grown, a path."""
    training = {key: value for key, value in config["training"].items() if key not in HARMLESS_KEYS}
    if training.get("steps", 0) <= now["training"]["steps"]:
        training["steps"] = now["training"]["steps"]
    origin = config.get("origin")
    return {**config, "training": training, "origin": origin and origin["sha256"]}


def plain(value: Any) -> dict[str, Any]:
    """Through JSON and back, so that it compares equal to what a checkpoint holds."""
    data = value.model_dump(mode="json") if hasattr(value, "model_dump") else value
    plain: dict[str, Any] = json.loads(json.dumps(data))
    return plain
