"""ASE databases (SQLite), read without ASE: only the columns of a molecule."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any, Final

import numpy as np

from qcsurrogate.errors import StructureError
from qcsurrogate.metadata import molecular_state
from qcsurrogate.sources.readers.geometries import MAXIMUM_ATOMS, Geometries, GeometryList

_COLUMNS: Final = "id, numbers, positions, pbc, initial_magmoms, initial_charges, key_value_pairs"
_MAXIMUM_VALUE_BYTES: Final = 32 * MAXIMUM_ATOMS


def read_ase_database(path: Path, charge: int, spin: int) -> Geometries:
    """Geometries of an ASE ``.db`` file (format 5 and later), by row number.

    The total charge is the sum of the initial charges and the spin that of the initial
    magnetic moments, where a row has them; key-value pairs ``name``, ``group``,
    ``total_charge`` and ``spin`` go before. The file is opened read-only, and nothing in
    it is run: a ``systems`` that is no plain table is refused.

    Raises:
        StructureError: if it is no such file, or a row is malformed or periodic.
    """
    found = GeometryList(str(path), charge, spin)
    for unfinished in (path.with_name(f"{path.name}-{kind}") for kind in ("journal", "wal")):
        if unfinished.is_file() and unfinished.stat().st_size:
            raise StructureError(
                f"cannot read '{path}': '{unfinished.name}' lies beside it: another program is writing the database, "
                "or died over it; open it with that program once"
            )
    try:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)
        try:
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAXIMUM_VALUE_BYTES)
            connection.execute("PRAGMA trusted_schema=OFF")
            connection.execute("PRAGMA cell_size_check=ON")
            _require_plain_table(connection, path)
            for row in connection.execute(f"SELECT {_COLUMNS} FROM systems ORDER BY id"):  # noqa: S608 - constant
                _add_row(row, found, path)
        finally:
            connection.close()
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise StructureError(f"cannot read '{path}' as an ASE database: {error}") from error
    return found.finished()


def _require_plain_table(connection: sqlite3.Connection, path: Path) -> None:
    kinds = connection.execute("SELECT type, sql FROM sqlite_master WHERE lower(name) = 'systems'").fetchall()
    definition = str(kinds[0][1]).upper() if len(kinds) == 1 and kinds[0][0] == "table" else "VIRTUAL"
    if "VIRTUAL" in definition or "GENERATED" in definition or " AS (" in definition:
        raise StructureError(f"cannot read '{path}' as an ASE database: expected a plain table 'systems'")


def _add_row(row: tuple[Any, ...], found: GeometryList, path: Path) -> None:
    number, elements, positions, pbc, moments, charges, pairs = row
    where = f"'{path}', row {number}"
    if pbc:
        raise StructureError(f"{where} is periodic; expected a molecule: set atoms.pbc = False")
    numbers = _array(elements, "<i4", f"{where}: numbers")
    coordinates = _array(positions, "<f8", f"{where}: positions")
    if not 1 <= len(numbers) <= MAXIMUM_ATOMS or len(coordinates) != 3 * len(numbers):
        raise StructureError(f"{where}: {len(numbers)} numbers and {len(coordinates)} coordinates do not fit")
    if numbers.min() < 1 or numbers.max() > 118:
        raise StructureError(f"{where}: expected atomic numbers from 1 to 118, got {numbers.tolist()[:20]}")
    values = _pairs(pairs, where)
    charge, spin = molecular_state(
        values,
        where,
        initial_charges=_list(charges, f"{where}: initial_charges"),
        initial_magmoms=_list(moments, f"{where}: initial_magmoms"),
    )
    group = values.get("group")
    found.add(
        numbers.tolist(),
        coordinates.tolist(),
        charge,
        spin,
        str(values.get("name", f"{path.stem}_{number}")),
        None if group is None else str(group),
    )


def _array(blob: object, dtype: str, where: str) -> np.ndarray[Any, Any]:
    if not isinstance(blob, bytes) or len(blob) % np.dtype(dtype).itemsize:
        raise StructureError(f"{where} are no array of {dtype}; expected what ASE writes")
    return np.frombuffer(blob, dtype)


def _list(blob: object, where: str) -> list[float]:
    return [] if blob is None else _array(blob, "<f8", where).tolist()


def _pairs(text: object, where: str) -> dict[str, Any]:
    try:
        values = json.loads(text) if isinstance(text, str) else {}
    except (ValueError, RecursionError) as error:
        raise StructureError(f"{where}: its key-value pairs are no JSON ({error})") from error
    return values if isinstance(values, dict) else {}
