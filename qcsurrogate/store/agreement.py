"""When two calculations of one structure count as the same: the thresholds of their SCF, with a margin.

At convergence the energy is within ``conv_tol`` of a stationary value, and orbital
rotations are of the size of the gradient over an energy difference of some tenths of a
Hartree, which carries over to the density matrix and the Fock matrix.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qcsurrogate.reference.record import FIELD, ReferenceRecord
from qcsurrogate.reference.settings import Method

MATRICES = ("hamiltonian", "spin_hamiltonian", "density_matrix", "spin_density_matrix")

_MARGIN = 100.0
_ENERGY_FLOOR, _MATRIX_FLOOR, _INTEGRAL_TOLERANCE = 1e-8, 1e-6, 1e-9


@dataclass(frozen=True)
class Difference:
    """How far two records are apart in one quantity: largest deviation and what is allowed."""

    quantity: str
    value: float
    tolerance: float
    units: str

    @property
    def within(self) -> bool:
        """Whether it is small enough; what is no number is not."""
        return self.value <= self.tolerance

    def __str__(self) -> str:
        return f"{self.quantity} differs by {self.value:.1e} {self.units}, expected at most {self.tolerance:.0e}"


def differences_of(first: ReferenceRecord, second: ReferenceRecord, method: Method) -> list[Difference]:
    """Energy, overlap, Hamiltonian and density matrix of two records of one structure, compared."""
    energy = max(_MARGIN * method.conv_tol, _ENERGY_FLOOR)
    matrix = max(_MARGIN * method.conv_tol_grad, _MATRIX_FLOOR)
    tolerances = {"energy": energy, "overlap": _INTEGRAL_TOLERANCE} | dict.fromkeys(MATRICES, matrix)
    found = []
    for name, tolerance in tolerances.items():
        if first.value(name) is None and second.value(name) is None:
            continue
        one, other = (np.asarray(record.value(name), np.float64) for record in (first, second))
        comparable = one.shape == other.shape  # what is missing has become a NaN without shape
        value = float(np.abs(one - other).max()) if comparable else float("inf")
        units = "" if FIELD[name].units == "1" else FIELD[name].units
        found.append(Difference(name, value, tolerance, units))
    return found
