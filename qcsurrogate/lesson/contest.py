"""Networks with less and more symmetry on one task, with the same molecules and the same number of steps.

The task is <r^2> of QM9 molecules, the electronic spatial extent about the centre of nuclear charge, which knows
nothing of how a molecule is turned.  All networks are read out as a sum over atoms, beside what elements
contribute on average; the last one in the form that <r^2> has, populations times squared distances
from the centre, atomic dipoles and extents.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from qcsurrogate.data.graphs import Graph, collate
from qcsurrogate.quantities.property.networks import (
    NetworkSettings,
    PropertyHeads,
    PropertyNetwork,
    TargetSpec,
    build_network,
    graph_settings,
)
from qcsurrogate.quantities.property.networks.base import AtomFeatures
from qcsurrogate.structures import Structure
from qcsurrogate.testing import random_rotation
from qcsurrogate.training.averaging import MovingAverage
from qcsurrogate.training.config import TrainingConfig
from qcsurrogate.training.optimisers import learning_rate_factor, make_optimisers, set_learning_rate
from qcsurrogate.training.sampler import EpochSampler

TARGET: Final = "r2"
_TEST_BATCH: Final = 64


@dataclass(frozen=True)
class Contestant:
    """A network, and whether its training molecules are turned at random in every step.

    Attributes:
        key: short name, of figures and files.
        title: what the page calls it.
        settings: of the network.
        augmented: whether they are turned.
        readout: how <r^2> is made of atoms, see :mod:`..quantities.property.networks.heads`.
    """

    key: str
    title: str
    settings: NetworkSettings
    augmented: bool = False
    readout: Literal["sum", "r2"] = "sum"


_NAIVE = NetworkSettings(network="naive")
CONTESTANTS: Final = (
    Contestant("none", "no symmetry", _NAIVE),
    Contestant("augmented", "no symmetry, turned at random", _NAIVE, augmented=True),
    Contestant("invariant", "invariant: distances", NetworkSettings(network="invariant")),
    Contestant(
        "vector",
        "equivariant: vectors",
        # as far as the largest molecule reaches: <r^2> is a matter of all distances
        NetworkSettings(network="vector", layers=2, channels=32, gaussians=16, message_cutoff=20.0),
    ),
    Contestant(
        "so2",
        "equivariant: irreps, and <r²> by its form",
        NetworkSettings(
            channels=8, edge_channels=8, hidden=24, hidden_odd=6, gaussians=16, message_cutoff=8.0, readout=32
        ),
        readout="r2",
    ),
)


@dataclass(frozen=True)
class LessonSettings:
    """How much is trained.

    Attributes:
        sizes: training molecules, ascending; a part holds the smaller ones.
        test: test molecules, the same for all.
        steps, batch_size, learning_rate: of every training.
        seed: of everything that is drawn.
    """

    sizes: tuple[int, ...] = (100, 400, 1600)
    test: int = 400
    steps: int = 600
    batch_size: int = 16
    learning_rate: float = 2e-3
    seed: int = 0


class LessonModel(nn.Module):
    """A network and the head of the one target."""

    def __init__(self, network: PropertyNetwork, target: TargetSpec) -> None:
        super().__init__()
        self.network = network
        self.heads = PropertyHeads([target], network.widths)

    def forward(self, graph: Graph) -> Tensor:
        """(n_molecules,) standardised."""
        return self.heads(self.embeddings(graph), graph)[TARGET]

    def embeddings(self, graph: Graph) -> AtomFeatures:
        """Features of all atoms."""
        features: AtomFeatures = self.network(graph)
        return features

    @torch.no_grad()
    def predict(self, structures: Sequence[Structure]) -> NDArray[np.float64]:
        """(n,) a0^2."""
        found = []
        for batch in _batches(structures, _TEST_BATCH):
            graph = self.graph(batch)
            found.append(self.heads.restore({TARGET: self(graph)}, graph)[TARGET])
        return torch.cat(found).numpy()

    def graph(self, structures: Sequence[Structure]) -> Graph:
        """Of these molecules, in the precision of the weights."""
        settings, dtype = graph_settings(self.network.settings), next(self.parameters()).dtype
        return collate([settings.graph(structure, dtype) for structure in structures])


@dataclass(frozen=True)
class Result:
    """What one training came to.

    Attributes:
        key, title: of the contestant.
        n_train: training molecules.
        n_parameters: of the network and its head.
        cpu_seconds: of the training.
        error: mean absolute test error, a0^2, of molecules as the data set has them.
        error_rotated: of the same molecules, each turned at random.
        change: mean absolute change of a prediction by that turn, a0^2.
    """

    key: str
    title: str
    n_train: int
    n_parameters: int
    cpu_seconds: float
    error: float
    error_rotated: float
    change: float


def train(
    contestant: Contestant,
    structures: Sequence[Structure],
    labels: NDArray[np.float64],
    settings: LessonSettings,
) -> tuple[LessonModel, float]:
    """A trained model (the moving average of its weights), and the CPU seconds that it took.

    Args:
        contestant: what is trained.
        structures, labels: training molecules and their (n,) <r^2>, a0^2.
        settings: steps, batches, seed.
    """
    target = TargetSpec.fitted(TARGET, "scalar", contestant.readout, labels.tolist(), structures)
    of_graphs = graph_settings(contestant.settings)
    graphs = [of_graphs.graph(structure) for structure in structures]
    network_settings = contestant.settings.model_copy(update={"average_neighbours": _neighbours(graphs)})
    elements = sorted({int(z) for structure in structures for z in structure.atomic_numbers})
    torch.manual_seed(settings.seed)
    model = LessonModel(build_network(elements, network_settings), target)
    values = torch.as_tensor(labels)
    config = TrainingConfig(optimiser="adamw", learning_rate=settings.learning_rate, steps=settings.steps)
    optimisers = make_optimisers(model.parameters(), [], config)
    average = MovingAverage(model, config.ema_decay)
    sampler = EpochSampler(len(graphs), settings.batch_size, settings.seed)
    began = time.process_time()
    for step in range(settings.steps):
        chosen = sampler.indices(step)
        graph = collate([graphs[i] for i in chosen])
        if contestant.augmented:
            graph = graph.at(_turned(graph, seed=(settings.seed, step)))
        graph = graph.to(dtype=torch.float32)
        wanted = model.heads.standardise({TARGET: values[chosen]}, graph)[TARGET]
        loss = nn.functional.smooth_l1_loss(model(graph), wanted.float())
        set_learning_rate(optimisers, config.learning_rate * learning_rate_factor(step, settings.steps, 50))
        for optimiser in optimisers:
            optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.gradient_clip)
        for optimiser in optimisers:
            optimiser.step()
        average.update(model, step + 1)
    return average.network, time.process_time() - began


def judged(
    contestant: Contestant,
    model: LessonModel,
    n_train: int,
    cpu_seconds: float,
    structures: Sequence[Structure],
    labels: NDArray[np.float64],
    seed: int,
) -> Result:
    """The errors of a model on test molecules, as they are and each turned at random."""
    rotations = [random_rotation(seed + 1 + i) for i in range(len(structures))]
    turned = [s.moved(s.positions @ r.T) for s, r in zip(structures, rotations, strict=True)]
    plain, rotated = model.predict(structures), model.predict(turned)
    return Result(
        contestant.key,
        contestant.title,
        n_train,
        sum(p.numel() for p in model.parameters()),
        cpu_seconds,
        float(np.abs(plain - labels).mean()),
        float(np.abs(rotated - labels).mean()),
        float(np.abs(rotated - plain).mean()),
    )


def _turned(graph: Graph, seed: tuple[int, int]) -> Tensor:
    """(n_atoms, 3) positions of a batch, every molecule turned about its own centre at random."""
    generator = np.random.default_rng(seed)
    rotations = torch.as_tensor(_rotations(generator, graph.n_molecules))
    return torch.einsum("nab,nb->na", rotations[graph.molecule], graph.positions)


def _rotations(generator: np.random.Generator, count: int) -> NDArray[np.float64]:
    from scipy.spatial.transform import Rotation

    return np.asarray(Rotation.random(count, rng=generator).as_matrix())


def _neighbours(graphs: Sequence[Graph]) -> float:
    return sum(len(g.messages) for g in graphs) / sum(g.n_atoms for g in graphs)


def _batches(structures: Sequence[Structure], size: int) -> Iterator[Sequence[Structure]]:
    for start in range(0, len(structures), size):
        yield structures[start : start + size]
