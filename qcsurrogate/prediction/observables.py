"""What follows from a predicted density: values on points, electron count, moments.

A density is rho(r) = sum of free-atom densities + sum_k c_k chi_k(r) with auxiliary
functions chi_k in PySCF's order and normalisation.  The free atoms are neutral and
spherical: they give the electron count its integer part, and neither a dipole nor a
traceless quadrupole, because each one cancels its nucleus.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pyscf.gto import Mole
from pyscf.symm import sph

from qcsurrogate.basis import BasisSet
from qcsurrogate.errors import StructureError
from qcsurrogate.reference.atoms import FreeAtoms, free_atom_density
from qcsurrogate.reference.density_fit import charges
from qcsurrogate.structures import Structure

_CHUNK_BYTES = 64 * 2**20


def density_on_points(
    structure: Structure,
    density_basis: BasisSet,
    coefficients: NDArray[np.float64],
    atoms: FreeAtoms,
    points: ArrayLike,
) -> NDArray[np.float64]:
    """Electron density on arbitrary points, evaluated in chunks of bounded memory.

    Args:
        structure: the molecule.
        density_basis: auxiliary basis of the coefficients.
        coefficients: (n_aux,) of rho - rho_free_atoms, PySCF order and normalisation.
        atoms: free atoms of all elements.
        points: (n, 3) in bohr.

    Returns:
        (n,) electrons / bohr^3.

    Raises:
        StructureError: if the points are not finite numbers of shape (n, 3).
    """
    points = as_points(points)
    aux = density_basis.build_mol(structure)
    density = free_atom_density(structure, atoms, points)
    chunk = max(1, _CHUNK_BYTES // (8 * aux.nao))
    for start in range(0, len(points), chunk):
        part = slice(start, start + chunk)
        density[part] += aux.eval_gto("GTOval_sph", points[part]) @ coefficients
    return density


def as_points(points: ArrayLike) -> NDArray[np.float64]:
    """``points`` as (n, 3) float64 in bohr; one point (3,) becomes (1, 3).

    Raises:
        StructureError: on another shape, or numbers that are not finite.
    """
    try:
        array = np.atleast_2d(np.asarray(points, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise StructureError(f"points are not an array of numbers ({error}); expected (n, 3) in bohr") from error
    if array.ndim != 2 or array.shape[1] != 3:
        raise StructureError(f"points have the shape {np.shape(points)}; expected (n, 3) in bohr")
    if not np.isfinite(array).all():
        row = int(np.argmin(np.isfinite(array).all(axis=1)))
        raise StructureError(f"point {row} is {array[row].tolist()}; expected finite numbers in bohr")
    return np.ascontiguousarray(array)


def electron_count(structure: Structure, density_basis: BasisSet, coefficients: NDArray[np.float64]) -> float:
    """Analytic integral of the density: nuclear charges (the free atoms) and charges of the expansion."""
    aux = density_basis.build_mol(structure)
    return float(structure.atomic_numbers.sum() + charges(aux) @ coefficients)


def dipole_moment(
    structure: Structure, density_basis: BasisSet, coefficients: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Analytic dipole moment of nuclei and density.

    Returns:
        (3,) in e bohr, origin at (0, 0, 0), pointing from minus to plus.
    """
    aux = density_basis.build_mol(structure)
    return -np.einsum("k,kx->x", coefficients, first_moments(aux))


def quadrupole_moment(
    structure: Structure, density_basis: BasisSet, coefficients: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Analytic traceless quadrupole moment, sum of q (3 r_i r_j - r^2 delta_ij) / 2.

    The definition is PySCF's (``pyscf.scf.hf.quad_moment``; Buckingham, Q. Rev. Chem.
    Soc. 1959, 13, 183).

    Returns:
        (3, 3) in e bohr^2, origin at (0, 0, 0).
    """
    aux = density_basis.build_mol(structure)
    second = -np.einsum("k,kxy->xy", coefficients, second_moments(aux))
    return np.asarray(1.5 * second - 0.5 * np.trace(second) * np.eye(3))


def first_moments(aux: Mole) -> NDArray[np.float64]:
    """(n_aux, 3) integrals of r chi_k(r), bohr times the unit of a function's charge."""
    centres, _, p_moments, _ = _local_moments(aux)
    return np.asarray(charges(aux)[:, None] * centres + p_moments)


