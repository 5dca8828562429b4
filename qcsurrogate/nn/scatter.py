"""From atoms to edges and back: rows by index, and sums of rows that share an index."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

import torch
from torch import Tensor

HAS_TORCH_SCATTER: Final = find_spec("torch_scatter") is not None
"""Whether the optional package torch-scatter is installed (extra ``scatter``)."""

_torch_scatter: Any = import_module("torch_scatter") if HAS_TORCH_SCATTER else None


class _Gather(torch.autograd.Function):
    """Indexing whose gradient is ``index_add``; PyTorch's own on a CPU sums element by element."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.size = len(values)
        return values[index]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        return scatter_sum(gradients[0], index, ctx.size), None


def gather(values: Tensor, index: Tensor) -> Tensor:
    """Rows of ``values`` (n, ...) by ``index`` (m,): (m, ...)."""
    rows: Tensor = _Gather.apply(values, index)
    return rows


def scatter_sum(values: Tensor, index: Tensor, size: int, *, use_torch_scatter: bool = HAS_TORCH_SCATTER) -> Tensor:
    """Sum rows that share an index.

    Args:
        values: (n, ...).
        index: (n,) in 0..size-1.
        size: rows of the result.
        use_torch_scatter: torch-scatter where it is installed, else ``index_add``.

    Returns:
        (size, ...).
    """
    if use_torch_scatter:
        summed: Tensor = _torch_scatter.scatter_sum(values, index, dim=0, dim_size=size)
        return summed
    zeros = torch.zeros(size, *values.shape[1:], dtype=values.dtype, device=values.device)
    return zeros.index_add(0, index, values.contiguous())  # strided values take a path 100 times slower
