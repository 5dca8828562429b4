"""What every surrogate model offers to training and to prediction."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from qcsurrogate.basis import BasisSet
from qcsurrogate.data.graphs import GraphSettings
from qcsurrogate.errors import DomainError
from qcsurrogate.models.uncertainty import ErrorModel
from qcsurrogate.structures import Structure


class SurrogateModel(nn.Module, ABC):
    """A network that predicts one quantity of a molecule.

    Attributes:
        kind: its name in files and on the command line.
        monitored: the entry of :meth:`errors` that picks the best checkpoint; lower is
            better.
        elements: atomic numbers it was made for, ascending.
        orbital_basis: of the calculations that it stands for; None where it needs no basis.
        units: unit of everything that it predicts, where that is not the same for all models of its quantity.
        graphs: how far its messages and pairs reach.
    """

    kind: ClassVar[str]
    monitored: ClassVar[str]
    elements: tuple[int, ...]
    orbital_basis: BasisSet | None = None
    units: Mapping[str, str] = {}
    graphs: GraphSettings

    @abstractmethod
    def loss(self, batch: Any) -> Tensor:
        """Scalar to minimise."""

    @abstractmethod
    def errors(self, batch: Any) -> dict[str, tuple[Tensor, int]]:
        """For each metric the sum of its absolute errors over the batch and their number."""

    @abstractmethod
    def description(self) -> dict[str, Any]:
        """Plain data from which its quantity's ``build_model`` makes an equal, untrained model."""

    @property
    @abstractmethod
    def output_basis(self) -> BasisSet | None:
        """Basis whose functions index :meth:`predict_arrays`; None for scalars and invariant lists."""

    @abstractmethod
    def predict_arrays(self, structures: Sequence[Structure]) -> list[NDArray[np.float64]]:
        """What the network adds, one array for each structure, PySCF's order.

        A matrix (n, n) turns as D M D^T, and so does each of a stack (k, n, n); a vector (n,) as D c, and so does each
        of a stack (k, n) with k < n; D is that of :attr:`output_basis`, and without a basis an array stays as it is.
        """

    def fit_uncertainty(self, training: Any, validation: Any, *, batch_size: int) -> bool:
        """Learn from finished weights how large errors are; a model need not be able to.

        Args:
            training, validation: its data sets.
            batch_size: molecules at a time.

        Returns:
            Whether anything was learned; ``False`` is what a model says that cannot.
        """
        return False

    def forget_uncertainty(self) -> None:
        """What was learned of other weights does not hold for those that are about to come."""
        for module in self.modules():
            if isinstance(module, ErrorModel):
                module.forget()

    def check_prediction(self, structure: Structure, prediction: NDArray[np.float64]) -> None:
        """Check what must hold exactly of every array of :meth:`predict_arrays`.

        Raises:
            AssertionError: naming the structure.
        """

    def preconditioned_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Weight matrices, for an optimiser that preconditions matrices; embeddings and gains are none."""
        for name, parameter in self.named_parameters():
            is_table = name.endswith(".gain") or "embedding" in name
            if parameter.ndim >= 2 and min(parameter.shape[-2:]) > 1 and not is_table:
                yield name, parameter

    def check_elements(self, structures: Sequence[Structure]) -> None:
        """Refuse elements that the model was not trained on.

        Raises:
            DomainError: naming the structure and its element.
        """
        from ase.data import chemical_symbols

        for structure in structures:
            unknown = sorted({int(z) for z in structure.atomic_numbers} - set(self.elements))
            if unknown:
                known = ", ".join(chemical_symbols[z] for z in self.elements)
                raise DomainError(
                    f"{structure.label} holds {chemical_symbols[unknown[0]]}; this model was trained on {known} only: "
                    "train one on structures with that element"
                )
