"""Structures with labels from elsewhere, in three parts: what a store is for Kohn-Sham references."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qcsurrogate.errors import SpecError, StoreError, StructureError, suggestion
from qcsurrogate.reference.atoms import FreeAtoms
from qcsurrogate.sources.chosen import choose
from qcsurrogate.sources.collect import checked, listed_names, packaged_file
from qcsurrogate.sources.kinds import FileSource, expanded
from qcsurrogate.sources.readers.geometries import joined
from qcsurrogate.sources.readers.npz import BROKEN
from qcsurrogate.store.spec import DESCRIPTIVE, SPLIT_NAMES, SplitName
from qcsurrogate.store.splits import LEFT_OUT, assign_splits
from qcsurrogate.structures import Structure
from qcsurrogate.tables import qm9
from qcsurrogate.tables.reading import Read, read_labelled
from qcsurrogate.tables.sets import Array, Target
from qcsurrogate.tables.spec import ExplicitSplit, TableSpec, table_spec

_LARGEST_SPLIT_FILE: Final = 2**28


@dataclass(frozen=True, eq=False)
class Table:
    """Structures and their labels; made by :func:`open_table`.

    Attributes:
        path: the file, the folder or the spec.
        spec: what it is.
        structures: those that were kept; their names are their keys.
        parts: (n,) index of the part of each, or ``LEFT_OUT``.
        targets: what is known of every structure.
        columns: (n, ...) values of every target.
        notes: what a user has to know of it, in words.
    """

    path: Path
    spec: TableSpec
    structures: Sequence[Structure]
    parts: NDArray[np.int64]
    targets: Mapping[str, Target]
    columns: Mapping[str, Array]
    notes: tuple[str, ...] = ()
    atoms: FreeAtoms = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of structures in the three parts."""
        return int((self.parts != LEFT_OUT).sum())

    def keys(self, split: SplitName | None = None) -> list[str]:
        """Names of the structures of one part, or of all three, in the order of the table.

        Raises:
            StoreError: for a part that does not exist.
        """
        if split is not None and split not in SPLIT_NAMES:
            raise StoreError(f"no split '{split}'; expected one of {list(SPLIT_NAMES)}{suggestion(split, SPLIT_NAMES)}")
        wanted = self.parts != LEFT_OUT if split is None else self.parts == SPLIT_NAMES.index(split)
        return [self.structures[i].name for i in np.flatnonzero(wanted).tolist()]

    def structure(self, key: str) -> Structure:
        """The structure of a name."""
        return self.structures[self._row(key)]

    def labels(self, names: Sequence[str], keys: Sequence[str]) -> dict[str, list[Array]]:
        """See :class:`qcsurrogate.tables.sets.LabelledSet`."""
        rows = [self._row(key) for key in keys]
        return {name: [np.asarray(self.columns[name][row]) for row in rows] for name in names}

    def training_on(self, keys: Iterable[str]) -> Table:
        """The same table as if its training part held these alone.

        Raises:
            StoreError: for a key that is not of the training part.
        """
        wanted, own = set(keys), set(self.keys("train"))
        if foreign := sorted(wanted - own):
            raise StoreError(
                f"'{self.path}' has no structure '{foreign[0]}' in its training split; expected keys that "
                "`keys('train')` gives"
            )
        parts = self.parts.copy()
        parts[[self._row(key) for key in own - wanted]] = LEFT_OUT
        return replace(self, parts=parts)

    def dataset_hash(self) -> str:
        """A hash of the spec, but for what only describes it, of all structures, labels and parts."""
        return self._hash

    @cached_property
    def _hash(self) -> str:
        spec = {key: value for key, value in self.spec.identity().items() if key not in DESCRIPTIVE}
        del spec["structures"]  # what they came to is hashed itself, wherever it was read from
        digest = hashlib.sha256(json.dumps(spec | {"targets": list(self.targets)}, sort_keys=True).encode())
        for s in self.structures:
            digest.update(f"{s.name} {s.charge} {s.spin}".encode() + s.atomic_numbers.tobytes() + s.positions.tobytes())
        for values in (*self.columns.values(), self.parts):
            digest.update(np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()

    def has_been(self, dataset_hash: str) -> bool:
        """Whether this is its :meth:`dataset_hash`: a table does not grow."""
        return dataset_hash == self.dataset_hash()

    def size_before(self, dataset_hash: str) -> int | None:
        """None: a table does not grow."""
        return None

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {structure.name: row for row, structure in enumerate(self.structures)}

    def _row(self, key: str) -> int:
        try:
            return self._rows[key]
        except KeyError:
            raise StoreError(f"'{self.path}' has no structure with the key '{key}'") from None


def open_table(source: str | Path | TableSpec) -> Table:
    """Read a table: structures, their labels if there are any, what is left out, and the parts.

    Args:
        source: the YAML file of a table, a file or folder of structures (with labels or without), the name of
            one that comes with the package, or a spec.

    Raises:
        SpecError: if the spec, or a list that it names, cannot be used, or nothing is left.
        StructureError: if a file is missing or damaged, or a molecule is there twice.
    """
    spec = source if isinstance(source, TableSpec) else table_spec(source)
    structures = spec.structures
    paths = expanded(structures) if isinstance(structures, FileSource) else [packaged_file(structures)]
    read = _one([read_labelled(path, skip_bad=structures.skip_bad) for path in paths])
    notes: list[str] = []
    listed: set[str] = set()
    if read.is_qm9:
        known = {"level": qm9.LEVEL, "licence": qm9.LICENCE, "citation": qm9.CITATION}
        spec = spec.model_copy(update={key: value for key, value in known.items() if not getattr(spec, key)})
        if isinstance(structures, FileSource) and structures.leave_out is None:
            listed, notes = _uncharacterised(paths, len(read.geometries))
    if not read.targets:
        read = replace(read, geometries=replace(read.geometries, names=_numbered(read.geometries.names)))
    names = [str(name) for name in read.geometries.names]
    rows = {name: row for row, name in enumerate(names)}
    if len(rows) < len(names):
        twice = next(name for row, name in enumerate(names) if rows[name] != row)
        raise StructureError(
            f"'{read.geometries.source}': the molecule '{twice}' is there twice; expected every name once: remove one"
        )
    found = checked(structures, read.geometries)
    if listed:
        kept = [i for i, structure in enumerate(found.structures) if structure.name not in listed]
        found = found.keeping(kept, "uncharacterised")
    found = choose(structures, found)
    found = found.keeping(_different(found.structures, spec), "duplicate")
    if not found.structures:
        raise SpecError(f"'{spec.name}': nothing is left ({found.summary()}); loosen the subset or the source")
    chosen = np.array([rows[structure.name] for structure in found.structures])
    columns = {name: np.ascontiguousarray(values[chosen]) for name, values in read.columns.items()}
    for name, values in columns.items():
        if len(bad := np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))):
            raise StructureError(
                f"'{read.geometries.source}': the {name} of '{found.structures[bad[0]].name}' is not finite; expected "
                "a number: leave the molecule out"
            )
    if len(found.report) > 1:
        notes.append(f"the table '{spec.name}': {found.summary()}")
    path = paths[0] if isinstance(source, TableSpec) else Path(source)
    parts = _parts(spec, found.structures, found.groups)
    return Table(path, spec, found.structures, parts, read.targets, columns, tuple(notes))


