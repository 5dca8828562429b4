"""Numerical integration over a molecule."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pyscf import dft
from pyscf.gto import Mole

LOWEST_GRID_LEVEL = 3
"""Densities are never compared on a coarser PySCF grid than this."""


@dataclass(frozen=True, eq=False)
class IntegrationGrid:
    """Points (n, 3) in bohr and their weights (n,) in bohr^3."""

    points: NDArray[np.float64]
    weights: NDArray[np.float64]

    @classmethod
    def for_molecule(cls, mol: Mole, level: int) -> IntegrationGrid:
        """PySCF's grid of at least level :data:`LOWEST_GRID_LEVEL`."""
        grids = dft.gen_grid.Grids(mol)
        grids.level = max(level, LOWEST_GRID_LEVEL)
        grids.verbose = 0
        grids.build()
        return cls(np.asarray(grids.coords), np.asarray(grids.weights))
