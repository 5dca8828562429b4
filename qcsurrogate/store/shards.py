"""Many reference records in one file: flat arrays one after the other, with offsets.

A symmetric matrix is kept as its lower triangle, row by row.  What is written, and in
which units, is the list :data:`qcsurrogate.reference.record.FIELDS`; how long every
array must be follows from the plan alone, before a file is opened.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qcsurrogate.errors import RecordError
from qcsurrogate.reference.record import FIELDS, OPEN_SHELL_FIELDS, Field, FieldShape, ReferenceRecord
from qcsurrogate.store.hdf5 import ArrayFile, Declared, damaged, read_arrays
from qcsurrogate.store.plan import KEY_TYPE, Plan
from qcsurrogate.store.raw import RAW_SUFFIX, read_raw, write_raw
from qcsurrogate.store.spec import DataSpec
from qcsurrogate.store.streaming import write_arrays

SYMMETRY_TOLERANCE = 1e-9

_OFFSETS: Final = {"atom": "atoms", "ao": "orbitals", "aux": "auxiliary functions", "triangle": "triangle elements"}
DIMENSION: Final[dict[FieldShape, tuple[str, tuple[int, ...]]]] = {
    "scalar": ("record", ()),
    "vector3": ("record", (3,)),
    "atom": ("atom", ()),
    "atom3": ("atom", (3,)),
    "ao": ("ao", ()),
    "aux": ("aux", ()),
    "triangle": ("triangle", ()),
}
"""What the rows of a quantity count, and the shape of one row."""

_STORED_TYPE: Final[dict[str, np.dtype[Any]]] = {
    "float64": np.dtype("<f8"),
    "int64": np.dtype("<i8"),
    "bool": np.dtype("u1"),
}
_SCALARS: Final[dict[str, type]] = {"float64": float, "int64": int, "bool": bool}


def stored_fields(spec: DataSpec) -> tuple[Field, ...]:
    """The quantities that every record of a spec holds."""
    method, targets = spec.method, spec.targets
    fitted = targets.density_coefficients
    wanted = dict.fromkeys(OPEN_SHELL_FIELDS, method.unrestricted) | {
        "core_hamiltonian": targets.core_hamiltonian,
        "density_coefficients": fitted,
        "density_coefficients_unprojected": fitted,
        "spin_density_coefficients": fitted and method.unrestricted,
        "spin_density_coefficients_unprojected": fitted and method.unrestricted,
        "forces": targets.forces,
        "stability": method.unrestricted or method.stability or method.search == "lowest",
        "on_gpu": method.backend == "gpu4pyscf",
    }
    return tuple(field for field in FIELDS if not field.optional or wanted[field.name])


@dataclass(frozen=True, eq=False)
class RecordFile:
    """The records of one file in memory, packed as they were stored."""

    plan: Plan
    fields: tuple[Field, ...]
    keys: tuple[str, ...]
    arrays: dict[str, NDArray[Any]]

    def record(self, key: str) -> ReferenceRecord:
        """One record with full matrices."""
        row = self.keys.index(key)
        index = self.plan.index[key]
        structure, n_ao = self.plan.structures[index], int(self.plan.n_ao[index])
        values: dict[str, Any] = {}
        for field in self.fields:
            if field.name not in ("atomic_numbers", "positions", "charge", "spin"):
                values[field.name] = self._value(field, row, n_ao)
        return ReferenceRecord(structure=structure, **values)

    def part(self, key: str) -> RecordFile:
        """One record, still packed."""
        return one_record(
            self, key, self.keys.index(key), self.arrays, lambda name, *rows: self.arrays[name][slice(*rows)]
        )

    def _value(self, field: Field, row: int, n_ao: int) -> object:
        array = self.arrays[field.name]
        dimension = DIMENSION[field.shape][0]
        if dimension == "record":
            return array[row].copy() if array.ndim > 1 else _SCALARS[field.dtype](array[row])
        offsets = self.arrays[f"{dimension}_offsets"]
        part = array[offsets[row] : offsets[row + 1]]
        return unpack_triangle(part, n_ao) if field.shape == "triangle" else part.copy()


def one_record(
    file: RecordFile,
    key: str,
    row: int,
    frame: Mapping[str, NDArray[Any]],
    rows: Callable[[str, int, int], NDArray[Any]],
) -> RecordFile:
    """The record in a row of a file, packed, from the file's offsets and what gives rows of its arrays."""
    arrays = frame_arrays((key,), file.plan, file.fields)
    for field in file.fields:
        offsets = frame.get(f"{DIMENSION[field.shape][0]}_offsets")
        start, stop = (row, row + 1) if offsets is None else offsets[row : row + 2].tolist()
        arrays[field.name] = rows(field.name, start, stop)
    return RecordFile(file.plan, file.fields, (key,), arrays)


