"""Structures in npz files."""

from __future__ import annotations

import math
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from qcsurrogate.errors import StructureError
from qcsurrogate.metadata import kind_of, molecular_state
from qcsurrogate.sources.readers.geometries import MAXIMUM_STRUCTURES, Geometries
from qcsurrogate.units import BOHR_PER_ANGSTROM

MAXIMUM_ARRAY_BYTES: Final = 4 * 2**30

_REQUIRED: Final = ("positions_angstrom", "atomic_numbers")
_KINDS: Final = {
    "positions_angstrom": ("fiu", "numbers"),
    "atomic_numbers": ("iu", "integers"),
    "num_atoms": ("iu", "integers"),
    "names": ("US", "text"),
    "groups": ("USiu", "text or integers"),
}
_RMD17: Final = frozenset(
    {"nuclear_charges", "coords", "energies", "forces", "old_indices", "old_energies", "old_forces"}
)
"""Arrays of the revised MD17 trajectories as published (doi:10.24435/materialscloud:wy-kn): coords in Angstrom."""
_RMD17_NAMES: Final = {"coords": "positions_angstrom", "nuclear_charges": "atomic_numbers"}
BROKEN: Final = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    tokenize.TokenError,  # NumPy's, of a header that ends within its brackets
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
)
"""What reading a damaged npz may raise."""


def read_npz(path: Path, charge: int, spin: int) -> Geometries:
    """Geometries of an npz file.

    It holds ``positions_angstrom`` and ``atomic_numbers``, either (n, n_atoms, 3) with
    (n_atoms,), or flat (n_all, 3) with (n_all,) and ``num_atoms`` (n,); and, if wanted,
    ``names`` and ``groups``, each (n,), and metadata such as ``charge``, ``spin`` and
    ``units``: one for the file, for each structure (n, ...), or for each atom (n_all, ...);
    free text is looked at where there is one for each structure.
    Others are not looked at. It is opened without pickle. The files of revised MD17 are read
    as published, which all seven of their names tell.
    """
    arrays = _read_arrays(path)
    missing = sorted(set(_REQUIRED) - arrays.keys())
    if missing:
        raise StructureError(f"'{path}' lacks {missing}; expected positions_angstrom and atomic_numbers")
    for key, array in arrays.items():
        kinds, expected = _KINDS.get(key, ("biufUS", "numbers or text"))
        if array.dtype.kind not in kinds or array.size == 0:
            raise StructureError(f"'{path}': {key} is {array.dtype} of shape {array.shape}; expected {expected}")
    counts, numbers, positions = _flat(path, arrays)
    n = len(counts)
    if n > MAXIMUM_STRUCTURES:
        raise StructureError(f"'{path}' holds {n} structures; expected at most {MAXIMUM_STRUCTURES}: split it")
    for key in arrays.keys() & {"names", "groups"}:
        if arrays[key].shape != (n,):
            raise StructureError(
                f"'{path}': {key} has shape {arrays[key].shape}; expected ({n},), one entry per structure"
            )
    names = _words(arrays["names"]) if "names" in arrays else tuple(f"{path.stem}_{i}" for i in range(n))
    charges, spins = _states(path, arrays, counts, names)
    return Geometries(
        counts,
        numbers.astype(np.int64),
        positions * BOHR_PER_ANGSTROM,
        np.array([charge if c is None else c for c in charges], dtype=np.int64),
        np.array([spin if s is None else s for s in spins], dtype=np.int64),
        np.array(names, dtype=object),
        source=str(path),
        groups=_words(arrays["groups"]) if "groups" in arrays else None,
    )


