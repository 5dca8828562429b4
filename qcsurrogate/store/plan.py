"""The plan: which structures a store is to hold, decided once and then only read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final, overload

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from qcsurrogate.basis import BasisSet
from qcsurrogate.errors import SpecError, StoreError, StructureError
from qcsurrogate.sources.collect import collect
from qcsurrogate.store.hdf5 import Declared, damaged, read_arrays
from qcsurrogate.store.spec import SPLIT_NAMES, DataSpec, SplitName
from qcsurrogate.store.splits import LEFT_OUT, UNDECIDED, assign_splits, grown_splits
from qcsurrogate.store.streaming import write_arrays
from qcsurrogate.structures import FlatStructures, Structure, joined_arrays

KEY_TYPE: Final = np.dtype("S32")
NAME_TYPE: Final = np.dtype("S120")

_KEY_PATTERN: Final = re.compile(rb"(?:[0-9a-f]{32})*")

_INTEGER: Final = np.dtype("<i8")
_ARRAYS: Final = {
    "keys": Declared(KEY_TYPE, (None,), "1", "content key: geometry, charge, spin, method, targets"),
    "names": Declared(NAME_TYPE, (None,), "1", "name of the structure, UTF-8"),
    "n_atoms": Declared(_INTEGER, (None,), "1", "number of atoms"),
    "n_ao": Declared(_INTEGER, (None,), "1", "number of orbital basis functions"),
    "n_aux": Declared(_INTEGER, (None,), "1", "number of auxiliary basis functions"),
    "charge": Declared(_INTEGER, (None,), "e", "total charge"),
    "spin": Declared(_INTEGER, (None,), "1", "unpaired electrons, n_alpha - n_beta"),
    "split": Declared(_INTEGER, (None,), "1", "0 train, 1 validation, 2 test"),
    "atomic_numbers": Declared(_INTEGER, (None,), "1", "nuclear charges, structure after structure"),
    "positions": Declared(np.dtype("<f8"), (None, 3), "bohr", "nuclear positions, structure after structure"),
}


class PlannedStructures(FlatStructures, Sequence[Structure]):
    """Structures of a plan, their names in UTF-8, made into objects only when one is asked for."""

    @classmethod
    def of(cls, structures: Sequence[Structure]) -> PlannedStructures:
        """From objects."""
        return cls(
            np.array([len(s) for s in structures], np.int64),
            np.concatenate([s.atomic_numbers for s in structures]),
            np.concatenate([s.positions for s in structures]),
            np.array([s.charge for s in structures], np.int64),
            np.array([s.spin for s in structures], np.int64),
            np.array([_shortened(s.name) for s in structures], NAME_TYPE),
        )

    @overload
    def __getitem__(self, index: int) -> Structure: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Structure]: ...
    def __getitem__(self, index: int | slice) -> Structure | Sequence[Structure]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = range(len(self))[index]
        atoms = slice(int(self.offsets[i]), int(self.offsets[i + 1]))
        numbers, positions = self.atomic_numbers[atoms], self.positions[atoms]
        try:
            return Structure(numbers, positions, int(self.charge[i]), int(self.spin[i]), self.name(i))
        except StructureError as error:
            raise StoreError(f"the store's plan is damaged: {error}") from error

    def name(self, index: int) -> str:
        """Name of one structure."""
        return bytes(self.names[index]).decode(errors="replace")


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
    structures: PlannedStructures
    split: NDArray[np.int64]
    n_ao: NDArray[np.int64]
    n_aux: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.keys)

    @cached_property
    def index(self) -> dict[str, int]:
        """Position of every key."""
        return {key: i for i, key in enumerate(self.keys)}

    @cached_property
    def elements(self) -> tuple[int, ...]:
        """Atomic numbers that occur, ascending."""
        return tuple(int(z) for z in np.unique(self.structures.atomic_numbers))

    def split_of(self, key: str) -> SplitName:
        """The part a structure belongs to."""
        return SPLIT_NAMES[int(self.split[self.index[key]])]

    def label(self, key: str) -> str:
        """What messages call a structure: its name in quotes, or its size."""
        i = self.index[key]
        name = self.structures.name(i)
        return f"structure '{name}'" if name else f"structure with {self.structures.n_atoms[i]} atoms"

    def continued(self, other: Plan) -> Plan:
        """This plan, and behind it another one of other structures."""
        return Plan(
            self.keys + other.keys,
            PlannedStructures(**joined_arrays([self.structures, other.structures])),
            np.concatenate([self.split, other.split]),
            np.concatenate([self.n_ao, other.n_ao]),
            np.concatenate([self.n_aux, other.n_aux]),
        )

    def part(self, keys: Iterable[str]) -> Plan:
        """The plan of some structures, in this order."""
        keys = tuple(keys)
        rows = np.array([self.index[key] for key in keys], dtype=np.int64)
        return Plan(keys, self.structures.take(rows), self.split[rows], self.n_ao[rows], self.n_aux[rows])


def make_plan(spec: DataSpec, before: Plan | None = None) -> tuple[Plan, dict[str, int]]:
    """Collect a spec's structures, drop repeated ones, divide them; and how many were read, left out and why.

    Args:
        spec: what to plan.
        before: a plan of the same method and targets that is to be continued: its
            structures come first, as they are, and keep their parts.

    Raises:
        StructureError: for a file or geometry that cannot be used, or a spin that the
            method does not treat.
        SpecError: if the split does not fit the structures, or the spec lacks a structure
            of ``before``.
        BasisError: if a basis lacks an element.
    """
    collected = collect(spec)
    for structure in collected.structures:
        spec.method.require_spin(structure)
    keys = [spec.record_key(s) for s in collected.structures]
    first = {key: i for i, key in reversed(list(enumerate(keys)))}
    collected = collected.keeping(sorted(first.values()), "the same geometry again")
    keys = [keys[i] for i in sorted(first.values())]
    if before is None:
        split = assign_splits(spec.split, collected.structures, collected.groups)
        new = split != LEFT_OUT
    else:
        _require_all(before, keys)
        decided = np.array([before.split[before.index[k]] if k in before.index else UNDECIDED for k in keys], np.int64)
        split = grown_splits(spec.split, collected.structures, collected.groups, decided)
        new = (decided == UNDECIDED) & (split != LEFT_OUT)
    report = collected.keeping(np.flatnonzero(split != LEFT_OUT).tolist(), "more than the split asks for").report
    if before is None or new.any():
        added = _plan_of(
            spec, [(keys[i], collected.structures[i], int(split[i])) for i in np.flatnonzero(new).tolist()]
        )
        plan = added if before is None else before.continued(added)
    else:
        plan = before
    return plan, {**report, "planned": len(plan)}


def _require_all(before: Plan, keys: Sequence[str]) -> None:
    found = set(keys)
    missing = [key for key in before.keys if key not in found]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise SpecError(
            f"structures: {before.label(missing[0])}{more}, of the {len(before)} that the store holds, not found any "
            "more; a store grows but does not shrink: put back what was there (a sampler gives the same again only "
            "with the same settings, versions and machine), or generate into another folder"
        )


def _plan_of(spec: DataSpec, entries: Sequence[tuple[str, Structure, int]]) -> Plan:
    """The plan of (key, structure, part) in this order."""
    planned = PlannedStructures.of([structure for _, structure, _ in entries])
    elements = [int(z) for z in np.unique(planned.atomic_numbers)]
    orbital = spec.method.orbital_basis(elements)
    auxiliary = spec.method.density_basis(elements) if spec.targets.density_coefficients else None
    return Plan(
        keys=tuple(key for key, _, _ in entries),
        structures=planned,
        split=np.array([part for _, _, part in entries], np.int64),
        n_ao=_n_functions(orbital, planned),
        n_aux=_n_functions(auxiliary, planned) if auxiliary else np.zeros(len(planned), np.int64),
    )


def _n_functions(basis: BasisSet, structures: PlannedStructures) -> NDArray[np.int64]:
    """(n,) functions of every structure."""
    of_element = np.zeros(max(basis.elements) + 1, np.int64)
    for z, element in basis.elements.items():
        of_element[z] = element.n_functions
    return np.add.reduceat(of_element[structures.atomic_numbers], structures.offsets[:-1])


def write_plan(path: Path, plan: Plan) -> str:
    """Write a plan; returns the file's SHA-256."""
    values = {**vars(plan.structures), **vars(plan), "keys": np.array([key.encode() for key in plan.keys], KEY_TYPE)}
    arrays = {name: np.asarray(values[name], declared.dtype) for name, declared in _ARRAYS.items()}
    return write_arrays(path, {n: replace(d, shape=arrays[n].shape) for n, d in _ARRAYS.items()}, arrays)


