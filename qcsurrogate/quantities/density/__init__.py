"""Electron densities as coefficients of atom-centred functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch

from qcsurrogate.basis import BasisSet
from qcsurrogate.data.potentials import potentials_of
from qcsurrogate.errors import SpecError
from qcsurrogate.files.presets import Preset, read_presets
from qcsurrogate.models.build import readable, validated, with_neighbours
from qcsurrogate.models.files import ModelMetadata
from qcsurrogate.models.settings import DensitySettings
from qcsurrogate.quantities.density.judge import DensityJudge
from qcsurrogate.quantities.density.labels import DensityDataset
from qcsurrogate.quantities.density.model import DensityModel
from qcsurrogate.quantities.density.prediction import DensityPrediction
from qcsurrogate.quantities.density.start import StartingDensity
from qcsurrogate.quantities.density.surrogate import DensitySurrogate
from qcsurrogate.registry import Quantity
from qcsurrogate.store.spec import SplitName
from qcsurrogate.store.store import Store


class Density(Quantity):
    """The density less that of the free atoms, over atom-orthonormal functions; unrestricted, the spin density too."""

    name: ClassVar[str] = "density"
    prediction: ClassVar[type[DensityPrediction]] = DensityPrediction
    units: ClassVar[Mapping[str, str]] = {
        "density_coefficients": "e bohr^-1.5",
        "spin_density_coefficients": "e bohr^-1.5",
        "density": "e bohr^-3",
    }
    settings: ClassVar[type[DensitySettings]] = DensitySettings
    presets: ClassVar[Mapping[str, Preset]] = read_presets(Path(__file__).parent)
    ranking: ClassVar[tuple[str, ...]] = ("density_nmae", "dipole_error", "density_nmae_network")
    floors: ClassVar[Mapping[str, str]] = {f: f"{f}_fit_floor" for f in ("density_nmae", "dipole_error")}

    def read_labels(
        self,
        store: Store,
        splits: Sequence[SplitName],
        settings: DensitySettings,
        *,
        elements: Sequence[int],
        dtype: torch.dtype,
        progress: bool = False,
        like: DensityModel | None = None,
    ) -> list[DensityDataset]:
        graphs = DensityModel.graph_settings(store.spec.method.density_basis(elements), settings)
        start = None
        if settings.start == "free_atoms":
            _require_one_state(store, splits)
        else:
            start = like.start if like is not None else StartingDensity(potentials_of(store, elements), store.atoms)
        return [
            DensityDataset.from_store(
                store,
                split,
                graphs,
                dtype=dtype,
                progress=progress,
                elements=elements,
                start=start,
                metric=None if settings.loss == "coefficients" else settings.loss,
            )
            for split in splits
        ]

    def new_model(self, settings: DensitySettings, labels: DensityDataset, *, seed: int) -> DensityModel:
        torch.manual_seed(seed)
        elements = labels.elements
        model = DensityModel(
            labels.orbital_basis.restricted_to(elements),
            labels.density_basis.restricted_to(elements),
            with_neighbours(settings, labels),
            labels.start and labels.start.restricted_to(elements),
            labels.n_components,
        )
        inputs = {z: rows for z in elements if (rows := labels.inputs_of_atoms(z)) is not None}
        model.fit_statistics({z: labels.rows_of_atoms(z) for z in elements}, inputs)
        model.set_functions({z: (labels.functions[z].transform, labels.functions[z].charges) for z in elements})
        return model

    def build_model(self, description: Mapping[str, Any]) -> DensityModel:
        with readable(self.name):
            settings = validated(DensitySettings, description["settings"])
            orbital, auxiliary = (BasisSet.from_dict(description[f"{name}_basis"]) for name in ("orbital", "density"))
            start = description["start"]
            start = start and StartingDensity.from_dict(start)
            return DensityModel(orbital, auxiliary, settings, start, description["n_components"])

    def surrogate(self, model: DensityModel, metadata: ModelMetadata) -> DensitySurrogate:
        return DensitySurrogate(model, metadata)

    def judge(self, surrogate: DensitySurrogate) -> DensityJudge:
        return DensityJudge(surrogate)


def _require_one_state(store: Store, splits: Sequence[SplitName]) -> None:
    """Refuse molecules that differ in what free atoms do not tell.

    Raises:
        SpecError: naming charges and spins.
    """
    structures = (store.structure(key) for split in splits for key in store.keys(split))
    states = sorted({(s.charge, s.spin) for s in structures})
    if len(states) > 1 or store.spec.method.unrestricted:
        found = ", ".join(f"charge {charge} and spin {spin}" for charge, spin in states)
        raise SpecError(
            f"model.start = free_atoms: free atoms say nothing of charge and spin, and the store '{store.path}' holds "
            f"{store.spec.method.spin_treatment} references of {found}; expected restricted ones of one charge: take "
            "model.start = h0"
        )


QUANTITY = Density()
