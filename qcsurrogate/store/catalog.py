"""What a consolidated store holds where: a short catalog in JSON, and an index in HDF5.

::

    consolidated/catalog.json        generation, parts with their digests, digest of the index
    consolidated/index_002.h5        for every record its place in the plan, part after part
    consolidated/part_002_00000.h5   records in planned order
    consolidated/part_002_00000.json manifest of one part, from which an interrupted run goes on
    consolidated/leftovers.json      files that may go once the catalog is there

Every consolidation is a new generation, whose files have names of their own.  Writing
``catalog.json`` makes it the valid one, in one step.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qcsurrogate.errors import StoreError
from qcsurrogate.files.atomic import read_sealed_json, remove_quietly, sealed_json, write_atomically
from qcsurrogate.store.hdf5 import Expected, StoredArray, read_arrays, write_arrays

CATALOG_NAME: Final = "catalog.json"
CATALOG_VERSION: Final = 1

CONSOLIDATED: Final = "consolidated"
"""The folder of these files in a store."""

_LEFTOVERS_NAME = "leftovers.json"
_LEFTOVER = re.compile(
    r"shards/shard_\d+\.(h5|json)|pending/[0-9a-f]{32}\.record"
    r"|consolidated/(part_\d+_\d+\.(h5|json)|index_\d+\.h5)",
    re.ASCII,
)
_INDEX_NAME = "structure"
_INDEX_TYPE: Final = np.dtype("<i8")


@dataclass(frozen=True)
class Part:
    """One file of consolidated records.

    Attributes:
        name: file name.
        digest: SHA-256 of the file.
        n_bytes: its size.
        n_records: how many records it holds.
    """

    name: str
    digest: str
    n_bytes: int
    n_records: int

    def to_dict(self) -> dict[str, Any]:
        """As the catalog has it."""
        return {"name": self.name, "sha256": self.digest, "bytes": self.n_bytes, "records": self.n_records}


@dataclass(frozen=True)
class MadeWith:
    """Versions of packages, and how many records were computed with them."""

    versions: Mapping[str, str]
    n_records: int

    def to_dict(self) -> dict[str, Any]:
        """As the catalog has it."""
        return {"versions": dict(self.versions), "records": self.n_records}


@dataclass(frozen=True, eq=False)
class Catalog:
    """The consolidated records of a store.

    Attributes:
        folder: where its files lie.
        generation: counts the consolidations.
        parts: the files, in order.
        structures: (n_records,) place in the plan of every record, part after part.
        made_with: which packages the records were computed with, and how many with each.
    """

    folder: Path
    generation: int
    parts: tuple[Part, ...]
    structures: NDArray[np.int64]
    made_with: tuple[MadeWith, ...]

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """(n_parts + 1,) first record of every part, and the total."""
        return np.concatenate([[0], np.cumsum([part.n_records for part in self.parts])]).astype(np.int64)

    @cached_property
    def present(self) -> tuple[bool, ...]:
        """Which parts are there; who removed a damaged one wants its records computed again."""
        return tuple(self.path(i).is_file() for i in range(len(self.parts)))

    def places(self, n_planned: int) -> NDArray[np.int64]:
        """(n_planned,) place in the index of every planned structure's record; -1 where there is none."""
        places = np.full(n_planned, -1, np.int64)
        for i, there in enumerate(self.present):
            if there:
                places[self.structures_of(i)] = np.arange(self.starts[i], self.starts[i + 1])
        return places

    def part_of(self, place: int) -> int:
        """The part that holds a record, given by its place in the index."""
        return int(np.searchsorted(self.starts, place, side="right")) - 1

    def path(self, part: int) -> Path:
        """The file of a part."""
        return self.folder / self.parts[part].name

    def structures_of(self, part: int) -> NDArray[np.int64]:
        """(n_records of the part,) places in the plan."""
        return self.structures[self.starts[part] : self.starts[part + 1]]


def part_name(generation: int, number: int) -> str:
    """File name of a part."""
    return f"part_{generation:03d}_{number:05d}.h5"


def index_name(generation: int) -> str:
    """File name of the index."""
    return f"index_{generation:03d}.h5"


