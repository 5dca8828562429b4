"""The layout of QH9 (Yu, Liu, Luo, Strasser, Qian, Qian and Ji, NeurIPS 2023), which its readers open.

An SQLite database with one table,
``data(id INTEGER NOT NULL PRIMARY KEY, N INTEGER, Z BLOB, pos BLOB, Ham BLOB)``:
``Z`` are int32, ``pos`` are float64 in Angstrom, ``Ham`` is the Fock matrix as float64 in
Hartree, row by row, all little-endian.  Readers look for it as
``QH9Stable/raw/QH9Stable.db`` below their root folder.

QH9 holds the matrices as PySCF gives them: its readers name their conversion
``pyscf_def2svp`` and take p shells from (x, y, z) to (y, z, x) themselves, without a
change of sign.  So no order is converted here.  They know the basis def2-SVP and the
elements H, C, N, O and F, and neutral closed shells (their electrons are the nuclear
charges' sum); everything else is refused.

Readers divide the rows anew by a fixed seed.  This package's own split is beside the
database, as ``<name>.splits.json`` with the ids of each part.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
from ase.data import chemical_symbols

from qcsurrogate.errors import OutputError, SpecError
from qcsurrogate.reference.record import ReferenceRecord
from qcsurrogate.store.export import exported_keys, in_place_of, splits_of, text_in_place_of
from qcsurrogate.store.progress import counted
from qcsurrogate.store.spec import SplitName
from qcsurrogate.store.store import Store
from qcsurrogate.units import ANGSTROM_PER_BOHR

BASIS = "def2svp"
ELEMENTS = (1, 6, 7, 8, 9)

_TABLE = "CREATE TABLE data (id INTEGER NOT NULL PRIMARY KEY, N INTEGER, Z BLOB, pos BLOB, Ham BLOB)"
_ROW = "INSERT INTO data (id, N, Z, pos, Ham) VALUES (?, ?, ?, ?, ?)"


def export_qh9(store: Store, path: str | Path, split: SplitName | None = None, *, quiet: bool = False) -> list[Path]:
    """Write a QH9 database, and the ids of each part of the split; returns both files.

    Raises:
        SpecError: if QH9's readers could not make sense of this store.
        OutputError: if there is nothing to write, or it cannot be written.
        StoreError: if a record is damaged.
    """
    path = Path(path)
    _require_readable(store)
    keys = exported_keys(store, split)
    splits = path.with_suffix(".splits.json")
    records = counted(enumerate(store.read_many(keys)), len(keys), "exporting", quiet)
    with in_place_of(path) as temporary:
        try:
            with closing(sqlite3.connect(temporary)) as database, database:
                database.execute(_TABLE)
                database.executemany(_ROW, (row(number, record) for number, record in records))
        except sqlite3.Error as error:
            raise OutputError(f"cannot write '{path}': {error}; free some space or choose another place") from error
    with text_in_place_of(splits) as file:
        json.dump(splits_of(store, keys), file)
    return [path, splits]


def row(number: int, record: ReferenceRecord) -> tuple[int, int, bytes, bytes, bytes]:
    """One record as QH9's table has it: id, N, Z, pos, Ham."""
    structure = record.structure
    if record.unrestricted:
        raise SpecError(f"QH9 holds one Fock matrix per molecule; {structure.label} is unrestricted: use qcschema")
    return (
        number,
        len(structure),
        structure.atomic_numbers.astype("<i4").tobytes(),
        (structure.positions * ANGSTROM_PER_BOHR).astype("<f8").tobytes(),
        np.ascontiguousarray(record.hamiltonian, "<f8").tobytes(),
    )


def _require_readable(store: Store) -> None:
    method = store.spec.method
    if method.basis.lower().replace("-", "").replace("_", "") != BASIS:
        raise SpecError(f"QH9's readers know the basis def2-SVP; '{store.path}' has '{method.basis}': use qcschema")
    foreign = [chemical_symbols[z] for z in store.plan.elements if z not in ELEMENTS]
    if foreign:
        raise SpecError(f"QH9's readers know H, C, N, O and F; '{store.path}' holds {', '.join(foreign)}: use qcschema")
    if np.any(store.plan.structures.spin != 0):
        raise SpecError(f"QH9 holds one Fock matrix per molecule; '{store.path}' holds open shells: use qcschema")
    if charged := np.flatnonzero(store.plan.structures.charge).tolist():
        name, charge = store.plan.structures.name(charged[0]), store.plan.structures.charge[charged[0]]
        raise SpecError(
            f"QH9 has no place for charges, its readers take every molecule as neutral; '{store.path}' holds "
            f"{len(charged)} charged ones, the first '{name}' with {charge:+d}: use qcschema"
        )
