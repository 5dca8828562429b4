"""How wrong a prediction is expected to be, said by the model that made it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qcsurrogate.errors import StructureError


@dataclass(frozen=True)
class ExpectedError:
    """What is expected of a figure's error, for one molecule.

    Attributes:
        value: mean absolute error of molecules like this one.
        unit: of it.
        within: what the errors of 50, 80 and 95 % of such molecules do not exceed.
    """

    value: float
    unit: str
    within: tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Uncertainty:
    """Expected errors of the parts of a prediction.

    Attributes:
        blocks: (n_atoms, n_atoms) mean absolute error of an element of the block between two atoms, of one atom on
            the diagonal; or (n_atoms,) of what belongs to each atom. Symmetric, not negative.
        unit: of them.
        calibration: for every figure of a molecule four numbers: the factor of its raw estimate, and the multiples of
            the expected error that 50, 80 and 95 % of the validation molecules stayed within.
    """

    blocks: NDArray[np.float64]
    unit: str
    calibration: Mapping[str, tuple[float, ...]]

    def __post_init__(self) -> None:
        blocks = np.array(self.blocks, dtype=np.float64)
        blocks.flags.writeable = False
        object.__setattr__(self, "blocks", blocks)
        bad = [name for name, row in self.calibration.items() if len(row) != 4 or not min(row) > 0]
        if bad:
            raise StructureError(
                f"the calibration of {bad[0]} is {self.calibration[bad[0]]}; expected four numbers > 0"
            )

    @property
    def atoms(self) -> NDArray[np.float64]:
        """(n_atoms,) of the atoms alone."""
        return self.blocks if self.blocks.ndim == 1 else np.diagonal(self.blocks)

    def check(self, n_atoms: int) -> None:
        """Refuse what cannot belong to a molecule of so many atoms.

        Raises:
            StructureError: if there are not as many errors as atoms, or one is negative or not finite.
        """
        if self.blocks.shape not in ((n_atoms,), (n_atoms, n_atoms)):
            raise StructureError(
                f"expected errors have the shape {self.blocks.shape}; expected one for each of {n_atoms} atoms or pairs"
            )
        if not np.isfinite(self.blocks).all() or self.blocks.min(initial=0.0) < 0:
            raise StructureError("expected errors are negative or not finite")


Told = Callable[[], list[Uncertainty | None]]
"""What a model says of the errors of its last predictions, one after the other; None where it says nothing."""
