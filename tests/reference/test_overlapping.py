"""Integrals over overlapping pairs are those over all pairs, block by block."""

from __future__ import annotations

import numpy as np
import pytest
from pyscf import df, gto

from qcsurrogate.basis import orbital_basis
from qcsurrogate.reference import overlapping
from qcsurrogate.reference.overlapping import ThreeCentreIntegrals
from qcsurrogate.structures import Structure

WATER = np.array([[0.1, -0.2, 0.3], [0.2, 1.3, 1.4], [0.3, -1.6, 1.5]])
CHAIN = Structure(
    [8, 1, 1] * 6, np.concatenate([WATER + np.array([7.0 * k, 0.0, 0.0]) for k in range(6)]), name="six waters"
)


@pytest.mark.parametrize(("together", "most_bytes"), [(1000, 2**27), (9, 2**27), (9, 8 * 18 * 2 * 40), (1, 1)])
def test_blocks_hold_every_pair_that_overlaps_once(
    monkeypatch: pytest.MonkeyPatch, together: int, most_bytes: int
) -> None:
    monkeypatch.setattr(overlapping, "_SHELLS_TOGETHER", together)
    monkeypatch.setattr(overlapping, "_MOST_BYTES", most_bytes)
    mol = orbital_basis("sto-3g", [1, 8]).build_mol(CHAIN)
    charges = gto.M(atom=[["He", position] for position in CHAIN.positions], unit="bohr", basis="def2-svp")
    expected = df.incore.aux_e2(mol, charges, aosym="s1")
    found, times = np.zeros_like(expected), np.zeros((mol.nao, mol.nao))
    integrals = ThreeCentreIntegrals(mol, charges)
    for pairs, values in integrals:
        assert values.shape == (len(pairs.first), charges.nao)
        for column in range(charges.nao):
            pairs.put(found[:, :, column], values[:, column])
        np.add.at(times, (pairs.first, pairs.second), pairs.multiplicity)
    np.testing.assert_allclose(found, expected, atol=1e-13)
    both = times + times.T - np.diag(np.diag(times))
    assert set(np.unique(both).tolist()) <= {0.0, 1.0, 2.0}
    assert (np.diag(both) == 1.0).all()
    if together < 1000:
        assert (both == 0.0).any()  # the ends of the chain are too far apart
        assert len(integrals.blocks) > 6
