"""Gaussian charges and dipoles on the atoms of a molecule, and the orbitals that feel them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from pyscf import gto
from pyscf.gto import Mole

from qcsurrogate.reference.multipoles import FarField
from qcsurrogate.reference.overlapping import OverlappingPairs, PairBlock, ThreeCentreIntegrals

_OUTSIDE = 22.0
"""pc/(p+c) d^2 of a pair and a charge that begin to count as outside of each other, less the decay of the pair ..."""

_AT_LEAST = 6.0
"""... but not less than this ..."""

_SWITCH = 3.0
"""... and within how many bohr more they do so wholly."""

_FAINTEST = 22.0
"""Largest decay of pairs that feel charges: by exp(-22) = 3e-10 of what a charge does."""

_MORE = 2
"""Degrees of multipoles beyond those of the products of orbitals ..."""

_FAINT = 6.0
"""... but not for pairs that decay by more."""

_SMALL = 60
"""Atoms of a molecule in which multipoles do not pay."""

_MOST_BYTES = 2**29

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

Shell = tuple[Array, int, Array, Array]
"""Position (bohr), angular momentum, (n,) exponents and (m, n) coefficients, libcint's, of m functions in one place."""


def gaussians(shells: Sequence[Shell]) -> Mole:
    """A molecule of shells."""
    atm = np.zeros((len(shells), gto.ATM_SLOTS), np.int32)
    bas = np.zeros((len(shells), gto.BAS_SLOTS), np.int32)
    env: list[Array] = [np.zeros(gto.PTR_ENV_START)]
    place = gto.PTR_ENV_START
    for i, (position, momentum, exponents, coefficients) in enumerate(shells):
        n = len(exponents)
        atm[i, gto.PTR_COORD] = place
        bas[i, [gto.ATOM_OF, gto.ANG_OF, gto.NPRIM_OF, gto.NCTR_OF]] = i, momentum, n, len(coefficients)
        bas[i, [gto.PTR_EXP, gto.PTR_COEFF]] = place + 3, place + 3 + n
        env += [np.asarray(position), exponents, coefficients.ravel()]
        place += 3 + n + coefficients.size
    fake = gto.Mole()
    fake._atm, fake._bas, fake._env, fake._built = atm, bas, np.concatenate(env), True
    return fake


def gaussian_charges(shells: Sequence[tuple[Array, Array, Array]]) -> Mole:
    """A molecule whose s functions are Gaussian charges: positions, exponents, and the charge in each exponent."""
    # libcint multiplies s functions by 1 / sqrt(4 pi); each Gaussian integrates to its charge
    norms = (charges * (exponents / np.pi) ** 1.5 * np.sqrt(4.0 * np.pi) for _, exponents, charges in shells)
    return gaussians(
        [(position, 0, exponents, norm[None]) for (position, exponents, _), norm in zip(shells, norms, strict=True)]
    )


def coulomb(one: Mole, other: Mole) -> Array:
    """(n_one, n_other) repulsion of charge distributions, Hartree."""
    both = gto.conc_mol(one, other)
    return np.asarray(both.intor("int2c2e", shls_slice=(0, one.nbas, one.nbas, both.nbas)))


