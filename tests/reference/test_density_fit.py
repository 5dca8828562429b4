"""The density fit against its plain normal equations, and that rounding does not make it jump."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pyscf import df, gto

from qcsurrogate.basis import orbital_basis
from qcsurrogate.reference.atoms import free_atom_mol, free_atoms
from qcsurrogate.reference.density_fit import PENALTY, atom_orthonormal_transform, charges, fit_densities, fit_density
from qcsurrogate.reference.settings import EvenTempered, Method
from qcsurrogate.structures import Structure
from tests.molecules import WATER

METHOD = Method(basis="def2-svp", auxiliary_basis=EvenTempered(even_tempered_beta=1.6))
ORBITAL, AUXILIARY = orbital_basis("def2-svp", [1, 8]), METHOD.density_basis([1, 8])
ATOMS = free_atoms([1, 8], METHOD)
Array = NDArray[np.float64]


def _density(mol: gto.Mole) -> Array:
    """A density matrix of smooth orbitals that moves with the molecule: of the core Hamiltonian."""
    overlap = mol.intor("int1e_ovlp")
    values, vectors = np.linalg.eigh(overlap)
    root = (vectors / np.sqrt(values)) @ vectors.T
    hamiltonian = mol.intor("int1e_kin") + 0.3 * mol.intor("int1e_nuc")
    orbitals = root @ np.linalg.eigh(root @ hamiltonian @ root)[1][:, : mol.nelectron // 2]
    return np.asarray(2.0 * orbitals @ orbitals.T)


def test_the_fit_solves_its_normal_equations() -> None:
    mol, aux = ORBITAL.build_mol(WATER), AUXILIARY.build_mol(WATER)
    density = _density(mol)
    metric = aux.intor("int2c2e")
    free, coefficients = free_atom_mol(WATER, ATOMS)
    repulsion = np.einsum("mnp,mn->p", df.incore.aux_e2(mol, aux), density)
    target = repulsion - gto.intor_cross("int2c2e", aux, free) @ coefficients
    transform = atom_orthonormal_transform(aux, metric)
    penalty = PENALTY * np.linalg.inv(transform @ transform.T)

    def check(found: Array, wanted: Array, target: Array) -> None:
        """The gradient in orthonormal functions vanishes; projected, it is along the charges."""
        gradient = transform.T @ (metric @ found + penalty @ found - target)
        assert np.abs(gradient).max() < 1e-9
        gradient = transform.T @ (metric @ wanted + penalty @ wanted - target)
        direction = transform.T @ charges(aux)
        direction /= np.linalg.norm(direction)
        assert np.abs(gradient - (gradient @ direction) * direction).max() < 1e-9

    both = fit_densities(mol, AUXILIARY, density, 0.1 * density, ATOMS)
    check(both[0].unprojected, both[0].coefficients, target)
    check(both[1].unprojected, both[1].coefficients, 0.1 * repulsion)
    assert abs(charges(aux) @ both[0].coefficients) < 1e-9  # free atoms hold all electrons
    assert abs(charges(aux) @ both[1].coefficients) < 1e-9  # no unpaired electron


def test_coefficients_of_nearly_dependent_functions_hardly_feel_rounding() -> None:
    """A walk in steps of 1e-9 bohr: second differences are noise, 1e-6 and more where sums are rounded to doubles."""
    positions = np.concatenate([WATER.positions, WATER.positions + np.array([6.0, 1.0, 0.5])])
    numbers = np.concatenate([WATER.atomic_numbers, WATER.atomic_numbers])
    walk = []
    for step in range(5):
        moved = positions.copy()
        moved[3:, 0] += 1e-9 * step
        mol = ORBITAL.build_mol(Structure(numbers, moved))
        walk.append(fit_density(mol, AUXILIARY, _density(mol), ATOMS).coefficients)
    assert np.abs(np.diff(walk, n=2, axis=0)).max() < 5e-7
