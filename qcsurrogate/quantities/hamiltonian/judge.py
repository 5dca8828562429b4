"""Measures predicted Hamiltonians: elements, orbitals, and the density of their density matrix."""

from __future__ import annotations

from typing import ClassVar

from qcsurrogate.comparison.breakdown import BlockErrors
from qcsurrogate.comparison.densities import OrbitalDensity
from qcsurrogate.comparison.judge import Judge, finite
from qcsurrogate.comparison.measure import (
    Parity,
    PredictedOrbitals,
    Reference,
    Values,
    hamiltonian_values,
    orbital_density_values,
)
from qcsurrogate.prediction.results import HamiltonianPrediction
from qcsurrogate.quantities.hamiltonian.surrogate import HamiltonianSurrogate


class HamiltonianJudge(Judge):
    """See :class:`qcsurrogate.comparison.judge.Judge`."""

    starts_scf: ClassVar[bool] = True

    def __init__(self, surrogate: HamiltonianSurrogate) -> None:
        self.blocks: BlockErrors = BlockErrors(surrogate.orbital_basis)
        self.parity: Parity = Parity()

    def measure(self, prediction: HamiltonianPrediction, reference: Reference, *, on_grid: bool) -> Values:
        hamiltonian = finite(prediction.hamiltonian, "Hamiltonian")
        orbitals = self.orbitals(prediction, reference)
        values = hamiltonian_values(hamiltonian, orbitals, reference)
        self.blocks.add(reference.structure, hamiltonian, reference.record.hamiltonian)
        self.parity.add(orbitals, reference)
        return values | (orbital_density_values(orbitals, reference) if on_grid else {})

    def orbitals(self, prediction: HamiltonianPrediction, reference: Reference) -> PredictedOrbitals:
        return PredictedOrbitals.of(prediction.hamiltonian, reference)

    def density(self, prediction: HamiltonianPrediction, reference: Reference) -> OrbitalDensity:
        return OrbitalDensity(reference.mol, self.orbitals(prediction, reference).density_matrix)
