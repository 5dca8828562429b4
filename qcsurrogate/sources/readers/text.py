"""Structures as text: xyz, extended xyz, QM9's xyz, and SDF (V2000)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import IO, Final

from ase.data import atomic_numbers as number_of_symbol
from ase.data import chemical_symbols

from qcsurrogate.errors import StructureError, suggestion
from qcsurrogate.metadata import molecular_state
from qcsurrogate.sources.readers.geometries import MAXIMUM_ATOMS, GeometryList

MAXIMUM_LINE: Final = 2**20
"""Characters of one line."""

_ELEMENT: Final = {symbol: z for z, symbol in enumerate(chemical_symbols) if z > 0} | {
    str(z): z for z in range(1, len(chemical_symbols))
}
_PAIR: Final = re.compile(
    r"""(?<![\w-])([A-Za-z_][\w-]*)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)'|\{([^{}]*)\}|(\S+))"""
)
_STATE: Final = re.compile(r"([+-]?\d{1,3})\s+(\d{1,3})")
"""Charge and multiplicity, as input files of quantum-chemistry programs begin."""
_NO_ATOMS: Final = frozenset({"X", "Xx", "Q", "Bq", "Gh", "Du", "Lp"})
_QM9_COMMENT: Final = re.compile(r"gdb\s+(\d+)(?:\s+[-+.\d*^eE]+){15}\s*")
_XYZ_EXPECTED: Final = (
    "expected, per structure: a line with the number of atoms, a comment line, then one line 'symbol x y z' in "
    "Angstrom for each atom"
)


def _qm9_float(text: str) -> float:
    """A number such as ``1.5*^-6``."""
    return float(text.replace("*^", "e"))


@dataclass(frozen=True)
class _Columns:
    """Where the element and x, y, z stand in a line of an atom, and how numbers are written."""

    species: int
    place: int
    number: Callable[[str], float] = float


_PLAIN_COLUMNS: Final = _Columns(0, 1)
_QM9_COLUMNS: Final = _Columns(0, 1, _qm9_float)


class NumberedLines:
    """The lines of a text, with the number of the one read last.

    Raises:
        StructureError: on a line that is too long, or bytes that are no text.
    """

    def __init__(self, file: IO[str], source: str) -> None:
        self.number = 0
        self.source = source
        self._file = file

    def next(self) -> str | None:
        """The next line, or None at the end."""
        try:
            line = self._file.readline(MAXIMUM_LINE + 1)
        except UnicodeDecodeError as error:
            raise self.problem("it is not text (UTF-8)") from error
        if len(line) > MAXIMUM_LINE:
            raise self.problem(f"a line has more than {MAXIMUM_LINE} characters")
        self.number += 1
        return (line.removeprefix("\ufeff") if self.number == 1 else line) or None

    def problem(self, what: str, expected: str = "") -> StructureError:
        """An error that names the file and the line."""
        return StructureError(f"cannot read '{self.source}', line {self.number}: {what}{expected and '; '}{expected}")


def read_xyz(file: IO[str], found: GeometryList, source: str) -> None:
    """Add every structure of an xyz file, plain, extended, or as QM9 writes it.

    Raises:
        StructureError: if it is malformed or periodic.
    """
    lines = NumberedLines(file, source)
    while (line := lines.next()) is not None:
        if not line.strip():
            continue
        n_atoms = _atom_count(line, lines)
        comment = lines.next()
        if comment is None:
            raise lines.problem("it ends after the number of atoms", _XYZ_EXPECTED)
        rows = [lines.next() for _ in range(n_atoms)]
        if rows[-1] is None:
            raise lines.problem(f"it ends within a structure of {n_atoms} atoms", _XYZ_EXPECTED)
        table = [row.split() for row in rows if row is not None]
        first = lines.number - n_atoms + 1
        qm9 = _QM9_COMMENT.fullmatch(comment.strip())
        if qm9:
            numbers, coordinates = _atoms(table, _QM9_COLUMNS, lines, first)
            found.add(numbers, coordinates, name=f"gdb_{int(qm9[1])}")
            for _ in range(3):  # frequencies, SMILES, InChI
                lines.next()
            continue
        info = _information(comment) if "=" in comment else {}
        _refuse_periodic(info, lines)
        columns = _columns(info["Properties"], lines) if "Properties" in info else _PLAIN_COLUMNS
        numbers, coordinates = _atoms(table, columns, lines, first)
        if stated := _STATE.fullmatch(comment.strip()):
            info = {"charge": stated[1], "multiplicity": stated[2]}
        charge, spin = molecular_state(info, f"'{source}', structure before line {lines.number + 1}")
        found.add(numbers, coordinates, charge, spin, info.get("name", ""), info.get("group"))


def _atom_count(line: str, lines: NumberedLines) -> int:
    text = line.strip()
    if not text.isdecimal() or not 1 <= int(text[:12]) <= MAXIMUM_ATOMS:
        raise lines.problem(f"found {text[:60]!r} where a number of atoms stands", _XYZ_EXPECTED)
    return int(text)


def _atoms(
    table: list[list[str]], columns: _Columns, lines: NumberedLines, first: int
) -> tuple[list[int], Iterator[float]]:
    place, number = columns.place, columns.number
    try:
        numbers = [_ELEMENT[row[columns.species]] for row in table]
        coordinates = [(number(row[place]), number(row[place + 1]), number(row[place + 2])) for row in table]
    except (KeyError, ValueError, IndexError):
        numbers, coordinates = _atoms_one_by_one(table, columns, lines, first)
    return numbers, chain.from_iterable(coordinates)


