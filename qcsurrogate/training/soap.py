"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner.

Vyas, Morwani, Zhao, Kwun, Shapira, Brandfonbrener, Janson and Kakade, "SOAP: Improving
and Stabilizing Shampoo using Adam", 2024, arXiv:2409.11321, algorithm 3.

Equivariant networks have few, small matrices, many of them of one shape, and stacks of
them (one matrix per l).  So matrices of equal shape are updated together as one batch,
whatever parameter they come from, and the leading dimensions of a parameter count
matrices; ``tests/benchmarks/soap.py`` holds what that is worth.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


class SOAP(torch.optim.Optimizer):
    """SOAP for parameters (..., rows, columns).

    The first step only sets the preconditioners up and leaves the parameters alone, as
    in the paper.  A parameter without gradient counts as having gradient zero.

    Args:
        parameters: each of two or more dimensions; the last two are a matrix.
        betas: decay of the first moment; decay of the second and of the preconditioners.
        eps: added to the root of the second moment.
        refresh_every: steps between two refinements of the eigenbases.
        maximum_dimension: a longer side of a matrix is not preconditioned.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        *,
        betas: tuple[float, float] = (0.95, 0.95),
        eps: float = 1e-8,
        refresh_every: int = 10,
        maximum_dimension: int = 512,
    ) -> None:
        parameters = list(parameters)
        if any(p.ndim < 2 for p in parameters):
            raise ValueError("SOAP takes matrices (..., rows, columns); give vectors to another optimiser")
        buckets: dict[tuple[int, int], list[nn.Parameter]] = {}
        for parameter in parameters:
            buckets.setdefault((parameter.shape[-2], parameter.shape[-1]), []).append(parameter)
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "refresh_every": refresh_every,
            "maximum_dimension": maximum_dimension,
        }
        super().__init__([{"params": bucket} for bucket in buckets.values()], defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter from its ``grad``."""
        if closure is not None:
            raise ValueError("SOAP takes no closure; compute the gradients before the step")
        for group in self.param_groups:
            parameters: list[nn.Parameter] = group["params"]
            if all(p.grad is None for p in parameters):
                continue
            gradient = torch.cat([_matrices(p if p.grad is None else p.grad, p.grad is None) for p in parameters])
            update = _update(gradient, self.state[parameters[0]], group)
            start = 0
            for parameter in parameters:
                count = parameter.numel() // (parameter.shape[-2] * parameter.shape[-1])
                change = update[start : start + count].view_as(parameter)
                parameter.add_(change, alpha=-group["lr"])
                start += count


def _matrices(tensor: Tensor, zero: bool) -> Tensor:
    """(n, rows, columns), of zeros if asked for."""
    matrices = tensor.reshape(-1, tensor.shape[-2], tensor.shape[-1])
    return torch.zeros_like(matrices) if zero else matrices


def _update(gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
    """Direction of one step (n, rows, columns) for a batch of matrices; advances ``state``.

    ``state`` holds ``step`` and, for each preconditioned side, its second-moment matrix
    (``left``, ``right``) and the basis in which that is nearly diagonal (``left_basis``,
    ``right_basis``); both moments are kept in that basis.
    """
    beta1, beta2 = group["betas"]
    limit = group["maximum_dimension"]
    rows, columns = gradient.shape[-2:]
    outer = {}
    if rows <= limit:
        outer["left"] = gradient @ gradient.mT
    if columns <= limit:
        outer["right"] = gradient.mT @ gradient
    if not state:
        state.update(step=0, first_moment=torch.zeros_like(gradient), second_moment=torch.zeros_like(gradient))
        for side, product in outer.items():
            state[side] = product
            # in float64, because float32 returns NaN for some products of low rank;
            # contiguous, as after a resumption: rounding depends on the strides
            vectors = torch.linalg.eigh(product.double()).eigenvectors
            state[f"{side}_basis"] = vectors.to(product).contiguous()
        return torch.zeros_like(gradient)

    state["step"] += 1
    step: int = state["step"]
    left, right = state.get("left_basis"), state.get("right_basis")
    first, second = state["first_moment"], state["second_moment"]
    rotated = _into(gradient, left, right)
    first.lerp_(rotated, 1 - beta1)
    second.mul_(beta2).addcmul_(rotated, rotated, value=1 - beta2)
    scale = (second / (1 - beta2**step)).sqrt_().add_(group["eps"])
    update = _out_of(first / scale.mul_(1 - beta1**step), left, right)

    for side, product in outer.items():
        state[side].lerp_(product, 1 - beta2)
    if step % group["refresh_every"] == 0 and outer:
        momentum = _out_of(first, left, right)
        for side in outer:
            # one power iteration, then orthonormal again
            state[f"{side}_basis"] = torch.linalg.qr(state[side] @ state[f"{side}_basis"]).Q.contiguous()
        first.copy_(_into(momentum, state.get("left_basis"), state.get("right_basis")))
    return update


def _into(matrices: Tensor, left: Tensor | None, right: Tensor | None) -> Tensor:
    """left^T M right for every matrix; a basis that is None is the identity."""
    if left is not None:
        matrices = left.mT @ matrices
    return matrices if right is None else matrices @ right


def _out_of(matrices: Tensor, left: Tensor | None, right: Tensor | None) -> Tensor:
    """left M right^T for every matrix: the inverse of :func:`_into`."""
    if left is not None:
        matrices = left @ matrices
    return matrices if right is None else matrices @ right.mT
