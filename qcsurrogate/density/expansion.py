"""A whole density as one expansion: the auxiliary functions, and one function for each free atom.

The free atom of an element is one contracted s function, which stands after the other s
functions of its atom.  Basis and coefficients then say everything about a density that
someone without this package has to know.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from qcsurrogate.basis import BasisSet, ElementBasis, ShellGroup
from qcsurrogate.errors import BasisError
from qcsurrogate.reference.atoms import FreeAtom, FreeAtoms
from qcsurrogate.structures import Structure


def complete_basis(auxiliary: BasisSet, atoms: FreeAtoms) -> BasisSet:
    """An auxiliary basis with the free atoms as functions of their own."""
    elements = {}
    for z, element in auxiliary.elements.items():
        if z not in atoms:
            raise BasisError(f"no free-atom density for {chemical_symbols[z]}, which basis '{auxiliary.name}' covers")
        primitives = zip(atoms[z].exponents.tolist(), _of_normalised_primitives(atoms[z]).tolist(), strict=True)
        groups = (*element.groups, ShellGroup(0, tuple(primitives)))
        elements[z] = ElementBasis(z, tuple(sorted(groups, key=lambda group: group.l)))
    return BasisSet(f"{auxiliary.name}, and free atoms", elements)


def complete_coefficients(
    structure: Structure, auxiliary: BasisSet, coefficients: NDArray[np.float64], atoms: FreeAtoms
) -> NDArray[np.float64]:
    """Coefficients of the whole density.

    Args:
        coefficients: (n_aux,) of rho - rho_atoms, PySCF order.

    Returns:
        (n_aux + n_atoms,) over the functions of :func:`complete_basis`, PySCF order.
    """
    norms = {z: _norm(atoms[z]) for z in set(structure.atomic_numbers.tolist())}
    return _with_atoms(structure, auxiliary, coefficients, norms)


def complete_spin_coefficients(
    structure: Structure, auxiliary: BasisSet, coefficients: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The same of the density of alpha less that of beta, in which free atoms have no part.

    Args:
        coefficients: (n_aux,) of rho_alpha - rho_beta, PySCF order.
    """
    return _with_atoms(structure, auxiliary, coefficients, dict.fromkeys(structure.atomic_numbers.tolist(), 0.0))


def _with_atoms(
    structure: Structure, auxiliary: BasisSet, coefficients: NDArray[np.float64], of_atoms: Mapping[int, float]
) -> NDArray[np.float64]:
    """Coefficients, with that of the free atom after those of the other s functions of each atom."""
    numbers = structure.atomic_numbers.tolist()
    n_s = {z: sum(l == 0 for l in auxiliary[z].angular_momenta) for z in set(numbers)}
    places = auxiliary.offsets(numbers)[:-1] + np.array([n_s[z] for z in numbers])
    return np.insert(coefficients, places, [of_atoms[z] for z in numbers])


def _of_normalised_primitives(atom: FreeAtom) -> NDArray[np.float64]:
    """(n,) coefficients of the free atom's density over normalised s Gaussians, (2a/pi)^(3/4) exp(-a r^2)."""
    return np.asarray(atom.coefficients / (2.0 * atom.exponents / np.pi) ** 0.75)


def _norm(atom: FreeAtom) -> float:
    """sqrt(int rho^2): PySCF normalises the contraction, and this is its coefficient."""
    a, c = atom.exponents, _of_normalised_primitives(atom)
    overlap = (2.0 * np.sqrt(np.outer(a, a)) / (a[:, None] + a)) ** 1.5
    return float(np.sqrt(c @ overlap @ c))
