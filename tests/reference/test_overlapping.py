"""Integrals over overlapping pairs are those over all pairs, part by part."""

from __future__ import annotations

import numpy as np
import pytest
from pyscf import df, gto

from qcsurrogate.basis import orbital_basis
from qcsurrogate.reference import overlapping
from qcsurrogate.reference.charges import gaussian_charges
from qcsurrogate.reference.overlapping import OverlappingPairs, ThreeCentreIntegrals
from qcsurrogate.structures import Structure

WATER = np.array([[0.1, -0.2, 0.3], [0.2, 1.3, 1.4], [0.3, -1.6, 1.5]])
CHAIN = Structure(
    [8, 1, 1] * 6, np.concatenate([WATER + np.array([7.0 * k, 0.0, 0.0]) for k in range(6)]), name="six waters"
)


@pytest.mark.parametrize(("together", "most"), [(1000, 2**18), (9, 2**18), (9, 200)])
def test_parts_hold_every_pair_that_overlaps_once(monkeypatch: pytest.MonkeyPatch, together: int, most: int) -> None:
    monkeypatch.setattr(overlapping, "_SHELLS_TOGETHER", together)
    monkeypatch.setattr(overlapping, "_MOST_TOGETHER", most)
    mol = orbital_basis("sto-3g", [1, 8]).build_mol(CHAIN)
    charges = gto.M(atom=[["He", position] for position in CHAIN.positions], unit="bohr", basis="def2-svp")
    expected = df.incore.aux_e2(mol, charges, aosym="s1")
    found, times = np.zeros_like(expected), np.zeros((mol.nao, mol.nao, charges.nao), int)
    pairs = OverlappingPairs(mol, 36.0)
    integrals = ThreeCentreIntegrals(pairs, charges._bas[:, gto.ATOM_OF], [charges])
    n_bytes = 0
    for block, functions, values in integrals:
        assert values.shape == (len(block.first), len(functions))
        n_bytes += values.nbytes
        for column, function in zip(values.T, functions, strict=True):
            block.add(found[:, :, function], column)
            np.add.at(times[:, :, function], (block.first, block.second), block.multiplicity.astype(int))
    assert n_bytes == integrals.n_bytes
    np.testing.assert_allclose(found, expected, atol=1e-13)
    both = times + times.swapaxes(0, 1)
    both[np.diag_indices(mol.nao)] //= 2
    assert set(np.unique(both).tolist()) <= {0, 1, 2}
    assert (both[np.diag_indices(mol.nao)] == 1).all()
    assert (both == both[:, :, :1]).all()
    if together < 1000:
        assert (both == 0).any()  # the ends of the chain are too far apart
        assert len(pairs.blocks) > 6


def test_the_coarsest_charges_that_are_fine_enough_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlapping, "_SHELLS_TOGETHER", 9)
    mol = orbital_basis("sto-3g", [1, 8]).build_mol(CHAIN)
    coarse, fine = (
        gaussian_charges([(position, np.ones(1), np.array([charge])) for position in CHAIN.positions])
        for charge in (1.0, 2.0)
    )
    pairs = OverlappingPairs(mol, 30.0)
    detail = np.digitize(-pairs.squares(), [-400.0, -100.0]).astype(np.int8)  # 0 from 20 bohr on, 2 up to 10
    assert set(np.unique(detail).tolist()) == {0, 1, 2}
    exact = [df.incore.aux_e2(mol, charges, aosym="s1") for charges in (coarse, fine)]
    given = np.zeros((pairs.n_pairs, mol.natm), np.int8)
    for block, functions, values in ThreeCentreIntegrals(pairs, np.arange(mol.natm), [coarse, fine], detail):
        own = [e[block.first, block.second][:, functions] for e in exact]
        level = int(np.abs(values - own[1]).max() < 1e-13)
        np.testing.assert_allclose(values, own[level], atol=1e-13)
        given[np.ix_(block.overlapping, functions)] = 1 + level
    assert (given >= detail).all()
    assert (given == 0).any()
    assert (given == 1).any()
