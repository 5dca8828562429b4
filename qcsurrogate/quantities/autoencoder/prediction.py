"""An embedding of a molecule, and the molecule that was made of it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from qcsurrogate.errors import StructureError
from qcsurrogate.prediction.results import Prediction

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class AutoencoderPrediction(Prediction):
    """What an autoencoder makes of a molecule.

    Attributes:
        embedding: (n,) the same for the molecule turned, moved, or with its atoms in another order.
        reconstructed_positions: (n_atoms, 3) bohr, where the molecule is and in the order of its atoms.
        reconstructed_numbers: (n_atoms,) atomic numbers.
        reconstructed_size: how many atoms the decoder would have made.

    Raises:
        StructureError: on other shapes.
    """

    embedding: Array
    reconstructed_positions: Array
    reconstructed_numbers: Array
    reconstructed_size: float

    units: ClassVar[Mapping[str, str]] = {
        "embedding": "1",
        "reconstructed_positions": "bohr",
        "reconstructed_numbers": "1",
        "reconstructed_size": "1",
    }
    summary_units: ClassVar[Mapping[str, str]] = {
        "embedding": "1",
        "reconstruction_rmsd": "bohr",
        "right_elements": "1",
        "reconstructed_size": "1",
    }
    conventions: ClassVar[tuple[str, ...]] = (
        "'embedding' is the same for a molecule turned, moved, or with its atoms in another order, and another for its "
        "mirror image. What was made of it again stands where the molecule is: atom for atom 'reconstructed_positions' "
        "lie beside 'positions'. 'reconstructed_size' is the number of atoms that the embedding speaks of.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        n = len(self.structure)
        if self.reconstructed_positions.shape != (n, 3) or self.reconstructed_numbers.shape != (n,):
            raise StructureError(
                f"the reconstruction of {self.structure.label} has the shapes {self.reconstructed_positions.shape} and "
                f"{self.reconstructed_numbers.shape}; expected ({n}, 3) and ({n},)"
            )
        if self.embedding.ndim != 1:
            raise StructureError(
                f"the embedding of {self.structure.label} has the shape {self.embedding.shape}; expected a row"
            )

    @property
    def reconstruction_rmsd(self) -> float:
        """Root-mean-square distance of the atoms from where they were made again, bohr."""
        apart = self.reconstructed_positions - self.structure.positions
        return float(np.sqrt(np.square(apart).sum(1).mean()))

    @property
    def right_elements(self) -> float:
        """Share of the atoms that were made again as the element they are."""
        return float(np.mean(self.reconstructed_numbers == self.structure.atomic_numbers))
