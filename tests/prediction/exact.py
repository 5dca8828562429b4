"""Surrogates with a known answer: the network is replaced by PySCF's own result."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qcsurrogate.basis import BasisSet
from qcsurrogate.models.files import ModelMetadata
from qcsurrogate.prediction.uncertainty import Told
from qcsurrogate.reference.atoms import FreeAtoms, free_atoms_to_dict
from qcsurrogate.reference.density_fit import fit_density
from qcsurrogate.reference.kohn_sham import ConvergedSCF, run_kohn_sham
from qcsurrogate.reference.orthogonal import StartingPoint
from qcsurrogate.reference.settings import Method
from qcsurrogate.structures import Structure
from tests.models.test_equivariance import flat_potentials

METHOD = Method(basis="sto-3g", grid_level=1, auxiliary_basis="def2-universal-jkfit")
ELEMENTS = (1, 8)

WATER = Structure(np.array([8, 1, 1]), np.array([[0.1, -0.2, 0.3], [0.2, 1.3, 1.4], [0.3, -1.6, 1.5]]), name="water")
STRETCHED = WATER.moved(WATER.positions * 1.05, name="stretched")
HYDROGEN = Structure(np.array([1, 1]), np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1.4]]), name="hydrogen")


class Silent:
    """Says nothing of its errors."""

    n_predicted = 0

    @contextmanager
    def expecting(self) -> Iterator[Told]:
        yield lambda: [None] * self.n_predicted


@dataclass
class ExactHamiltonianModel(Silent):
    """Gives the correction to H0 of a converged calculation."""

    orbital_basis: BasisSet
    atoms: FreeAtoms
    kind = "hamiltonian"
    elements = ELEMENTS

    def __post_init__(self) -> None:
        self.batches: list[int] = []

    def starting_points(self, structures: Sequence[Structure]) -> list[StartingPoint]:
        potentials = flat_potentials(self.elements)
        return [StartingPoint.of(structure, self.orbital_basis, potentials) for structure in structures]

    def corrections(
        self, structures: Sequence[Structure], starts: Sequence[StartingPoint]
    ) -> list[NDArray[np.float64]]:
        self.batches.append(len(structures))
        self.n_predicted = len(structures)
        pairs = zip(structures, starts, strict=True)
        return [start.correction(run_kohn_sham(structure, METHOD).hamiltonian) for structure, start in pairs]


@dataclass
class ExactDensityModel(Silent):
    """Gives the fitted coefficients of a converged calculation."""

    orbital_basis: BasisSet
    density_basis: BasisSet
    atoms: FreeAtoms
    kind = "density"
    elements = ELEMENTS

    def coefficients(self, structures: Sequence[Structure]) -> list[NDArray[np.float64]]:
        self.n_predicted = len(structures)
        return [self._fit(run_kohn_sham(structure, METHOD)) for structure in structures]

    def _fit(self, scf: ConvergedSCF) -> NDArray[np.float64]:
        return fit_density(scf.mol, self.density_basis, scf.density_matrix, self.atoms).coefficients


def metadata(kind: str, atoms: FreeAtoms) -> ModelMetadata:
    return ModelMetadata(
        kind=kind,
        description={},
        method=METHOD,
        atoms=free_atoms_to_dict(atoms),
        spec={},
        dataset_hash="none",
        elements=ELEMENTS,
        units={},
        training={},
        metrics={},
        versions={},
    )
