"""Moments of an electron density, and the multipoles of a molecule that follow from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qcsurrogate.structures import Structure

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Moments:
    """Moments of an electron density about the origin, electrons counted positive.

    Attributes:
        count: number of electrons.
        first: (3,) int rho r, bohr.
        second: (3, 3) int rho r r^T, bohr^2.
    """

    count: float
    first: Array
    second: Array


@dataclass(frozen=True, eq=False)
class ChargeMoments:
    """Multipoles of electrons and nuclei together.

    Attributes:
        dipole: (3,) e bohr, origin at (0, 0, 0), pointing from minus to plus: that of PySCF's
            ``dip_moment``.
        quadrupole: (3, 3) traceless (Buckingham, Q. Rev. Chem. Soc. 1959, 13, 183), e bohr^2,
            origin at the centre of nuclear charge.  A molecule with a dipole has another
            quadrupole about every origin; about (0, 0, 0), PySCF's default, it would change when
            the molecule is moved.  ``quad_moment(origin=centre)`` of PySCF is the same.
    """

    dipole: Array
    quadrupole: Array


def charge_moments(structure: Structure, electrons: Moments) -> ChargeMoments:
    """Dipole and traceless quadrupole of a molecule from its electrons' moments."""
    charges = structure.atomic_numbers.astype(np.float64)
    positions = structure.positions
    centre = charges @ positions / charges.sum()
    shifted = positions - centre
    first, count = electrons.first, electrons.count
    # moments about the centre: int rho (r - c)(r - c)^T
    second = electrons.second - np.outer(first, centre) - np.outer(centre, first) + count * np.outer(centre, centre)
    nuclear = np.einsum("a,ax,ay->xy", charges, shifted, shifted)
    return ChargeMoments(dipole=charges @ positions - first, quadrupole=traceless_quadrupole(nuclear - second))


def traceless_quadrupole(second_moments: Array) -> Array:
    """(3, 3) Q_ab = (3 M_ab - tr(M) delta_ab) / 2 of charge second moments M (e bohr^2)."""
    return np.asarray(1.5 * second_moments - 0.5 * np.trace(second_moments) * np.eye(3))
