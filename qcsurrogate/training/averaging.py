"""Exponential moving average of a network's weights."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


def decay_at(step: int, decay: float) -> float:
    """Decay after ``step`` steps: short at first, so that the start is soon forgotten."""
    return min(decay, (1 + step) / (10 + step))


class MovingAverage(Generic[Network]):
    """A copy of a network whose weights follow the original's.

    Parameters are averaged, buffers copied.
    """

    def __init__(self, network: Network, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(requires_grad=False)
        self._decay = decay

    @torch.no_grad()
    def update(self, network: Network, step: int) -> None:
        """Take in the weights that ``network`` has after ``step`` steps (1 for the first)."""
        weight = 1.0 - decay_at(step, self._decay)
        averages: list[Tensor] = list(self.network.parameters())
        parameters: list[Tensor] = list(network.parameters())
        torch._foreach_lerp_(averages, parameters, weight)
        torch._foreach_copy_(list(self.network.buffers()), list(network.buffers()))
