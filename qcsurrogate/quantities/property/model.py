"""Molecule -> properties: one network, one head for each target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from qcsurrogate.basis import BasisSet
from qcsurrogate.data.graphs import GraphSettings
from qcsurrogate.models.base import SurrogateModel
from qcsurrogate.quantities.property.labels import Inputs, PropertyBatch
from qcsurrogate.quantities.property.networks import ElectronicStart, PropertyHeads, TargetSpec, build_network
from qcsurrogate.quantities.property.networks import graph_settings as graphs_of_network
from qcsurrogate.quantities.property.settings import PropertySettings
from qcsurrogate.structures import Structure

HUBER = 0.1
"""Standardised errors beyond count by their absolute value."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Learned:
    """One target of a model.

    Attributes:
        spec: readout and statistics.
        unit: of labels and predictions.
        shown: unit in which reports show it.
        description: what it is.
        typical: of scalars that have no offset, their mean over the training set: what one would guess.
    """

    spec: TargetSpec
    unit: str
    shown: str
    description: str
    typical: float = 0.0

    @property
    def name(self) -> str:
        """What it is called."""
        return self.spec.name

    def to_dict(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What the target is, and what was found for it in the training set; plain data for JSON."""
        known = self.spec.to_dict()
        kind = {key: known.pop(key) for key in ("name", "rank", "readout")}
        kind |= {"unit": self.unit, "shown": self.shown, "description": self.description}
        return kind, known | {"typical": self.typical}

    @classmethod
    def from_dict(cls, kind: Mapping[str, Any], found: Mapping[str, Any]) -> Learned:
        """From :meth:`to_dict`.

        Raises:
            ValueError, KeyError, TypeError: if it is something else.
        """
        unit, shown, description = (str(kind[key]) for key in ("unit", "shown", "description"))
        own = {key: kind[key] for key in ("name", "rank", "readout")}
        statistics = {key: value for key, value in found.items() if key != "typical"}
        return cls(TargetSpec.from_dict(own | statistics), unit, shown, description, float(found["typical"]))


class PropertyModel(SurrogateModel):
    """Predicts scalars, vectors and tensors of molecules or of their atoms.

    Args:
        elements: atomic numbers it is made for, ascending.
        targets: with their statistics.
        settings: sizes; ``encoder.average_neighbours`` must be set.
        start: H0, with electronic inputs.
    """

    kind: ClassVar[str] = "property"
    monitored: ClassVar[str] = "standardised_mae"
    output_basis: ClassVar[BasisSet | None] = None

    def __init__(
        self,
        elements: Sequence[int],
        targets: Sequence[Learned],
        settings: PropertySettings,
        start: ElectronicStart | None = None,
    ) -> None:
        super().__init__()
        self.elements, self.targets, self.settings, self.start = tuple(elements), tuple(targets), settings, start
        self.units = {target.name: target.unit for target in targets}
        self.graphs = self.graph_settings(settings, start)
        self.network = build_network(elements, settings.encoder, start)
        self.heads = PropertyHeads([target.spec for target in targets], self.network.widths)

    @staticmethod
    def graph_settings(settings: PropertySettings, start: ElectronicStart | None) -> GraphSettings:
        """The graphs of such a model."""
        return graphs_of_network(settings.encoder, start)

    def forward(self, batch: PropertyBatch) -> dict[str, Tensor]:
        """What is put out for each target, standardised."""
        return self.heads(self.network(batch.graph, batch.known), batch.graph, batch.known)

    def loss(self, batch: PropertyBatch) -> Tensor:
        """Weighted mean over targets of the mean loss of standardised errors."""
        found = self(batch)
        expected = self.heads.standardise(batch.labels, batch.graph, batch.known)
        weights = [self.settings.weights.get(name, 1.0) for name in found]
        losses = [self._loss(found[name] - expected[name].to(found[name])) for name in found]
        return torch.stack([w * loss for w, loss in zip(weights, losses, strict=True)]).sum() / sum(weights)

    def _loss(self, errors: Tensor) -> Tensor:
        if self.settings.loss == "square":
            return errors.square().mean()
        if self.settings.loss == "absolute":
            return errors.abs().mean()
        return functional.huber_loss(errors, torch.zeros_like(errors), delta=HUBER) / HUBER

    def errors(self, batch: PropertyBatch) -> dict[str, tuple[Tensor, int]]:
        """Of every target the error in its unit, of a vector or tensor its norm; and all of them, standardised."""
        predicted = self.heads.restore(self(batch), batch.graph, batch.known)
        found: dict[str, tuple[Tensor, int]] = {}
        together: list[Tensor] = []
        for target in self.targets:
            wrong = (predicted[target.name] - batch.labels[target.name]).flatten(1 if target.spec.shape else 0)
            norms = torch.linalg.vector_norm(wrong, dim=1) if target.spec.shape else wrong.abs()
            found[f"{target.name}_mae"] = (norms.sum().cpu(), len(norms))
            weight = self.settings.weights.get(target.name, 1.0)
            together.append(weight * norms.mean().cpu() / target.spec.spread)
        n = batch.graph.n_molecules
        total = sum(self.settings.weights.get(target.name, 1.0) for target in self.targets)
        found[self.monitored] = (torch.stack(together).sum() * n / total, n)
        return found

    @torch.no_grad()
    def predict(self, structures: Sequence[Structure]) -> list[dict[str, Array]]:
        """Values of every target by name, for each structure, in the targets' units.

        Raises:
            DomainError: for an element that the model does not know.
        """
        batch = self._batch(structures)
        return self._divided(self.heads.restore(self(batch), batch.graph, batch.known), structures)

    def _batch(self, structures: Sequence[Structure]) -> PropertyBatch:
        self.check_elements(structures)
        weight = next(self.parameters())
        graph, known = Inputs(structures, self.graphs, self.start, weight.dtype).of(range(len(structures)))
        return PropertyBatch(graph, {}, known).to(weight.device)

    def _divided(self, values: Mapping[str, Tensor], structures: Sequence[Structure]) -> list[dict[str, Array]]:
        """Values of a batch, molecule by molecule."""
        stops = np.cumsum([len(s) for s in structures])[:-1]
        arrays = {name: tensor.cpu().numpy() for name, tensor in values.items()}
        parts = {t.name: np.split(arrays[t.name], stops) if t.spec.per_atom else arrays[t.name] for t in self.targets}
        return [{name: np.asarray(own[i]) for name, own in parts.items()} for i in range(len(structures))]

    @torch.no_grad()
    def expected(self, structures: Sequence[Structure]) -> list[dict[str, Array]]:
        """What is known of every target without the network: of the elements, of H0, or of the mean."""
        batch = self._batch(structures)
        n = {True: batch.graph.n_atoms, False: batch.graph.n_molecules}
        guesses = {
            t.name: batch.graph.positions.new_full((n[t.spec.per_atom], *t.spec.shape), t.typical / t.spec.spread)
            for t in self.targets
        }
        return self._divided(self.heads.restore(guesses, batch.graph, batch.known), structures)

    def predict_arrays(self, structures: Sequence[Structure]) -> list[Array]:
        """(n_targets,) of each structure: scalars, norms of vectors and tensors; of atoms their root mean square."""
        found = []
        for values in self.predict(structures):
            row = []
            for target in self.targets:
                own = values[target.name]
                norms = own if not target.spec.shape else np.linalg.norm(own.reshape(*own.shape[:1], -1), axis=-1)
                if target.spec.shape and not target.spec.per_atom:
                    norms = np.asarray(np.linalg.norm(own))
                row.append(np.sqrt(np.mean(np.square(norms))) if target.spec.per_atom else norms)
            found.append(np.array(row, dtype=np.float64))
        return found

    def description(self) -> dict[str, Any]:
        parts = [target.to_dict() for target in self.targets]
        return {
            "elements": list(self.elements),
            "targets": [kind for kind, _ in parts],
            "statistics": [found for _, found in parts],
            "settings": self.settings.model_dump(mode="json"),
            "start": None if self.start is None else self.start.to_dict(),
        }
