"""How predictions of one quantity are measured and shown; each quantity has its own judge."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from qcsurrogate.comparison.figures import Figure
from qcsurrogate.comparison.headline import Rule
from qcsurrogate.comparison.measure import Reference, Values
from qcsurrogate.comparison.page import Section
from qcsurrogate.comparison.schema import Breakdown, Comparison
from qcsurrogate.density.densities import ElectronDensity
from qcsurrogate.reference.orbitals import MolecularOrbitals
from qcsurrogate.reference.settings import Method
from qcsurrogate.store.store import Store


class Judge(ABC):
    """Measures the predictions of one surrogate, molecule by molecule.

    Attributes:
        figures: definitions of the figures that only this quantity has.
        rules: by which means are called good, fair or poor in the headline, in its order.
        starts_scf: whether its predictions have a ``density_matrix`` that an SCF can start from;
            :meth:`orbitals` is then not None.
    """

    figures: ClassVar[Sequence[Figure]] = ()
    rules: ClassVar[Sequence[Rule]] = ()
    starts_scf: ClassVar[bool] = False

    @property
    def all_figures(self) -> Sequence[Figure]:
        """Definitions of the figures of this surrogate, where they are not those of every one of its quantity."""
        return self.figures

    @property
    def all_rules(self) -> Sequence[Rule]:
        """Rules of this surrogate's figures."""
        return self.rules

    @abstractmethod
    def measure(self, prediction: Any, reference: Any, *, on_grid: bool) -> Values:
        """Figures of one molecule; those that cost an integration over a grid only ``on_grid``.

        ``reference`` is a :class:`qcsurrogate.comparison.measure.Reference`, or a ``LabelReference`` where the
        quantity is compared with a table.
        """

    def orbitals(self, prediction: Any, reference: Reference) -> MolecularOrbitals | None:
        """Orbitals of a prediction; None where the quantity has none."""
        return None

    def density(self, prediction: Any, reference: Reference) -> ElectronDensity | None:
        """Electron density of a prediction; None where the quantity has none."""
        return None

    def mismatches(self, store: Any, elements: Sequence[int]) -> list[str]:
        """What forbids the comparison on a store (or table) beyond functional and orbital basis, in words."""
        return []

    def breakdown(self) -> Breakdown | None:
        """Errors of what was measured by pair and distance; None where the quantity has no blocks."""
        return None

    def show(self, prediction: Any, reference: Any, name: str) -> None:  # noqa: B027
        """Once all is measured: here is the molecule of median error, if one shall be drawn in detail."""

    def sections(self, comparison: Comparison, label: str) -> list[Section]:
        """Sections of the report that only this quantity has."""
        return []


def spin_mismatch(method: Method, store: Store) -> list[str]:
    """What forbids a comparison on a store of the other spin treatment, in words."""
    ours, theirs = method.spin_treatment, store.spec.method.spin_treatment
    return [f"{ours} Kohn-Sham against {theirs}"] if ours != theirs else []


def finite(array: NDArray[np.float64], what: str) -> NDArray[np.float64]:
    """The array itself.

    Raises:
        ArithmeticError: if it holds NaN or infinity.
    """
    if not np.isfinite(array).all():
        raise ArithmeticError(f"the predicted {what} is not finite")
    return array