def _one(parts: Sequence[Read]) -> Read:
    """All files together; they must have the same labels."""
    first = parts[0]
    for part in parts[1:]:
        if list(part.targets.items()) != list(first.targets.items()):
            raise StructureError(
                f"'{first.geometries.source}' and '{part.geometries.source}' have other labels than each other; "
                "expected the same targets in all files of a table"
            )
    columns = {name: np.concatenate([part.columns[name] for part in parts]) for name in first.columns}
    return Read(joined([part.geometries for part in parts]), first.targets, columns, first.is_qm9)


def _numbered(names: NDArray[Any]) -> NDArray[Any]:
    """Names of structures without labels, such as the frames of a molecule: those that repeat get a number."""
    seen: Counter[str] = Counter()
    numbered = []
    for name in map(str, names.tolist()):
        seen[name] += 1
        numbered.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return np.array(numbered, dtype=object)


def _uncharacterised(paths: Sequence[Path], n: int) -> tuple[set[str], list[str]]:
    """Names in the published list, if it lies beside the files; else a note, if these are all ``n`` of QM9."""
    for folder in dict.fromkeys(path if path.is_dir() else path.parent for path in paths):
        if (beside := folder / qm9.UNCHARACTERISED_NAME).is_file():
            return listed_names(beside), []
    if n < qm9.N_MOLECULES:
        return set(), []
    return set(), [
        f"the {qm9.N_UNCHARACTERISED:,} molecules of QM9 that its authors list as uncharacterised are not left out: "
        f"there is no '{qm9.UNCHARACTERISED_NAME}' beside '{paths[0]}', and the table names no structures.leave_out"
    ]