def write_catalog(catalog: Catalog, plan_digest: str) -> None:
    """Write the index, then the catalog: from here on its parts are the valid ones.

    Raises:
        StoreError: if they cannot be written.
    """
    description = "place in the plan of every record, part after part, in the order of their rows"
    index = StoredArray(catalog.structures.astype(_INDEX_TYPE), "1", description)
    index_digest = write_arrays(catalog.folder / index_name(catalog.generation), {_INDEX_NAME: index})
    content = {
        "catalog_version": CATALOG_VERSION,
        "generation": catalog.generation,
        "plan_sha256": plan_digest,
        "index_sha256": index_digest,
        "parts": [part.to_dict() for part in catalog.parts],
        "made_with": [made.to_dict() for made in catalog.made_with],
    }
    write_atomically(catalog.folder / CATALOG_NAME, sealed_json(content))


def read_catalog(folder: Path, plan_digests: Sequence[str], n_planned: int) -> Catalog:
    """The catalog of a store that was consolidated.

    Args:
        folder: the store's folder of consolidated files.
        plan_digests: SHA-256 of the store's plan, and of those that it continues.
        n_planned: number of structures in the plan.

    Raises:
        StoreError: if catalog or index are damaged, or belong to another plan.
    """
    path = folder / CATALOG_NAME
    data = read_sealed_json(path)
    if data.get("catalog_version") != CATALOG_VERSION:
        raise StoreError(f"'{path}' has version {data.get('catalog_version')!r}; this version reads {CATALOG_VERSION}")
    if data.get("plan_sha256") not in plan_digests:
        raise StoreError(f"'{path}' belongs to another plan than the store's; expected the files of one store")
    try:
        generation = _count(data["generation"])
        parts = tuple(
            Part(part_name(generation, i), str(p["sha256"]), _count(p["bytes"]), _count(p["records"]))
            for i, p in enumerate(data["parts"])
        )
        if [p["name"] for p in data["parts"]] != [part.name for part in parts]:
            raise ValueError("its parts have other names than expected")
        made_with = tuple(
            MadeWith({str(k): str(v) for k, v in made["versions"].items()}, _count(made["records"]))
            for made in data["made_with"]
        )
        index_digest = str(data["index_sha256"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(f"'{path}' is damaged: {error}") from error
    n_records = sum(part.n_records for part in parts)
    if not 0 < n_records <= n_planned:
        raise StoreError(f"'{path}' lists {n_records} records; expected 1 to {n_planned}, the planned structures")
    expected = {_INDEX_NAME: Expected(_INDEX_TYPE, (n_records,), "1")}
    try:
        index = read_arrays(folder / index_name(generation), expected, index_digest)[_INDEX_NAME]
    except StoreError as error:
        raise StoreError(
            f"the index of '{folder}' cannot be used: take it from a copy, or remove that folder and run `generate` "
            f"again ({error})"
        ) from error
    structures = np.asarray(index, np.int64)
    if structures.min() < 0 or structures.max() >= n_planned or np.bincount(structures).max() > 1:
        raise StoreError(f"'{path}': its index is not one place in the plan for every record")
    return Catalog(folder, generation, parts, structures, made_with)


def write_leftovers(store: Path, generation: int, names: Sequence[str]) -> None:
    """Note which files a consolidation makes superfluous, before its catalog becomes the valid one.

    Args:
        store: the store's folder.
        generation: of the consolidation.
        names: of files in it, relative to the folder.

    Raises:
        StoreError: if it cannot be written.
    """
    content = sealed_json({"generation": generation, "files": list(names)})
    write_atomically(store / CONSOLIDATED / _LEFTOVERS_NAME, content)


def sweep_leftovers(store: Path) -> None:
    """Remove what a consolidation has made superfluous, if it got as far as its catalog; only under the lock.

    Raises:
        StoreError: if a file cannot be read, or names something that is not a store's to remove.
    """
    path, catalog = store / CONSOLIDATED / _LEFTOVERS_NAME, store / CONSOLIDATED / CATALOG_NAME
    if not path.is_file() or not catalog.is_file():
        return
    data = read_sealed_json(path)
    if data.get("generation") != read_sealed_json(catalog).get("generation"):
        return  # that consolidation did not come to its end: nothing is superfluous yet
    names = data.get("files")
    if not isinstance(names, list) or not all(isinstance(n, str) and _LEFTOVER.fullmatch(n) for n in names):
        raise StoreError(f"'{path}' is damaged: it lists other files than those of records; remove it")
    for name in names:
        remove_quietly(store / name)
    remove_quietly(path)


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"expected a whole number of 1 or more, got {value!r}")
    return value
