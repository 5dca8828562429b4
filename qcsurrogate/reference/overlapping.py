"""Repulsion between pairs of orbitals and charge distributions, only for pairs of orbitals that overlap.

The number of these grows with the size of a molecule and not with its square, and they come in
blocks that fit into memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pyscf import gto
from pyscf.gto import Mole
from pyscf.gto.moleintor import getints

_SMALLEST = 1e-18
"""exp(-ab/(a+b) r^2) of the most diffuse primitives of two shells that count as overlapping."""

_SHELLS_TOGETHER = 40
_MOST_BYTES = 2**27

Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class PairBlock:
    """Some pairs of orbitals.

    Attributes:
        bras, kets: shells; without kets, the pairs are those among the bras.
        first, second: (n_pairs,) orbitals.
    """

    bras: Indices
    kets: Indices
    first: Indices
    second: Indices

    @property
    def multiplicity(self) -> NDArray[np.float64]:
        """(n_pairs,) how often each occurs in a symmetric matrix."""
        return np.where(self.first == self.second, 1.0, 2.0)

    def put(self, matrix: NDArray[np.float64], values: NDArray[np.float64]) -> None:
        """Write (n_pairs,) elements of a symmetric (n_ao, n_ao) matrix."""
        matrix[self.first, self.second] = values
        matrix[self.second, self.first] = values


class ThreeCentreIntegrals:
    """Repulsion between pairs of orbitals and charge distributions, Hartree; iterated block by block.

    Args:
        mol: the orbitals.
        charges: a molecule whose functions are the charge distributions.
    """

    def __init__(self, mol: Mole, charges: Mole) -> None:
        self._all, self._n_shells = gto.conc_mol(mol, charges), mol.nbas
        self.n_charges = int(charges.nao)
        self.blocks = list(_blocks(mol, max(1, _MOST_BYTES // (8 * max(1, self.n_charges)))))

    @property
    def n_bytes(self) -> int:
        """Of all of them."""
        return 8 * self.n_charges * sum(len(block.first) for block in self.blocks)

    def __iter__(self) -> Iterator[tuple[PairBlock, NDArray[np.float64]]]:
        """Blocks of pairs, and their (n_pairs, n_charges) integrals."""
        for block in self.blocks:
            yield block, self._of(block)

    def _of(self, block: PairBlock) -> NDArray[np.float64]:
        n_bras, n_orbitals = len(block.bras), len(block.bras) + len(block.kets)
        rows = np.concatenate([block.bras, block.kets, np.arange(self._n_shells, self._all.nbas)])
        kets = (n_bras, n_orbitals) if len(block.kets) else (0, n_bras)
        found = getints(
            "int3c2e_sph",
            self._all._atm,
            self._all._bas[rows],
            self._all._env,
            shls_slice=(0, n_bras, *kets, n_orbitals, len(rows)),
            aosym="s1" if len(block.kets) else "s2ij",
        )
        return np.asarray(found.reshape(len(block.first), self.n_charges, order="F"))


def _blocks(mol: Mole, most_pairs: int) -> Iterator[PairBlock]:
    """Every pair of overlapping shells in one block, and each pair of orbitals at most once."""
    place = mol.ao_loc_nr()
    orbitals = [np.arange(place[shell], place[shell + 1]) for shell in range(mol.nbas)]
    exponents = np.array([mol.bas_exp(shell).min() for shell in range(mol.nbas)])
    positions = mol.atom_coords()[mol._bas[:, gto.ATOM_OF]]
    groups = _near_each_other(np.arange(mol.nbas), positions)
    for k, bras in enumerate(groups):
        own = np.concatenate([orbitals[shell] for shell in bras])
        rows, columns = np.tril_indices(len(own))
        yield PairBlock(bras, bras[:0], own[rows], own[columns])
        later = np.concatenate([*groups[k + 1 :], bras[:0]])
        kets = later[_overlapping(bras, later, exponents, positions).any(0)]
        sizes = np.cumsum([len(orbitals[shell]) for shell in kets])
        parts = (sizes - 1) * len(own) // most_pairs if len(kets) else sizes
        for part in np.unique(parts):
            chosen = kets[parts == part]
            others = np.concatenate([orbitals[shell] for shell in chosen])
            yield PairBlock(bras, chosen, np.tile(own, len(others)), np.repeat(others, len(own)))


def _overlapping(
    bras: Indices, kets: Indices, exponents: NDArray[np.float64], positions: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """(n_bras, n_kets) whether shells overlap."""
    a, b = exponents[bras][:, None], exponents[kets]
    square = ((positions[bras][:, None] - positions[kets]) ** 2).sum(-1)
    return np.asarray(a * b / (a + b) * square < -np.log(_SMALLEST))


def _near_each_other(shells: Indices, positions: NDArray[np.float64]) -> list[Indices]:
    """Groups of shells, halved along their longest side until they are small."""
    if len(shells) <= _SHELLS_TOGETHER:
        return [shells]
    own = positions[shells]
    order = np.argsort(own[:, np.argmax(np.ptp(own, axis=0))], kind="stable")
    middle = len(shells) // 2
    return [group for half in (order[:middle], order[middle:]) for group in _near_each_other(shells[half], positions)]
