"""Several stores of one spec, made into one: the union of their records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qcsurrogate.errors import SpecError, StoreError
from qcsurrogate.files.atomic import exclusive_lock
from qcsurrogate.store.agreement import differences_of
from qcsurrogate.store.catalog import MadeWith, write_catalog
from qcsurrogate.store.consolidate import (
    DEFAULT_MAX_BYTES,
    copy_failures,
    made_with_of,
    require_place_for,
    write_parts,
)
from qcsurrogate.store.folder import StoreFolder
from qcsurrogate.store.header import copy_plan_and_spec, write_header
from qcsurrogate.store.progress import Progress
from qcsurrogate.store.shards import RecordFile
from qcsurrogate.store.spec import differences
from qcsurrogate.store.store import Store

_MOST_REPORTED = 8


@dataclass(frozen=True)
class Merge:
    """What :func:`merge` has made.

    Attributes:
        path: the new store.
        n_records: records in it.
        taken: how many of them each store gave, in the order of the stores.
        repeated: records that were in several stores, and agree.
        missing: structures without a record in any store.
    """

    path: Path
    n_records: int
    taken: tuple[int, ...]
    repeated: int
    missing: int


def merge(
    out: str | Path, paths: Sequence[str | Path], *, max_bytes: int = DEFAULT_MAX_BYTES, quiet: bool = False
) -> Merge:
    """Make one consolidated store of all records of several stores with equal specs.

    A record that lies in several stores is taken from the first; all of them must agree
    within the thresholds of the SCF. The stores themselves are only read. The new folder
    becomes a store when everything is in it; started again, an interrupted merge goes on.

    Args:
        out: folder of the new store.
        paths: the stores.
        max_bytes: of one file's values before they are compressed.
        quiet: whether to keep silent about progress.

    Raises:
        SpecError: if the specs differ (with all differences), or there are not two stores.
        StoreError: if a store is damaged, its structures are others, or two stores
            disagree about a record.
    """
    if max_bytes < 1:
        raise SpecError(f"max_bytes = {max_bytes}; expected 1 or more")
    folders = [StoreFolder(Path(path).absolute()) for path in paths]
    target = StoreFolder(Path(out).absolute())
    if len({folder.path.resolve() for folder in folders}) != len(folders) or len(folders) < 2:
        raise SpecError(f"expected two or more different stores to merge, got {', '.join(map(str, paths)) or 'none'}")
    if target.path.resolve() in {folder.path.resolve() for folder in folders}:
        raise SpecError(f"'{out}' is one of the stores to merge; expected a new folder")
    with ExitStack() as stack:
        stores = [stack.enter_context(closing(Store.open(folder.path))) for folder in folders]
        _require_equal(stores)
        first = stores[0]
        held = [store.keys() for store in stores]
        owner = {key: i for i, keys in reversed(list(enumerate(held))) for key in keys}
        keys = [key for key in first.plan.keys if key in owner]
        if not keys:
            raise StoreError("none of the stores holds a complete record; run `generate` first")
        repeated = _require_agreement(stores, held, owner, quiet)

        def packed(wanted: Sequence[str]) -> Iterator[RecordFile]:
            own = [[key for key in wanted if owner[key] == i] for i in range(len(stores))]
            records = [store.packed_many(part) for store, part in zip(stores, own, strict=True)]
            return (next(records[owner[key]]) for key in wanted)

        target.prepare()
        stack.enter_context(exclusive_lock(target.lock_file))
        require_place_for(target, first.plan)
        copy_plan_and_spec(folders[0].path, target.path, first.header)
        made_with = _made_with(folders, stores)
        catalog = write_parts(target, first.plan, first.spec, keys, packed, max_bytes, made_with=made_with, quiet=quiet)
        write_catalog(catalog, first.header.plan_digest)
        missing = [key for key in first.plan.keys if key not in owner]
        copy_failures(folders, target, missing)
        write_header(target.path, first.header)
    taken = tuple(int(n) for n in np.bincount([owner[key] for key in keys], minlength=len(stores)))
    return Merge(Path(out), len(keys), taken, repeated, len(missing))


def _require_equal(stores: Sequence[Store]) -> None:
    first = stores[0]
    for other in stores[1:]:
        changes = differences(first.spec, other.spec)
        if changes:
            raise SpecError(
                f"'{first.path}' and '{other.path}' have different specs; expected equal ones. From the first to the "
                "second:\n  " + "\n  ".join(changes)
            )
        if first.plan.keys != other.plan.keys or not np.array_equal(first.plan.split, other.plan.split):
            common = len(set(first.plan.keys) & set(other.plan.keys))
            raise StoreError(
                f"'{first.path}' and '{other.path}' have equal specs but other plans ({len(first.plan)} and "
                f"{len(other.plan)} structures, {common} in common, or another split): their structure files differ, "
                "or the versions of what sampled them; expected the same structures in the same order"
            )


def _require_agreement(
    stores: Sequence[Store], held: Sequence[Sequence[str]], owner: dict[str, int], quiet: bool
) -> int:
    """Compare every record that lies in several stores; returns how many there are."""
    disagreements: list[str] = []
    repeated: set[str] = set()
    for i, store in enumerate(stores):
        shared = [key for key in held[i] if owner[key] != i]
        repeated.update(shared)
        if not shared:
            continue
        progress = Progress(len(shared), f"comparing {store.path.name}", quiet)
        with closing(progress):
            for key, record in zip(shared, store.read_many(shared), strict=True):
                taken = stores[owner[key]]
                found = [d for d in differences_of(taken.read(key), record, store.spec.method) if not d.within]
                if found:
                    what = "; ".join(str(difference) for difference in found)
                    disagreements.append(f"{record.structure.label} in '{taken.path}' and '{store.path}': {what}")
                progress.advance(failed=bool(found))
                progress.show()
    if disagreements:
        shown = disagreements[:_MOST_REPORTED]
        more = [f"and {len(disagreements) - len(shown)} more"] if len(disagreements) > len(shown) else []
        raise StoreError(
            f"{len(disagreements)} records lie in several stores and differ; expected the same within the thresholds "
            "of the SCF. Run `verify --sample` on both to see which is wrong:\n  " + "\n  ".join([*shown, *more])
        )
    return len(repeated)


def _made_with(folders: Sequence[StoreFolder], stores: Sequence[Store]) -> tuple[MadeWith, ...]:
    """Versions of all stores; of records that several have, the versions of each are counted."""
    counts: dict[tuple[tuple[str, str], ...], int] = {}
    for folder, store in zip(folders, stores, strict=True):
        for made in made_with_of(folder, store.header):
            versions = tuple(sorted(made.versions.items()))
            counts[versions] = counts.get(versions, 0) + made.n_records
    return tuple(MadeWith(dict(versions), n) for versions, n in sorted(counts.items(), key=lambda e: (-e[1], e[0])))
