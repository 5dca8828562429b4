"""Is our own SOAP worth a file, beside the one of the library ``pytorch_optimizer``?

It is: with 62,464 parameters in 15 matrices and stacks of matrices, one thread, float32
and equal hyperparameters, three seeds, after 2,000 steps (relative loss; mean cost of
the optimiser's step):

=========  ======================  ==============
AdamW      0.147, 0.157, 0.158     0.2 ms
library    0.144, 0.153, 0.155     4.0 to 4.6 ms
own        0.140, 0.151, 0.152     2.9 to 3.2 ms
=========  ======================  ==============

The library (version 4.1.0) costs 38-44 % more because it goes through the matrices one
by one; and it takes a stack (l, in, out) for one tensor with a third side to
precondition, where ours takes a matrix per l.

Run: ``PYTHONPATH=. OMP_NUM_THREADS=1 python tests/benchmarks/soap.py``
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable

import pytorch_optimizer
import torch
from torch import Tensor, nn

from qcsurrogate.training.soap import SOAP

STEPS = 2000
CHANNELS = 16
GROUPS = 8


class Network(nn.Module):
    """Matrices like those of a two-layer SO(2) network: wide and tall ones, and one per (l, parity)."""

    def __init__(self) -> None:
        super().__init__()
        c, g = CHANNELS, GROUPS
        self.read = nn.Parameter(torch.randn(g, c, c) / math.sqrt(c))
        self.into = nn.ParameterList([nn.Parameter(torch.randn(n * c, 64) / math.sqrt(n * c)) for n in (8, 7, 5, 3, 2)])
        self.out = nn.ParameterList([nn.Parameter(torch.randn(64, n * c) / 8) for n in (8, 7, 5, 3, 2)])
        self.mix = nn.ParameterList([nn.Parameter(torch.randn(g, c, c) / math.sqrt(c)) for _ in range(3)])
        self.last = nn.Parameter(torch.randn(g * c, 24) / math.sqrt(g * c))

    def forward(self, x: Tensor) -> Tensor:  # (n, groups, channels) -> (n, 24)
        c = CHANNELS
        x = torch.einsum("ngc,gcd->ngd", x, self.read)
        for into, out, mix in zip(self.into, self.out, (*self.mix, None, None), strict=True):
            n = into.shape[0] // c
            message = torch.tanh(x[:, :n].reshape(len(x), -1) @ into) @ out
            x = torch.cat([x[:, :n] + message.view(-1, n, c), x[:, n:]], 1)
            if mix is not None:
                x = x + torch.tanh(torch.einsum("ngc,gcd->ngd", x, mix))
        return x.reshape(len(x), -1) @ self.last


def train(make: Callable[[list[nn.Parameter]], torch.optim.Optimizer], seed: int) -> tuple[float, float, float]:
    """Loss relative to the variance; milliseconds per step of the optimiser, median and mean."""
    torch.manual_seed(1000 + seed)
    teacher = Network()
    torch.manual_seed(seed)
    student = Network()
    optimiser = make(list(student.parameters()))
    spent = []
    for step in range(STEPS):
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * min(1.0, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * step / STEPS))
        inputs = torch.randn(16, GROUPS, CHANNELS)  # fresh ones: the question is descent, not generalisation
        with torch.no_grad():
            targets = teacher(inputs)
        optimiser.zero_grad()
        loss = ((student(inputs) - targets) ** 2).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        start = time.perf_counter()
        optimiser.step()
        spent.append(time.perf_counter() - start)
    with torch.no_grad():
        inputs = torch.randn(1000, GROUPS, CHANNELS)
        targets = teacher(inputs)
        rest = ((student(inputs) - targets) ** 2).mean() / targets.var()
    return float(rest), 1e3 * statistics.median(spent), 1e3 * statistics.mean(spent)


OPTIMISERS: dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=3e-3, betas=(0.9, 0.99), weight_decay=0.0, fused=True),
    "library": lambda p: pytorch_optimizer.SOAP(
        p, lr=3e-3, betas=(0.95, 0.95), weight_decay=0.0, precondition_frequency=10, max_precondition_dim=512
    ),
    "own": lambda p: SOAP(p, lr=3e-3),
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    print(f"{sum(p.numel() for p in Network().parameters())} parameters, {STEPS} steps")
    for name, make in OPTIMISERS.items():
        for seed in range(3):
            loss, median, mean = train(make, seed)
            print(f"{name:8s} seed {seed}: relative loss {loss:.3e}, {median:.2f} ms (median), {mean:.2f} (mean)")
