"""Structures as text: xyz, extended xyz, QM9's xyz, and SDF (V2000)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import IO, Final

from ase.data import atomic_numbers as number_of_symbol
from ase.data import chemical_symbols

from qcsurrogate.errors import StructureError, suggestion
from qcsurrogate.metadata import comment_entries, is_ghost, kind_of, molecular_state
from qcsurrogate.sources.readers.geometries import MAXIMUM_ATOMS, GeometryList

MAXIMUM_LINE: Final = 2**20
"""Characters of one line."""

_ELEMENT: Final = {symbol: z for z, symbol in enumerate(chemical_symbols) if z > 0} | {
    str(z): z for z in range(1, len(chemical_symbols))
}
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
    """Where the element and x, y, z stand in a line of an atom, and how numbers are written.

    ``metadata`` are the names and places of further columns that say something about the molecule.
    """

    species: int
    place: int
    number: Callable[[str], float] = float
    metadata: tuple[tuple[str, slice], ...] = ()


_PLAIN_COLUMNS: Final = _Columns(0, 1)
_QM9_COLUMNS: Final = _Columns(0, 1, _qm9_float)


class NumberedLines:
    """The lines of a text, with the number of the one read last."""

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
        """An error that names the file and the line, once there is one."""
        line = f", line {self.number}" if self.number else ""
        return StructureError(f"cannot read '{self.source}'{line}: {what}{expected and '; '}{expected}")


def read_xyz(file: IO[str], found: GeometryList, source: str) -> None:
    """Add every structure of an xyz file, plain, extended, or as QM9 writes it."""
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
            found.add(
                numbers, coordinates, name=f"gdb_{int(qm9[1])}", properties=_qm9_properties(comment, lines, first)
            )
            for _ in range(3):  # frequencies, SMILES, InChI
                lines.next()
            continue
        entries: list[tuple[str, object]] = [*comment_entries(comment)]
        info = {key.lower(): str(value) for key, value in entries}
        columns = _columns(info["properties"], lines) if "properties" in info else _PLAIN_COLUMNS
        numbers, coordinates = _atoms(table, columns, lines, first)
        entries += [(name, [word for row in table for word in row[place]]) for name, place in columns.metadata]
        charge, spin = molecular_state(entries, f"'{source}', line {first - 1}", n_atoms)
        found.add(numbers, coordinates, charge, spin, info.get("name", ""), info.get("group"))


def _qm9_properties(comment: str, lines: NumberedLines, first: int) -> list[float]:
    """The 15 numbers of a comment line: A, B, C (GHz), mu, alpha and so on."""
    try:
        return [_qm9_float(text) for text in comment.split()[2:]]
    except ValueError as error:
        lines.number = first - 1
        raise lines.problem(f"found {comment.strip()[:80]!r}", "expected 'gdb', an index and 15 numbers") from error


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
        if (element is None and is_ghost(symbol)) or row[columns.place : columns.place + 1] == [":"]:
            raise lines.problem(f"'{symbol}' is a dummy or ghost atom", "expected atoms only: remove it")
        if element is None:
            near = suggestion(symbol.capitalize(), number_of_symbol)
            if symbol in {"D", "T"}:
                near = ": write H, isotopes have the same electrons"
            raise lines.problem(f"'{symbol}' is no chemical symbol{near}", _XYZ_EXPECTED)
        try:
            x, y, z = (columns.number(row[columns.place + k]) for k in range(3))
        except (ValueError, IndexError) as error:
            raise lines.problem(f"expected three coordinates, got {' '.join(row)[:80]!r}", _XYZ_EXPECTED) from error
        numbers.append(element)
        coordinates.append((x, y, z))
    return numbers, coordinates


def _columns(properties: str, lines: NumberedLines) -> _Columns:
    """Columns of an extended xyz file."""
    parts = properties.split(":")
    species = place = None
    metadata = []
    column = 0
    for name, kind, width in zip(parts[::3], parts[1::3], parts[2::3], strict=False):
        if name == "pos" and (kind, width) == ("R", "3"):
            place = column
        if (name == "species" and kind == "S") or (name == "Z" and kind == "I" and species is None):
            species = column
        first, column = column, column + (int(width) if width.isdecimal() and len(width) < 5 else 1)
        if kind_of(name):
            metadata.append((name, slice(first, column)))
    if species is None or place is None:
        raise lines.problem(f"Properties={properties[:80]}", "expected species:S:1 and pos:R:3 in it")
    return _Columns(species, place, metadata=tuple(metadata))


_SDF_EXPECTED: Final = "expected molecules in V2000 format, each ended by '$$$$'"
_CHARGE_CODES: Final = {0: 0, 1: 3, 2: 2, 3: 1, 4: 0, 5: -1, 6: -2, 7: -3}
_DOUBLET_CODE: Final = 4
_RADICAL_ELECTRONS: Final = {1: 0, 2: 1, 3: 2}


def read_sdf(file: IO[str], found: GeometryList, source: str) -> None:
    """Add every molecule of an SDF file (V2000); the first line of each is its name.

    Charges and radicals are read from ``M  CHG`` and ``M  RAD`` lines, or from the atom
    block, and have to agree with what the title, the comment and the data items say.
    """
    lines = NumberedLines(file, source)
    while (name := lines.next()) is not None:
        header = [lines.next() for _ in range(3)]
        if header[2] is None:
            if name.strip() or any(line and line.strip() for line in header):
                raise lines.problem("it ends within the header of a molecule", _SDF_EXPECTED)
            return
        program = header[0] or ""
        if "2D" in (program[20:22].upper(), *program.upper().split()[-1:]):
            raise lines.problem(
                f"molecule '{name.strip()}' is marked 2D, a drawing", "expected a geometry in three dimensions"
            )
        where = f"'{source}', line {lines.number - 3}, molecule '{name.strip()}'"
        numbers, coordinates, entries = _sdf_atoms(header[2], lines)
        entries = [("title", name), ("comment", header[1] or ""), *_sdf_properties(lines, entries)]
        charge, spin = molecular_state(entries, where, len(numbers))
        found.add(numbers, coordinates, charge, spin, name.strip())


def _sdf_atoms(counts: str, lines: NumberedLines) -> tuple[list[int], list[float], list[tuple[str, object]]]:
    """Elements, positions, and charge and unpaired electrons where the atom block says any."""
    n_atoms = counts[:3].strip()
    if "V3000" in counts or not n_atoms.isdecimal() or int(n_atoms) < 1:
        raise lines.problem(f"found {counts.strip()[:60]!r} where the counts of atoms and bonds stand", _SDF_EXPECTED)
    numbers: list[int] = []
    coordinates: list[float] = []
    charge = radicals = 0
    for _ in range(int(n_atoms)):
        row = lines.next() or ""
        symbol = row[31:34].strip()
        try:
            numbers.append(_ELEMENT[symbol])
            coordinates += float(row[:10]), float(row[10:20]), float(row[20:30])
            code = int(row[36:39].strip() or 0)
            charge += _CHARGE_CODES[code]
            radicals += code == _DOUBLET_CODE
        except (KeyError, ValueError):
            if is_ghost(symbol):
                raise lines.problem(f"'{symbol}' is a dummy or ghost atom", "expected atoms only: remove it") from None
            raise lines.problem(f"found {row.rstrip()[:80]!r} where an atom stands", _SDF_EXPECTED) from None
    said = [(what, number) for what, number in (("charge", charge), ("unpaired", radicals)) if number]
    return numbers, coordinates, [*said]


def _sdf_properties(lines: NumberedLines, entries: list[tuple[str, object]]) -> list[tuple[str, object]]:
    """What the lines up to ``$$$$`` say; charges and radicals in them replace those of the atom block."""
    sums: dict[str, int] = {}
    items: list[tuple[str, object]] = []
    ended = in_item = False
    while (line := lines.next()) is not None and not line.startswith("$$$$"):
        words = line.split()
        if "V2000" in line or (ended and (words == ["M", "END"] or (words and not in_item and line[0] != ">"))):
            raise lines.problem(f"found {line.strip()[:60]!r} after the end of a molecule", "expected '$$$$' before it")
        if line[0] == ">":
            name = re.search(r"<([^<>]*)>", line)
            items.append((name[1] if name else "", ""))
            ended = in_item = True
        elif in_item:
            in_item = bool(words)
            if kind_of(items[-1][0]):
                items[-1] = (items[-1][0], f"{items[-1][1]}{line}")
        elif words[:2] in (["M", "CHG"], ["M", "RAD"]):
            sums[line[:6]] = sums.get(line[:6], 0) + _property_sum(words, lines)
        ended = ended or words == ["M", "END"]
    return [*(sums.items() if sums else entries), *items]


def _property_sum(words: list[str], lines: NumberedLines) -> int:
    """Sum of the values of ``M  CHG  n  atom value  atom value``; radicals as electrons."""
    try:
        values = [int(word) for word in words[4::2]]
        if len(values) != int(words[2]) or len(words) != 3 + 2 * len(values):
            raise ValueError("a pair of numbers is missing")
        return sum(_RADICAL_ELECTRONS[value] for value in values) if words[1] == "RAD" else sum(values)
    except (ValueError, KeyError, IndexError) as error:
        raise lines.problem(f"found {' '.join(words)[:80]!r}", "expected a number of pairs, and integers") from error
