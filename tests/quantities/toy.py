"""A quantity from outside the package: total energies, through the public interface only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from qcsurrogate.basis import BasisSet
from qcsurrogate.comparison.figures import Figure
from qcsurrogate.comparison.headline import Rule
from qcsurrogate.comparison.judge import Judge
from qcsurrogate.comparison.page import Section
from qcsurrogate.data.graphs import Graph, GraphSettings, collate
from qcsurrogate.models.base import SurrogateModel
from qcsurrogate.models.build import readable, validated, with_neighbours
from qcsurrogate.models.encoder import Encoder
from qcsurrogate.models.settings import EncoderSettings
from qcsurrogate.nn.layout import FeatureLayout
from qcsurrogate.prediction.results import Prediction
from qcsurrogate.prediction.surrogate import Surrogate
from qcsurrogate.registry import Quantity


class ToySettings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    encoder: EncoderSettings = EncoderSettings(channels=4, edge_channels=4, hidden=6, hidden_odd=2, layers=1)


@dataclass(frozen=True)
class ToyBatch:
    graph: Graph
    energies: Tensor

    def to(self, device: torch.device | str) -> ToyBatch:
        return replace(self, graph=self.graph.to(device), energies=self.energies.to(device))


class ToyLabels:
    def __init__(self, graphs: Sequence[Graph], energies: Sequence[float], orbital_basis: BasisSet) -> None:
        self.graphs, self.energies, self.orbital_basis = graphs, torch.tensor(energies), orbital_basis

    average_neighbours = 2.0

    def __len__(self) -> int:
        return len(self.graphs)

    def batch(self, indices: Sequence[int]) -> ToyBatch:
        return ToyBatch(collate([self.graphs[i] for i in indices]), self.energies[list(indices)])


class ToyModel(SurrogateModel):
    kind = "toy_energy"
    monitored = "energy_mae"

    def __init__(self, basis: BasisSet, settings: ToySettings) -> None:
        super().__init__()
        self.orbital_basis, self.settings, self.elements = basis, settings, tuple(sorted(basis.elements))
        self.graphs = GraphSettings(2, settings.encoder.message_cutoff)
        self.encoder = Encoder(self.elements, FeatureLayout(2, 1), settings.encoder)
        self.out = nn.Linear(settings.encoder.channels, 1)

    def forward(self, graph: Graph) -> Tensor:
        per_atom = self.out(self.encoder(graph)[0][:, 0]).squeeze(1)
        return per_atom.new_zeros(graph.n_molecules).index_add(0, graph.molecule, per_atom)

    def loss(self, batch: ToyBatch) -> Tensor:
        return (self(batch.graph) - batch.energies.to(self.out.weight)).square().mean()

    def errors(self, batch: ToyBatch) -> dict[str, tuple[Tensor, int]]:
        return {"energy_mae": ((self(batch.graph) - batch.energies).abs().sum().cpu(), len(batch.energies))}

    def description(self) -> dict[str, Any]:
        return {"orbital_basis": self.orbital_basis.to_dict(), "settings": self.settings.model_dump(mode="json")}

    output_basis = None

    @torch.no_grad()
    def predict_arrays(self, structures: Sequence[Any]) -> list[np.ndarray]:
        weight = self.out.weight
        graph = collate([self.graphs.graph(s) for s in structures]).to(weight.device, weight.dtype)
        return list(self(graph).cpu().double().numpy())


@dataclass(frozen=True, eq=False)
class ToyPrediction(Prediction):
    energy: float

    units: ClassVar[Mapping[str, str]] = {"energy": "hartree"}
    summary_units: ClassVar[Mapping[str, str]] = {"energy": "hartree"}


class ToySurrogate(Surrogate[ToyPrediction]):
    def __init__(self, model: ToyModel, metadata: Any) -> None:
        super().__init__(model, metadata)
        self.model = model

    def _predict_batch(self, structures: Sequence[Any]) -> list[ToyPrediction]:
        energies = self.model.predict_arrays(structures)
        return [ToyPrediction(s, float(e)) for s, e in zip(structures, energies, strict=True)]


class ToyJudge(Judge):
    figures = (Figure("toy_energy_error", "Toy energy error", "hartree", "|E - E_ref|"),)
    rules = (Rule("toy_energy_error", "Toy error", (1e-3, 1e-2), ("Fine.", "So so.", "Far off.")),)

    def measure(self, prediction: ToyPrediction, reference: Any, *, on_grid: bool) -> dict[str, float]:
        return {"toy_energy_error": abs(prediction.energy - reference.record.energy)}

    def sections(self, comparison, label):
        mean = comparison.metrics[label]["toy_energy_error"].mean
        return [Section("Toy energies", (f"The mean error of toys is {mean:.3f} hartree.",))]


class ToyEnergy(Quantity):
    name = "toy_energy"
    prediction = ToyPrediction
    units: ClassVar[Mapping[str, str]] = {"energy": "hartree"}
    settings = ToySettings
    ranking = ("toy_energy_error",)

    def read_labels(self, store, splits, settings, *, elements, dtype, progress=False, like=None):
        graphs = GraphSettings(2, settings.encoder.message_cutoff)
        basis = store.spec.method.orbital_basis(elements)
        found = [list(store.read_many(store.keys(split))) for split in splits]
        return [
            ToyLabels([graphs.graph(r.structure, dtype) for r in records], [r.energy for r in records], basis)
            for records in found
        ]

    def new_model(self, settings, labels, *, seed):
        torch.manual_seed(seed)
        return ToyModel(labels.orbital_basis, with_neighbours(settings, labels))

    def build_model(self, description):
        with readable(self.name):
            basis = BasisSet.from_dict(description["orbital_basis"])
            return ToyModel(basis, validated(ToySettings, description["settings"]))

    def surrogate(self, model, metadata):
        return ToySurrogate(model, metadata)

    def judge(self, surrogate):
        return ToyJudge()
