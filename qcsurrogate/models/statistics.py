"""Mean and spread of labels, kept in float64 whatever the weights are kept in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

SMALLEST_SCALE = 1e-6


def centred(rows: Tensor, mean: Tensor, scale: Tensor, smallest: float) -> Tensor:
    """Inputs of mean zero; what varies by less than ``smallest`` stays small instead of becoming noise."""
    return (rows.double() - mean) / scale.clamp(min=smallest)


class Float64Buffers(nn.Module):
    """Buffers that follow their module to another device but never change their type.

    A mean of 20 Hartree in float32 is wrong by a microhartree; statistics and basis
    transformations therefore stay in float64 beside float32 weights.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        for name, buffer in self._buffers.items():
            if buffer is not None:
                self._buffers[name] = buffer.to(fn(buffer.new_empty(0)).device)
        return self


class Standardisation(Float64Buffers):
    """label = mean + scale * prediction, row by row.

    A scale of zero (what the training set did not hold) makes the prediction vanish.

    Attributes:
        mean, scale: (n_rows,).
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, n_rows: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_rows, dtype=torch.float64))
        self.register_buffer("scale", torch.zeros(n_rows, dtype=torch.float64))

    def fit(self, labels: Tensor, group: Tensor, invariant: Tensor) -> None:
        """Take mean and spread from labels.

        Args:
            labels: (n, n_rows).
            group: (n_rows,) rows of one group share their spread, as equivariance asks.
            invariant: (n_rows,) rows that may have a mean.
        """
        values = labels.double()
        mean = torch.where(invariant, values.mean(0), torch.zeros_like(self.mean))
        variance = (values - mean).square().mean(0)
        n_groups = int(group.max()) + 1
        total = torch.zeros(n_groups, dtype=torch.float64).index_add(0, group, variance)
        size = torch.zeros(n_groups, dtype=torch.float64).index_add(0, group, torch.ones_like(variance))
        self.mean.copy_(mean)
        self.scale.copy_((total / size)[group].sqrt().clamp(min=SMALLEST_SCALE))

    def standardise(self, labels: Tensor) -> Tensor:
        """(n, n_rows) labels -> what a network should put out, in float64.

        A label of 20 Hartree in float32 has lost what a spread of a millihartree is made of:
        labels stay in float64 until their mean is gone.
        """
        return (labels.double() - self.mean) / self.scale.clamp(min=SMALLEST_SCALE)

    def restore(self, predictions: Tensor) -> Tensor:
        """(n, n_rows) output of a network -> labels in float64."""
        return predictions.double() * self.scale + self.mean