def _flat(path: Path, arrays: dict[str, NDArray[Any]]) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[np.float64]]:
    positions = np.asarray(arrays["positions_angstrom"], dtype=np.float64)
    numbers = arrays["atomic_numbers"]
    if "num_atoms" in arrays:
        counts = arrays["num_atoms"]
        if counts.ndim != 1 or counts.min() < 1 or counts.max() > len(numbers):
            raise StructureError(f"'{path}': num_atoms is no list of numbers from 1 to {len(numbers)}")
        total = int(counts.sum(dtype=np.int64))
        if positions.shape != (total, 3) or numbers.shape != (total,):
            raise StructureError(
                f"'{path}': num_atoms adds up to {total}, positions are {positions.shape}, atomic_numbers "
                f"{numbers.shape}; expected flat arrays of that length"
            )
        return counts.astype(np.int64), numbers, positions
    if positions.ndim == 3 and numbers.shape == positions.shape[1:2] and positions.shape[2] == 3:
        n_frames, n_atoms = positions.shape[:2]
        counts = np.full(n_frames, n_atoms, dtype=np.int64)
        return counts, np.tile(numbers, n_frames), positions.reshape(-1, 3)
    raise StructureError(
        f"'{path}': positions_angstrom {positions.shape} and atomic_numbers {numbers.shape} do not fit; expected "
        "(n_frames, n_atoms, 3) with (n_atoms,), or flat arrays with num_atoms"
    )


def _states(
    path: Path, arrays: dict[str, NDArray[Any]], counts: NDArray[np.int64], names: tuple[str, ...]
) -> tuple[tuple[int | None, ...], tuple[int | None, ...]]:
    """Charge and spin of each structure, where the metadata say any."""
    n, stops = len(counts), np.cumsum(counts)
    said: dict[str, list[NDArray[Any]]] = {}
    for key, array in arrays.items():
        kind, size = kind_of(key), len(array) if array.ndim else 0
        if kind is None or (kind == "text" and size != n):
            continue
        if array.shape == (n,) and n > 1 and (counts == n).all() and key.endswith("s") and array.dtype.kind in "iuf":
            raise StructureError(
                f"'{path}': {key} has shape {array.shape}, for {n} structures or {n} atoms; expected ({n}, {n})"
            )
        said[key] = list(array) if size == n else np.split(array, stops[:-1]) if size == stops[-1] else [array] * n
    if not said:
        return (None,) * n, (None,) * n
    known: dict[tuple[Any, ...], tuple[int | None, int | None]] = {}
    states = []
    for count, name, *values in zip(counts.tolist(), names, *said.values(), strict=True):
        case = (count, *(value.tobytes() for value in values))
        if case not in known:
            entries = [(key, value.tolist()) for key, value in zip(said, values, strict=True)]
            known[case] = molecular_state(entries, f"'{path}', structure '{name}'", count)
        states.append(known[case])
    charges, spins = zip(*states, strict=True)
    return charges, spins


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with zipfile.ZipFile(path) as members:
            present = {info.filename.removesuffix(".npy"): info for info in members.infolist()}
            if present.keys() == _RMD17:
                present = {_RMD17_NAMES.get(key, key): info for key, info in present.items()}
            return {key: read_member(members, info) for key, info in present.items() if key in _KINDS or kind_of(key)}
    except BROKEN as error:
        raise StructureError(f"cannot read '{path}' as npz: {error}") from error


def read_member(members: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[Any]:
    """An array, after its header was compared with the size of its member."""
    with members.open(info) as file:
        version = npy.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"{info.filename} has npy version {version}; expected 1.0 or 2.0")
        header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = header(file)
        if dtype.hasobject:
            raise ValueError(f"{info.filename} holds Python objects; expected numbers or text")
        declared = math.prod(shape) * dtype.itemsize
        if not 0 <= declared <= min(info.file_size, MAXIMUM_ARRAY_BYTES):
            raise ValueError(f"{info.filename} declares {declared} bytes; its member has {info.file_size}")
    with members.open(info) as file:
        return npy.read_array(file, allow_pickle=False)


def _words(array: NDArray[Any]) -> tuple[str, ...]:
    return tuple(array.astype(str).tolist()) if array.dtype.kind != "S" else tuple(np.char.decode(array, "utf-8"))
