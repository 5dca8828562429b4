"""ASE databases (SQLite), read without ASE: only the columns of a molecule."""

from __future__ import annotations

import json
import math
import sqlite3
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np

from qcsurrogate.errors import StructureError
from qcsurrogate.metadata import kind_of, molecular_state
from qcsurrogate.sources.readers.geometries import MAXIMUM_ATOMS, Geometries, GeometryList

Entries: TypeAlias = list[tuple[str, Any]]

_ARRAYS: Final = {"tags": "<i4"} | dict.fromkeys(("initial_magmoms", "initial_charges", "magmoms", "charges"), "<f8")
_COLUMNS: Final = (
    "id", "numbers", "positions", "pbc", "magmom", "key_value_pairs", "data", "calculator_parameters", *_ARRAYS,
)  # fmt: skip
_MAXIMUM_VALUE_BYTES: Final = 2**26


def read_ase_database(path: Path, charge: int, spin: int) -> Geometries:
    """Geometries of an ASE ``.db`` file (format 5 and later), by row number.

    Charge and spin are what the key-value pairs, data, initial charges and magnetic moments
    of a row and the database's metadata (but its prose) say; the key-value pairs may hold ``name`` and
    ``group``. The file is opened read-only, and nothing in it is run: tables that are no plain
    ones are refused.
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
            _require_plain_table(connection, path, "systems")
            metadata = _metadata(connection, path)
            connection.row_factory = sqlite3.Row
            for row in connection.execute(f"SELECT {', '.join(_COLUMNS)} FROM systems ORDER BY id"):  # noqa: S608 - constant
                _add_row(row, metadata, found, path)
        finally:
            connection.close()
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise StructureError(f"cannot read '{path}' as an ASE database: {error}") from error
    return found.finished()


def _require_plain_table(connection: sqlite3.Connection, path: Path, name: str) -> None:
    kinds = connection.execute("SELECT type, sql FROM sqlite_master WHERE lower(name) = ?", (name,)).fetchall()
    definition = str(kinds[0][1]).upper() if len(kinds) == 1 and kinds[0][0] == "table" else "VIRTUAL"
    if "VIRTUAL" in definition or "GENERATED" in definition or " AS (" in definition:
        raise StructureError(f"cannot read '{path}' as an ASE database: expected a plain table '{name}'")


def _metadata(connection: sqlite3.Connection, path: Path) -> Entries:
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE lower(name) = 'information'").fetchall():
        return []
    _require_plain_table(connection, path, "information")
    rows = connection.execute("SELECT value FROM information WHERE name = 'metadata'").fetchall()
    said = [entry for (text,) in rows for entry in _dictionary(text, f"'{path}': its metadata").items()]
    return [(key, value) for key, value in said if kind_of(key) not in {None, "text"}]  # prose is about the whole


def _add_row(row: sqlite3.Row, metadata: Entries, found: GeometryList, path: Path) -> None:
    where = f"'{path}', row {row['id']}"
    numbers = _array(row["numbers"], "<i4", f"{where}: numbers")
    coordinates = _array(row["positions"], "<f8", f"{where}: positions")
    if not 1 <= len(numbers) <= MAXIMUM_ATOMS or len(coordinates) != 3 * len(numbers):
        raise StructureError(f"{where}: {len(numbers)} numbers and {len(coordinates)} coordinates do not fit")
    if numbers.min() < 1 or numbers.max() > 118:
        ghost = " (0 is a ghost or dummy atom)" if 0 in numbers else ""
        raise StructureError(f"{where}: expected atomic numbers from 1 to 118{ghost}, got {numbers.tolist()[:20]}")
    values = _dictionary(row["key_value_pairs"], f"{where}: its key-value pairs")
    parameters = _dictionary(row["calculator_parameters"], f"{where}: its calculator's parameters")
    arrays = {k: _array(row[k], dtype, f"{where}: {k}") for k, dtype in _ARRAYS.items() if row[k] is not None}
    entries = [
        *metadata,
        *values.items(),
        *_dictionary(row["data"], f"{where}: its data").items(),
        *arrays.items(),
        *(
            (key, value)
            for key, value in (("magmom", row["magmom"]), *parameters.items())
            if type(value) in (int, float)
        ),
        *([("pbc", True)] if row["pbc"] else []),  # ASE's default says nothing
    ]
    charge, spin = molecular_state(entries, where, len(numbers))
    group = values.get("group")
    found.add(
        numbers.tolist(),
        coordinates.tolist(),
        charge,
        spin,
        str(values.get("name", f"{path.stem}_{row['id']}")),
        None if group is None else str(group),
    )


def _array(blob: object, dtype: str, where: str) -> np.ndarray[Any, Any]:
    if not isinstance(blob, bytes) or len(blob) % np.dtype(dtype).itemsize:
        raise StructureError(f"{where} are no array of {dtype}; expected what ASE writes")
    return np.frombuffer(blob, dtype)


def _dictionary(value: object, where: str) -> dict[str, Any]:
    """A dictionary as ASE writes it, in JSON, or (data) in arrays and JSON after them."""
    blob = value if isinstance(value, bytes) else b""
    try:
        text = blob[int.from_bytes(blob[:8], "little") :] if blob else value or "{}"
        found = json.loads(text) if isinstance(text, (str, bytes)) else None
        if not isinstance(found, dict):
            raise ValueError("it is no dictionary")
        return {key: _decoded(entry, blob) if kind_of(key) else entry for key, entry in found.items()}
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise StructureError(f"{where} are no JSON as ASE writes it ({error})") from error


def _decoded(entry: Any, blob: bytes) -> Any:
    if not isinstance(entry, dict) or entry.keys() != {"__ndarray__"}:
        return entry
    shape, dtype, content = entry["__ndarray__"]
    return content if isinstance(content, list) else np.frombuffer(blob, np.dtype(dtype), math.prod(shape), content)