class FeltCharges:
    """Coulomb integrals of pairs of orbitals and charges or dipoles on every atom, the same functions on each.

    Near ones are exact, far ones go by multipoles, and one turns smoothly into the other.

    Args:
        mol: the orbitals.
        functions: angular momentum (0 or 1) and exponents (bohr^-2) of the functions.
    """

    def __init__(self, mol: Mole, functions: Sequence[tuple[int, Sequence[float]]]) -> None:
        self.charges = gaussians(
            [(position, l, np.array(a), np.eye(len(a))) for position in mol.atom_coords() for l, a in functions]
        )
        self._mol, self._far_of = mol, np.concatenate([_far(l, a) for l, exponents in functions for a in exponents])
        self._pairs = OverlappingPairs(mol, _FAINTEST)
        smoothest = min(a for _, exponents in functions for a in exponents)
        everything = np.ones((self._pairs.n_pairs, mol.natm))
        self._near = everything if mol.natm <= _SMALL else _near(self._pairs, smoothest)
        self._fields = list(self._far_fields())
        atoms = np.repeat(np.arange(mol.natm), len(functions))
        self._integrals = ThreeCentreIntegrals(self._pairs, atoms, [self.charges], (self._near > 0.0).astype(np.int8))
        self._kept: list[tuple[PairBlock, Indices, Array]] | None = None

    def _far_fields(self) -> Iterator[FarField]:
        degree, decays = 2 * int(self._mol._bas[:, gto.ANG_OF].max()), self._pairs.decays
        for chosen, more in ((decays <= _FAINT, _MORE), (decays > _FAINT, 0)):
            share = (1.0 - self._near) * chosen[:, None]
            if share.any():
                yield FarField(self._pairs, share, degree + more)

    def keep(self) -> None:
        """Calculate everything once and keep it, if that does not take too much memory."""
        if self._integrals.n_bytes <= _MOST_BYTES:
            self._kept = list(self._near_integrals())

    def moments(self, density: Array) -> Array:
        """(n_functions,) integrals of every function with a density, Hartree.

        Args:
            density: symmetric (n_ao, n_ao) matrix.
        """
        total = np.zeros(self.charges.nao)
        for block, functions, values in self._near_integrals():
            total[functions] += (density[block.first, block.second] * block.multiplicity) @ values
        for field in self._fields:
            total += (field.felt(density) @ self._far_of.T).ravel()
        return total

    def potential(self, coefficients: Array) -> Array:
        """(n_ao, n_ao) what orbitals feel of the functions with these coefficients, Hartree."""
        total = np.zeros((self._mol.nao, self._mol.nao))
        for block, functions, values in self._near_integrals():
            block.add(total, values @ coefficients[functions])
        for field in self._fields:
            field.add(total, coefficients.reshape(self._mol.natm, -1) @ self._far_of)
        return total

    def _near_integrals(self) -> Iterator[tuple[PairBlock, Indices, Array]]:
        if self._kept is not None:
            yield from self._kept
            return
        weights = np.concatenate([self._near, np.ones((1, self._mol.natm))])  # for pairs that hardly overlap
        n_functions = len(self._far_of)
        for block, functions, values in self._integrals:
            own = weights[:, functions[::n_functions] // n_functions]
            if (own[block.overlapping] < 1.0).any():
                for k, weight in enumerate(own.T):
                    values[:, k * n_functions : (k + 1) * n_functions] *= weight[block.atoms, None]
            yield block, functions, values


def _far(l: int, exponent: float) -> Array:
    """(2l + 1, 4) charge and dipole of the functions of a shell."""
    integral = (np.pi / exponent) ** 1.5
    if l == 0:
        return np.array([[integral / np.sqrt(4.0 * np.pi), 0.0, 0.0, 0.0]])
    if l == 1:
        return np.eye(4)[1:] * np.sqrt(3.0 / (4.0 * np.pi)) * integral / (2.0 * exponent)
    raise ValueError(f"expected charges and dipoles, got functions with l = {l}")


def _near(pairs: OverlappingPairs, smoothest: float) -> Array:
    """(n_pairs, n_atoms) 1 for an atom whose charges may reach into a pair, 0 outside, smooth between."""
    reduced = pairs.exponents * smoothest / (pairs.exponents + smoothest)
    inner = np.sqrt(np.maximum(_OUTSIDE - pairs.decays, _AT_LEAST) / reduced)
    x = np.clip((np.sqrt(pairs.squares()) - inner[:, None]) / _SWITCH, 0.0, 1.0)
    return np.asarray(1.0 - x**3 * (10.0 - 15.0 * x + 6.0 * x**2))