class RecordSlices:
    """An open file of records, of which is known whose records it holds.

    What the file declares is checked when it is opened; every chunk that a record needs
    is checked by its fletcher32 checksum, and every record as in a file that is read
    whole.  Memory: a chunk of every array, and the keys and offsets of the file.
    """

    def __init__(self, path: Path, keys: tuple[str, ...], plan: Plan, spec: DataSpec) -> None:
        self.path, self.keys, self._empty = path, keys, RecordFile(plan, stored_fields(spec), keys, {})
        expected = expected_arrays(self._empty)
        self._file = None if path.suffix == RAW_SUFFIX else ArrayFile.open(path, expected)
        self._single = {} if self._file else read_raw(path, expected)
        self._frame = frame_arrays(keys, plan, self._empty.fields)
        self._row = {key: row for row, key in enumerate(keys)}

    def record(self, key: str) -> ReferenceRecord:
        """One record."""
        return self.part(key).record(key)

    def part(self, key: str) -> RecordFile:
        """One record as it is packed."""
        row = self._row[key]
        for name, value in self._frame.items():
            stop = row + (2 if name.endswith("_offsets") else 1)
            if not np.array_equal(self.rows(name, row, stop), value[row:stop]):
                raise damaged(self.path, f"'{name}' is not what the plan says")
        found = one_record(self._empty, key, row, self._frame, self.rows)
        check_contents(self.path, found.arrays, found)
        return found

    def rows(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Rows of an array of the file; all of one that every record has once are its values of all records."""
        return self._file.read(name, start, stop) if self._file else self._single[name][start:stop].copy()

    def close(self) -> None:
        """Let go of the file."""
        if self._file:
            self._file.close()


def pack_triangle(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, n) symmetric -> (n (n + 1) / 2,) lower triangle, row by row."""
    return 0.5 * (matrix + matrix.T)[_lower(len(matrix))]


def unpack_triangle(triangle: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """The inverse of :func:`pack_triangle`; exactly symmetric."""
    rows, columns = _lower(n)
    matrix = np.empty((n, n))
    matrix[rows, columns] = triangle
    matrix[columns, rows] = triangle
    return matrix


@lru_cache(maxsize=64)
def _lower(n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    rows, columns = np.tril_indices(n)
    return rows, columns


def write_records(path: Path, records: Sequence[tuple[str, ReferenceRecord]], plan: Plan, spec: DataSpec) -> str:
    """Write records to one file, verify it, move it into place: HDF5, or raw if its name ends so.

    Returns:
        The SHA-256 of the file.

    Raises:
        RecordError: if a record is not converged, not finite, or does not fit its plan.
    """
    fields = stored_fields(spec)
    for key, record in records:
        _check_record(record, fields, plan, plan.index[key])
    keys = tuple(key for key, _ in records)
    return write_packed(path, RecordFile(plan, fields, keys, _pack([r for _, r in records], keys, fields, plan)))


def write_packed(path: Path, file: RecordFile) -> str:
    """Write records that are packed already; returns the SHA-256 of the file."""
    write = write_raw if path.suffix == RAW_SUFFIX else write_arrays
    return write(path, expected_arrays(file), file.arrays)


def merge(files: Sequence[RecordFile]) -> RecordFile:
    """The records of several files, in order, as one."""
    keys = tuple(key for file in files for key in file.keys)
    plan, fields = files[0].plan, files[0].fields
    arrays = {f.name: np.concatenate([file.arrays[f.name] for file in files]) for f in fields}
    return RecordFile(plan, fields, keys, arrays | frame_arrays(keys, plan, fields))


def read_records(path: Path, keys: Sequence[str], plan: Plan, spec: DataSpec, digest: str | None = None) -> RecordFile:
    """Read a file of which is known whose records it holds."""
    unknown = [key for key in keys if key not in plan.index]
    if unknown or not keys or len(set(keys)) != len(keys):
        raise damaged(path, f"it is said to hold the records {unknown[:3] or list(keys)[:3]}, which are not planned")
    empty = RecordFile(plan, stored_fields(spec), tuple(keys), {})
    expected = expected_arrays(empty)
    raw = path.suffix == RAW_SUFFIX
    arrays: dict[str, NDArray[Any]] = {**(read_raw(path, expected) if raw else read_arrays(path, expected, digest))}
    for name, value in frame_arrays(empty.keys, plan, empty.fields).items():
        if not np.array_equal(arrays[name], value):
            raise damaged(path, f"'{name}' is not what the plan says")
    check_contents(path, arrays, empty)
    return RecordFile(plan, empty.fields, empty.keys, arrays)


def check_contents(path: Path, arrays: dict[str, NDArray[Any]], file: RecordFile) -> None:
    """What can be held against the plan, and against sense, before a record is used."""
    planned = file.plan.part(file.keys).structures
    for name in ("atomic_numbers", "positions", "charge", "spin"):
        if not np.array_equal(arrays[name], getattr(planned, name)):
            raise damaged(path, f"'{name}' is not that of the planned structures")
    if not (arrays["converged"] == 1).all():
        raise damaged(path, "it holds a record that is not converged")
    for field in file.fields:
        if field.dtype == "float64" and not np.isfinite(arrays[field.name]).all():
            raise damaged(path, f"'{field.name}' holds values that are not finite")


def expected_arrays(file: RecordFile) -> dict[str, Declared]:
    """What the file of these records must declare; it follows from the plan alone."""
    sizes = {name: int(n.sum()) for name, n in _sizes(file.keys, file.plan).items()}
    sizes["record"] = len(file.keys)
    n = len(file.keys)
    expected = {"keys": Declared(KEY_TYPE, (n,), "1", "content key of every record, in order")}
    for name in _dimensions(file.fields):
        meaning = f"record i holds the {_OFFSETS[name]} offsets[i] to offsets[i + 1]"
        expected[f"{name}_offsets"] = Declared(np.dtype("<i8"), (n + 1,), "1", meaning)
    for field in file.fields:
        dimension, rest = DIMENSION[field.shape]
        packed = "; lower triangle row by row, record after record" if field.shape == "triangle" else ""
        shape, meaning = (sizes[dimension], *rest), f"{field.description}{packed}"
        expected[field.name] = Declared(_STORED_TYPE[field.dtype], shape, field.units, meaning)
    return expected


def record_sizes(plan: Plan, spec: DataSpec) -> NDArray[np.int64]:
    """(n_planned,) bytes of every record as it is packed, before compression."""
    rows: dict[str, NDArray[np.int64] | int] = {"record": 1, **_lengths(plan.structures.n_atoms, plan.n_ao, plan.n_aux)}
    total = np.zeros(len(plan), np.int64)
    for field in stored_fields(spec):
        dimension, rest = DIMENSION[field.shape]
        total += rows[dimension] * math.prod(rest) * _STORED_TYPE[field.dtype].itemsize
    return total


def _sizes(keys: Sequence[str], plan: Plan) -> dict[str, NDArray[np.int64]]:
    rows = [plan.index[key] for key in keys]
    return _lengths(plan.structures.n_atoms[rows], plan.n_ao[rows], plan.n_aux[rows])


def _lengths(
    n_atoms: NDArray[np.int64], n_ao: NDArray[np.int64], n_aux: NDArray[np.int64]
) -> dict[str, NDArray[np.int64]]:
    """Rows that each record has, by what they count."""
    return {"atom": n_atoms, "ao": n_ao, "aux": n_aux, "triangle": n_ao * (n_ao + 1) // 2}


def _dimensions(fields: Sequence[Field]) -> list[str]:
    used = {DIMENSION[field.shape][0] for field in fields}
    return [name for name in _OFFSETS if name in used]


def frame_arrays(keys: Sequence[str], plan: Plan, fields: Sequence[Field]) -> dict[str, NDArray[Any]]:
    """Keys and offsets, which follow from the plan."""
    frame: dict[str, NDArray[Any]] = {"keys": np.array([key.encode() for key in keys], KEY_TYPE)}
    sizes = _sizes(keys, plan)
    for name in _dimensions(fields):
        frame[f"{name}_offsets"] = np.concatenate([[0], np.cumsum(sizes[name])]).astype(np.int64)
    return frame


def _pack(
    records: Sequence[ReferenceRecord], keys: Sequence[str], fields: Sequence[Field], plan: Plan
) -> dict[str, NDArray[Any]]:
    arrays = frame_arrays(keys, plan, fields)
    for field in fields:
        values = [np.asarray(record.value(field.name)) for record in records]
        if field.shape == "triangle":
            values = [pack_triangle(value) for value in values]
        join = np.stack if DIMENSION[field.shape][0] == "record" else np.concatenate
        arrays[field.name] = join(values).astype(_STORED_TYPE[field.dtype])
    return arrays


def _check_record(record: ReferenceRecord, fields: Sequence[Field], plan: Plan, index: int) -> None:
    structure, label = plan.structures[index], record.structure.label
    if record.structure.key != structure.key:
        raise RecordError(f"{label}: the record belongs to another geometry than the planned {structure.label}")
    if not record.converged:
        raise RecordError(f"{label}: the record is not converged; expected only converged ones")
    n_ao = int(plan.n_ao[index])
    shapes: dict[FieldShape, tuple[int, ...]] = {
        "scalar": (),
        "vector3": (3,),
        "atom": (len(structure),),
        "atom3": (len(structure), 3),
        "ao": (n_ao,),
        "aux": (int(plan.n_aux[index]),),
        "triangle": (n_ao, n_ao),
    }
    for field in fields:
        value, expected = record.value(field.name), shapes[field.shape]
        if value is None:
            raise RecordError(f"{label}: the record has no {field.name}; expected shape {expected}")
        array = np.asarray(value)
        if array.shape != expected:
            raise RecordError(f"{label}: {field.name} has shape {array.shape}; expected {expected}")
        if not np.isfinite(array).all():
            raise RecordError(f"{label}: {field.name} holds values that are not finite")
        if field.shape == "triangle" and np.abs(array - array.T).max() > SYMMETRY_TOLERANCE:
            raise RecordError(
                f"{label}: {field.name} differs from its transpose by {np.abs(array - array.T).max():.1e}; "
                f"expected at most {SYMMETRY_TOLERANCE:g}"
            )
