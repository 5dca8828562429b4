"""Functions of a distance: Gaussians, a smooth cutoff, weights by the elements of a pair."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_SHORTEST = 0.8
_OVERLAP = 1.3


class RadialBasis(nn.Module):
    """Gaussians in the distance, again times what the two elements make of them.

    Every element has its own numbers, as first and as second of a pair; a pair of elements
    that no training molecule holds is then still one of known elements.

    Args:
        n_elements: elements are given as indices below it.
        n_gaussians: Gaussians between 0.8 bohr and ``cutoff``.
        cutoff: bohr.
    """

    centres: Tensor

    def __init__(self, n_elements: int, n_gaussians: int, cutoff: float) -> None:
        super().__init__()
        self.cutoff = cutoff
        centres = torch.linspace(_SHORTEST, cutoff, n_gaussians, dtype=torch.float64)
        self.register_buffer("centres", centres, persistent=False)
        self.width = _OVERLAP * float(centres[1] - centres[0])
        self.first_embedding = nn.Embedding(n_elements, n_gaussians)
        self.second_embedding = nn.Embedding(n_elements, n_gaussians)

    @property
    def n_out(self) -> int:
        return 3 * len(self.centres)

    def forward(self, lengths: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """(n,) bohr and (n,) element indices -> (n, n_out)."""
        gaussians = torch.exp(-(((lengths.unsqueeze(1) - self.centres.to(lengths)) / self.width) ** 2))
        one, other = self.first_embedding(first), self.second_embedding(second)
        return torch.cat([gaussians, gaussians * (one + other), gaussians * one * other], dim=1)


def smooth_cutoff(lengths: Tensor, cutoff: float) -> Tensor:
    """1 at zero, 0 at and beyond ``cutoff`` with two zero derivatives: 1 - 10x^3 + 15x^4 - 6x^5."""
    x = (lengths / cutoff).clamp(max=1.0)
    return 1.0 - x**3 * (10.0 - x * (15.0 - 6.0 * x))


class RadialWeights(nn.Module):
    """A two-layer perceptron on a :class:`RadialBasis`."""

    def __init__(self, n_in: int, n_out: int, width: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(n_in, width), nn.SiLU(), nn.Linear(width, n_out))

    def forward(self, basis: Tensor) -> Tensor:
        """(n, n_in) -> (n, n_out)."""
        return self.layers(basis)
