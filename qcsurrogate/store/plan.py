"""The plan: which structures a store is to hold, decided once and then only read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qcsurrogate.errors import SpecError, StoreError, StructureError, suggestion
from qcsurrogate.sampling import sample_displacements, sample_thermal
from qcsurrogate.store.hdf5 import Expected, StoredArray, damaged, read_arrays, write_arrays
from qcsurrogate.store.spec import (
    SPLIT_NAMES,
    DataSpec,
    DisplacementSource,
    FileSource,
    PackagedSource,
    SplitName,
    ThermalSource,
)
from qcsurrogate.store.splits import LEFT_OUT, assign_splits
from qcsurrogate.structures import Structure, read_structures

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


def collect_structures(spec: DataSpec) -> tuple[list[Structure], list[str] | None]:
    """All structures that a spec names, and their group labels if the source has any.

    Raises:
        StructureError: for a file or geometry that cannot be used.
        SpecError: for packaged geometries that do not exist.
    """
    source, method = spec.structures, spec.method
    if isinstance(source, ThermalSource):
        from qcsurrogate.reference.normal_modes import harmonic_modes

        modes = harmonic_modes(source.equilibrium.structure(method.charge, method.spin), method)
        sampled = sample_thermal(modes, source.temperature_kelvin, source.count, source.seed, source.statistics)
        return sampled, [source.equilibrium.name] * len(sampled)
    if isinstance(source, DisplacementSource):
        equilibrium = source.equilibrium.structure(method.charge, method.spin)
        sampled = sample_displacements(equilibrium, source.sigma_angstrom, source.count, source.seed)
        return sampled, [source.equilibrium.name] * len(sampled)
    path = Path(source.path) if isinstance(source, FileSource) else packaged_file(source)
    structures = read_structures(path, method.charge, method.spin)
    groups = _read_groups(path, len(structures))
    chosen = _choose(source, len(structures))
    return [structures[i] for i in chosen], None if groups is None else [groups[i] for i in chosen]


def packaged_file(source: PackagedSource) -> Path:
    """The file of packaged geometries.

    Raises:
        SpecError: if there are none of that name.
    """
    folder = Path(str(resources.files("qcsurrogate.resources")))
    path = folder / f"{source.name}.npz"
    if not path.is_file():
        names = sorted(p.stem for p in folder.glob("*.npz"))
        raise SpecError(
            f"structures.name: no packaged geometries '{source.name}'; expected one of {', '.join(names)}"
            f"{suggestion(source.name, names)}"
        )
    return path


def _choose(source: FileSource | PackagedSource, n: int) -> list[int]:
    chosen = np.arange(0, n, source.stride if isinstance(source, FileSource) else 1)
    if source.limit is not None and source.limit < len(chosen):
        if source.seed is None:
            chosen = chosen[: source.limit]
        else:
            generator = np.random.default_rng(source.seed)
            chosen = np.sort(generator.choice(chosen, source.limit, replace=False))
    return [int(i) for i in chosen]


def _read_groups(path: Path, n: int) -> list[str] | None:
    if path.suffix != ".npz":
        return None
    try:
        with np.load(path, allow_pickle=False) as archive:
            if "groups" not in archive:
                return None
            groups = archive["groups"]
    except (OSError, ValueError, EOFError) as error:
        raise StructureError(f"cannot read 'groups' of '{path}': {error}") from error
    if groups.shape != (n,):
        raise StructureError(f"'{path}': groups has shape {groups.shape}; expected ({n},), one label per structure")
    return [str(label) for label in groups]


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