def second_moments(aux: Mole) -> NDArray[np.float64]:
    """(n_aux, 3, 3) integrals of r_i r_j chi_k(r), bohr^2 times the unit of a function's charge."""
    centres, spherical, p_moments, d_moments = _local_moments(aux)
    monopole = charges(aux)[:, None, None] * np.einsum("kx,ky->kxy", centres, centres)
    crossed = np.einsum("kx,ky->kxy", centres, p_moments)
    isotropic = spherical[:, None, None] * np.eye(3)
    return np.asarray(monopole + crossed + crossed.transpose(0, 2, 1) + isotropic + d_moments)


def _local_moments(
    aux: Mole,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Moments of every function about its own centre.

    Returns:
        centres (n_aux, 3); x^2 of s functions (n_aux,); r of p functions (n_aux, 3);
        r r of d functions (n_aux, 3, 3).  Higher l have neither.
    """
    centres = np.repeat([aux.bas_coord(shell) for shell in range(aux.nbas)], np.diff(aux.ao_loc_nr()), axis=0).reshape(
        aux.nao, 3
    )
    spherical = np.zeros(aux.nao)
    p_moments = np.zeros((aux.nao, 3))
    d_moments = np.zeros((aux.nao, 3, 3))
    for shell, start in enumerate(aux.ao_loc_nr()[:-1]):
        l = int(aux.bas_angular(shell))
        if l > 2:
            continue
        # R(r) = r^l sum_j contraction_j exp(-a_j r^2), so that r^2 dr times r^2, r or r^2 leaves
        # r^4, r^4 and r^6 for s, p and d.
        radial = _gaussian_integral(6 if l == 2 else 4, aux.bas_exp(shell)) @ aux._libcint_ctr_coeff(shell)
        for k, value in enumerate(radial):
            part = slice(start + k * (2 * l + 1), start + (k + 1) * (2 * l + 1))
            angular = _angular_moments()[l]
            if l == 0:
                spherical[part] = value * angular / 3.0
            elif l == 1:
                p_moments[part] = value * angular
            else:
                d_moments[part] = value * angular
    return centres, spherical, p_moments, d_moments


def _gaussian_integral(power: int, exponents: NDArray[np.float64]) -> NDArray[np.float64]:
    """Integral of r^power exp(-a r^2) from 0 to infinity, for even powers."""
    double_factorial = float(np.prod(np.arange(power - 1, 0, -2)))
    order = power // 2
    return np.asarray(double_factorial * np.sqrt(np.pi) / (2.0 ** (order + 1) * exponents ** (order + 0.5)))


@cache
def _angular_moments() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Integrals over directions of Y_00, of n Y_1m and of n n Y_2m, in PySCF's order.

    Read off PySCF's own harmonics with Lebedev's 14 directions, which are exact to the
    fifth degree, so that no order and no sign is typed in here.
    """
    corners = np.array([(x, y, z) for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)]) / np.sqrt(3.0)
    directions = np.concatenate([np.eye(3), -np.eye(3), corners])
    weights = 4.0 * np.pi * np.array([1.0 / 15.0] * 6 + [3.0 / 40.0] * 8)
    harmonics = sph.real_sph_vec(directions, 2, reorder_p=True)
    return (
        np.einsum("n,mn->m", weights, harmonics[0]),
        np.einsum("n,mn,nx->mx", weights, harmonics[1], directions),
        np.einsum("n,mn,nx,ny->mxy", weights, harmonics[2], directions, directions),
    )
