"""A molecule's geometry, and its ways in from and out to ASE and PySCF; many at once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import ArrayLike, NDArray

from qcsurrogate.errors import StructureError
from qcsurrogate.metadata import molecular_state, whole_number
from qcsurrogate.units import ANGSTROM_PER_BOHR, BOHR_PER_ANGSTROM

if TYPE_CHECKING:
    from ase import Atoms
    from pyscf.gto import Mole

MINIMUM_DISTANCE_BOHR = 0.6
"""Two nuclei nearer than this are a mistake: H2 at half its bond length has 0.7 bohr."""

_KEY_DECIMALS = 8


@dataclass(frozen=True, eq=False)
class Structure:
    """A molecule: nuclei, charge and spin.

    Attributes:
        atomic_numbers: (n_atoms,) nuclear charges.
        positions: (n_atoms, 3) in bohr.
        charge: total charge.
        spin: number of unpaired electrons, n_alpha - n_beta (PySCF's convention).
        name: what messages and tables call it.

    Raises:
        StructureError: on wrong shapes, unknown elements, positions that are not
            finite, atoms on top of each other, or a spin that the number of electrons
            does not allow.
    """

    atomic_numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    charge: int = 0
    spin: int = 0
    name: str = field(default="")

    def __post_init__(self) -> None:
        where = f"structure '{self.name}'" if self.name else "a structure"
        numbers = _numbers(self.atomic_numbers, np.int64, f"{where}: the atomic numbers are no integers")
        positions = _numbers(self.positions, np.float64, f"{where}: the positions are no numbers")
        object.__setattr__(self, "atomic_numbers", numbers)
        object.__setattr__(self, "positions", positions)
        object.__setattr__(self, "charge", whole_number(self.charge, "charge", where))
        object.__setattr__(self, "spin", whole_number(self.spin, "spin", where))
        self._check()

    def _check(self) -> None:
        numbers, positions = self.atomic_numbers, self.positions
        if numbers.ndim != 1 or len(numbers) == 0 or positions.shape != (len(numbers), 3):
            raise StructureError(
                f"{self.label}: expected (n_atoms,) atomic numbers and (n_atoms, 3) positions, "
                f"got {numbers.shape} and {positions.shape}"
            )
        if numbers.min() < 1 or numbers.max() >= len(chemical_symbols):
            bad = numbers[(numbers < 1) | (numbers >= len(chemical_symbols))][0]
            what = "0 is no atomic number but a ghost or dummy atom" if bad == 0 else f"{bad} is not an atomic number"
            raise StructureError(f"{self.label}: {what}; expected 1 to 118")
        if not np.isfinite(positions).all():
            atom = int(np.argmin(np.isfinite(positions).all(axis=1)))
            raise StructureError(
                f"{self.label}: the position of atom {atom} ({self.symbols[atom]}) is "
                f"{positions[atom].tolist()}; expected finite numbers"
            )
        self._check_distances()
        if (self.n_electrons - self.spin) % 2 or not 0 <= self.spin <= self.n_electrons:
            raise StructureError(
                f"{self.label}: {self.n_electrons} electrons (charge {self.charge}) cannot have spin "
                f"{self.spin} (unpaired electrons); give a charge or a spin that fits"
            )

    def _check_distances(self) -> None:
        if len(self) < 2:
            return
        from scipy.spatial import cKDTree

        pairs = cKDTree(self.positions).query_pairs(MINIMUM_DISTANCE_BOHR, output_type="ndarray")
        if len(pairs):
            i, j = (int(k) for k in pairs[0])
            distance = float(np.linalg.norm(self.positions[i] - self.positions[j])) * ANGSTROM_PER_BOHR
            raise StructureError(
                f"{self.label}: atoms {i} ({self.symbols[i]}) and {j} ({self.symbols[j]}) are "
                f"{distance:.4f} Angstrom apart; expected at least "
                f"{MINIMUM_DISTANCE_BOHR * ANGSTROM_PER_BOHR:.2f} (are the units right?)"
            )

    def __len__(self) -> int:
        return len(self.atomic_numbers)

    @property
    def label(self) -> str:
        """What messages call it: its name in quotes, or its formula."""
        return f"structure '{self.name}'" if self.name else f"structure with {len(self.atomic_numbers)} atoms"

    @property
    def symbols(self) -> list[str]:
        """Chemical symbols of the atoms."""
        return [chemical_symbols[z] for z in self.atomic_numbers]

    @property
    def formula(self) -> str:
        """Hill formula, such as ``C2H6O``."""
        from ase.formula import Formula

        return Formula.from_list(self.symbols).format("hill")

    @property
    def n_electrons(self) -> int:
        """Number of electrons."""
        return int(self.atomic_numbers.sum()) - self.charge

    @property
    def key(self) -> str:
        """A hash of what a calculation sees: elements, positions, charge, spin.

        Positions enter rounded to 1e-8 bohr, in the frame and the order they are
        given in, because a Hamiltonian depends on both; the name does not enter.
        """
        rounded = np.round(self.positions, _KEY_DECIMALS) + 0.0  # -0.0 becomes 0.0
        digest = hashlib.sha256(np.array([self.charge, self.spin], dtype="<i8").tobytes())
        digest.update(self.atomic_numbers.astype("<i8").tobytes())
        digest.update(rounded.astype("<f8").tobytes())
        return digest.hexdigest()[:32]

    def moved(self, positions: ArrayLike, name: str | None = None) -> Structure:
        """The same molecule at other positions (n_atoms, 3) in bohr."""
        return replace(self, positions=np.asarray(positions), name=self.name if name is None else name)

    @classmethod
    def from_ase(cls, atoms: Atoms, charge: int = 0, spin: int = 0, name: str = "") -> Structure:
        """From ASE ``Atoms`` (Angstrom).

        Charge and spin are what ``info``, the initial charges and magnetic moments, and the
        calculator say (see :mod:`qcsurrogate.metadata`), else the arguments.

        Raises:
            StructureError: for a periodic structure, ghosts, another unit, values that are no
                whole numbers, or entries that contradict each other.
        """
        name = str(atoms.info.get("name", name))
        results = getattr(atoms.calc, "results", {})
        parameters = getattr(atoms.calc, "parameters", {})
        entries: list[tuple[str, Any]] = [
            *((key, value) for key, value in atoms.info.items() if isinstance(key, str)),
            *atoms.arrays.items(),
            *results.items(),
            *((key, value) for key, value in parameters.items() if type(value) in (int, float)),
            *([("pbc", atoms.pbc)] if atoms.pbc.any() else []),  # ASE's default says nothing
            ("comment", " ".join(str(key) for key, value in atoms.info.items() if value is True)),  # as ASE reads words
        ]
        where = f"structure '{name or atoms.get_chemical_formula()}'"
        stated_charge, stated_spin = molecular_state(entries, where, len(atoms))
        charge = charge if stated_charge is None else stated_charge
        spin = spin if stated_spin is None else stated_spin
        return cls(atoms.numbers, atoms.positions * BOHR_PER_ANGSTROM, charge, spin, name)

    def to_ase(self) -> Atoms:
        """As ASE ``Atoms`` (Angstrom)."""
        from ase import Atoms

        info = {"name": self.name, "charge": self.charge, "spin": self.spin}
        return Atoms(self.atomic_numbers, self.positions * ANGSTROM_PER_BOHR, info=info)

    @classmethod
    def from_pyscf(cls, mol: Mole, name: str = "") -> Structure:
        """From a built PySCF ``Mole``; its basis is not part of a structure.

        Raises:
            StructureError: for a periodic ``Cell``, ghosts, core potentials, nuclei of another
                charge, or a ``magmom`` that contradicts ``spin``.
        """
        from ase.data import atomic_numbers

        if hasattr(mol, "lattice_vectors"):
            raise StructureError("a PySCF Cell is periodic; expected a molecule: a gto.Mole of the same atoms")
        symbols = [mol.atom_pure_symbol(i) for i in range(mol.natm)]
        unknown = [s for s in symbols if s not in atomic_numbers]
        if unknown:
            raise StructureError(f"a PySCF Mole holds '{unknown[0]}'; expected real atoms, no ghosts")
        numbers = np.asarray([atomic_numbers[s] for s in symbols])
        other = np.flatnonzero(np.asarray(mol.atom_charges()) != numbers)
        if len(other) or mol.has_ecp():
            atom = f" on {symbols[other[0]]}{other[0]}" if len(other) else ""
            raise StructureError(
                f"a PySCF Mole has an effective core potential or another nuclear charge{atom}; expected all "
                "electrons: build it with an all-electron basis and without ecp"
            )
        moments = np.ravel(getattr(mol, "magmom", [])).tolist()
        said = [("charge", mol.charge), ("spin", mol.spin), *([("magmom", moments)] if moments else [])]
        charge, spin = molecular_state(said, "a PySCF Mole", len(numbers))
        return cls(numbers, mol.atom_coords(), charge or 0, spin or 0, name)


def symbols_of(atomic_numbers: Iterable[int]) -> list[str]:
    """Symbols of elements, each once, by atomic number."""
    return [chemical_symbols[z] for z in sorted(set(atomic_numbers))]


def _numbers(values: ArrayLike, kind: type[np.int64 | np.float64], problem: str) -> NDArray[Any]:
    """A read-only copy, if nothing is lost."""
    try:
        given = np.asarray(values)
    except ValueError as error:  # rows of different lengths
        raise StructureError(f"{problem}: {str(values)[:60]}") from error
    fractions = (
        kind is np.int64 and given.dtype.kind == "f" and not (np.isfinite(given) & (given == np.floor(given))).all()
    )
    if given.dtype.kind not in "iuf" or fractions:
        raise StructureError(f"{problem}: {str(values)[:60]}")
    numbers = given.astype(kind)
    numbers.setflags(write=False)
    return numbers


@dataclass(frozen=True, eq=False)
class FlatStructures:
    """Many structures in flat arrays, not yet checked; a million of them take the memory of their numbers.

    Attributes:
        n_atoms: (n,) atoms of every structure.
        atomic_numbers: (n_all,) nuclear charges, structure after structure.
        positions: (n_all, 3) in bohr.
        charge, spin, names: (n,).
    """

    n_atoms: NDArray[np.int64]
    atomic_numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    charge: NDArray[np.int64]
    spin: NDArray[np.int64]
    names: NDArray[Any]

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """(n + 1,) first atom of every structure, and the total."""
        return np.concatenate([[0], np.cumsum(self.n_atoms)]).astype(np.int64)

    def __len__(self) -> int:
        return len(self.n_atoms)

    def take(self, indices: Sequence[int] | NDArray[np.int64]) -> Self:
        """Some of them, in this order."""
        chosen = np.asarray(indices, dtype=np.int64)
        atoms = self.atoms_of(chosen)
        return replace(
            self,
            n_atoms=self.n_atoms[chosen],
            atomic_numbers=self.atomic_numbers[atoms],
            positions=self.positions[atoms],
            charge=self.charge[chosen],
            spin=self.spin[chosen],
            names=self.names[chosen],
        )

    def atoms_of(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows of the flat arrays that hold the atoms of these structures, in this order."""
        counts = self.n_atoms[indices]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return np.asarray(np.repeat(self.offsets[indices], counts) + within)

    def checked(self) -> list[Structure | StructureError]:
        """For each structure itself, or the error that its geometry deserves.

        The checks of :class:`Structure` are made together: a hundred thousand small
        molecules take about a second; one after the other, ten. The arrays of the
        structures are read-only views of one copy.
        """
        numbers = np.array(self.atomic_numbers, dtype=np.int64)
        positions = np.array(self.positions, dtype=np.float64)
        numbers.setflags(write=False)
        positions.setflags(write=False)
        suspects = _suspects(self.n_atoms, numbers, positions, self.charge, self.spin)
        made: list[Structure | StructureError] = []
        for start, stop, charge, spin, name, suspect in zip(
            self.offsets[:-1].tolist(),
            self.offsets[1:].tolist(),
            self.charge.tolist(),
            self.spin.tolist(),
            self.names.tolist(),
            suspects.tolist(),
            strict=True,
        ):
            if suspect:
                try:
                    made.append(Structure(numbers[start:stop], positions[start:stop], charge, spin, name))
                except StructureError as error:
                    made.append(error)
                continue
            structure = object.__new__(Structure)
            structure.__dict__.update(
                atomic_numbers=numbers[start:stop], positions=positions[start:stop], charge=charge, spin=spin, name=name
            )
            made.append(structure)
        return made


def joined_arrays(parts: Sequence[FlatStructures]) -> dict[str, NDArray[Any]]:
    """The arrays of several, one after the other."""
    return {f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(FlatStructures)}


def equal_sizes(counts: NDArray[np.int64], elements: int = 2**19) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Batches of structures with the same number of atoms, for work on (batch, n, n) arrays.

    Args:
        counts: (n_structures,) numbers of atoms.
        elements: batch * n * n is at most this, where one structure alone does not exceed it.

    Yields:
        The number of atoms, and the indices of up to so many structures.
    """
    order = np.argsort(counts, kind="stable")
    sizes, starts, widths = np.unique(counts[order], return_index=True, return_counts=True)
    for size, first, width in zip(sizes.tolist(), starts.tolist(), widths.tolist(), strict=True):
        indices = order[first : first + width]
        step = max(1, elements // max(1, size * size))
        for start in range(0, len(indices), step):
            yield size, indices[start : start + step]


_LARGEST_TOGETHER = 1000
"""Structures of more atoms are checked one by one, with a search tree."""


def _suspects(
    counts: NDArray[np.int64],
    numbers: NDArray[np.int64],
    positions: NDArray[np.float64],
    charges: NDArray[np.int64],
    spins: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """Which structures may be bad: all that are, and perhaps a few that are not."""
    suspect = (counts < 1) | (counts > _LARGEST_TOGETHER)
    starts = np.cumsum(counts) - counts
    filled = np.flatnonzero(counts > 0)
    if len(filled) == 0:
        return suspect
    atom_fits = (numbers >= 1) & (numbers < len(chemical_symbols)) & np.isfinite(positions).all(axis=1)
    electrons = np.add.reduceat(numbers, starts[filled]) - charges[filled]
    suspect[filled] |= ~np.logical_and.reduceat(atom_fits, starts[filled])
    suspect[filled] |= ((electrons - spins[filled]) % 2 != 0) | (spins[filled] < 0) | (spins[filled] > electrons)
    for size, indices in equal_sizes(counts):
        chosen = indices[~suspect[indices]]
        if size < 2 or len(chosen) == 0:
            continue
        coordinates = positions[starts[chosen][:, None] + np.arange(size)]
        i, j = np.triu_indices(size, 1)
        squared = ((coordinates[:, i] - coordinates[:, j]) ** 2).sum(axis=2)
        suspect[chosen] = squared.min(axis=1) <= (MINIMUM_DISTANCE_BOHR * (1 + 1e-9)) ** 2
    return suspect
