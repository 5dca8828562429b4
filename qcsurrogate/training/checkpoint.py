"""Checkpoints: everything that a run needs to go on as if it had never stopped.

One safetensors file holds all tensors (network, moving average, optimisers, random
state) and, as JSON in its metadata, everything else.  It is replaced atomically, so the
previous checkpoint is kept until the new one is complete.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import safetensors.torch
import torch
from torch import Tensor, nn

from qcsurrogate.errors import TrainingError
from qcsurrogate.files.atomic import write_atomically

CHECKPOINT_NAME: Final = "checkpoint.safetensors"
_KEY: Final = "qcsurrogate-checkpoint"
_VERSION: Final = 1


@dataclass
class Progress:
    """Where a run stands, apart from its tensors.

    Attributes:
        step: steps taken; also the sampler's position and that of the learning rate.
        rows: the table ``metrics.csv`` up to here.
        best_step, best_value: of the best validation, if there was one.
        loss_sum, loss_count: training losses since the last row of the table.
        extensions: for each time that ``training.steps`` grew: ``step`` reached then, ``from``, ``to``.
    """

    config: dict[str, Any]
    dataset: dict[str, Any]
    network: dict[str, Any]
    step: int = 0
    rows: list[dict[str, float]] = field(default_factory=list)
    best_step: int | None = None
    best_value: float | None = None
    loss_sum: float = 0.0
    loss_count: int = 0
    wall_time: float = 0.0
    cpu_time: float = 0.0
    finished: bool = False
    extensions: list[dict[str, int]] = field(default_factory=list)


def write_checkpoint(
    path: Path,
    progress: Progress,
    networks: Mapping[str, nn.Module],
    optimisers: Sequence[torch.optim.Optimizer],
) -> None:
    """Replace the checkpoint at ``path``.

    Raises:
        StoreError: if it cannot be written; the previous one is untouched then.
    """
    tensors: dict[str, Tensor] = {}
    for name, network in networks.items():
        tensors |= {f"{name}/{key}": tensor for key, tensor in network.state_dict().items()}
    scalars = []
    for number, optimiser in enumerate(optimisers):
        own: dict[str, dict[str, Any]] = {}
        for index, state in optimiser.state_dict()["state"].items():
            own[str(index)] = {key: value for key, value in state.items() if not isinstance(value, Tensor)}
            for key, value in state.items():
                if isinstance(value, Tensor):
                    tensors[f"optimiser{number}/{index}/{key}"] = value
        scalars.append(own)
    tensors["random/cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random/cuda"] = torch.cuda.get_rng_state()
    content = {"version": _VERSION, "progress": asdict(progress), "optimisers": scalars}
    separate = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    write_atomically(path, safetensors.torch.save(separate, {_KEY: json.dumps(content, allow_nan=False)}))


def read_progress(path: Path) -> Progress:
    """The part of a checkpoint that is no tensor."""
    return _read(path)[0]


def restore_checkpoint(
    path: Path, networks: Mapping[str, nn.Module], optimisers: Sequence[torch.optim.Optimizer]
) -> Progress:
    """Put networks, optimisers and the random state where the checkpoint was written.

    Raises:
        TrainingError: if the file is damaged or belongs to another network.
    """
    progress, scalars, tensors = _read(path)
    try:
        for name, network in networks.items():
            network.load_state_dict(_below(tensors, f"{name}/"))
        for number, (optimiser, own) in enumerate(zip(optimisers, scalars, strict=True)):
            state = {int(index): dict(values) for index, values in own.items()}
            for key, tensor in _below(tensors, f"optimiser{number}/").items():
                index, _, name = key.partition("/")
                state[int(index)][name] = tensor
            optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
        torch.set_rng_state(tensors["random/cpu"])
        if torch.cuda.is_available() and "random/cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random/cuda"])
    except (KeyError, RuntimeError, ValueError) as error:
        raise _damaged(path, error) from error
    return progress


def _read(path: Path) -> tuple[Progress, list[dict[str, dict[str, Any]]], dict[str, Tensor]]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            content = json.loads((file.metadata() or {})[_KEY])
            if content["version"] != _VERSION:
                raise ValueError(f"version {content['version']!r}, expected {_VERSION}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        return Progress(**content["progress"]), content["optimisers"], tensors
    except (safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: BaseException) -> TrainingError:
    return TrainingError(
        f"cannot resume from the checkpoint '{path}' ({type(error).__name__}: {' '.join(str(error).split())[:300]}); "
        "remove it to train from the beginning, or train in another folder"
    )


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
