"""From an embedding to a canonical cloud of atoms."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn


@dataclass(frozen=True)
class Cloud:
    """Atoms in canonical frame and order, one cloud for each embedding.

    Attributes:
        positions: (n_molecules, n_points, 3).
        element_logits: (n_molecules, n_points, n_elements).
        size_logits: (n_molecules, n_points): entry k speaks for k + 1 atoms, which are the first points.
    """

    positions: Tensor
    element_logits: Tensor
    size_logits: Tensor

    @property
    def sizes(self) -> Tensor:
        """(n_molecules,) likeliest numbers of atoms."""
        return self.size_logits.argmax(1) + 1

    def scaled(self, length: Tensor) -> Cloud:
        """The same with positions in another unit."""
        return replace(self, positions=self.positions * length)


class Decoder(nn.Module):
    """A perceptron on the embedding, and for each place in the canonical order what it reads off the result.

    Args:
        embedding: length of an embedding.
        n_points: atoms of the largest molecule.
        n_elements: number of elements.
        width: of the perceptron.
    """

    def __init__(self, embedding: int, n_points: int, n_elements: int, width: int) -> None:
        super().__init__()
        self.n_points, self.n_elements = n_points, n_elements
        self.perceptron = nn.Sequential(nn.Linear(embedding, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.positions = nn.Linear(width, n_points * 3)
        self.elements = nn.Linear(width, n_points * n_elements)
        self.size = nn.Linear(width, n_points)

    def forward(self, embeddings: Tensor) -> Cloud:
        """(n_molecules, embedding) -> clouds."""
        hidden = self.perceptron(embeddings)
        positions = self.positions(hidden).unflatten(1, (self.n_points, 3))
        elements = self.elements(hidden).unflatten(1, (self.n_points, self.n_elements))
        return Cloud(positions, elements, self.size(hidden))
