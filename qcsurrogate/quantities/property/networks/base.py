"""What every property network offers: features of atoms, and what they are under rotations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Literal

import torch
from torch import Tensor, nn

from qcsurrogate.data.graphs import EdgeKind, Graph, GraphSettings
from qcsurrogate.quantities.property.networks.electronic import ElectronicRows, ElectronicStart
from qcsurrogate.quantities.property.networks.settings import NetworkSettings

Group = Literal["none", "E(3)", "O(3)"]
"""What a network declares: its features depend on where the molecule lies ("none"); they are
invariant under rotations, reflections and translations ("E(3)"); or scalars are invariant and vectors and tensors
turn with the molecule ("O(3)").  All are equivariant to permutations of atoms."""

LENGTH: Final = 5.0
"""Bohr; positions are given to perceptrons in units of the size of a small molecule."""


@dataclass(frozen=True)
class AtomFeatures:
    """What a network knows of every atom.

    Attributes:
        scalars: (n_atoms, c) invariant numbers.
        vectors: (n_atoms, 3, c_v) polar vectors, components x, y, z.
        tensors: (n_atoms, 3, 3, c_t) symmetric traceless tensors of even parity, components x, y, z.
    """

    scalars: Tensor
    vectors: Tensor | None = None
    tensors: Tensor | None = None


@dataclass(frozen=True)
class FeatureWidths:
    """Channels of :class:`AtomFeatures`, zero where there are none; whether frontier levels of H0 are known."""

    scalars: int
    vectors: int = 0
    tensors: int = 0
    levels: bool = False


class PropertyNetwork(nn.Module, ABC):
    """From molecules to features of their atoms; heads make properties of them.

    Args:
        elements: atomic numbers it is made for, ascending.
        settings: sizes, of this network.
        start: H0, where ``settings.inputs`` is "electronic", for the same elements.

    Attributes:
        group: what its features are under rotations, reflections and translations.
        edges: which atoms send each other messages.
        widths: channels of its features.
    """

    group: ClassVar[Group]
    edges: ClassVar[EdgeKind]
    widths: FeatureWidths
    element_index: Tensor

    def __init__(
        self, elements: Sequence[int], settings: NetworkSettings, start: ElectronicStart | None = None
    ) -> None:
        super().__init__()
        if (start is None) != (settings.inputs == "geometry"):
            raise ValueError(f"a network with inputs '{settings.inputs}' got the start {start}")
        self.elements, self.settings, self.start = tuple(elements), settings, start
        index = torch.full((max(elements) + 1,), -1)
        index[torch.tensor(list(elements))] = torch.arange(len(elements))
        self.register_buffer("element_index", index, persistent=False)

    @abstractmethod
    def forward(self, graph: Graph, known: ElectronicRows | None = None) -> AtomFeatures:
        """Features of the atoms of a graph of :meth:`graph_settings`.

        Args:
            graph: the molecules.
            known: what H0 says of them, where ``settings.inputs`` is "electronic".
        """

    def fit_inputs(self, known: Sequence[ElectronicRows], graphs: Sequence[Graph]) -> None:
        """Take means and spreads of electronic inputs from the molecules of a training set; without them nothing."""

    @classmethod
    def graph_settings(cls, settings: NetworkSettings, start: ElectronicStart | None = None) -> GraphSettings:
        """The graphs that the network is given, in training and in prediction."""
        reach = settings.message_cutoff if cls.edges == "radius" else float("inf")
        return GraphSettings(0, reach, edges=cls.edges)


def perceptron(n_in: int, hidden: int, n_out: int) -> nn.Sequential:
    """Two linear layers with a smooth nonlinearity between them."""
    return nn.Sequential(nn.Linear(n_in, hidden), nn.SiLU(), nn.Linear(hidden, n_out))
