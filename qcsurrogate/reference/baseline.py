"""H0: the Hamiltonian that needs no SCF and that networks correct."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pyscf import dft, gto
from pyscf.dft import numint
from pyscf.gto import Mole

from qcsurrogate.errors import SpecError
from qcsurrogate.reference.atoms import FreeAtoms, free_atom_density_and_gradient
from qcsurrogate.reference.settings import Method
from qcsurrogate.structures import Structure

SEMILOCAL_STAND_IN = "pbe"
"""Functional of H0 where the method's own needs orbitals (exact exchange, kinetic energy
density): free-atom densities have none, and H0 only has to be near and smooth."""

_CHUNK_POINTS = 20_000
_DENSITY_FLOOR = 1e-14


def baseline_hamiltonian(mol: Mole, method: Method, atoms: FreeAtoms) -> NDArray[np.float64]:
    """H0 of a molecule, as the method's ``baseline`` says.

    ``free_atoms``: T + V_nuc + J[rho_atoms] + V_xc[rho_atoms] with the superposed
    free-atom densities; no SCF, no density matrix.  ``minao``: the Fock matrix of
    PySCF's minao guess.  ``none``: zero.

    Args:
        mol: a molecule in the method's orbital basis.
        method: functional, grid level and kind of the baseline.
        atoms: free atoms of all elements (``free_atoms`` only).

    Returns:
        (n_ao, n_ao) in Hartree, PySCF AO order, symmetric.
    """
    if method.baseline == "none":
        return np.zeros((mol.nao, mol.nao))
    if method.baseline == "minao":
        return _minao_fock(mol, method)
    structure = Structure.from_pyscf(mol)
    core = mol.intor_symmetric("int1e_kin") + mol.intor_symmetric("int1e_nuc")
    matrix = core + coulomb_of_free_atoms(mol, atoms) + _exchange_correlation(mol, structure, method, atoms)
    return np.asarray(0.5 * (matrix + matrix.T))


def free_atom_mol(structure: Structure, atoms: FreeAtoms) -> tuple[Mole, NDArray[np.float64]]:
    """The free-atom densities as a PySCF auxiliary molecule of s functions.

    Returns:
        The molecule (one s function per Gaussian) and the (n,) coefficients of its
        normalised functions, such that their sum is the density.
    """
    mol = gto.Mole()
    mol.atom = list(zip(structure.symbols, structure.positions.tolist(), strict=True))
    mol.unit = "Bohr"
    present = sorted({int(z) for z in structure.atomic_numbers})
    symbols = dict(zip(structure.atomic_numbers.tolist(), structure.symbols, strict=True))
    mol.basis = {symbols[z]: [[0, [float(a), 1.0]] for a in atoms[z].exponents] for z in present}
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


def coulomb_of_free_atoms(mol: Mole, atoms: FreeAtoms) -> NDArray[np.float64]:
    """Coulomb matrix (n_ao, n_ao) of the superposed free-atom densities, Hartree; analytic."""
    aux, coefficients = free_atom_mol(Structure.from_pyscf(mol), atoms)
    both = gto.conc_mol(mol, aux)
    matrix = np.zeros((mol.nao, mol.nao))
    first = 0
    for start, stop in _shell_blocks(aux, mol.nao):
        shells = (0, mol.nbas, 0, mol.nbas, mol.nbas + start, mol.nbas + stop)
        integrals = both.intor("int3c2e_sph", aosym="s1", shls_slice=shells)
        n = integrals.shape[-1]
        matrix += integrals @ coefficients[first : first + n]
        first += n
    return matrix


def _shell_blocks(aux: Mole, n_ao: int, max_bytes: int = 200_000_000) -> list[tuple[int, int]]:
    """Ranges of auxiliary (s) shells whose three-index integrals fit into ``max_bytes``."""
    size = max(1, max_bytes // (8 * n_ao * n_ao))
    return [(start, min(start + size, aux.nbas)) for start in range(0, aux.nbas, size)]


def _exchange_correlation(mol: Mole, structure: Structure, method: Method, atoms: FreeAtoms) -> NDArray[np.float64]:
    grids = dft.gen_grid.Grids(mol)
    grids.level = method.baseline_grid_level
    grids.build()
    calculator = numint.NumInt()
    functional = _semilocal(method.xc)
    kind = calculator._xc_type(functional)
    deriv = 1 if kind == "GGA" else 0
    matrix = np.zeros((mol.nao, mol.nao))
    for start in range(0, len(grids.coords), _CHUNK_POINTS):
        part = slice(start, start + _CHUNK_POINTS)
        points, weights = grids.coords[part], grids.weights[part]
        rho = free_atom_density_and_gradient(structure, atoms, points, gradient=bool(deriv))
        rho[0] = np.maximum(rho[0], _DENSITY_FLOOR)
        potential = calculator.eval_xc_eff(functional, rho if deriv else rho[0], deriv=1, xctype=kind)[1]
        orbitals = calculator.eval_ao(mol, points, deriv=deriv)
        weighted = potential * weights
        if deriv:
            weighted[0] *= 0.5
            half = orbitals[0].T @ np.einsum("xnp,xn->np", orbitals, weighted)
            matrix += half + half.T
        else:
            matrix += orbitals.T @ (orbitals * weighted.reshape(-1, 1))
    return matrix


def _semilocal(xc: str) -> str:
    if dft.libxc.is_hybrid_xc(xc) or dft.libxc.is_meta_gga(xc) or dft.libxc.is_nlc(xc):
        return SEMILOCAL_STAND_IN
    if dft.libxc.xc_type(xc) not in ("LDA", "GGA"):
        raise SpecError(f"no free-atom baseline for the functional '{xc}'; choose method.baseline: minao or none")
    return xc


def _minao_fock(mol: Mole, method: Method) -> NDArray[np.float64]:
    # the class itself: PySCF's function of the same name makes a restricted open-shell object of a radical
    scf = dft.rks.RKS(mol, xc=method.xc)
    scf.grids.level = method.baseline_grid_level
    scf.verbose = 0
    fock = np.asarray(scf.get_fock(dm=scf.get_init_guess(key="minao")))
    return np.asarray(0.5 * (fock + fock.T))
