"""Kohn-Sham Hamiltonians, orbital pair by orbital pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch

from qcsurrogate.basis import BasisSet
from qcsurrogate.data.potentials import potentials_of
from qcsurrogate.files.presets import Preset, read_presets
from qcsurrogate.models.build import readable, validated, with_neighbours
from qcsurrogate.models.files import ModelMetadata
from qcsurrogate.models.settings import HamiltonianSettings
from qcsurrogate.quantities.hamiltonian.judge import HamiltonianJudge
from qcsurrogate.quantities.hamiltonian.labels import HamiltonianDataset
from qcsurrogate.quantities.hamiltonian.model import HamiltonianModel
from qcsurrogate.quantities.hamiltonian.prediction import HamiltonianPrediction
from qcsurrogate.quantities.hamiltonian.surrogate import HamiltonianSurrogate
from qcsurrogate.reference.potentials import potentials_from_dict
from qcsurrogate.registry import Quantity
from qcsurrogate.store.spec import SplitName
from qcsurrogate.store.store import Store


class Hamiltonian(Quantity):
    """What corrects H0, in the orthogonalised basis; orbitals and an SCF start from the whole matrix."""

    name: ClassVar[str] = "hamiltonian"
    prediction: ClassVar[type[HamiltonianPrediction]] = HamiltonianPrediction
    units: ClassVar[Mapping[str, str]] = {"hamiltonian": "hartree"}
    settings: ClassVar[type[HamiltonianSettings]] = HamiltonianSettings
    presets: ClassVar[Mapping[str, Preset]] = read_presets(Path(__file__).parent)
    validation_unit: ClassVar[str] = "hartree"
    ranking: ClassVar[tuple[str, ...]] = ("hamiltonian_mae", "gap_error", "density_nmae", "dipole_error")

    def read_labels(
        self,
        store: Store,
        splits: Sequence[SplitName],
        settings: HamiltonianSettings,
        *,
        elements: Sequence[int],
        dtype: torch.dtype,
        progress: bool = False,
        like: HamiltonianModel | None = None,
    ) -> list[HamiltonianDataset]:
        graphs = HamiltonianModel.graph_settings(store.spec.method.orbital_basis(elements), settings)
        potentials = potentials_of(store, elements) if like is None else like.potentials
        return [
            HamiltonianDataset.from_store(
                store, split, graphs, potentials, dtype=dtype, progress=progress, elements=elements
            )
            for split in splits
        ]

    def new_model(self, settings: HamiltonianSettings, labels: HamiltonianDataset, *, seed: int) -> HamiltonianModel:
        torch.manual_seed(seed)
        basis = labels.orbital_basis.restricted_to(labels.elements)
        model = HamiltonianModel(basis, with_neighbours(settings, labels), labels.potentials, labels.n_components)
        model.fit_statistics(labels)
        return model

    def build_model(self, description: Mapping[str, Any]) -> HamiltonianModel:
        with readable(self.name):
            settings = validated(HamiltonianSettings, description["settings"])
            basis = BasisSet.from_dict(description["orbital_basis"])
            potentials = potentials_from_dict(description["potentials"])
            return HamiltonianModel(basis, settings, potentials, description["n_components"])

    def surrogate(self, model: HamiltonianModel, metadata: ModelMetadata) -> HamiltonianSurrogate:
        return HamiltonianSurrogate(model, metadata)

    def judge(self, surrogate: HamiltonianSurrogate) -> HamiltonianJudge:
        return HamiltonianJudge(surrogate)


QUANTITY = Hamiltonian()
