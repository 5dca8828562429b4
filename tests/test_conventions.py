"""Orders, Wigner matrices and Clebsch-Gordan coefficients, against PySCF's integrals and e3nn."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from e3nn import o3
from hypothesis import given
from hypothesis import strategies as st

from qcsurrogate.basis import orbital_basis
from qcsurrogate.conventions import (
    block_diagonal_wigner,
    clebsch_gordan,
    internal_order,
    inverse_order,
    spherical_harmonics,
    wigner_d,
)
from qcsurrogate.structures import Structure
from tests.molecules import FLUOROSULFONAMIDE, WATER, random_orthogonal

L_MAX = 8
BASES = ["sto-3g", "def2-svp", "def2-tzvp", "cc-pvdz"]


def rotation(seed: int, *, improper: bool = False) -> torch.Tensor:
    return torch.from_numpy(random_orthogonal(seed, improper=improper))


def matrices_of(structure: Structure, basis_name: str) -> tuple[np.ndarray, ...]:
    """Overlap and core Hamiltonian in PySCF's order."""
    mol = orbital_basis(basis_name, structure.atomic_numbers).build_mol(structure)
    return mol.intor("int1e_ovlp"), mol.intor("int1e_kin") + mol.intor("int1e_nuc")


@pytest.mark.parametrize("improper", [False, True], ids=["rotated", "reflected"])
@pytest.mark.parametrize("basis_name", BASES)
@pytest.mark.parametrize("structure", [WATER, FLUOROSULFONAMIDE], ids=lambda s: s.formula)
def test_pyscf_on_the_turned_molecule_agrees(structure: Structure, basis_name: str, improper: bool) -> None:
    """M(R x) = D(R) M(x) D(R)^T with PySCF's own integrals on both sides."""
    turn = random_orthogonal(7, improper=improper)
    assert np.linalg.det(turn) == pytest.approx(-1.0 if improper else 1.0)
    basis = orbital_basis(basis_name, structure.atomic_numbers)
    order = basis.internal_order(structure.atomic_numbers)
    shells = [l for z in structure.atomic_numbers for l in basis[z].angular_momenta]
    wigner = block_diagonal_wigner(shells, torch.from_numpy(turn)).numpy()
    turned = structure.moved(structure.positions @ turn.T + [0.3, -2.0, 1.0])
    for before, after in zip(matrices_of(structure, basis_name), matrices_of(turned, basis_name), strict=True):
        expected = wigner @ before[np.ix_(order, order)] @ wigner.T
        np.testing.assert_allclose(after[np.ix_(order, order)], expected, rtol=0, atol=1e-10)


def test_a_wrong_order_would_be_noticed() -> None:
    """The test above has teeth: without the permutation of p shells it fails by far."""
    turn = random_orthogonal(7, improper=False)
    basis = orbital_basis("def2-svp", WATER.atomic_numbers)
    shells = [l for z in WATER.atomic_numbers for l in basis[z].angular_momenta]
    wigner = block_diagonal_wigner(shells, torch.from_numpy(turn)).numpy()
    before, after = (matrices_of(s, "def2-svp")[0] for s in (WATER, WATER.moved(WATER.positions @ turn.T)))
    assert abs(wigner @ before @ wigner.T - after).max() > 0.01


@given(st.lists(st.integers(0, 6), max_size=12))
def test_permutation_round_trip(angular_momenta: list[int]) -> None:
    order = internal_order(angular_momenta)
    n = sum(2 * l + 1 for l in angular_momenta)
    assert sorted(order) == list(range(n))
    values = np.arange(n) * 1.5
    np.testing.assert_array_equal(values[order][inverse_order(order)], values)
    np.testing.assert_array_equal(values[inverse_order(order)][order], values)


def test_only_p_shells_move() -> None:
    assert internal_order([0, 1, 2, 1]).tolist() == [0, 2, 3, 1, 4, 5, 6, 7, 8, 10, 11, 9]


