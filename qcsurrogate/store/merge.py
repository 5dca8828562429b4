"""Several stores of one method, made into one: the union of their structures and records."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qcsurrogate.errors import SpecError, StoreError
from qcsurrogate.files.atomic import exclusive_lock
from qcsurrogate.sources.kinds import SeveralSource, Source
from qcsurrogate.store.agreement import differences_of
from qcsurrogate.store.consolidate import DEFAULT_MAX_BYTES, copy_failures, require_place_for, write_shards
from qcsurrogate.store.folder import StoreFolder
from qcsurrogate.store.header import Extent, Header, copy_plan_and_spec, write_header, write_plan_and_spec
from qcsurrogate.store.manifest import Versions
from qcsurrogate.store.plan import Plan
from qcsurrogate.store.progress import Progress
from qcsurrogate.store.shards import RecordFile
from qcsurrogate.store.spec import SPLIT_NAMES, AutoSplit, DataSpec, RandomSplit, SizeSplit, differences
from qcsurrogate.store.splits import connected_molecules, formula_of
from qcsurrogate.store.store import Store

_MOST_REPORTED = 8


@dataclass(frozen=True)
class Merge:
    """What :func:`merge` has made.

    Attributes:
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
    """Make one store, in few large shards, of all structures and records of several stores of equal method and targets.

    Every structure keeps its part of the split; the first store's structures come first.
    A record that lies in several stores is taken from the first; all of them must agree
    within the thresholds of the SCF. The stores themselves are only read. The new folder
    becomes a store when everything is in it; started again, an interrupted merge goes on.

    Args:
        out: folder of the new store.
        paths: the stores.
        max_bytes: of one file's values before they are compressed.
        quiet: whether to keep silent about progress.

    Raises:
        SpecError: if method or targets differ (with all differences), or there are not two stores.
        StoreError: if a store is damaged, or two stores disagree about a record, or about
            the part of a structure or (where one divides by molecule) of a molecule.
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
        _require_equal_method(stores)
        united = _union(stores, quiet)
        plan = united.plan
        held = [store.keys() for store in stores]
        owner = {key: i for i, keys in reversed(list(enumerate(held))) for key in keys}
        keys = [key for key in plan.keys if key in owner]
        if not keys:
            raise StoreError("none of the stores holds a complete record; run `generate` first")
        repeated = _require_agreement(stores, held, owner, quiet)

        def packed(wanted: Sequence[str]) -> Iterator[RecordFile]:
            own = [[key for key in wanted if owner[key] == i] for i in range(len(stores))]
            records = [store.packed_many(part) for store, part in zip(stores, own, strict=True)]
            return (next(records[owner[key]]) for key in wanted)

        target.prepare()
        stack.enter_context(exclusive_lock(target.lock_file))
        require_place_for(target, plan)
        if united is stores[0].header:
            copy_plan_and_spec(folders[0].path, target.path, united)
        else:
            united = write_plan_and_spec(target.path, united)
        versions: dict[str, Versions] = {}
        for folder, store in reversed(list(zip(folders, stores, strict=True))):
            versions |= folder.versions_of(store.header)
        write_shards(target, plan, united.spec, keys, packed, versions, max_bytes, quiet=quiet)
        missing = [key for key in plan.keys if key not in owner]
        copy_failures(folders, target, missing)
        write_header(target.path, united)
    taken = tuple(int(n) for n in np.bincount([owner[key] for key in keys], minlength=len(stores)))
    return Merge(Path(out), len(keys), taken, repeated, len(missing))


def _require_equal_method(stores: Sequence[Store]) -> None:
    first = stores[0]
    for other in stores[1:]:
        of_records = ("method", "targets", "spec_version")
        changes = [line for line in differences(first.spec, other.spec) if line.startswith(of_records)]
        if changes:
            raise SpecError(
                f"'{first.path}' and '{other.path}' have different methods or targets; expected equal ones. From the "
                "first to the second:\n  " + "\n  ".join(changes)
            )


def _union(stores: Sequence[Store], quiet: bool) -> Header:
    """The header of a store of all structures: that of the first, if the others have the same spec and plan."""
    first = stores[0]
    if all(_equal(first, other) for other in stores[1:]):
        return first.header
    plan = first.plan
    for other in stores[1:]:
        _require_equal_parts(plan, stores, other)
        new = [key for key in other.plan.keys if key not in plan.index]
        plan = plan.continued(other.plan.part(new)) if new else plan
    _require_undivided_molecules(plan, stores, quiet)
    kinds = list(dict.fromkeys(f"'{store.spec.split.kind}'" for store in stores))
    if len(kinds) > 1 and not quiet:
        print(
            f"split: the stores divide {' and '.join(kinds)}; every structure keeps its part, and the new spec says "
            f"{kinds[0]}",
            file=sys.stderr,
        )
    atoms = {z: atom for store in reversed(stores) for z, atom in store.atoms.items()}
    begun = Extent(first.header.plan_digest, len(first.plan), first.dataset_hash())
    return replace(
        first.header,
        spec=_united_spec([store.spec for store in stores], plan.split),
        plan=plan,
        atoms=dict(sorted(atoms.items())),
        collected={"stores merged": len(stores), "planned": len(plan)},
        source_digest=None,
        earlier=(*first.header.earlier, begun),
    )


def _equal(first: Store, other: Store) -> bool:
    same_plan = first.plan.keys == other.plan.keys and np.array_equal(first.plan.split, other.plan.split)
    return same_plan and not differences(first.spec, other.spec)


def _united_spec(specs: Sequence[DataSpec], parts: NDArray[np.int64]) -> DataSpec:
    """The first one, with the sources, licences and citations of all; instead of counts, the fractions there are."""
    sources: list[Source] = []
    for spec in specs:
        own = spec.structures
        chooses = own.subset is not None or own.deduplicate is not None
        single = own.sources if isinstance(own, SeveralSource) and not chooses else (own,)
        sources += [source for source in single if source not in sources]
    split = specs[0].split
    if not isinstance(split, SizeSplit) and not split.are_fractions:
        counts = np.bincount(parts, minlength=len(SPLIT_NAMES))
        split = split.model_copy(update=dict(zip(SPLIT_NAMES, (counts / counts.sum()).tolist(), strict=True)))
    return specs[0].model_copy(
        update={
            "structures": sources[0] if len(sources) == 1 else SeveralSource(kind="several", sources=tuple(sources)),
            "split": split,
            "licence": _all_of([spec.licence for spec in specs]),
            "citation": _all_of([spec.citation for spec in specs]),
        }
    )


def _all_of(texts: Sequence[str]) -> str:
    return "; ".join(dict.fromkeys(text for text in texts if text))


def _require_equal_parts(plan: Plan, stores: Sequence[Store], other: Store) -> None:
    divided = [key for key in other.plan.keys if key in plan.index and plan.split_of(key) != other.split_of(key)]
    if divided:
        key = divided[0]
        holder = next(store for store in stores if key in store.plan.index)
        more = f"; {len(divided) - 1} more differ" if len(divided) > 1 else ""
        raise StoreError(
            f"{plan.label(key)} is in {plan.split_of(key)} of '{holder.path}' and in {other.split_of(key)} of "
            f"'{other.path}'{more}; expected equal parts: generate both with equal splits, such as 'by_hash'"
        )


def _require_undivided_molecules(plan: Plan, stores: Sequence[Store], quiet: bool) -> None:
    """No molecule in two parts of different stores, where one of them divides by molecule."""
    identities = {
        s.identity for store in stores if not isinstance(s := store.spec.split, AutoSplit | RandomSplit | SizeSplit)
    }
    if "group" in identities and not quiet:
        print("split: stores do not hold groups, so that none stands in two parts was not checked", file=sys.stderr)
    owner = {key: i for i, store in reversed(list(enumerate(stores))) for key in store.plan.keys}
    structures = list(plan.structures) if identities else []
    for identity in sorted(identities & {"connectivity", "formula"}):
        by_formula = identity == "formula"
        labels = [formula_of(s) for s in structures] if by_formula else connected_molecules(structures)
        first: dict[str, dict[tuple[int, int], int]] = {}
        for i, label in enumerate(labels):
            found = first.setdefault(label, {})
            part, store = int(plan.split[i]), owner[plan.keys[i]]
            for (other_part, other_store), j in found.items():
                if other_part != part and other_store != store:
                    raise StoreError(
                        f"{plan.label(plan.keys[j])} in {SPLIT_NAMES[other_part]} of '{stores[other_store].path}' and "
                        f"{plan.label(plan.keys[i])} in {SPLIT_NAMES[part]} of '{stores[store].path}' may be the same "
                        f"molecule (by {identity}); expected molecules undivided: generate both with equal splits "
                        "'by_hash'"
                    )
            found.setdefault((part, store), i)


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