def _shortened(name: str) -> bytes:
    return name.encode()[: NAME_TYPE.itemsize].decode(errors="ignore").encode()


def read_plan(path: Path, digest: str | None = None) -> Plan:
    """Read a plan."""
    arrays: dict[str, NDArray[Any]] = {**read_arrays(path, _ARRAYS, digest)}
    n, counts = len(arrays["keys"]), arrays["n_atoms"]
    n_all = int(counts.sum())
    sizes_fit = all(len(arrays[name]) == n for name in _ARRAYS.keys() - {"atomic_numbers", "positions"})
    if not sizes_fit or counts.min() < 1 or {len(arrays["positions"]), len(arrays["atomic_numbers"])} != {n_all}:
        raise damaged(path, "its arrays do not fit together")
    if arrays["split"].min() < 0 or arrays["split"].max() >= len(SPLIT_NAMES):
        raise damaged(path, "it holds an unknown split")
    numbers = arrays["atomic_numbers"]
    if not np.isfinite(arrays["positions"]).all() or numbers.min() < 1 or numbers.max() >= len(chemical_symbols):
        raise damaged(path, "its positions or atomic numbers are no molecule's")
    try:
        arrays["names"].tobytes().decode()
    except UnicodeDecodeError as error:
        raise damaged(path, f"its names are no UTF-8 ({error})") from error
    text = arrays["keys"].tobytes()
    if not _KEY_PATTERN.fullmatch(text):  # keys become file names
        raise damaged(path, "its keys are not different strings of 32 hexadecimal digits")
    keys = tuple(key.decode() for key in arrays["keys"].tolist())
    if len(set(keys)) != n:
        raise damaged(path, "its keys are not different strings of 32 hexadecimal digits")
    structures = PlannedStructures(
        counts, arrays["atomic_numbers"], arrays["positions"], arrays["charge"], arrays["spin"], arrays["names"]
    )
    return Plan(keys, structures, arrays["split"], arrays["n_ao"], arrays["n_aux"])
