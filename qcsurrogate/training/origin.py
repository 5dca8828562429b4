"""Fine-tuning: a run that begins with the weights and conventions of a model file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ase.data import chemical_symbols
from pydantic import ValidationError

from qcsurrogate.basis import BasisSet, same_functions
from qcsurrogate.domain import Domain
from qcsurrogate.errors import StoreError, TrainingError
from qcsurrogate.files.atomic import make_folder, write_atomically
from qcsurrogate.files.nested import differences
from qcsurrogate.models.base import SurrogateModel
from qcsurrogate.models.files import ModelMetadata, read_model
from qcsurrogate.registry import Quantity
from qcsurrogate.training.config import Origin
from qcsurrogate.training.outputs import MODEL_NAME

if TYPE_CHECKING:
    from qcsurrogate.tables.sets import Description

ORIGIN_NAME: Final = "origin.safetensors"
"""The model file that a run began with, copied into its folder."""

_NO_LEVEL_OF_THEORY: Final = frozenset({"charge", "spin", "auxiliary_basis"})
"""Of a method: what structures say themselves, and functions that are compared one by one."""


@dataclass(frozen=True, eq=False)
class Beginning:
    """A model that a run begins with."""

    path: Path
    record: Origin
    model: SurrogateModel
    metadata: ModelMetadata
    settings: Mapping[str, Any]

    @classmethod
    def read(cls, path: str | Path, quantity: Quantity) -> Beginning:
        """From a model file or the folder of a run.

        Raises:
            ModelFileError: if the file cannot be used.
            TrainingError: if it holds a model of another quantity, or does not say its settings.
        """
        path = Path(path)
        path = path / MODEL_NAME if path.is_dir() else path
        model, metadata = read_model(path)
        if metadata.kind != quantity.name:
            raise TrainingError(
                f"'{path}' holds a {metadata.kind} model; expected a {quantity.name} model to begin with"
            )
        try:
            settings = quantity.settings.model_validate(metadata.training["config"]["model"]).model_dump(mode="json")
        except (KeyError, TypeError, ValidationError) as error:
            raise TrainingError(
                f"'{path}' does not say with which settings of the network it was trained; expected the file of a run"
            ) from error
        record = Origin(path=str(path.absolute()), sha256=hashlib.sha256(path.read_bytes()).hexdigest())
        return cls(path, record, model, metadata, settings)

    def copy_to(self, run: Path) -> None:
        """Keep the file in the folder of the run, which then needs no other."""
        copy = run / ORIGIN_NAME
        if self.path.resolve() != copy.resolve():
            try:
                make_folder(run)
                write_atomically(copy, self.path.read_bytes())
            except StoreError as error:
                raise TrainingError(f"training cannot start: {error}") from error

    def require_settings(self, settings: Mapping[str, Any]) -> None:
        """Refuse other settings of the network."""
        if changes := differences({"model": self.settings}, {"model": settings}):
            raise TrainingError(
                f"'{self.path}' has other settings of the network ({changes[0]}); expected its own: leave them out, or "
                "train without --from"
            )

    def require_data(self, store: Path, spec: Description, elements: set[int]) -> None:
        """Refuse data that the network cannot learn from.

        Raises:
            TrainingError: for elements, a basis or a spin treatment other than the model's.
        """
        ours, theirs = self.metadata.method, spec.method
        if ours is not None and theirs is not None and theirs.unrestricted != ours.unrestricted:
            raise TrainingError(
                f"the model '{self.path}' learnt from {ours.spin_treatment} Kohn-Sham, the store "
                f"'{store}' is {theirs.spin_treatment}; expected the same: train without --from"
            )
        if new := sorted(elements - set(self.model.elements)):
            raise TrainingError(
                f"the store '{store}' holds {_symbols(new)}, which the model '{self.path}' was not made for (it knows "
                f"{_symbols(self.model.elements)}); expected no new element: train without --from"
            )
        if self.model.orbital_basis is not None and theirs is not None:
            self._require_basis(theirs.orbital_basis(elements), self.model.orbital_basis, str(store))

    def _require_basis(self, found: BasisSet, own: BasisSet, store: str) -> None:
        if not same_functions(found, own):
            other = "" if found.name != own.name else ", with other functions"
            raise TrainingError(
                f"the model '{self.path}' was made for the basis '{own.name}', the store '{store}' has '{found.name}'"
                f"{other}; expected the same: generate with that basis, or train without --from"
            )

    def adopt(self, fresh: SurrogateModel, store: Path) -> list[str]:
        """Make the model ready for a store; its statistics stay.

        Returns:
            What is to be told about it.

        Raises:
            TrainingError: if the labels of the store are not those of the model.
        """
        own, found = self.model.output_basis, fresh.output_basis
        if own is not None and found is not None:
            self._require_basis(found, own, str(store))
        if changes := differences(_conventions(self.model), _conventions(fresh)):
            raise TrainingError(
                f"the labels of the store '{store}' are not those of the model '{self.path}' ({changes[0]}); expected "
                "the same: train without --from"
            )
        return [f"begins with '{self.path}', trained on '{self.metadata.spec.get('name')}'"]

    def level_changes(self, spec: Description) -> list[str]:
        """Lines for what makes the data of another level of theory than the model's."""
        return level_changes(self.metadata, spec)

    def domain(self, store: Domain, spec: Description, step: int) -> Domain | None:
        """What the model has seen after some steps on a store: both, if they are of one level of theory.

        Before the first step that is what it saw before; of another level, or of a file that
        does not say it, nothing is known then, and later what the store holds.
        """
        before = None if self.level_changes(spec) else self.metadata.domain
        if step == 0:
            return before
        return store if before is None else before.joined(store)

    def provenance(self) -> dict[str, Any]:
        """What a model file says of the model it came from."""
        spec, training = self.metadata.spec, self.metadata.training
        return {
            "file": Path(self.record.path).name,
            "sha256": self.record.sha256,
            "data": spec.get("name"),
            "dataset_hash": self.metadata.dataset_hash,
            "licence": spec.get("licence"),
            "citation": spec.get("citation"),
            "step": training.get("step"),
            "origin": training.get("origin"),
        }


def level_changes(metadata: ModelMetadata, spec: Description) -> list[str]:
    """Lines for what makes data of another level of theory than that of a model file."""
    if metadata.method is None or spec.method is None:
        return differences({"level": metadata.level}, {"level": spec.level})
    old, new = metadata.method.key_content(), spec.method.key_content()
    return [c for c in differences(old, new) if c.partition(":")[0].partition(".")[0] not in _NO_LEVEL_OF_THEORY]


def _conventions(model: SurrogateModel) -> dict[str, Any]:
    """A description without bases, which are compared by their functions, settings, which are compared before, and
    statistics, which the model keeps."""
    left_out = ("settings", "statistics")
    return {k: v for k, v in model.description().items() if k not in left_out and not k.endswith("_basis")}


def _symbols(atomic_numbers: Any) -> str:
    return ", ".join(chemical_symbols[z] for z in atomic_numbers)
