"""Free-atom densities: the part of a molecular density that needs no network.

For each element and method the spherical, fractionally occupied Kohn-Sham atom is
solved once and its density fitted by s Gaussians.  The superposition of these densities
is subtracted from a molecule's density before anything is learnt.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase.data import atomic_numbers as number_of_symbol
from ase.data import chemical_symbols
from numpy.typing import ArrayLike, NDArray
from pyscf import gto
from pyscf.gto import Mole

from qcsurrogate.errors import BasisError
from qcsurrogate.reference.functional import require_functional
from qcsurrogate.reference.settings import Method
from qcsurrogate.structures import Structure

_RATIO = 1.5
_RADII = np.concatenate([[0.0], np.geomspace(1e-4, 20.0, 600)])


@dataclass(frozen=True, eq=False)
class FreeAtom:
    """rho(r) = sum_k coefficients[k] exp(-exponents[k] r^2).

    Attributes:
        atomic_number: nuclear charge, which the density integrates to exactly.
        exponents: (n,) in bohr^-2.
        coefficients: (n,) in electrons / bohr^3.
    """

    atomic_number: int
    exponents: NDArray[np.float64]
    coefficients: NDArray[np.float64]

    def density(self, distances: ArrayLike) -> NDArray[np.float64]:
        """Density (electrons / bohr^3) at distances (bohr) from the nucleus, of any shape."""
        squared = np.asarray(distances, dtype=np.float64)[..., None] ** 2
        return np.asarray(np.exp(-squared * self.exponents) @ self.coefficients)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "atomic_number": self.atomic_number,
            "exponents": self.exponents.tolist(),
            "coefficients": self.coefficients.tolist(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FreeAtom:
        """From :meth:`to_dict`.

        Raises:
            BasisError: if the numbers are missing, of unequal length or not finite.
        """
        try:
            exponents = np.asarray(data["exponents"], dtype=np.float64)
            coefficients = np.asarray(data["coefficients"], dtype=np.float64)
            number = int(data["atomic_number"])
        except (KeyError, TypeError, ValueError) as error:
            raise BasisError(f"a free atom is {{atomic_number, exponents, coefficients}}; got {error!r}") from error
        sound = exponents.ndim == 1 and exponents.shape == coefficients.shape and bool((exponents > 0).all())
        if not sound or not np.isfinite(exponents).all() or not np.isfinite(coefficients).all():
            raise BasisError(
                f"free atom Z={number}: expected equally many finite coefficients and positive exponents, "
                f"got shapes {coefficients.shape} and {exponents.shape}"
            )
        return cls(number, exponents, coefficients)


FreeAtoms = Mapping[int, FreeAtom]
"""Free atoms by atomic number."""


def free_atom(atomic_number: int, method: Method) -> FreeAtom:
    """The free atom of one element at this level of theory.

    The atom is PySCF's spherically averaged restricted Kohn-Sham atom with fractional
    occupations (``pyscf.scf.atom_ks``).  The fit weights each radius by its volume and
    holds the number of electrons exactly.

    Raises:
        SpecError: if PySCF does not compute the functional.
        BasisError: if the basis lacks the element or its core.
    """
    from pyscf.dft import numint
    from pyscf.scf import atom_ks

    require_functional(method.xc)
    symbol = chemical_symbols[atomic_number]
    basis = method.orbital_basis([atomic_number])
    mol = gto.M(
        atom=[(symbol, (0.0, 0.0, 0.0))],
        basis={symbol: [g.to_pyscf() for g in basis[atomic_number].groups]},
        spin=atomic_number % 2,
        verbose=0,
    )
    _, _, orbitals, occupations = atom_ks.get_atm_nrks(mol, xc=method.xc)[symbol]
    density_matrix = (orbitals * occupations) @ orbitals.T
    points = np.zeros((len(_RADII), 3))
    points[:, 2] = _RADII
    reference = numint.eval_rho(mol, numint.eval_ao(mol, points), density_matrix)
    exponents = _fit_exponents([row[0] for group in basis[atomic_number].groups for row in group.primitives])
    coefficients = _fit_radial(reference, exponents, float(atomic_number))
    return FreeAtom(atomic_number, exponents, coefficients)


def _fit_exponents(primitives: list[float]) -> NDArray[np.float64]:
    """Geometric series over the exponents that products of two primitives have."""
    low, high = 2.0 * min(primitives), 2.0 * max(primitives)
    n = int(np.ceil(np.log(high / low) / np.log(_RATIO))) + 1
    return np.geomspace(low, high, n)


def _fit_radial(
    density: NDArray[np.float64], exponents: NDArray[np.float64], n_electrons: float
) -> NDArray[np.float64]:
    """Least squares in r^2 dr with the integral as a linear constraint."""
    weights = np.sqrt(4 * np.pi * _RADII**2 * np.gradient(_RADII) + 1e-8)
    gaussians = np.exp(-np.outer(_RADII**2, exponents)) * weights[:, None]
    charges = (np.pi / exponents) ** 1.5
    scaled = gaussians / charges  # unknowns in electrons, so that all are of order one
    normal = scaled.T @ scaled + 1e-12 * np.eye(len(exponents))
    target = scaled.T @ (density * weights)
    system = np.block([[normal, np.ones((len(exponents), 1))], [np.ones((1, len(exponents))), np.zeros((1, 1))]])
    solution = np.linalg.solve(system, np.append(target, n_electrons))[:-1]
    return np.asarray(solution / charges)


def free_atoms(atomic_numbers: Iterable[int], method: Method) -> dict[int, FreeAtom]:
    """The free atoms of several elements, in ascending order."""
    return {z: free_atom(z, method) for z in sorted({int(z) for z in atomic_numbers})}


def free_atoms_to_dict(atoms: FreeAtoms) -> dict[str, Any]:
    """Plain data for JSON, by chemical symbol."""
    return {chemical_symbols[z]: atom.to_dict() for z, atom in atoms.items()}


def free_atoms_from_dict(data: Mapping[str, Any]) -> dict[int, FreeAtom]:
    """From :func:`free_atoms_to_dict`."""
    atoms = {}
    for symbol, entry in data.items():
        atom = FreeAtom.from_dict(entry)
        if number_of_symbol.get(symbol) != atom.atomic_number:
            raise BasisError(f"free atom '{symbol}' is listed with Z={atom.atomic_number}")
        atoms[atom.atomic_number] = atom
    return atoms


def free_atom_in(atoms: FreeAtoms, z: int) -> FreeAtom:
    """The free atom of an element.

    Raises:
        BasisError: if there is none.
    """
    try:
        return atoms[z]
    except KeyError:
        known = ", ".join(chemical_symbols[k] for k in sorted(atoms))
        raise BasisError(f"no free-atom density for {chemical_symbols[z]}; there are {known}") from None


def free_atom_mol(structure: Structure, atoms: FreeAtoms) -> tuple[Mole, NDArray[np.float64]]:
    """The free-atom densities as a PySCF auxiliary molecule of s functions.

    Returns:
        The molecule (one s function per Gaussian) and the (n,) coefficients of its
        normalised functions, such that their sum is the density.

    Raises:
        BasisError: for an element without a free atom.
    """
    mol = gto.Mole()
    mol.atom = list(zip(structure.symbols, structure.positions.tolist(), strict=True))
    mol.unit = "Bohr"
    present = sorted({int(z) for z in structure.atomic_numbers})
    symbols = dict(zip(structure.atomic_numbers.tolist(), structure.symbols, strict=True))
    mol.basis = {symbols[z]: [[0, [float(a), 1.0]] for a in free_atom_in(atoms, z).exponents] for z in present}
    mol.charge, mol.spin, mol.verbose = structure.charge, structure.spin, 0
    mol.build(dump_input=False, parse_arg=False)
    # PySCF's normalised s function is (2a/pi)^(3/4) exp(-a r^2), in the order it stored the exponents.
    coefficients = []
    for shell in range(mol.nbas):
        atom = atoms[int(structure.atomic_numbers[mol.bas_atom(shell)])]
        exponent = float(mol.bas_exp(shell)[0])
        term = int(np.argmin(np.abs(atom.exponents - exponent)))
        coefficients.append(atom.coefficients[term] / (2.0 * exponent / np.pi) ** 0.75)
    return mol, np.asarray(coefficients)
