"""What pairs of orbitals and charges or dipoles far away feel of each other: by the multipoles of the pairs.

With r from the centre of a pair, R to a charge and S_lm real regular solid harmonics,
1/|r - R| = sum over l, m of 4 pi / (2l + 1) S_lm(r) I_lm(R), I_lm(R) = S_lm(R) / R^(2l+1), for r < R
(A. J. Stone, The Theory of Intermolecular Forces, 2nd ed., Oxford 2013, chapters 2 and 3); the
gradient of I_lm is a sum of I_(l+1)m'.  The series is short about the centre of the product of the
most diffuse primitives of two atoms: beyond l_a + l_b it is only needed by others, off the centre.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from pyscf import gto, lib
from pyscf.gto import Mole
from pyscf.gto.moleintor import getints3c

from qcsurrogate.reference.overlapping import CUTOFF, OverlappingPairs

_POINTS_TOGETHER = 20_000

Array = NDArray[np.float64]


class FarField:
    """Coulomb interaction of pairs of orbitals with charges and dipoles on atoms, outside of each other.

    Args:
        pairs: of orbitals.
        share: (n_pairs, n_atoms) by how much each interaction counts; 0 where it is no far one.
        degree: of the last multipoles.
    """

    def __init__(self, pairs: OverlappingPairs, share: Array, degree: int) -> None:
        mol, self._chosen = pairs.mol, np.flatnonzero(share.any(1))
        self._share = share[self._chosen]
        self._centres, self._positions = pairs.centres[self._chosen], mol.atom_coords()
        self._degree, self._n = degree, (degree + 1) ** 2
        place, slices = mol.ao_loc_nr(), mol.aoslice_by_atom()
        both = gto.conc_mol(mol, _harmonics(degree))
        both._env[gto.PTR_EXPCUTOFF] = CUTOFF
        origin = int(both._atm[-1, gto.PTR_COORD])
        self._orbitals, self._moments = [], []
        for k in self._chosen.tolist():
            (a, b), (c, d) = (slices[atom, :2].tolist() for atom in (pairs.first[k], pairs.second[k]))
            both._env[origin : origin + 3] = pairs.centres[k]
            bas = np.concatenate([both._bas[a:b], both._bas[c:d], both._bas[mol.nbas :]])
            n, m = b - a, b - a + d - c
            bounds = (0, n, n, m, m, len(bas))
            found = getints3c("int3c1e_sph", both._atm, bas, both._env, bounds, cintopt=lib.c_null_ptr())
            self._orbitals.append((slice(place[a], place[b]), slice(place[c], place[d])))
            self._moments.append(found)

    def felt(self, density: Array) -> Array:
        """(n_atoms, 4) potential of a density at every atom, and its gradient.

        Args:
            density: symmetric (n_ao, n_ao) matrix.
        """
        moments = np.zeros((len(self._chosen), self._n))
        for row, (first, second), own in zip(moments, self._orbitals, self._moments, strict=True):
            row[:] = np.tensordot(density[first, second], own, 2)
            if first != second:
                row *= 2.0
        total = np.zeros((len(self._positions), 4))
        raised = self._raised(moments.T)  # (4, n, n_pairs)
        for part, harmonics in self._interactions():
            found = np.matmul(raised[:, :, part].transpose(2, 0, 1), harmonics)  # (n_pairs, 4, n_atoms)
            total += (found * self._share[part, None]).sum(0).T
        return total

    def add(self, matrix: Array, sources: Array) -> None:
        """Add the potential of sources to a symmetric (n_ao, n_ao) matrix.

        Args:
            matrix: of the orbitals.
            sources: (n_atoms, 4) charge and dipole of every atom.
        """
        lowered = np.empty((len(self._chosen), self._n))
        for part, harmonics in self._interactions():
            weighted = self._share[part, :, None] * sources
            found = np.matmul(harmonics, weighted)  # (n_pairs, n', 4)
            lowered[part] = self._lowered(found)
        for row, (first, second), own in zip(lowered, self._orbitals, self._moments, strict=True):
            values = own @ row
            matrix[first, second] += values
            if first != second:
                matrix[second, first] += values.T

    def _raised(self, moments: Array) -> Array:
        """(4, n', n_pairs) what potential and gradient of (n, n_pairs) moments are in I_lm."""
        kept = np.zeros((len(_raising(self._degree)[0].T), moments.shape[1]))
        kept[: self._n] = moments * _factors(self._degree)[:, None]
        scaled = kept[: self._n]
        return np.stack([kept, *(gradient.T @ scaled for gradient in _raising(self._degree))])

    def _lowered(self, found: Array) -> Array:
        """(n_pairs, n) what (n_pairs, n', 4) sums over charges and dipoles are felt by moments."""
        total = found[:, : self._n, 0].copy()
        for axis, gradient in enumerate(_raising(self._degree), start=1):
            total += found[:, :, axis] @ gradient.T
        return total * _factors(self._degree)

    def _interactions(self) -> Iterator[tuple[slice, Array]]:
        """Some pairs and their (n_pairs, n', n_atoms) I_lm of the vectors to all atoms; 0 where they do not count."""
        step = max(1, _POINTS_TOGETHER // len(self._positions))
        for start in range(0, len(self._chosen), step):
            part = slice(start, start + step)
            vectors = self._positions - self._centres[part, None]
            there = self._share[part] > 0.0
            vectors[~there] = [0.0, 0.0, 1.0]
            values = _irregular(vectors.reshape(-1, 3), self._degree + 1).reshape(-1, *there.shape)
            yield part, values.transpose(1, 0, 2)


def _harmonics(degree: int) -> Mole:
    """A molecule whose functions are the real solid harmonics about its only atom, degree by degree."""
    mol = gto.Mole()
    start = gto.PTR_ENV_START
    mol._env = np.concatenate([np.zeros(start + 3), [0.0, 1.0]])  # exponent and coefficient
    mol._atm = np.zeros((1, gto.ATM_SLOTS), np.int32)
    mol._atm[0, gto.PTR_COORD] = start
    mol._bas = np.zeros((degree + 1, gto.BAS_SLOTS), np.int32)
    mol._bas[:, gto.ANG_OF] = np.arange(degree + 1)
    mol._bas[:, [gto.NPRIM_OF, gto.NCTR_OF, gto.PTR_EXP, gto.PTR_COEFF]] = 1, 1, start + 3, start + 4
    mol._built = True
    return mol


def _degrees(degree: int) -> Array:
    return np.repeat(np.arange(degree + 1.0), 2 * np.arange(degree + 1) + 1)


def _factors(degree: int) -> Array:
    return np.asarray(4.0 * np.pi / (2.0 * _degrees(degree) + 1.0))


def _irregular(vectors: Array, degree: int) -> Array:
    """(n_lm, n_vectors) I_lm."""
    lengths = np.sqrt((vectors**2).sum(1))
    values = np.ascontiguousarray(_harmonics(degree).eval_gto("GTOval_sph", vectors / lengths[:, None]).T)
    power = 1.0 / lengths
    for l in range(degree + 1):
        values[l * l : (l + 1) ** 2] *= power
        power /= lengths
    return values


@lru_cache
def _raising(degree: int) -> Array:
    """(3, n_lm, n_lm') gradient of I_lm in I_lm' of one degree more: solved from both at points on a sphere."""
    points = np.random.default_rng(0).normal(size=(8 * (degree + 2) ** 2, 3))
    points /= np.linalg.norm(points, axis=1)[:, None]
    values, *slopes = _harmonics(degree + 1).eval_gto("GTOval_sph_deriv1", points)
    kept = (degree + 1) ** 2
    outward = (2.0 * _degrees(degree) + 1.0) * values[:, :kept]
    result = np.zeros((3, kept, values.shape[1]))
    for axis, slope in enumerate(slopes):
        gradient = slope[:, :kept] - outward * points[:, [axis]]  # of S / r^(2l+1) at r = 1
        for l in range(degree + 1):
            own, more = slice(l * l, (l + 1) ** 2), slice((l + 1) ** 2, (l + 2) ** 2)
            result[axis, own, more] = np.linalg.lstsq(values[:, more], gradient[:, own])[0].T
    return result
