"""What surrogates can predict: one entry per quantity, and every stage walks them.

A quantity is an object of :class:`Quantity`.  It says how its labels are read, how its
network is made, what a user gets and how that is measured; training, model files,
prediction, comparison and the command line know quantities through this interface only.
To add one, write a class and :func:`register` an object of it, or, inside the package, make
a folder in ``quantities/`` whose ``QUANTITY`` is named in :data:`BUILT_IN`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Final

from qcsurrogate.errors import SpecError, suggestion

if TYPE_CHECKING:
    import torch
    from pydantic import BaseModel

    from qcsurrogate.comparison.judge import Judge
    from qcsurrogate.files.presets import Preset
    from qcsurrogate.models.base import SurrogateModel
    from qcsurrogate.models.files import ModelMetadata
    from qcsurrogate.prediction.results import Prediction
    from qcsurrogate.prediction.surrogate import Surrogate
    from qcsurrogate.store.spec import SplitName
    from qcsurrogate.training.loop import TrainingData

BUILT_IN: Final[Mapping[str, str]] = {
    "autoencoder": "qcsurrogate.quantities.autoencoder",
    "density": "qcsurrogate.quantities.density",
    "hamiltonian": "qcsurrogate.quantities.hamiltonian",
    "property": "qcsurrogate.quantities.property",
}
"""The package's own quantities and their folders, imported when they are first asked for."""


class Quantity(ABC):
    """One predicted quantity, from its labels to its section of the report.

    Attributes:
        name: in files, on the command line and in reports.
        prediction: class of its predictions.
        units: unit of everything that its models predict; written into model files.
        settings: pydantic model of the ``model:`` section of its training configuration.
        presets: such configurations by name, small to large (:func:`qcsurrogate.files.presets.read_presets`).
        validation_unit: unit of all validation errors of the training log, which the report draws
            together; empty where each has its own.
        ranking: figures of the report's table of worst molecules, most telling first: the first
            that was measured orders them.
        floors: figures that no network can bring below others, and these: what the labels leave.
        needs_store: whether it learns from Kohn-Sham references, and so from stores alone; others may be
            given any :class:`qcsurrogate.tables.sets.StructureSet`, with labels or without.
    """

    name: ClassVar[str]
    prediction: ClassVar[type[Prediction]]
    units: ClassVar[Mapping[str, str]]
    settings: ClassVar[type[BaseModel]]
    presets: ClassVar[Mapping[str, Preset]] = {}
    validation_unit: ClassVar[str] = ""
    ranking: ClassVar[tuple[str, ...]] = ()
    floors: ClassVar[Mapping[str, str]] = {}
    needs_store: ClassVar[bool] = True

    @abstractmethod
    def read_labels(
        self,
        store: Any,
        splits: Sequence[SplitName],
        settings: Any,
        *,
        elements: Sequence[int],
        dtype: torch.dtype,
        progress: bool = False,
        like: Any = None,
    ) -> Sequence[TrainingData]:
        """Labels and graphs of some splits; what is fitted to labels is fitted to the training split.

        Args:
            store: where to read: a :class:`qcsurrogate.store.store.Store`; a table too, unless ``needs_store``.
            splits: of train, validation and test.
            settings: of the network, of type ``self.settings``.
            elements: atomic numbers of the training set; bases and reach are those of these.
            dtype: of the tensors.
            progress: whether to draw a progress bar.
            like: a model of this quantity that is to learn from them; what it fixes (a
                baseline that was fitted, say) is then taken from it instead of being fitted.

        Raises:
            StoreError: if the store lacks what this quantity is trained on.
        """

    @abstractmethod
    def new_model(self, settings: Any, labels: Any, *, seed: int) -> SurrogateModel:
        """An untrained network with the statistics of its training labels."""

    @abstractmethod
    def build_model(self, description: Mapping[str, Any]) -> SurrogateModel:
        """An untrained network equal in shape to the one whose ``description()`` this is.

        Raises:
            ModelFileError: if the description does not fit.
        """

    @abstractmethod
    def surrogate(self, model: Any, metadata: ModelMetadata) -> Surrogate[Any]:
        """What :func:`qcsurrogate.load` gives out."""

    @abstractmethod
    def judge(self, surrogate: Any) -> Judge:
        """Measures predictions of one surrogate against references, and shows what it found."""


_registered: dict[str, Quantity] = {}


def register(quantity: Quantity) -> None:
    """Make a quantity known to every stage of this process.

    Raises:
        SpecError: if another one has its name.
    """
    known = _registered.get(quantity.name)
    if quantity.name in BUILT_IN or (known is not None and known is not quantity):
        raise SpecError(f"there is a quantity '{quantity.name}' already; give yours another name")
    _registered[quantity.name] = quantity


def quantity_names() -> list[str]:
    """All known quantities, sorted; nothing is imported for it."""
    return sorted({*BUILT_IN, *_registered})


def find_quantity(name: str) -> Quantity:
    """A quantity by its name.

    Raises:
        SpecError: if there is none, with a suggestion.
    """
    if name in _registered:
        return _registered[name]
    if name in BUILT_IN:
        found: Quantity = import_module(BUILT_IN[name]).QUANTITY
        return found
    names = quantity_names()
    raise SpecError(f"unknown kind of model '{name}'; expected {' or '.join(names)}{suggestion(name, names)}")