@pytest.mark.parametrize("improper", [False, True])
@pytest.mark.parametrize("l", range(L_MAX + 1))
def test_wigner_matrices_turn_the_harmonics(l: int, improper: bool) -> None:
    turn = rotation(l, improper=improper)
    points = torch.randn(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(99))
    wigner = wigner_d(l, turn)
    before = spherical_harmonics(l, points)[:, l * l :]
    after = spherical_harmonics(l, points @ turn.T)[:, l * l :]
    torch.testing.assert_close(after, before @ wigner.T, rtol=0, atol=1e-11)
    torch.testing.assert_close(wigner @ wigner.T, torch.eye(2 * l + 1, dtype=torch.float64), rtol=0, atol=1e-11)


@pytest.mark.parametrize("l", range(L_MAX + 1))
def test_wigner_matrices_are_a_representation(l: int) -> None:
    first, second = rotation(1), rotation(2, improper=True)
    torch.testing.assert_close(
        wigner_d(l, first @ second), wigner_d(l, first) @ wigner_d(l, second), rtol=0, atol=1e-11
    )
    identity, inversion = torch.eye(3, dtype=torch.float64), -torch.eye(3, dtype=torch.float64)
    unit = torch.eye(2 * l + 1, dtype=torch.float64)
    torch.testing.assert_close(wigner_d(l, identity), unit, rtol=0, atol=1e-11)
    torch.testing.assert_close(wigner_d(l, inversion), (-1) ** l * unit, rtol=0, atol=1e-11)


@pytest.mark.parametrize("l", range(L_MAX + 1))
def test_wigner_matrices_agree_with_e3nn(l: int) -> None:
    """e3nn's own, made from Euler angles, in the axes that e3nn is given."""
    turn = rotation(5)
    axes = torch.eye(3, dtype=torch.float64)[[1, 2, 0]]
    theirs = o3.Irrep(l, 1).D_from_matrix(axes @ turn @ axes.T)
    torch.testing.assert_close(wigner_d(l, turn), theirs, rtol=0, atol=1e-5)  # theirs pass through float32


def test_wigner_matrices_keep_batch_and_dtype() -> None:
    turns = torch.stack([rotation(s) for s in range(6)]).reshape(2, 3, 3, 3)
    for l in range(4):
        batch = wigner_d(l, turns.float())
        assert batch.shape == (2, 3, 2 * l + 1, 2 * l + 1)
        assert batch.dtype == torch.float32
        torch.testing.assert_close(batch[1, 2].double(), wigner_d(l, turns[1, 2]), rtol=0, atol=1e-5)
    assert block_diagonal_wigner([0, 2, 1], turns).shape == (2, 3, 9, 9)


def test_harmonics_square_to_one_on_average_and_forget_length() -> None:
    from pyscf.dft import LebedevGrid

    grid = torch.from_numpy(np.array(LebedevGrid.MakeAngularGrid(302)))
    values = spherical_harmonics(6, grid[:, :3])
    gram = values.T @ (grid[:, 3:] * values)
    torch.testing.assert_close(gram, torch.eye(49, dtype=torch.float64), rtol=0, atol=1e-10)
    torch.testing.assert_close(spherical_harmonics(6, 7.0 * grid[:, :3]), values)


@pytest.mark.parametrize(("l1", "l2"), list(itertools.product(range(4), range(4))))
def test_clebsch_gordan_matrix_is_orthogonal_and_equivariant(l1: int, l2: int) -> None:
    l3s = range(abs(l1 - l2), l1 + l2 + 1)
    stack = np.concatenate([clebsch_gordan(l1, l2, l3).reshape(-1, 2 * l3 + 1) for l3 in l3s], axis=1)
    np.testing.assert_allclose(stack @ stack.T, np.eye(len(stack)), rtol=0, atol=1e-12)
    turn = rotation(3)
    product = torch.kron(wigner_d(l1, turn), wigner_d(l2, turn)).numpy()
    coupled = block_diagonal_wigner(list(l3s), turn).numpy()
    np.testing.assert_allclose(product @ stack, stack @ coupled, rtol=0, atol=1e-11)
