"""Which optimiser takes which parameter, and the learning rate at every step."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from qcsurrogate.errors import TrainingError
from qcsurrogate.training.config import TrainingConfig
from qcsurrogate.training.soap import SOAP


def learning_rate_factor(step: int, steps: int, warmup_steps: int) -> float:
    """Linear warm-up times a cosine that reaches zero after the last step.

    Args:
        step: number of steps already taken, 0 for the first.
        steps: number of steps of the whole run.
        warmup_steps: the factor's warm-up part grows from 1/warmup_steps to 1 over them.

    Returns:
        A factor in 0..1 of the highest learning rate.
    """
    warmup = min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0
    return warmup * 0.5 * (1.0 + math.cos(math.pi * min(step, steps) / steps))


def make_optimisers(
    parameters: Iterable[nn.Parameter], matrices: Iterable[tuple[str, nn.Parameter]], config: TrainingConfig
) -> list[torch.optim.Optimizer]:
    """SOAP for ``matrices`` if the configuration says so, AdamW for all other parameters.

    Raises:
        TrainingError: if there is nothing to train, or a matrix has fewer than two dimensions.
    """
    trainable = [p for p in parameters if p.requires_grad]
    if not trainable:
        raise TrainingError("the network has no trainable parameter; expected at least one")
    preconditioned = [(name, p) for name, p in matrices if p.requires_grad and config.optimiser == "soap"]
    for name, parameter in preconditioned:
        if parameter.ndim < 2:
            raise TrainingError(
                f"parameter '{name}' of shape {tuple(parameter.shape)} was given to SOAP; expected (..., rows, columns)"
            )
    taken = {id(p) for _, p in preconditioned}
    rest = [p for p in trainable if id(p) not in taken]
    optimisers: list[torch.optim.Optimizer] = []
    if preconditioned:
        betas = (0.95, config.second_moment_decay)
        optimisers.append(SOAP([p for _, p in preconditioned], lr=config.learning_rate, betas=betas))
    if rest:
        rate = config.learning_rate
        optimisers.append(torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.99), weight_decay=0.0, fused=True))
    return optimisers


def set_learning_rate(optimisers: Iterable[torch.optim.Optimizer], value: float) -> None:
    """Give all parameter groups this learning rate."""
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = value
