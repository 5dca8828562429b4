"""Embeddings of molecules that no rotation, translation or order of atoms changes, learned from structures alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch

from qcsurrogate.errors import StoreError
from qcsurrogate.files.presets import Preset, read_presets
from qcsurrogate.models.build import readable, validated, with_neighbours
from qcsurrogate.models.files import ModelMetadata
from qcsurrogate.quantities.autoencoder.judge import AutoencoderJudge
from qcsurrogate.quantities.autoencoder.labels import CloudDataset
from qcsurrogate.quantities.autoencoder.model import AutoencoderModel
from qcsurrogate.quantities.autoencoder.prediction import AutoencoderPrediction
from qcsurrogate.quantities.autoencoder.settings import AutoencoderSettings
from qcsurrogate.quantities.autoencoder.surrogate import AutoencoderSurrogate
from qcsurrogate.registry import Quantity
from qcsurrogate.store.spec import SplitName
from qcsurrogate.tables.sets import StructureSet


class Autoencoder(Quantity):
    """Structures of a store, of a table or of files without labels."""

    name: ClassVar[str] = "autoencoder"
    prediction: ClassVar[type[AutoencoderPrediction]] = AutoencoderPrediction
    units: ClassVar[Mapping[str, str]] = {"embedding": "1", "reconstructed_positions": "bohr"}
    settings: ClassVar[type[AutoencoderSettings]] = AutoencoderSettings
    presets: ClassVar[Mapping[str, Preset]] = read_presets(Path(__file__).parent)
    ranking: ClassVar[tuple[str, ...]] = ("reconstruction_rmsd", "wrong_elements")
    needs_store: ClassVar[bool] = False

    def read_labels(
        self,
        store: StructureSet,
        splits: Sequence[SplitName],
        settings: AutoencoderSettings,
        *,
        elements: Sequence[int],
        dtype: torch.dtype,
        progress: bool = False,
        like: AutoencoderModel | None = None,
    ) -> list[CloudDataset]:
        found, graphs = [], AutoencoderModel.graph_settings(settings)
        for split in splits:
            keys = store.keys(split)
            if not keys:
                raise StoreError(
                    f"'{store.path}' has no molecule in the split '{split}'; expected some: change its split"
                )
            found.append(CloudDataset(keys, [store.structure(key) for key in keys], graphs, dtype))
        if "train" in splits:
            _check_sizes(found, splits, store, like)
        return found

    def new_model(self, settings: AutoencoderSettings, labels: CloudDataset, *, seed: int) -> AutoencoderModel:
        torch.manual_seed(seed)
        model = AutoencoderModel(labels.elements, labels.largest, with_neighbours(settings, labels))
        model.sizes.length.fill_(labels.length)
        model.sizes.atoms.fill_(labels.average_atoms)
        return model

    def build_model(self, description: Mapping[str, Any]) -> AutoencoderModel:
        with readable(self.name):
            settings = validated(AutoencoderSettings, description["settings"])
            return AutoencoderModel([int(z) for z in description["elements"]], int(description["n_points"]), settings)

    def surrogate(self, model: AutoencoderModel, metadata: ModelMetadata) -> AutoencoderSurrogate:
        return AutoencoderSurrogate(model, metadata)

    def judge(self, surrogate: AutoencoderSurrogate) -> AutoencoderJudge:
        return AutoencoderJudge(surrogate)


def _check_sizes(
    found: Sequence[CloudDataset], splits: Sequence[SplitName], store: StructureSet, like: AutoencoderModel | None
) -> None:
    """The decoder has a place for each atom of the largest training molecule, or of the model that is fine-tuned.

    Raises:
        StoreError: if another part has larger ones.
    """
    most = found[list(splits).index("train")].largest if like is None else like.n_points
    for split, data in zip(splits, found, strict=True):
        if data.largest > most:
            largest = int(data.molecules.counts.argmax())
            raise StoreError(
                f"{data.molecules.structures[largest].label} of the split '{split}' of '{store.path}' has "
                f"{data.largest} atoms; expected at most {most}, as many as the decoder makes: "
                "change the split, or train on larger molecules"
            )


QUANTITY = Autoencoder()
