"""What a training run is, from a YAML file and ``--set a.b=c``, as a typed model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from qcsurrogate.errors import SpecError
from qcsurrogate.files.nested import override, parse_override
from qcsurrogate.files.presets import Preset, find_preset
from qcsurrogate.files.yaml_model import read_yaml, validate

HARMLESS_KEYS = frozenset({"checkpoint_every", "max_minutes", "patience", "tensorboard"})
"""Settings of ``training`` that may change between a run and its resumption: no step depends on them.

``training.steps`` may grow, see :func:`qcsurrogate.training.loop.train`.
"""

Settings = TypeVar("Settings", bound=BaseModel)


class TrainingConfig(BaseModel):
    """How a network is trained."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: Annotated[int, Field(ge=1, description="Optimiser steps; a run that exists may be given more.")] = 4000
    batch_size: Annotated[int, Field(ge=1, le=65536, description="Molecules per step.")] = 16
    learning_rate: Annotated[float, Field(gt=0, le=1, description="At its height, after the warm-up.")] = 3e-3
    warmup_steps: Annotated[int, Field(ge=0, description="Steps of linear warm-up; a cosine to zero follows.")] = 100
    optimiser: Annotated[
        Literal["soap", "adamw"], Field(description="Of the matrices; AdamW takes everything else.")
    ] = "soap"
    second_moment_decay: Annotated[
        float, Field(ge=0, lt=1, description="Of SOAP: squared gradients and preconditioners; 1/(1 - it) steps long.")
    ] = 0.95
    gradient_clip: Annotated[float, Field(gt=0, description="Largest norm of the whole gradient.")] = 1.0
    ema_decay: Annotated[
        float, Field(ge=0, lt=1, description="Of the moving average of the weights that is validated and saved.")
    ] = 0.99
    seed: Annotated[int, Field(ge=0, lt=2**63, description="Of weights, order of molecules and noise.")] = 0
    precision: Annotated[Literal[32, 64], Field(description="Bits of a floating-point number.")] = 32
    device: Annotated[Literal["auto", "cpu", "cuda"], Field(description="auto takes a GPU where there is one.")] = (
        "auto"
    )
    threads: Annotated[
        int | None, Field(ge=1, le=1024, description="CPU threads of PyTorch; null leaves it to PyTorch.")
    ] = 1
    validate_every: Annotated[int, Field(ge=1, description="Steps between two validations.")] = 250
    validation_batch_size: Annotated[int, Field(ge=1, description="Molecules per batch of a validation.")] = 64
    patience: Annotated[
        int | None,
        Field(ge=1, description="Stop after this many validations without a better one; null never does."),
    ] = None
    checkpoint_every: Annotated[int, Field(ge=1, description="Steps between two checkpoints.")] = 500
    max_minutes: Annotated[
        float | None, Field(gt=0, description="Wall time after which this start checkpoints and stops; resume goes on.")
    ] = None
    tensorboard: Annotated[bool, Field(description="Write TensorBoard files too (extra 'tensorboard').")] = False


class Origin(BaseModel):
    """A model file that a run begins with."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Annotated[str, Field(min_length=1, description="Where it lay; the run keeps a copy.")]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$", description="Of its content.")]


class RunConfig(BaseModel, Generic[Settings]):
    """A whole run: the network, its training, the preset they come from and the model it begins with, if any."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    preset: Annotated[str | None, Field(description="What is set nowhere else is as this preset has it.")] = None
    model: Settings
    training: TrainingConfig = TrainingConfig()
    origin: Annotated[Origin | None, Field(description="Written by --from: what is fine-tuned.")] = None


def load_run_config(
    model_settings: type[Settings],
    path: str | Path | None = None,
    overrides: Sequence[str] = (),
    *,
    model: Mapping[str, Any] | None = None,
    presets: Mapping[str, Preset] | None = None,
    preset: str | None = None,
) -> RunConfig[Settings]:
    """The configuration of a run.

    Args:
        model_settings: the pydantic model of the ``model:`` section.
        path: a YAML file with sections ``model`` and ``training``; defaults without one.
        overrides: texts ``section.key=value``, the value in YAML; they win over the file.
        model: settings of the network where neither preset nor file says them, instead of the defaults.
        presets: those that may be asked for.
        preset: name of one, unless file or overrides name it; file and overrides win over its values.

    Raises:
        SpecError: if the file cannot be read, for an unknown key, an impossible value or an
            unknown preset, or if two presets are named.
    """
    source = "the training options" if path is None else f"'{path}'"
    file = {} if path is None else read_yaml(Path(path))
    changes = [parse_override(text) for text in overrides]
    name = _preset_name({source: file.get("preset"), "--set": dict(changes).get("preset"), "--preset": preset})
    data: dict[str, Any] = {"preset": name, "model": model or {}}
    if isinstance(name, str):
        data = _merged(data, find_preset(presets or {}, name).model_dump(include={"model", "training"}))
    data = deepcopy(_merged(data, {key: value for key, value in file.items() if key != "preset"}))
    for key, value in changes:
        override(data, key, value, source)
    config_type: type[RunConfig[Settings]] = RunConfig[model_settings]  # type: ignore[valid-type]
    return validate(config_type, data, source)


def _preset_name(named: Mapping[str, Any]) -> Any:
    """The one preset that is named, if there is one."""
    (first, name), *others = [(where, name) for where, name in named.items() if name is not None] or [("", None)]
    for where, other in others:
        if other != name:
            raise SpecError(f"{first} has the preset '{name}', {where} the preset '{other}'; expected one of them")
    return name


def _merged(first: Mapping[str, Any], then: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings, the second winning."""
    both = {
        key: _merged(first[key], then[key])
        for key in first.keys() & then.keys()
        if isinstance(first[key], Mapping) and isinstance(then[key], Mapping)
    }
    return {**first, **then, **both}
