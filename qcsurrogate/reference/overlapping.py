"""Repulsion between pairs of orbitals and charge distributions, only where there is any.

Pairs of orbitals count where they overlap, and of the charge distributions those that the caller
finds near.  Their number grows with the size of a molecule and not with its square or cube.  Atoms
are put together into groups of neighbours; what is calculated at once are the pairs of two groups
with the charges of a third.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pyscf import gto
from pyscf.gto import Mole
from pyscf.gto.moleintor import getints3c, make_cintopt, make_loc

CUTOFF = 40.0
"""ab/(a+b) r^2 of primitives whose product is nothing: the smallest that libcint takes, by default it is 60."""

_SHELLS_TOGETHER = 40
_MOST_TOGETHER = 2**18
"""Integrals at once: what the cache of a core holds."""

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class PairBlock:
    """The pairs of orbitals of two groups of atoms.

    Attributes:
        bras, kets: first shell and the one after the last, in the order of the groups; the same of a group with itself.
        first, second: (n_pairs,) orbitals of the molecule.
        atoms: (n_pairs,) which of the overlapping pairs of atoms they belong to; the number of these if to none.
        overlapping: those that occur.
    """

    bras: tuple[int, int]
    kets: tuple[int, int]
    first: Indices
    second: Indices
    atoms: Indices
    overlapping: Indices

    @property
    def multiplicity(self) -> Array:
        """(n_pairs,) how often each occurs in a symmetric matrix."""
        return np.where(self.first == self.second, 1.0, 2.0)

    def add(self, matrix: Array, values: Array) -> None:
        """Add (n_pairs,) elements to a symmetric (n_ao, n_ao) matrix."""
        total = matrix[self.first, self.second] + values
        matrix[self.first, self.second] = total
        matrix[self.second, self.first] = total


class OverlappingPairs:
    """Pairs of atoms whose orbitals overlap, each once and every atom with itself.

    Three Gaussians a, b, c overlap by exp(-decay - pc/(p+c) d^2), with p = a + b, decay = ab/p r^2
    and d the distance of c from the centre of the product of a and b; of all primitives of two
    atoms the most diffuse give the largest.

    Attributes:
        mol: the molecule.
        first, second: (n_pairs,) atoms.
        centres: (n_pairs, 3) of the product of their most diffuse primitives, bohr.
        exponents: (n_pairs,) of this product, bohr^-2.
        decays: (n_pairs,) minus the logarithm of its size.
        groups: atoms that are near each other.
        shells: (n_shells,) those of the groups in their order, of a group the most diffuse first.
        blocks: of their orbitals.

    Args:
        mol: the molecule.
        longest: largest decay of atoms and shells that count as overlapping.
    """

    def __init__(self, mol: Mole, longest: float) -> None:
        self.mol, self._longest = mol, longest
        owners, positions = mol._bas[:, gto.ATOM_OF], mol.atom_coords()
        sharpness = np.array([mol.bas_exp(shell).min() for shell in range(mol.nbas)])
        diffuse = np.full(mol.natm, np.inf)
        np.minimum.at(diffuse, owners, sharpness)
        decays = _decays(diffuse, positions, diffuse, positions)
        self.first, self.second = np.nonzero(np.tril(decays < self._longest))
        a, b = diffuse[self.first], diffuse[self.second]
        self.exponents, self.decays = a + b, decays[self.first, self.second]
        self.centres = (a[:, None] * positions[self.first] + b[:, None] * positions[self.second]) / (a + b)[:, None]

        self.groups = _near_each_other(np.arange(mol.natm), positions, np.bincount(owners, minlength=mol.natm))
        parts = [np.flatnonzero(np.isin(owners, group)) for group in self.groups]
        parts = [shells[np.argsort(sharpness[shells], kind="stable")] for shells in parts]
        self.shells = np.concatenate(parts)
        self.blocks = list(self._blocks(parts, sharpness, positions[owners]))

    @property
    def n_pairs(self) -> int:
        """How many there are."""
        return len(self.first)

    def squares(self) -> Array:
        """(n_pairs, n_atoms) squares of distances between their centres and atoms, bohr^2."""
        return np.asarray(((self.centres[:, None] - self.mol.atom_coords()) ** 2).sum(-1))

    def _blocks(self, parts: list[Indices], sharpness: Array, positions: Array) -> Iterator[PairBlock]:
        place = self.mol.ao_loc_nr()
        owner = np.repeat(self.mol._bas[:, gto.ATOM_OF], np.diff(place))
        number = np.full((self.mol.natm, self.mol.natm), self.n_pairs)
        number[self.first, self.second] = number[self.second, self.first] = np.arange(self.n_pairs)
        orbitals = [[np.arange(place[s], place[s + 1]) for s in shells] for shells in parts]
        starts = np.cumsum([0, *(len(shells) for shells in parts)]).tolist()
        for i, bras in enumerate(parts):
            for j, kets in enumerate(parts[: i + 1]):
                reached = _decays(sharpness[bras], positions[bras], sharpness[kets], positions[kets]) < self._longest
                if not reached.any():
                    continue
                n_bras, n_kets = (int(np.flatnonzero(reached.any(axis))[-1]) + 1 for axis in (1, 0))
                own, others = np.concatenate(orbitals[i][:n_bras]), np.concatenate(orbitals[j][:n_kets])
                if i == j:
                    rows, columns = np.tril_indices(len(own))
                    first, second = own[rows], own[columns]
                else:
                    first, second = np.tile(own, len(others)), np.repeat(others, len(own))
                held = np.unique(number[np.ix_(self.groups[i], self.groups[j])])
                yield PairBlock(
                    (starts[i], starts[i] + n_bras),
                    (starts[j], starts[j] + n_kets),
                    first,
                    second,
                    number[owner[first], owner[second]],
                    held[held < self.n_pairs],
                )


class ThreeCentreIntegrals:
    """Repulsion between pairs of orbitals and charge distributions, Hartree; iterated part by part.

    Args:
        pairs: the orbitals.
        atoms: (n_shells,) atom of the orbitals' molecule that each shell of the charges lies on.
        charges: molecules whose functions are the charge distributions, in finer and finer detail: shells of one
            stand where those of the others do, and the coarsest that is fine enough for all pairs of a part is taken.
        detail: (n_pairs, n_atoms) for which pairs of sites which molecule is fine enough, 1 for the first; 0 where
            an atom's charges are not wanted at all.  The last for all if None.
    """

    def __init__(
        self, pairs: OverlappingPairs, atoms: Indices, charges: Sequence[Mole], detail: NDArray[np.int8] | None = None
    ) -> None:
        order = np.concatenate(pairs.groups)
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        rows = np.argsort(rank[atoms], kind="stable")
        bas = [pairs.mol._bas[pairs.shells]]
        whole = pairs.mol
        for one in charges:
            first = whole.nbas
            whole = gto.conc_mol(whole, one)
            bas.append(whole._bas[first + rows])
        self._atm, self._bas, self._env = whole._atm, np.concatenate(bas), whole._env.copy()
        self._env[gto.PTR_EXPCUTOFF] = CUTOFF
        self._place = make_loc(self._bas, "int3c2e_sph")
        self._optimizer = make_cintopt(self._atm, bas[0], self._env, "int3c2e_sph")
        place = charges[0].ao_loc_nr()
        self._functions = np.concatenate([np.arange(place[row], place[row + 1]) for row in rows])
        ends = np.searchsorted(rank[atoms][rows], np.arange(len(order) + 1))
        self._parts = list(_parts(pairs, ends, order, detail, len(self._functions) / len(order)))
        self._n_orbital, self._n_charges, self._finest = len(bas[0]), len(rows), len(charges)

    @property
    def n_bytes(self) -> int:
        """Of all of them."""
        return 8 * sum(len(block.first) * len(self._functions_of(first, end)) for block, _, first, end in self._parts)

    def _functions_of(self, first: int, end: int) -> Indices:
        start = self._place[self._n_orbital]
        return self._functions[slice(*(self._place[[self._n_orbital + first, self._n_orbital + end]] - start))]

    def __iter__(self) -> Iterator[tuple[PairBlock, Indices, Array]]:
        """Blocks of pairs, (n_charges,) functions of the charges, and their (n_pairs, n_charges) integrals."""
        for block, detail, first, end in self._parts:
            start = self._n_orbital + ((detail or self._finest) - 1) * self._n_charges
            if block.bras == block.kets:  # PySCF's triangles begin with the first shell
                bas = np.concatenate([self._bas[slice(*block.bras)], self._bas[start + first : start + end]])
                n = block.bras[1] - block.bras[0]
                slices = (0, n, 0, n, n, len(bas))
                found = getints3c("int3c2e_sph", self._atm, bas, self._env, slices, aosym="s2ij")
            else:
                slices = (*block.bras, *block.kets, start + first, start + end)
                found = getints3c(
                    "int3c2e_sph", self._atm, self._bas, self._env, slices, ao_loc=self._place, cintopt=self._optimizer
                )
            functions = self._functions_of(first, end)
            yield block, functions, np.asarray(found.reshape(len(block.first), len(functions), order="F"))


def _parts(
    pairs: OverlappingPairs, shells: Indices, order: Indices, detail: NDArray[np.int8] | None, functions: float
) -> Iterator[tuple[PairBlock, int, int, int]]:
    """Blocks of pairs with the first and the end of neighbouring shells of charges, and the detail that they need.

    Args:
        pairs: the orbitals.
        shells: (n_atoms + 1,) first shell of every atom of the order.
        order: (n_atoms,) atoms of the groups.
        detail: as of the integrals.
        functions: how many charges an atom has.
    """
    ends = np.cumsum([0, *(len(group) for group in pairs.groups)]).tolist()
    for block in pairs.blocks:
        needed = np.zeros(len(order), int) if detail is None else detail[block.overlapping].max(0)[order]
        for first, end in itertools.pairwise(ends):
            wanted = np.arange(first, end) if detail is None else first + np.flatnonzero(needed[first:end])
            if len(wanted):
                span = range(int(wanted[0]), int(wanted[-1]) + 1)
                step = max(1, min(len(span), int(_MOST_TOGETHER / (len(block.first) * functions))))
                for start in span[::step]:
                    stop = min(start + step, span.stop)
                    yield block, int(needed[start:stop].max()), int(shells[start]), int(shells[stop])


def _decays(a: Array, positions: Array, b: Array, others: Array) -> Array:
    """(n, m) ab/(a+b) r^2 of Gaussians at positions and others at other ones."""
    square = ((positions[:, None] - others) ** 2).sum(-1)
    return np.asarray(a[:, None] * b / (a[:, None] + b) * square)


def _near_each_other(atoms: Indices, positions: Array, sizes: Indices) -> list[Indices]:
    """Groups of atoms, halved along their longest side until they have few shells."""
    if sizes[atoms].sum() <= _SHELLS_TOGETHER or len(atoms) == 1:
        return [atoms]
    own = positions[atoms]
    order = np.argsort(own[:, np.argmax(np.ptp(own, axis=0))], kind="stable")
    middle = len(atoms) // 2
    return [g for half in (order[:middle], order[middle:]) for g in _near_each_other(atoms[half], positions, sizes)]
