"""How large errors are, without labels: the rigidity of a network's last layer, calibrated on validation data.

A network's output is linear in its last hidden features f. Of a block (of an atom, of a pair) of kind k

    (expected |error| / (reach * spread_k))^2 = (1 - v^2) x^2 / (1 + x^2) + v^2,
    x^2 = factor_k^2 f^T P_k f,  v = ridge f^T P_k f / f^T f,  P_k = (F_k^T F_k + ridge)^-1,

F_k the features of all training blocks of the kind: x is small where the training set has fixed the output, and large
where an input is unlike it. It costs one pass over the training set, and next to nothing when a model predicts
(F. Bigi, S. Chong, M. Ceriotti and F. Grasselli, Mach. Learn.: Sci. Technol. 2024, 5, 045018). Only features that no
rotation changes are looked at. The factors come from the errors of validation blocks. v is what is left of the
freedom that a weight had before training; with it, or with x, the error ends at the spread of the labels: that of a
network that knows nothing, and so that of a kind of block which the training set does not hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from qcsurrogate.data.graphs import Graph
from qcsurrogate.models.statistics import Float64Buffers

if TYPE_CHECKING:
    from qcsurrogate.models.base import SurrogateModel

RIDGE: Final = 1e-3
"""In units of the mean |f|^2: so much of a block is taken to have been seen in every direction."""

LEVELS: Final = (0.5, 0.8, 0.95)
"""Shares of molecules for which it is said how large the error is at most."""

MOST_MOLECULES: Final = 500
"""From so many, spread over the training set, is learned what the network has seen; from as many its errors."""

_SMALLEST: Final = 1e-8
"""Added to mean squares, so that a size is smooth where it vanishes."""
_HALF_NORMAL: Final = (0.8453, 1.6062, 2.4565)
"""Quantiles of |x| / mean |x| of a normal distribution, at :data:`LEVELS`."""
_FEW: Final = 10
"""So many errors would have to be seen to believe them as much as the normal distribution."""
_FEW_BLOCKS: Final = 20
"""So many blocks of one kind would have to be seen to believe them as much as those of all kinds."""


@dataclass
class Watched:
    """What went through a network in its last forward pass.

    Attributes:
        graph: its first argument.
        hidden: outputs of the watched modules; several where one was called several times.
        result: its output.
    """

    graph: Graph | None = None
    hidden: dict[str, list[Any]] = field(default_factory=dict)
    result: Any = None

    @property
    def molecules(self) -> Graph:
        """The graph, of a network that was called."""
        if self.graph is None:
            raise ValueError("nothing was watched: call the network first")
        return self.graph

    def features(self, name: str, groups: Sequence[slice]) -> Tensor | None:
        """Invariants of what a module puts out: the channels of row 0, and the size of every other group of rows.

        Args:
            name: of a module that puts out (n, row, channels), perhaps first of several things.
            groups: rows of one irrep each, all but row 0.

        Returns:
            (n, channels + groups), the mean of all calls; None of a module that was not called.
        """
        found = [out[0] if isinstance(out, tuple) else out for out in self.hidden.get(name, [])]
        return torch.stack([_invariants(rows.double(), groups) for rows in found]).mean(0) if found else None


def _invariants(rows: Tensor, groups: Sequence[slice]) -> Tensor:
    sizes = [(rows[:, group].square().mean((1, 2)) + _SMALLEST).sqrt() for group in groups]
    return torch.cat([rows[:, 0], torch.stack(sizes, dim=1)], dim=1) if sizes else rows[:, 0]


@contextmanager
def watched(network: nn.Module, modules: Mapping[str, nn.Module]) -> Iterator[Watched]:
    """Keep what some modules put out whenever the network is called, so that the network need not hand it through."""
    seen = Watched()

    def begin(_: nn.Module, args: tuple[Any, ...]) -> None:
        seen.graph, seen.hidden, seen.result = args[0], {}, None

    def end(_: nn.Module, args: tuple[Any, ...], result: Any) -> None:
        seen.result = result

    handles = [network.register_forward_pre_hook(begin), network.register_forward_hook(end)]
    for name, module in modules.items():

        def keep(_: nn.Module, args: tuple[Any, ...], out: Any, name: str = name) -> None:
            seen.hidden.setdefault(name, []).append(out)

        handles.append(module.register_forward_hook(keep))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class Blocks:
    """Blocks of one kind in a batch.

    Attributes:
        readout: which of a model's readouts they come from.
        kind: number of the kind.
        features: (n, width) invariant hidden features.
        reach: (n,) what the output is multiplied by; the error vanishes with it.
        first, second: (n,) atoms of the batch that they belong to, twice the same for a block of one atom.
    """

    readout: str
    kind: int
    features: Tensor
    reach: Tensor
    first: Tensor
    second: Tensor


class LastLayer(Float64Buffers):
    """Expected errors of the blocks of one readout.

    Attributes:
        precision: (n_kinds, width + 1, width + 1) inverse of F^T F + ridge; the last feature is one.
        spread: (n_kinds,) root mean square of the labels about their mean; zeros before :meth:`fit`.
        factor: (n_kinds,) calibrated.
        ridge: (1,).
    """

    precision: Tensor
    spread: Tensor
    factor: Tensor
    ridge: Tensor

    def __init__(self, n_kinds: int, width: int) -> None:
        super().__init__()
        self.register_buffer("precision", torch.zeros(n_kinds, width + 1, width + 1, dtype=torch.float64))
        self.register_buffer("spread", torch.zeros(n_kinds, dtype=torch.float64))
        self.register_buffer("factor", torch.zeros(n_kinds, dtype=torch.float64))
        self.register_buffer("ridge", torch.zeros(1, dtype=torch.float64))

    def fit(self, gram: Tensor, spread: Tensor, known: Sequence[tuple[Blocks, Tensor]]) -> None:
        """Learn from a training set how rigid the layer is, and from validation blocks how large errors are.

        Args:
            gram: (n_kinds, width + 1, width + 1) F^T F of the training blocks.
            spread: (n_kinds,) of the labels, in the unit of the errors.
            known: validation blocks and their (n,) absolute errors.
        """
        size = gram.diagonal(dim1=1, dim2=2).sum() / gram[:, -1, -1].sum().clamp(min=1.0)  # mean |f|^2
        self.ridge.fill_(RIDGE * float(size))
        self.precision.copy_(torch.linalg.inv(gram + self.ridge * torch.eye(gram.shape[1]).to(gram)))
        self.spread.copy_(spread)
        pairs = [(b.kind, b.reach.to(error) * self._freedom(b)[0].sqrt(), error / spread[b.kind]) for b, error in known]
        common = _ratio([(f, e) for _, f, e in pairs]) or 1.0
        for kind in range(len(spread)):
            own = [(f, e) for k, f, e in pairs if k == kind]
            count = sum(len(e) for _, e in own)
            weight = count / (count + _FEW_BLOCKS)
            self.factor[kind] = common ** (1.0 - weight) * (_ratio(own) or common) ** weight

    def _freedom(self, blocks: Blocks) -> tuple[Tensor, Tensor]:
        """(n,) f^T P f, and the share of what it was before training."""
        rows = with_one(blocks.features).to(self.precision)
        left = torch.einsum("ni,ij,nj->n", rows, self.precision[blocks.kind], rows).clamp(min=0.0)
        return left, self.ridge * left / rows.square().sum(1)

    def forward(self, blocks: Blocks) -> Tensor:
        """(n,) expected absolute errors."""
        left, share = self._freedom(blocks)
        known = self.factor[blocks.kind].square() * left
        error = ((1.0 - share.square()) * known / (1.0 + known) + share.square()).sqrt()
        return blocks.reach.to(error) * self.spread[blocks.kind] * error


def _ratio(pairs: Sequence[tuple[Tensor, Tensor]]) -> float:
    """Sum of the errors over the sum of what they are compared with; zero where there is none."""
    expected, actual = (float(sum(x.sum() for x in side)) for side in zip(*pairs, strict=True)) if pairs else (0.0, 0.0)
    return actual / expected if expected > 0 else 0.0


def with_one(features: Tensor) -> Tensor:
    """(n, width) -> (n, width + 1): a bias is a weight too."""
    return torch.cat([features, features.new_ones(len(features), 1)], dim=1)


class Calibration(Float64Buffers):
    """Of every figure of a molecule the factor of its raw estimate, and what share of errors lies below what.

    Args:
        figures: their names, as comparisons report them.

    Attributes:
        table: (n_figures, 1 + levels): the factor, and how many times the expected error the errors of a share of
            :data:`LEVELS` of the molecules do not exceed; zeros where the validation set said nothing.
    """

    table: Tensor

    def __init__(self, figures: Sequence[str]) -> None:
        super().__init__()
        self.figures = tuple(figures)
        self.register_buffer("table", torch.zeros(len(figures), 1 + len(LEVELS), dtype=torch.float64))

    def fit(self, figure: str, raw: ArrayLike, actual: ArrayLike) -> None:
        """From raw estimates and errors of a figure, both (n_molecules,)."""
        estimate, error = (np.asarray(values, dtype=np.float64) for values in (raw, actual))
        if not estimate.sum() > 0 or not error.sum() > 0:
            return
        factor = error.sum() / estimate.sum()
        seen = np.quantile(error / (factor * np.maximum(estimate, np.finfo(float).tiny)), LEVELS, method="higher")
        within = (len(error) * seen + _FEW * np.array(_HALF_NORMAL)) / (len(error) + _FEW)
        self.table[self.figures.index(figure)] = torch.as_tensor(np.array([factor, *within])).to(self.table)

    def rows(self) -> dict[str, tuple[float, ...]]:
        """Rows of the table by figure, those that are known."""
        known = zip(self.figures, self.table.tolist(), strict=True)
        return {name: tuple(row) for name, row in known if row[0] > 0}


class ErrorModel(nn.Module):
    """Expected errors of a whole model: of blocks, and of figures of molecules.

    Args:
        readouts: number of kinds and width of each.
        figures: names of figures of a molecule.
    """

    def __init__(self, readouts: Mapping[str, tuple[int, int]], figures: Sequence[str]) -> None:
        super().__init__()
        self.readouts = nn.ModuleDict({name: LastLayer(*shape) for name, shape in readouts.items()})
        self.calibration = Calibration(figures)

    def forget(self) -> None:
        """Expect nothing: the weights are about to change."""
        for buffer in self.buffers():
            buffer.zero_()

    @property
    def fitted(self) -> bool:
        """Whether there is anything to expect."""
        return any(bool((cast(LastLayer, layer).spread > 0).any()) for layer in self.readouts.values())

    def gram_of(self, blocks: Iterable[Blocks]) -> dict[str, Tensor]:
        """F^T F of every readout and kind."""
        gram = {name: torch.zeros_like(cast(LastLayer, layer).precision) for name, layer in self.readouts.items()}
        for b in blocks:
            rows = with_one(b.features).to(gram[b.readout])
            gram[b.readout][b.kind] += rows.T @ rows
        return gram

    def fit(
        self,
        training: Iterable[Blocks],
        validation: Iterable[tuple[Blocks, Tensor]],
        spread: Mapping[str, Tensor],
    ) -> None:
        """Learn the errors of blocks.

        Args:
            training: blocks of a training set.
            validation: blocks and their (n,) absolute errors.
            spread: of the labels of every readout, (n_kinds,) in the unit of the errors.
        """
        gram, known = self.gram_of(training), list(validation)
        for name, layer in self.readouts.items():
            cast(LastLayer, layer).fit(
                gram[name], spread[name].to(gram[name]), [k for k in known if k[0].readout == name]
            )

    def of_molecules(self, blocks: Iterable[Blocks], graph: Graph) -> list[NDArray[np.float64]]:
        """For every molecule (n_atoms, n_atoms) expected errors; the two directions of a pair are averaged."""
        total = torch.zeros(sum(n**2 for n in graph.atom_counts), dtype=torch.float64)
        count = torch.zeros_like(total)
        for b in blocks:
            expected = self.readouts[b.readout](b).detach().cpu()
            for place in (places(graph, b.first, b.second), places(graph, b.second, b.first)):
                total.index_add_(0, place, expected)
                count.index_add_(0, place, torch.ones_like(expected))
        means = (total / count.clamp(min=1.0)).split([n**2 for n in graph.atom_counts])
        return [np.asarray(m.view(n, n).numpy()) for m, n in zip(means, graph.atom_counts, strict=True)]


def places(graph: Graph, first: Tensor, second: Tensor) -> Tensor:
    """(n,) where pairs of atoms of a batch lie in the flattened (n_atoms, n_atoms) arrays of its molecules."""
    sizes = torch.tensor(graph.atom_counts)
    atoms_before, pairs_before = torch.cumsum(sizes, 0) - sizes, torch.cumsum(sizes**2, 0) - sizes**2
    first, second, of = first.cpu(), second.cpu(), graph.molecule.cpu()[first.cpu()]
    return pairs_before[of] + (first - atoms_before[of]) * sizes[of] + second - atoms_before[of]


def spread_over(n: int, most: int) -> list[int]:
    """At most so many of n indices, evenly."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int)).tolist() if n else []


def passes(
    model: SurrogateModel, modules: Mapping[str, nn.Module], data: Any, indices: Sequence[int], size: int
) -> Iterator[tuple[Sequence[int], Any, Watched]]:
    """Batches of some molecules, with their indices and what was watched while the model went over them."""
    device = next(model.parameters()).device
    for start in range(0, len(indices), size):
        chosen = indices[start : start + size]
        batch = data.batch(chosen).to(device)
        with watched(model, modules) as seen:
            model.errors(batch)
        yield chosen, batch, seen
