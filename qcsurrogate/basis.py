"""Basis sets as data: which shells an element has, and where they lie.

Everything here is derived from a basis that PySCF knows by name, or from explicit
primitives; nothing about an element or a basis is typed in.  PySCF itself is imported
only inside the functions that ask it, so that networks can be built from a
:class:`BasisSet` alone.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import atomic_numbers as number_of_symbol
from ase.data import chemical_symbols
from numpy.typing import NDArray

from qcsurrogate.conventions import internal_order
from qcsurrogate.errors import BasisError
from qcsurrogate.pyscf_settings import require_as_shipped

if TYPE_CHECKING:
    from pyscf.gto import Mole

    from qcsurrogate.structures import Structure

MAXIMUM_L = 12
"""More than any auxiliary basis has; a bound for bases that come from files."""

MAXIMUM_FUNCTIONS = 2000
"""Of one element; the same kind of bound."""

_MEMORY_MB = 4000
"""Of a molecule for PySCF where nobody says more: never ``PYSCF_MAX_MEMORY``, which would choose the algorithm."""

_SMALLEST_CORE_SHARE = 0.9
_SECOND_ROW = (5, 6, 7, 8, 9)
"""Boron to fluorine: what tells of a family whether its cores are left out."""

_NAME = re.compile(r"[A-Za-z0-9 +*(),_@-]{1,80}")

PrimitiveTable = tuple[tuple[float, ...], ...]
"""Rows (exponent, coefficient of contraction 1, of contraction 2, ...)."""


@dataclass(frozen=True)
class ShellGroup:
    """Shells of one l that share primitives: one entry of PySCF's internal format."""

    l: int
    primitives: PrimitiveTable

    @property
    def n_contractions(self) -> int:
        return len(self.primitives[0]) - 1

    def to_pyscf(self) -> list[Any]:
        return [self.l, *(list(row) for row in self.primitives)]


@dataclass(frozen=True)
class ElementBasis:
    """The shells of one element, in PySCF's order."""

    atomic_number: int
    groups: tuple[ShellGroup, ...]

    @cached_property
    def angular_momenta(self) -> tuple[int, ...]:
        """l of every shell; a group with k contractions counts k times."""
        return tuple(g.l for g in self.groups for _ in range(g.n_contractions))

    @cached_property
    def n_functions(self) -> int:
        return sum(2 * l + 1 for l in self.angular_momenta)

    @cached_property
    def shell_slices(self) -> tuple[slice, ...]:
        """Where each shell's functions lie, the same in both orders."""
        stops = np.cumsum([2 * l + 1 for l in self.angular_momenta])
        return tuple(
            slice(int(stop) - 2 * l - 1, int(stop)) for l, stop in zip(self.angular_momenta, stops, strict=True)
        )

    @cached_property
    def internal_order(self) -> NDArray[np.int64]:
        """``internal = pyscf[order]`` for this element's functions."""
        return internal_order(self.angular_momenta)


