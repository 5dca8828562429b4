"""Stores for tests, made record by record without Dask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from qcsurrogate.reference.atoms import free_atoms
from qcsurrogate.reference.record import ReferenceRecord
from qcsurrogate.store.folder import StoreFolder
from qcsurrogate.store.plan import make_plan
from qcsurrogate.store.shards import write_records
from qcsurrogate.store.spec import DataSpec
from qcsurrogate.store.upkeep import write_shard
from tests.store import fakes

_free_atoms = lru_cache(free_atoms)


def make_store(
    path: Path,
    spec: DataSpec,
    calculator: Callable[..., ReferenceRecord] = fakes.pretend,
    *,
    rows: Sequence[int] | None = None,
    pending: int = 0,
    shuffled: bool = False,
    record: Callable[[ReferenceRecord], ReferenceRecord] = lambda record: record,
) -> StoreFolder:
    """A store of some structures of a spec.

    Args:
        path: its folder.
        spec: what it holds.
        calculator: what computes a record.
        rows: which structures are complete; by default all.
        pending: how many of them wait for their shard.
        shuffled: whether shards hold them in mixed order.
        record: what to make of each record before it is written.
    """
    folder = StoreFolder(path)
    folder.prepare()
    plan = make_plan(spec)[0]
    atoms = _free_atoms(plan.elements, spec.method)
    folder.write_header(spec, plan, atoms)
    keys = [plan.keys[i] for i in (range(len(plan)) if rows is None else rows)]
    if shuffled:
        keys = [keys[i] for i in np.random.default_rng(0).permutation(len(keys))]
    for key in keys:
        computed = calculator(plan.structures[plan.index[key]], spec.method, spec.targets, atoms)
        write_records(folder.pending_file(key), [(key, record(computed))], plan, spec)
    finished = keys[: len(keys) - pending]
    for start in range(0, len(finished), spec.shard_size):
        write_shard(folder, finished[start : start + spec.shard_size], plan, spec)
    return folder