def _different(structures: Sequence[Structure], spec: TableSpec) -> list[int]:
    """Indices of the structures without those that repeat another, atom by atom."""
    first: dict[tuple[int, int, bytes, bytes], int] = {}
    kept = []
    for i, s in enumerate(structures):
        same = first.setdefault((s.charge, s.spin, s.atomic_numbers.tobytes(), s.positions.tobytes()), i)
        if same == i:
            kept.append(i)
        elif spec.duplicates == "refuse":
            raise StructureError(
                f"'{spec.name}': '{s.name}' has the same atoms at the same places as '{structures[same].name}'; "
                "expected each molecule once, lest it trains and tests: remove one, or set duplicates: leave_out"
            )
    return kept


def _parts(spec: TableSpec, structures: Sequence[Structure], groups: Sequence[str] | None) -> NDArray[np.int64]:
    if not isinstance(spec.split, ExplicitSplit):
        return assign_splits(spec.split, structures, groups)
    rows = {structure.name: row for row, structure in enumerate(structures)}
    parts = np.full(len(structures), LEFT_OUT, dtype=np.int64)
    for part, (name, keys) in enumerate(_explicit(spec.split).items()):
        for key in keys:
            if key not in rows:
                raise SpecError(
                    f"split.{name}: the table '{spec.name}' has no molecule '{key}'{suggestion(key, rows)}; expected "
                    "names of molecules that are kept, or a number n for gdb_n"
                )
            if parts[rows[key]] != LEFT_OUT:
                raise SpecError(f"split.{name}: '{key}' is there twice; expected every molecule in one part at most")
            parts[rows[key]] = part
    if not (parts == 0).any():
        raise SpecError(f"split.train of the table '{spec.name}' is empty; expected one molecule at least")
    return parts


def _explicit(split: ExplicitSplit) -> dict[SplitName, list[str]]:
    lists: Mapping[str, Any] = {name: getattr(split, name) for name in SPLIT_NAMES}
    if split.path is not None:
        if any(lists.values()):
            raise SpecError("split: path and lists are given; expected one of them")
        lists = _split_file(Path(split.path))
    return {
        name: [f"gdb_{int(key)}" if isinstance(key, int | np.integer) else str(key) for key in lists[name]]
        for name in SPLIT_NAMES
    }


def _split_file(path: Path) -> Mapping[str, Any]:
    """The three lists of a JSON or npz file."""
    try:
        if path.suffix.lower() == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                found: Any = {name: arrays[name].ravel().tolist() for name in SPLIT_NAMES if name in arrays}
        elif path.stat().st_size <= _LARGEST_SPLIT_FILE:
            found = json.loads(path.read_text(encoding="utf-8"))
        else:
            raise ValueError(f"it has more than {_LARGEST_SPLIT_FILE} bytes")
    except BROKEN as error:
        raise SpecError(f"split.path: cannot read '{path}': {error}") from error
    if not isinstance(found, dict) or any(not isinstance(found.get(name), list) for name in SPLIT_NAMES):
        raise SpecError(f"split.path: '{path}' has no three lists train, validation and test; expected JSON or npz")
    if any(isinstance(key, bool) or not isinstance(key, int | str) for name in SPLIT_NAMES for key in found[name]):
        raise SpecError(f"split.path: '{path}' holds other things than names; expected names, or numbers n for gdb_n")
    return dict(found)