def _atoms_one_by_one(
    table: list[list[str]], columns: _Columns, lines: NumberedLines, first: int
) -> tuple[list[int], list[tuple[float, float, float]]]:
    """The same, slower: forgiving about upper and lower case, and precise about mistakes."""
    numbers, coordinates = [], []
    for i, row in enumerate(table):
        lines.number = first + i
        symbol = row[columns.species] if len(row) > columns.species else ""
        element = _ELEMENT.get(symbol.capitalize())
        if symbol.capitalize() in _NO_ATOMS:
            raise lines.problem(f"'{symbol}' is a dummy or ghost atom", "expected atoms only: remove it")
        if element is None:
            near = suggestion(symbol.capitalize(), number_of_symbol)
            raise lines.problem(f"'{symbol}' is no chemical symbol{near}", _XYZ_EXPECTED)
        try:
            x, y, z = (columns.number(row[columns.place + k]) for k in range(3))
        except (ValueError, IndexError) as error:
            raise lines.problem(f"expected three coordinates, got {' '.join(row)[:80]!r}", _XYZ_EXPECTED) from error
        numbers.append(element)
        coordinates.append((x, y, z))
    return numbers, coordinates


def _information(comment: str) -> dict[str, str]:
    """The ``key=value`` pairs of a comment line."""
    found = {}
    for key, double, single, braces, bare in _PAIR.findall(comment):
        found[key] = bare or re.sub(r"\\(.)", r"\1", double or single) or braces
    return found


def _refuse_periodic(info: Mapping[str, str], lines: NumberedLines) -> None:
    pbc = info.get("pbc", "T T T" if "Lattice" in info else "F F F")
    if set(pbc.upper()) & {"T", "1"}:
        raise lines.problem(f'the structure is periodic (pbc="{pbc}")', 'expected a molecule: set pbc="F F F"')


def _columns(properties: str, lines: NumberedLines) -> _Columns:
    """Columns of the element and of x in an extended xyz file."""
    parts = properties.split(":")
    species = place = None
    column = 0
    for name, kind, width in zip(parts[::3], parts[1::3], parts[2::3], strict=False):
        if name == "pos" and (kind, width) == ("R", "3"):
            place = column
        if (name == "species" and kind == "S") or (name == "Z" and kind == "I" and species is None):
            species = column
        column += int(width) if width.isdecimal() and len(width) < 5 else 1
    if species is None or place is None:
        raise lines.problem(f"Properties={properties[:80]}", "expected species:S:1 and pos:R:3 in it")
    return _Columns(species, place)


_SDF_EXPECTED: Final = "expected molecules in V2000 format, each ended by '$$$$'"
_ATOM_BLOCK_CHARGES: Final = {1: 3, 2: 2, 3: 1, 5: -1, 6: -2, 7: -3}
_RADICAL_ELECTRONS: Final = {1: 0, 2: 1, 3: 2}


def read_sdf(file: IO[str], found: GeometryList, source: str) -> None:
    """Add every molecule of an SDF file (V2000); the first line of each is its name.

    Charges and radicals are read from ``M  CHG`` and ``M  RAD`` lines, or charges from
    the atom block; bonds and data are passed over.

    Raises:
        StructureError: if it is malformed, or V3000.
    """
    lines = NumberedLines(file, source)
    while (name := lines.next()) is not None:
        header = [lines.next() for _ in range(3)]
        if header[2] is None:
            if name.strip() or any(line and line.strip() for line in header):
                raise lines.problem("it ends within the header of a molecule", _SDF_EXPECTED)
            return
        if header[0] is not None and header[0][20:22].upper() == "2D":
            raise lines.problem(
                f"molecule '{name.strip()}' is marked 2D, a drawing", "expected a geometry in three dimensions"
            )
        _read_molecule(name.strip(), header[2], lines, found)


def _read_molecule(name: str, counts: str, lines: NumberedLines, found: GeometryList) -> None:
    text = counts[:3].strip()
    if "V3000" in counts or not text.isdecimal() or int(text) < 1:
        raise lines.problem(f"found {counts.strip()[:60]!r} where the counts of atoms and bonds stand", _SDF_EXPECTED)
    numbers: list[int] = []
    coordinates: list[float] = []
    charge = 0
    for _ in range(int(text)):
        row = lines.next() or ""
        element = _ELEMENT.get(row[31:34].strip())
        try:
            position = [float(row[start : start + 10]) for start in (0, 10, 20)]
            charge += _ATOM_BLOCK_CHARGES.get(int(row[36:39] or 0), 0)
        except ValueError:
            element = None
        if element is None:
            raise lines.problem(f"found {row.rstrip()[:80]!r} where an atom stands", _SDF_EXPECTED)
        numbers.append(element)
        coordinates.extend(position)
    stated: dict[str, int] = {}
    while (line := lines.next()) is not None and not line.startswith("$$$$"):
        if line.startswith(("M  CHG", "M  RAD")):
            stated[line[3:6]] = stated.get(line[3:6], 0) + _property_sum(line, lines)
    if stated:  # these lines replace all of the atom block's
        charge = stated.get("CHG", 0)
    found.add(numbers, coordinates, charge, stated.get("RAD", 0), name)


def _property_sum(row: str, lines: NumberedLines) -> int:
    """Sum of the values of ``M  CHG  n  atom value  atom value``; radicals as electrons."""
    try:
        values = [int(word) for word in row.split()[4::2]]
        return sum(_RADICAL_ELECTRONS[value] for value in values) if row.startswith("M  RAD") else sum(values)
    except (ValueError, KeyError) as error:
        raise lines.problem(f"found {row.strip()[:80]!r}", "expected integers") from error
