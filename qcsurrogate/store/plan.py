"""The plan: which structures a store is to hold, decided once and then only read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qcsurrogate.errors import StoreError, StructureError
from qcsurrogate.store.collect import collect_structures
from qcsurrogate.store.hdf5 import Expected, StoredArray, damaged, read_arrays, write_arrays
from qcsurrogate.store.spec import SPLIT_NAMES, DataSpec, SplitName
from qcsurrogate.store.splits import LEFT_OUT, assign_splits
from qcsurrogate.structures import Structure

KEY_TYPE: Final = np.dtype("S32")
NAME_TYPE: Final = np.dtype("S120")

_KEY_PATTERN: Final = re.compile(r"[0-9a-f]{32}")

_ARRAYS: Final[dict[str, tuple[np.dtype[Any], tuple[str | int, ...], str, str]]] = {
    "keys": (KEY_TYPE, ("structure",), "1", "content key: geometry, charge, spin, method, targets"),
    "names": (NAME_TYPE, ("structure",), "1", "name of the structure, UTF-8"),
    "n_atoms": (np.dtype("<i8"), ("structure",), "1", "number of atoms"),
    "n_ao": (np.dtype("<i8"), ("structure",), "1", "number of orbital basis functions"),
    "n_aux": (np.dtype("<i8"), ("structure",), "1", "number of auxiliary basis functions"),
    "charge": (np.dtype("<i8"), ("structure",), "e", "total charge"),
    "spin": (np.dtype("<i8"), ("structure",), "1", "unpaired electrons, n_alpha - n_beta"),
    "split": (np.dtype("<i8"), ("structure",), "1", "0 train, 1 validation, 2 test"),
    "atomic_numbers": (np.dtype("<i8"), ("atom",), "1", "nuclear charges, structure after structure"),
    "positions": (np.dtype("<f8"), ("atom", 3), "bohr", "nuclear positions, structure after structure"),
}


@dataclass(frozen=True, eq=False)
class Plan:
    """The structures of a store, each once, in order.

    Attributes:
        keys: content key of every structure.
        structures: the structures themselves.
        split: (n,) codes that index :data:`qcsurrogate.store.spec.SPLIT_NAMES`.
        n_ao: (n,) numbers of orbital basis functions.
        n_aux: (n,) numbers of auxiliary basis functions (0 without density targets).
    """

    keys: tuple[str, ...]
    structures: tuple[Structure, ...]
    split: NDArray[np.int64]
    n_ao: NDArray[np.int64]
    n_aux: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.keys)

    @cached_property
    def index(self) -> dict[str, int]:
        """Position of every key."""
        return {key: i for i, key in enumerate(self.keys)}

    def split_of(self, key: str) -> SplitName:
        """The part a structure belongs to."""
        return SPLIT_NAMES[int(self.split[self.index[key]])]


def make_plan(spec: DataSpec) -> Plan:
    """Collect a spec's structures, drop repeated ones, divide them.

    Raises:
        StructureError: for a file or geometry that cannot be used, or an open shell.
        SpecError: if the split does not fit the structures.
        BasisError: if a basis lacks an element.
    """
    structures, groups = collect_structures(spec)
    for structure in structures:
        if structure.spin != 0:
            raise StructureError(
                f"{structure.label} has spin {structure.spin}; expected 0: only closed shells (restricted Kohn-Sham) "
                "are supported so far"
            )
    first = {spec.record_key(s): i for i, s in reversed(list(enumerate(structures)))}
    unique = sorted(first.values())
    structures = [structures[i] for i in unique]
    split = assign_splits(spec.split, structures, None if groups is None else [groups[i] for i in unique])
    kept = np.flatnonzero(split != LEFT_OUT)
    structures = [structures[i] for i in kept]
    elements = sorted({int(z) for s in structures for z in s.atomic_numbers})
    orbital = spec.method.orbital_basis(elements)
    auxiliary = spec.method.density_basis(elements) if spec.targets.density_coefficients else None
    return Plan(
        keys=tuple(spec.record_key(s) for s in structures),
        structures=tuple(structures),
        split=split[kept],
        n_ao=np.array([orbital.n_functions(s.atomic_numbers) for s in structures], dtype=np.int64),
        n_aux=np.array([auxiliary.n_functions(s.atomic_numbers) if auxiliary else 0 for s in structures], np.int64),
    )


def write_plan(path: Path, plan: Plan) -> str:
    """Write a plan; returns the file's SHA-256.

    Raises:
        StoreError: if it cannot be written.
    """
    structures = plan.structures
    values: dict[str, Any] = {
        "keys": np.array([key.encode() for key in plan.keys], KEY_TYPE),
        "names": np.array([_shortened(s.name) for s in structures], NAME_TYPE),
        "n_atoms": [len(s) for s in structures],
        "n_ao": plan.n_ao,
        "n_aux": plan.n_aux,
        "charge": [s.charge for s in structures],
        "spin": [s.spin for s in structures],
        "split": plan.split,
        "atomic_numbers": np.concatenate([s.atomic_numbers for s in structures]),
        "positions": np.concatenate([s.positions for s in structures]),
    }
    return write_arrays(
        path,
        {
            name: StoredArray(np.asarray(values[name], dtype), units, description)
            for name, (dtype, _, units, description) in _ARRAYS.items()
        },
    )


def _shortened(name: str) -> bytes:
    return name.encode()[: NAME_TYPE.itemsize].decode(errors="ignore").encode()


def read_plan(path: Path, digest: str) -> Plan:
    """Read a plan.

    Raises:
        StoreError: if the file is missing or damaged.
    """
    expected = {
        name: Expected(dtype, tuple(d if isinstance(d, int) else None for d in shape), units)
        for name, (dtype, shape, units, _) in _ARRAYS.items()
    }
    arrays: dict[str, NDArray[Any]] = {**read_arrays(path, expected, digest)}
    n, counts = len(arrays["keys"]), arrays["n_atoms"]
    per_structure = [name for name, (_, shape, _, _) in _ARRAYS.items() if shape == ("structure",)]
    n_all = int(counts.sum())
    sizes_fit = all(len(arrays[name]) == n for name in per_structure)
    if not sizes_fit or counts.min() < 1 or {len(arrays["positions"]), len(arrays["atomic_numbers"])} != {n_all}:
        raise damaged(path, "its arrays do not fit together")
    if arrays["split"].min() < 0 or arrays["split"].max() >= len(SPLIT_NAMES):
        raise damaged(path, "it holds an unknown split")
    try:
        structures = _structures(arrays)
    except (StructureError, UnicodeDecodeError) as error:
        raise StoreError(f"'{path}' is damaged: {error}") from error
    keys = tuple(key.decode(errors="replace") for key in arrays["keys"])
    if len(set(keys)) != n or not all(_KEY_PATTERN.fullmatch(key) for key in keys):  # keys become file names
        raise damaged(path, "its keys are not different strings of 32 hexadecimal digits")
    return Plan(keys, tuple(structures), arrays["split"], arrays["n_ao"], arrays["n_aux"])


def _structures(arrays: dict[str, NDArray[Any]]) -> Sequence[Structure]:
    stops = np.cumsum(arrays["n_atoms"])[:-1]
    return [
        Structure(numbers, positions, int(charge), int(spin), name.decode())
        for numbers, positions, charge, spin, name in zip(
            np.split(arrays["atomic_numbers"], stops),
            np.split(arrays["positions"], stops),
            arrays["charge"],
            arrays["spin"],
            arrays["names"],
            strict=True,
        )
    ]
