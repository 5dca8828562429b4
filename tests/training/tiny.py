"""A small network and data with the interface of the real ones, for tests of what is around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from qcsurrogate.models.base import SurrogateModel
from qcsurrogate.models.files import ModelMetadata
from qcsurrogate.reference.settings import Method


@dataclass(frozen=True)
class TinyBatch:
    """inputs (n, features), targets (n, 1)."""

    inputs: Tensor
    targets: Tensor

    def to(self, device: torch.device) -> TinyBatch:
        return TinyBatch(self.inputs.to(device), self.targets.to(device))


class TinyModel(SurrogateModel):
    """Two layers, one batched matrix, one vector and a statistics buffer."""

    kind = "hamiltonian"
    monitored = "hamiltonian_mae"

    def __init__(self, features: int = 4, width: int = 8, elements: Sequence[int] = (1, 8)) -> None:
        super().__init__()
        self.features, self.width, self.elements = features, width, tuple(elements)
        self.first = nn.Linear(features, width)
        self.mix = nn.Parameter(torch.randn(3, width, width) / width**0.5)
        self.last = nn.Linear(width, 1)
        self.register_buffer("scale", torch.ones(1))

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = torch.tanh(self.first(inputs))
        # noise that the global generator draws: an exact resume has to restore it
        hidden = hidden + 1e-3 * torch.randn_like(hidden) if self.training else hidden
        hidden = hidden + torch.tanh(torch.einsum("nw,gwv->nv", hidden, self.mix))
        return self.last(hidden) * self.scale

    def loss(self, batch: TinyBatch) -> Tensor:
        return ((self(batch.inputs) - batch.targets) ** 2).mean()

    def errors(self, batch: TinyBatch) -> dict[str, tuple[Tensor, int]]:
        difference = self(batch.inputs) - batch.targets
        return {"hamiltonian_mae": (difference.abs().sum(), difference.numel())}

    output_basis = None

    def predict_arrays(self, structures: Sequence[Any]) -> list[Any]:
        raise TypeError("the tiny network knows no structures")

    def description(self) -> dict[str, Any]:
        return {"features": self.features, "width": self.width, "elements": list(self.elements)}


class TinyData:
    """Points of a smooth function."""

    def __init__(self, n: int = 40, features: int = 4, seed: int = 0, dtype: torch.dtype = torch.float32) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.inputs = torch.randn(n, features, generator=generator, dtype=dtype)
        self.targets = torch.sin(self.inputs).sum(dim=1, keepdim=True)

    def __len__(self) -> int:
        return len(self.inputs)

    def batch(self, indices: Sequence[int]) -> TinyBatch:
        rows = torch.as_tensor(indices)
        return TinyBatch(self.inputs[rows], self.targets[rows])


def build_tiny(kind: str, description: Mapping[str, Any]) -> TinyModel:
    """``build_model`` of the tiny network."""
    if kind != "hamiltonian":
        raise ValueError(f"unknown kind '{kind}'")
    return TinyModel(**description)


def tiny_metadata(model: TinyModel, metrics: Mapping[str, float] | None = None) -> ModelMetadata:
    """Metadata that fit ``model``."""
    return ModelMetadata(
        kind=model.kind,
        description=model.description(),
        method=Method(),
        atoms={"H": {"exponents": [1.0], "coefficients": [0.179587]}},
        spec={"name": "tiny"},
        dataset_hash="0" * 32,
        elements=tuple(model.elements),
        units={"hamiltonian": "hartree"},
        training={"steps": 3},
        metrics=dict(metrics or {}),
        versions={"torch": torch.__version__},
    )
