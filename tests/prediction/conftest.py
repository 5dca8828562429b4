from __future__ import annotations

import pytest

from qcsurrogate.quantities.density.surrogate import DensitySurrogate
from qcsurrogate.quantities.hamiltonian.surrogate import HamiltonianSurrogate
from qcsurrogate.reference.atoms import FreeAtoms, free_atoms
from qcsurrogate.reference.kohn_sham import ConvergedSCF, run_kohn_sham
from tests.prediction.exact import ELEMENTS, METHOD, WATER, ExactDensityModel, ExactHamiltonianModel, metadata


@pytest.fixture(scope="session")
def atoms() -> FreeAtoms:
    return free_atoms(ELEMENTS, METHOD)


@pytest.fixture(scope="session")
def reference() -> ConvergedSCF:
    return run_kohn_sham(WATER, METHOD)


@pytest.fixture
def hamiltonian_surrogate(atoms) -> HamiltonianSurrogate:
    model = ExactHamiltonianModel(METHOD.orbital_basis(ELEMENTS), atoms)
    return HamiltonianSurrogate(model, metadata("hamiltonian", atoms))


@pytest.fixture
def density_surrogate(atoms) -> DensitySurrogate:
    model = ExactDensityModel(METHOD.orbital_basis(ELEMENTS), METHOD.density_basis(ELEMENTS), atoms)
    return DensitySurrogate(model, metadata("density", atoms))
