"""Far atoms that are left out or felt as multipoles: against all integrals, along walks, turned and permuted."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray
from pyscf import df
from pyscf.gto import Mole

from qcsurrogate.basis import orbital_basis
from qcsurrogate.reference import charges as charges_module
from qcsurrogate.reference.charges import FeltCharges, gaussian_charges
from qcsurrogate.reference.multipoles import FarField
from qcsurrogate.reference.overlapping import OverlappingPairs
from qcsurrogate.reference.potentials import (
    AtomicPotential,
    charge_hamiltonian,
    core_hamiltonian,
    potential_hamiltonian,
    response_hamiltonian,
)
from qcsurrogate.structures import Structure
from qcsurrogate.testing import function_permutation, orbital_rotation, random_rotation

BASIS = orbital_basis("def2-svp", [1, 6, 8])
SMOOTH = ((0, (0.2, 0.8)), (1, (0.4,)))
Array = NDArray[np.float64]


def _potential(z: int) -> AtomicPotential:
    exponents = np.array([0.1, 0.3, 0.9, 3.0, 12.0])
    charges = np.array([2.0, -4.0, 10.0, -3.0, z - 5.0])
    return AtomicPotential(exponents, charges, charges)


POTENTIALS = {z: _potential(z) for z in (1, 6, 8)}


def _chain(n_carbons: int, spacing: float = 2.9) -> Structure:
    """CH2 groups in a line, ended by oxygen: long, and of two kinds of bonds."""
    numbers, positions = [8], [[0.3, 0.2, 0.1]]
    for k in range(n_carbons):
        x = (k + 1) * spacing
        numbers += [6, 1, 1]
        positions += [[x, 0.1 * (k % 2), 0.0], [x, 1.2, 1.6], [x + 0.1, -1.3, 1.5]]
    return Structure(np.array(numbers), np.array(positions), name=f"chain of {n_carbons}")


LONG, SHORT = _chain(8), _chain(3)
STRETCHED = Structure(
    np.concatenate([SHORT.atomic_numbers, [8, 1, 1]]),
    np.concatenate([SHORT.positions, [[40.0, 1.0, 2.0], [40.0, 2.4, 3.1], [40.2, -0.4, 3.1]]]),
    name="far water",
)


def _all(mol: Mole, charges: Mole) -> Array:
    return np.asarray(df.incore.aux_e2(mol, charges, aosym="s1"))


@pytest.mark.parametrize("structure", [SHORT, STRETCHED, LONG], ids=lambda s: s.name)
def test_far_neutral_atoms_are_not_missed(structure: Structure) -> None:
    mol = BASIS.build_mol(structure)
    shells = [
        (mol.atom_coord(i), POTENTIALS[z].exponents, POTENTIALS[z].charges)
        for i, z in enumerate(structure.atomic_numbers.tolist())
    ]
    exact = core_hamiltonian(mol) + _all(mol, gaussian_charges(shells)).sum(2)
    np.testing.assert_allclose(potential_hamiltonian(mol, POTENTIALS), exact, atol=1e-10)


def test_an_atom_that_is_not_neutral_is_felt_at_any_distance() -> None:
    mol = BASIS.build_mol(STRETCHED)
    ionic = {**POTENTIALS, 8: AtomicPotential(np.array([0.1, 2.0]), np.array([3.0, 4.0]), np.array([3.0, 5.0]))}
    shells = [
        (mol.atom_coord(i), ionic[z].exponents, ionic[z].charges)
        for i, z in enumerate(STRETCHED.atomic_numbers.tolist())
    ]
    exact = core_hamiltonian(mol) + _all(mol, gaussian_charges(shells)).sum(2)
    np.testing.assert_allclose(potential_hamiltonian(mol, ionic), exact, atol=1e-10)


@pytest.mark.parametrize("structure", [SHORT, STRETCHED, LONG], ids=lambda s: s.name)
def test_far_charges_and_dipoles_act_as_near_ones_do(structure: Structure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charges_module, "_SMALL", 0)
    mol = BASIS.build_mol(structure)
    felt = FeltCharges(mol, SMOOTH)
    assert bool(felt._fields) == (structure is not SHORT)
    exact = _all(mol, felt.charges)
    generator = np.random.default_rng(0)
    density = generator.normal(size=(mol.nao, mol.nao)) / mol.nao
    density += density.T
    moved = 0.05 * generator.normal(size=felt.charges.nao)
    scale = np.tile([0.1, 0.7, 0.3, 0.3, 0.3], len(structure))  # charges and dipoles of one
    for keep in (False, True):
        if keep:
            felt.keep()
        np.testing.assert_allclose(felt.potential(scale * moved), exact @ (scale * moved), atol=5e-9)
        np.testing.assert_allclose(felt.moments(density), np.einsum("mn,mnp->p", density, exact), atol=5e-7)


def test_the_charge_of_an_ion_is_felt_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charges_module, "_SMALL", 0)
    mol = BASIS.build_mol(LONG)
    charges = np.zeros(len(LONG))
    charges[[0, 1]] = 0.7, 0.3
    shells = [(mol.atom_coord(i), np.array([0.2]), np.array([-q])) for i, q in enumerate(charges)]
    exact = _all(mol, gaussian_charges(shells)).sum(2)
    np.testing.assert_allclose(charge_hamiltonian(mol, charges), exact, atol=1e-8)


def test_multipoles_converge() -> None:
    mol = BASIS.build_mol(LONG)
    pairs = OverlappingPairs(mol, 22.0)
    share = np.where(pairs.squares() > 18.0**2, 1.0, 0.0)
    sources = np.zeros((mol.natm, 4))
    sources[:, 0] = 1.0
    points = gaussian_charges([(position, np.array([1e16]), np.ones(1)) for position in mol.atom_coords()])
    exact = _all(mol, points)
    owner = np.repeat(np.arange(mol.natm), np.diff(mol.aoslice_by_atom()[:, 2:]).ravel())
    wanted = np.zeros((mol.natm, mol.natm, mol.natm))
    wanted[pairs.first, pairs.second] = wanted[pairs.second, pairs.first] = share
    expected = (exact * wanted[owner][:, owner]).sum(2)
    errors = []
    for degree in (2, 4, 6, 8):
        found = np.zeros((mol.nao, mol.nao))
        FarField(pairs, share, degree).add(found, sources)
        errors.append(np.abs(found - expected).max())
    assert errors[3] < 1e-9
    assert all(more < 0.2 * less for less, more in itertools.pairwise(errors))


def test_nothing_jumps_where_an_atom_comes_into_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charges_module, "_SMALL", 0)
    first, second = _chain(1), Structure([1], [[0.0, 0.0, 0.0]], spin=1)
    numbers = np.concatenate([first.atomic_numbers, second.atomic_numbers])
    distances = np.arange(14.0, 26.0, 0.4)

    def at(distance: float) -> tuple[Array, Array]:
        positions = np.concatenate([first.positions, [[distance, 0.4, 0.2]]])
        mol = BASIS.build_mol(Structure(numbers, positions, spin=1))
        potential = FeltCharges(mol, SMOOTH).potential(np.full(5 * mol.natm, 0.1))
        return potential_hamiltonian(mol, POTENTIALS), potential

    def bends(values: list[Array]) -> float:
        """Largest fourth difference: of a jump it is the whole jump, of a slope nothing."""
        return float(np.abs(np.diff(np.array(values), n=4, axis=0)).max())

    coarse = [bends(list(walk)) for walk in zip(*(at(float(distance)) for distance in distances), strict=True)]
    assert max(coarse) < 1e-3
    for start in (15.2, 17.5, 20.0, 22.3):
        walks = zip(*(at(start + 1e-4 * step) for step in range(6)), strict=True)
        assert max(bends(list(walk)) for walk in walks) < 1e-10


def test_multipoles_turn_with_the_molecule_and_follow_its_atoms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charges_module, "_SMALL", 0)
    rotation, order = random_rotation(2, improper=True), np.random.default_rng(1).permutation(len(LONG))
    turned = LONG.moved(LONG.positions @ rotation.T)
    permuted = Structure(LONG.atomic_numbers[order], LONG.positions[order])
    density = np.random.default_rng(0).normal(size=(BASIS.n_functions(LONG.atomic_numbers),) * 2)
    density = 0.01 * (density + density.T)
    turn = orbital_rotation(BASIS, LONG.atomic_numbers, rotation)
    index = function_permutation(BASIS, LONG.atomic_numbers, order)
    alone = response_hamiltonian(BASIS.build_mol(LONG), POTENTIALS, density)
    scale = max(1.0, float(np.abs(alone).max()))
    found = response_hamiltonian(BASIS.build_mol(turned), POTENTIALS, turn @ density @ turn.T)
    np.testing.assert_allclose(found, turn @ alone @ turn.T, atol=1e-9 * scale)
    found = response_hamiltonian(BASIS.build_mol(permuted), POTENTIALS, density[np.ix_(index, index)])
    np.testing.assert_allclose(found, alone[np.ix_(index, index)], atol=1e-9 * scale)
