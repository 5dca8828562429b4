"""Properties of molecules: energies, dipoles, polarisabilities, whatever the labels are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from qcsurrogate.errors import SpecError, StoreError, suggestion
from qcsurrogate.files.presets import Preset, read_presets
from qcsurrogate.models.build import readable, validated, with_neighbours
from qcsurrogate.models.files import ModelMetadata
from qcsurrogate.quantities.property.judge import PropertyJudge
from qcsurrogate.quantities.property.labels import Inputs, PropertyDataset
from qcsurrogate.quantities.property.model import Learned, PropertyModel
from qcsurrogate.quantities.property.networks import ElectronicStart, TargetSpec
from qcsurrogate.quantities.property.networks.targets import Rank, Readout
from qcsurrogate.quantities.property.prediction import PropertyPrediction
from qcsurrogate.quantities.property.settings import PropertySettings
from qcsurrogate.quantities.property.surrogate import PropertySurrogate
from qcsurrogate.registry import Quantity
from qcsurrogate.store.spec import SPLIT_NAMES, SplitName
from qcsurrogate.store.store import Store
from qcsurrogate.tables.records import labelled
from qcsurrogate.tables.sets import LabelledSet, Target, find_targets
from qcsurrogate.tables.table import Table


class Property(Quantity):
    """Labels of a table or of a store's records, several in one network."""

    name: ClassVar[str] = "property"
    prediction: ClassVar[type[PropertyPrediction]] = PropertyPrediction
    units: ClassVar[Mapping[str, str]] = {"any target": "that of its label"}
    settings: ClassVar[type[PropertySettings]] = PropertySettings
    presets: ClassVar[Mapping[str, Preset]] = read_presets(Path(__file__).parent)
    ranking: ClassVar[tuple[str, ...]] = ("standardised_error",)
    needs_store: ClassVar[bool] = False

    def read_labels(
        self,
        store: Store | Table,
        splits: Sequence[SplitName],
        settings: PropertySettings,
        *,
        elements: Sequence[int],
        dtype: torch.dtype,
        progress: bool = False,
        like: PropertyModel | None = None,
    ) -> list[PropertyDataset]:
        data = labelled(store)
        targets = find_targets(data, settings.targets)
        _check_settings(settings, targets)
        start = None if like is None else like.start
        if start is None and settings.encoder.h0_from is not None:
            start = ElectronicStart.of(settings.encoder.h0_from, elements)
        if start is None:
            _require_one_state(data)
        graphs = PropertyModel.graph_settings(settings, start)
        found = []
        for split in splits:
            keys = data.keys(split)
            if not keys:
                raise StoreError(
                    f"'{data.path}' has no molecule in the split '{split}'; expected some: change its split"
                )
            structures = [data.structure(key) for key in keys]
            inputs = Inputs(structures, graphs, start, dtype, f"inputs of {split}" if progress else "")
            found.append(PropertyDataset(keys, inputs, targets, data.labels(settings.targets, keys), start))
        return found

    def new_model(self, settings: PropertySettings, labels: PropertyDataset, *, seed: int) -> PropertyModel:
        torch.manual_seed(seed)
        learned = [_learned(target, labels, settings) for target in labels.targets]
        model = PropertyModel(labels.elements, learned, with_neighbours(settings, labels), labels.start)
        model.network.fit_inputs(labels.inputs.known, labels.inputs.graphs)
        return model

    def build_model(self, description: Mapping[str, Any]) -> PropertyModel:
        with readable(self.name):
            settings = validated(PropertySettings, description["settings"])
            parts = zip(description["targets"], description["statistics"], strict=True)
            start = description["start"]
            return PropertyModel(
                [int(z) for z in description["elements"]],
                [Learned.from_dict(kind, found) for kind, found in parts],
                settings,
                start and ElectronicStart.from_dict(start),
            )

    def surrogate(self, model: PropertyModel, metadata: ModelMetadata) -> PropertySurrogate:
        return PropertySurrogate(model, metadata)

    def judge(self, surrogate: PropertySurrogate) -> PropertyJudge:
        return PropertyJudge(surrogate)


def _require_one_state(data: LabelledSet) -> None:
    """Refuse molecules that a network which sees geometries alone cannot tell apart.

    Raises:
        StoreError: if they have several charges or spins.
    """
    structures = [data.structure(key) for split in SPLIT_NAMES for key in data.keys(split)]
    states = sorted({(s.charge, s.spin) for s in structures})
    if len(states) > 1:
        words = ", ".join(f"charge {charge} with spin {spin}" for charge, spin in states[:4])
        raise StoreError(
            f"'{data.path}' holds molecules of several charges or spins ({words}), which a network that sees "
            "geometries alone cannot tell apart; expected one: choose it with structures.subset, or give the network "
            "electronic inputs (model.encoder.inputs=electronic)"
        )


def _check_settings(settings: PropertySettings, targets: Sequence[Target]) -> None:
    """Refuse what is set for targets that are not learned.

    Raises:
        SpecError: naming the target.
    """
    names = [target.name for target in targets]
    for key in ("readouts", "weights"):
        for name in getattr(settings, key):
            if name not in names:
                raise SpecError(
                    f"model.{key}: '{name}' is none of model.targets; expected some of {', '.join(names)}"
                    f"{suggestion(name, names)}"
                )


def readout_of(target: Target, settings: PropertySettings) -> tuple[Rank, Readout]:
    """How a network makes a target of what atoms hold, unless the settings say otherwise."""
    rank: Rank = "scalar" if target.norm_only else target.rank
    if (chosen := settings.readouts.get(target.name)) is not None:
        return rank, chosen
    if target.per_atom:
        return rank, "charges" if (target.unit, rank) == ("e", "scalar") else "atoms"
    if target.rank == "vector":
        return rank, "dipole"
    if rank == "tensor":
        return rank, "quadrupole" if target.name == "quadrupole" else "polarisability"
    if target.name == "r2":
        return rank, "r2"
    levels: Mapping[str, Readout] = {"homo": "homo", "lumo": "lumo", "gap": "gap"}
    if settings.encoder.inputs == "electronic" and target.name in levels:
        return rank, levels[target.name]
    return rank, "sum" if target.extensive else "mean"


def _learned(target: Target, labels: PropertyDataset, settings: PropertySettings) -> Learned:
    """A target with the statistics of its training labels; published atoms are taken away first."""
    rank, readout = readout_of(target, settings)
    values = labels.values(target)
    published = target.atom_references
    if published is not None and readout == "sum":
        values = [v - target.of_atoms(s.atomic_numbers) for v, s in zip(values, labels.structures, strict=True)]
    try:
        spec = TargetSpec.fitted(target.name, rank, readout, values, labels.structures, labels.inputs.known or None)
    except ValueError as error:
        raise SpecError(f"model.readouts: {error}") from error
    if published is not None and readout == "sum":
        spec = replace(spec, references={z: value + published[z] for z, value in spec.references.items()})
    typical = float(np.mean(values)) if (rank, readout) == ("scalar", "dipole") else 0.0
    return Learned(spec, target.unit, target.shown or target.unit, target.description, typical)


QUANTITY = Property()
