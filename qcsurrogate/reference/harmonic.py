"""The normal modes of a molecule, as data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qcsurrogate.errors import StructureError
from qcsurrogate.structures import Structure


@dataclass(frozen=True, eq=False)
class HarmonicModes:
    """The normal modes of a molecule at a minimum.

    Attributes:
        equilibrium: the minimum.
        angular_frequencies: (n_modes,) in atomic units (Hartree / hbar), all positive;
            translations and rotations are left out.
        displacements: (n_modes, n_atoms, 3) Cartesian displacement in bohr per unit of
            the mass-weighted normal coordinate (electron mass^1/2 bohr).

    Raises:
        StructureError: on wrong shapes, or a frequency that is not a positive number.
    """

    equilibrium: Structure
    angular_frequencies: NDArray[np.float64]
    displacements: NDArray[np.float64]

    def __post_init__(self) -> None:
        n_modes, label = len(self.angular_frequencies), self.equilibrium.label
        expected = (n_modes, len(self.equilibrium), 3)
        if self.displacements.shape != expected:
            raise StructureError(f"{label}: expected mode displacements {expected}, got {self.displacements.shape}")
        if not np.isfinite(self.displacements).all():
            raise StructureError(f"{label}: mode displacements hold values that are not finite")
        if n_modes and not (np.isfinite(self.angular_frequencies).all() and self.angular_frequencies.min() > 0):
            raise StructureError(
                f"{label}: expected positive frequencies, got {np.min(self.angular_frequencies):.3e} Hartree: the "
                "geometry is no minimum; relax it first"
            )