@dataclass(frozen=True)
class BasisSet:
    """A spherical Gaussian basis for a set of elements.

    Attributes:
        name: what messages call it (a PySCF name, or ``even-tempered beta=1.8 for ...``).
        elements: shells by atomic number.
    """

    name: str
    elements: Mapping[int, ElementBasis]

    def __getitem__(self, atomic_number: int) -> ElementBasis:
        try:
            return self.elements[int(atomic_number)]
        except KeyError:
            raise BasisError(
                f"basis '{self.name}' was set up for {', '.join(self.symbols)}, not for "
                f"{chemical_symbols[int(atomic_number)]}"
            ) from None

    @property
    def symbols(self) -> list[str]:
        """Symbols of the elements it covers, by atomic number."""
        return [chemical_symbols[z] for z in sorted(self.elements)]

    @property
    def l_max(self) -> int:
        """Highest angular momentum of any element."""
        return max(l for e in self.elements.values() for l in e.angular_momenta)

    def n_functions(self, atomic_numbers: Iterable[int]) -> int:
        """Number of functions of a molecule."""
        return sum(self[z].n_functions for z in atomic_numbers)

    def offsets(self, atomic_numbers: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        """(n_atoms + 1,) first function of every atom, and the total."""
        return np.concatenate([[0], np.cumsum([self[z].n_functions for z in atomic_numbers])]).astype(np.int64)

    def internal_order(self, atomic_numbers: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        """``internal = pyscf[order]`` for a whole molecule."""
        starts = self.offsets(atomic_numbers)
        parts = [start + self[z].internal_order for start, z in zip(starts, atomic_numbers, strict=False)]
        return np.concatenate(parts)

    def restricted_to(self, atomic_numbers: Iterable[int]) -> BasisSet:
        """The same basis for some of its elements."""
        return BasisSet(self.name, {z: self[z] for z in sorted({int(z) for z in atomic_numbers})})

    def build_mol(self, structure: Structure) -> Mole:
        """PySCF ``Mole`` (bohr, spherical) of a structure in this basis.

        Raises:
            SpecError: if PySCF was configured to compute something else than it does as shipped.
        """
        from pyscf import gto

        require_as_shipped()
        mol = gto.Mole()
        mol.atom = list(zip(structure.symbols, structure.positions.tolist(), strict=True))
        mol.unit = "Bohr"
        mol.basis = {
            chemical_symbols[z]: [g.to_pyscf() for g in self[z].groups]
            for z in sorted({int(z) for z in structure.atomic_numbers})
        }
        mol.charge, mol.spin = structure.charge, structure.spin
        mol.verbose, mol.max_memory = 0, _MEMORY_MB
        mol.build(dump_input=False, parse_arg=False)
        return mol

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "name": self.name,
            "elements": {chemical_symbols[z]: [g.to_pyscf() for g in e.groups] for z, e in self.elements.items()},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> BasisSet:
        """From :meth:`to_dict`; numbers are checked, nothing is evaluated."""
        try:
            elements = {
                number_of_symbol[s]: _element(number_of_symbol[s], groups, str(data["name"]))
                for s, groups in data["elements"].items()
            }
            return cls(str(data["name"]), elements)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise BasisError(
                f"a basis is written as {{name, elements: {{symbol: [[l, [exponent, coefficient...]...]...]}}}}; "
                f"got something else ({type(error).__name__}: {error})"
            ) from error


def _element(atomic_number: int, groups: Sequence[Sequence[Any]], name: str) -> ElementBasis:
    shells = []
    for group in groups:
        l, *rows = group
        if isinstance(l, bool) or not isinstance(l, int) or not 0 <= l <= MAXIMUM_L:
            raise BasisError(f"basis '{name}': expected an angular momentum of 0 to {MAXIMUM_L}, got {l!r}")
        if rows and isinstance(rows[0], (int, float)):
            raise BasisError(f"basis '{name}' has spinor (kappa) shells; expected a non-relativistic basis")
        table = tuple(tuple(float(v) for v in row) for row in rows)
        if not table or any(len(row) != len(table[0]) or len(row) < 2 for row in table):
            raise BasisError(f"basis '{name}': expected rows (exponent, coefficient, ...), got {rows}")
        if not np.isfinite(table).all() or min(row[0] for row in table) <= 0:
            raise BasisError(f"basis '{name}': expected positive exponents and finite coefficients, got {rows}")
        shells.append(ShellGroup(l, table))
    n_functions = sum((2 * shell.l + 1) * shell.n_contractions for shell in shells)
    if not 0 < n_functions <= MAXIMUM_FUNCTIONS:
        raise BasisError(
            f"basis '{name}' has {n_functions} functions for {chemical_symbols[atomic_number]}; "
            f"expected 1 to {MAXIMUM_FUNCTIONS}"
        )
    shells.sort(key=lambda g: g.l)  # PySCF's own order (stable sort by l when a Mole is built)
    return ElementBasis(int(atomic_number), tuple(shells))


def orbital_basis(name: str, atomic_numbers: Iterable[int]) -> BasisSet:
    """An all-electron orbital basis, spherical, by PySCF's name for the given elements.

    Raises:
        BasisError: if PySCF does not know the name, if an element has no entry, or if its functions leave the core to
            a potential.
    """
    basis = auxiliary_basis(name, atomic_numbers)
    for z in basis.elements:
        _require_core(name, z)
    return basis


def auxiliary_basis(name: str, atomic_numbers: Iterable[int]) -> BasisSet:
    """A basis for densities by PySCF's name; as :func:`orbital_basis`, but nobody asks how it describes orbitals.

    Raises:
        BasisError: if PySCF does not know the name, or if an element has no entry.
    """
    _check_name(name)
    return BasisSet(name, {z: _named_element(name, z) for z in sorted({int(z) for z in atomic_numbers})})


@lru_cache(maxsize=1024)
def _named_element(name: str, z: int) -> ElementBasis:
    from pyscf import gto
    from pyscf.lib.exceptions import BasisNotFoundError

    symbol = chemical_symbols[z]
    try:
        with _without_advertisement():
            groups = gto.basis.load(name, symbol)
    except (BasisNotFoundError, KeyError, TypeError, ValueError) as error:  # ValueError: an entry without functions
        raise BasisError(
            f"PySCF has no basis '{name}' for element {symbol} (Z={z}); choose another basis or leave the "
            f"structures with {symbol} out"
        ) from error
    if not groups:
        raise BasisError(f"basis '{name}' has no function for element {symbol} (Z={z})")
    return _element(z, groups, name)


@contextmanager
def _without_advertisement() -> Iterator[None]:
    """PySCF warns that another package knows more bases; our error says what is missing."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* may be available in basis-set-exchange")
        yield


def _check_name(name: str) -> None:
    """PySCF takes file names and whole basis texts too, and evaluates what it finds in them."""
    if not _NAME.fullmatch(name) or Path(name).exists() or Path(name.partition("@")[0]).exists():
        raise BasisError(
            f"'{name[:80]}' is not taken for the name of a basis; expected one that PySCF knows, such as 'def2-svp' "
            "(letters, digits and ' +*(),_@-'), and no file of that name in the current folder"
        )


@lru_cache(maxsize=1024)
def _require_core(name: str, z: int) -> None:
    """Refuse functions that were made for a pseudopotential, whether or not PySCF knows of one.

    Basis sets of a family belong together: hydrogen has no core, but if the carbon of its
    family has none either, they were made for pseudopotentials.
    """
    from pyscf import gto
    from pyscf.lib.exceptions import BasisNotFoundError

    what = f"basis '{name}' for {chemical_symbols[z]} (Z={z})"
    advice = (
        "effective core potentials are not supported yet; expected an all-electron basis, such as def2-svp up to "
        "krypton, or structures without this element"
    )
    try:
        with _without_advertisement():
            listed = bool(gto.basis.load_ecp(name, chemical_symbols[z]))
    except (BasisNotFoundError, KeyError, RuntimeError, TypeError):
        listed = False  # PySCF cannot say; the functions themselves can
    if listed:
        raise BasisError(f"{what} goes with an effective core potential; {advice}")
    for of_family in (z, *_SECOND_ROW):
        try:
            share = core_share(_named_element(name, of_family))
        except BasisError:  # the family has no such element
            continue
        if not share >= _SMALLEST_CORE_SHARE:
            where = "" if of_family == z else f" for {chemical_symbols[of_family]}, of the same family,"
            raise BasisError(
                f"{what} was made for a pseudopotential (or a relativistic Hamiltonian, or densities): its "
                f"functions{where} bind one electron to the bare nucleus with {share:.3f} of the exact energy, "
                f"expected at least {_SMALLEST_CORE_SHARE:g}; {advice}"
            )


def core_share(element: ElementBasis) -> float:
    """How much of the core a basis describes: 1 for all of it, near 0 for valence functions alone.

    The lowest energy of one electron in the field of the bare nucleus, T - Z / r, over the exact one, -Z^2 / 2.
    Over all orbital bases that PySCF 2.14 knows, lithium to krypton: all-electron ones at least 0.98, those that leave
    out a core at most 0.83; beyond, def2 sets with their potentials reach 0.89, and relativistic contractions fall off.
    """
    from pyscf import gto

    symbol = chemical_symbols[element.atomic_number]
    groups = [group.to_pyscf() for group in element.groups if group.l == 0]
    if not groups:
        return 0.0
    mol = gto.Mole(atom=[(symbol, (0.0, 0.0, 0.0))], basis={symbol: groups}, spin=element.atomic_number % 2, verbose=0)
    mol.build(dump_input=False, parse_arg=False)
    values, vectors = np.linalg.eigh(mol.intor_symmetric("int1e_ovlp"))
    kept = values > 1e-10 * values[-1]
    half = vectors[:, kept] / np.sqrt(values[kept])
    core = mol.intor_symmetric("int1e_kin") + mol.intor_symmetric("int1e_nuc")
    return float(np.linalg.eigvalsh(half.T @ core @ half)[0] / (-0.5 * element.atomic_number**2))


def even_tempered_basis(orbital: BasisSet, beta: float, *, diffuse: int = 0, higher_l: int = 0) -> BasisSet:
    """Even-tempered auxiliary basis that spans the products of ``orbital``.

    Exponents of each l form a geometric series of ratio ``beta`` between the smallest
    and largest exponent that products of orbital primitives have
    (``pyscf.df.aug_etb``; Stoychev, Auer and Neese, J. Chem. Theory Comput. 2017, 13,
    554, describe the construction).  It depends on the element alone.

    These are products of orbitals on one atom.  Those of orbitals on two atoms lie
    between them, and seen from either they are more diffuse and of higher l: where the
    density itself is wanted, both have to be added.

    Args:
        orbital: the orbital basis.
        beta: ratio of neighbouring exponents.
        diffuse: by how many smaller exponents the series of each l is continued.
        higher_l: how many l are added, each with the exponents of the highest that products have.

    Raises:
        BasisError: if ``beta`` is not in 1.2..4 (nearer to 1 the fit is singular), or less than nothing is added.
    """
    from pyscf import df, gto

    if not 1.2 <= beta <= 4.0:
        raise BasisError(f"even-tempered beta = {beta}; expected 1.2 to 4 (smaller is finer; 1.8 is a good start)")
    if diffuse < 0 or higher_l < 0:
        raise BasisError(f"diffuse = {diffuse} and higher_l = {higher_l} of an even-tempered basis; expected 0 or more")
    elements = {}
    for z, element in orbital.elements.items():
        symbol = chemical_symbols[z]
        mol = gto.M(
            atom=[(symbol, (0.0, 0.0, 0.0))],
            basis={symbol: [g.to_pyscf() for g in element.groups]},
            spin=z % 2,
            verbose=0,
        )
        series: dict[int, list[float]] = {}
        for l, *rows in df.aug_etb(mol, beta)[symbol]:
            series.setdefault(l, []).extend(row[0] for row in rows)
        for exponents in series.values():
            exponents += [min(exponents) / beta**k for k in range(1, diffuse + 1)]
        highest = max(series)
        series |= dict.fromkeys(range(highest + 1, highest + higher_l + 1), series[highest])
        groups = [[l, [exponent, 1.0]] for l, exponents in series.items() for exponent in exponents]
        elements[z] = _element(z, groups, "even-tempered")
    added = f"{f', diffuse={diffuse}' * (diffuse > 0)}{f', higher_l={higher_l}' * (higher_l > 0)}"
    return BasisSet(f"even-tempered(beta={beta:g}{added}) for {orbital.name}", elements)


def basis_of_mol(mol: Mole) -> BasisSet:
    """The basis a PySCF ``Mole`` was built with.

    Raises:
        BasisError: for Cartesian functions, core potentials, or atoms of one element
            with different bases.
    """
    if mol.cart:
        raise BasisError("the PySCF Mole uses Cartesian functions (cart=True); expected spherical ones")
    if mol.has_ecp() or getattr(mol, "_pseudo", None):
        raise BasisError("the PySCF Mole uses an effective core potential, which is not supported")
    elements: dict[int, ElementBasis] = {}
    for atom in range(mol.natm):
        z = number_of_symbol[mol.atom_pure_symbol(atom)]
        element = _element(z, mol._basis[mol.atom_symbol(atom)], "of the Mole")
        if elements.setdefault(z, element) != element:
            raise BasisError(f"atoms of {chemical_symbols[z]} carry different bases; expected one per element")
    name = mol.basis if isinstance(mol.basis, str) else "of the Mole"
    return BasisSet(name, elements)


def same_functions(first: BasisSet, second: BasisSet) -> bool:
    """Whether two bases hold the same functions for the elements of ``first``."""
    return all(z in second.elements and second[z].groups == first[z].groups for z in first.elements)
