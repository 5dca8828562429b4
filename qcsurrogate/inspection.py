"""What lies in a store, a shard, a model file or a table, as JSON data; everything read is checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qcsurrogate.errors import SpecError, StoreError, suggestion
from qcsurrogate.files.atomic import exclusive_lock, is_locked
from qcsurrogate.models.files import read_model
from qcsurrogate.prediction.surrogate import MODEL_FILE_NAME
from qcsurrogate.reference.kohn_sham import LADDER
from qcsurrogate.reference.record import ReferenceRecord
from qcsurrogate.store.failures import FailureGroup, checked_cause, group_failures
from qcsurrogate.store.folder import StoreFolder
from qcsurrogate.store.header import HEADER_NAME
from qcsurrogate.store.journal import read_journal
from qcsurrogate.store.raw import RAW_SUFFIX
from qcsurrogate.store.spec import SPLIT_NAMES
from qcsurrogate.store.store import Store
from qcsurrogate.structures import symbols_of
from qcsurrogate.tables.opening import is_table
from qcsurrogate.tables.table import Table, open_table


def status(path: str | Path) -> dict[str, Any]:
    """How far a store has come.

    Raises:
        StoreError: if the folder is no store, or is damaged.
    """
    store = Store.open(path)
    failures = store.failures()
    again = store.folder.earlier_attempts(store.plan)
    counts = store.counts()
    return {
        "path": str(path),
        "name": store.spec.name,
        "structures": len(store.plan),
        "states": counts,
        "errors_by_cause": dict(Counter(f.cause for f in failures)),
        "to_be_tried_again_by_cause": dict(Counter(f.cause for f in again)),
        "complete_by_split": {split: len(store.keys(split)) for split in SPLIT_NAMES},
        "generation": _generation(store.folder, counts["waiting"] + counts["running"]),
        "failures": [f.to_dict() for f in failures],
    }


def _generation(folder: StoreFolder, unfinished: int) -> dict[str, Any]:
    """What the journal says of the run that is on, or was the last."""
    journal = read_journal(folder.journal_file)
    is_on = is_locked(folder.lock_file)
    rate = journal.records_per_hour
    eta = 3600.0 * unfinished / rate if rate else None
    return {
        "is_on": is_on,
        "workers": journal.workers if is_on else 0,
        "computed": journal.computed,
        "records_per_hour": rate,
        "expected_seconds": (journal.expected_seconds if journal.expected_seconds is not None else eta)
        if is_on and unfinished
        else None,
        "slowest": [{"name": s.name, "seconds": s.seconds, "orbitals": s.n_ao} for s in journal.slowest],
    }


def failure_report(path: str | Path) -> list[FailureGroup]:
    """What failed, put aside or to be tried again, grouped by cause and by what was said.

    Raises:
        StoreError: if the folder is no store, or is damaged.
    """
    store = Store.open(path)
    return group_failures([*store.failures(), *store.folder.earlier_attempts(store.plan)])


def retry(path: str | Path, cause: str | None = None, names: Sequence[str] = ()) -> int:
    """Let structures that were put aside be tried again by the next ``generate``.

    Args:
        path: the store.
        cause: only those with this cause.
        names: only those with these names (or keys).

    Returns:
        How many there are.

    Raises:
        SpecError: for an unknown cause, or a name that nothing put aside has.
        StoreError: if the folder is no store, is damaged, or is being generated into.
    """
    wanted = None if cause is None else checked_cause(cause)
    store = Store.open(path)
    with exclusive_lock(store.folder.lock_file):
        failures = store.failures()
        known = {name for f in failures for name in (f.name, f.key)}
        for name in names:
            if name not in known:
                raise SpecError(
                    f"no structure '{name}' was put aside in '{path}'; expected one that `status` lists"
                    f"{suggestion(name, known)}"
                )
        chosen = [f for f in failures if wanted in (None, f.cause) and (not names or f.name in names or f.key in names)]
        for failure in chosen:
            store.folder.forgive(failure.key)
    return len(chosen)


def inspect(path: str | Path) -> dict[str, Any]:
    """Describe a store (its folder), a shard of one (``.h5``), a model (``.safetensors`` or its run) or a table.

    Everything is read once with all checks, so that damage shows.

    Raises:
        SpecError: if the path is none of these.
        StoreError, ModelFileError, StructureError: if a file is damaged or hostile.
    """
    path = Path(path)
    if path.is_dir() and (path / HEADER_NAME).is_file():
        return _store(path)
    if path.is_dir() and (path / MODEL_FILE_NAME).is_file():
        return _model(path / MODEL_FILE_NAME)
    if path.is_file() and path.suffix in (".h5", RAW_SUFFIX):
        return _shard(path)
    if path.is_file() and path.suffix == ".safetensors":
        return _model(path)
    if is_table(path):
        return _table(open_table(path))
    raise SpecError(
        f"cannot inspect '{path}': expected the folder of a store or of a training run, a shard (.h5) of a store, "
        "a model file (.safetensors), or a table of structures; got "
        f"{'something else' if path.exists() else 'a path where nothing is'}"
    )


def _table(table: Table) -> dict[str, Any]:
    names = [structure.name for structure in table.structures]
    spreads = {f"{t.name} ({t.unit})": _spread(table.columns[t.name], names) for t in table.targets.values()}
    return {
        "kind": "table",
        "path": str(table.path),
        "name": table.spec.name,
        "level": table.spec.level,
        "structures": len(table.structures),
        "splits": {split: len(table.keys(split)) for split in SPLIT_NAMES},
        "elements": symbols_of({int(z) for s in table.structures for z in np.unique(s.atomic_numbers)}),
        "targets": spreads,
        "notes": list(table.notes),
        "dataset_hash": table.dataset_hash(),
        "licence": table.spec.licence,
        "citation": table.spec.citation,
    }


def _store(path: Path) -> dict[str, Any]:
    store = Store.open(path)
    spec = store.spec
    return {
        "kind": "store",
        **status(path),
        "method": spec.method.model_dump(mode="json"),
        "targets": spec.targets.model_dump(mode="json"),
        "elements": symbols_of(store.plan.elements),
        "records": _records(store, store.keys()),
        "dataset_hash": store.dataset_hash(),
        "licence": spec.licence,
        "citation": spec.citation,
        "versions": dict(store.header.versions),
    }


def _shard(path: Path) -> dict[str, Any]:
    folder = path.resolve().parent.parent
    if not (folder / HEADER_NAME).is_file():
        raise StoreError(
            f"'{path}' does not lie in a store; expected STORE/shards/*.h5, because a shard is read and checked "
            "against its store's plan"
        )
    store = Store.open(folder)
    keys = store.keys_in(path)
    if not keys:
        raise StoreError(f"'{path}' is no finished shard and no pending record of the store '{folder}'")
    return {
        "kind": "shard",
        "path": str(path),
        "store": store.spec.name,
        "bytes": path.stat().st_size,
        "records": _records(store, keys),
        "structures": [store.structure(key).label for key in keys],
    }


def _records(store: Store, keys: Sequence[str]) -> dict[str, Any]:
    """Figures by which odd labels show themselves."""
    if not keys:
        return {"count": 0}
    rows = [_row(record) for record in store.read_many(keys)]
    names = [row.pop("name") for row in rows]
    columns = {name: np.array([row[name] for row in rows], dtype=np.float64) for name in rows[0]}
    steps = Counter(LADDER[int(step)] for step in columns.pop("ladder_step"))
    wall_time = float(columns.pop("wall_time_s").sum())
    return {
        "count": len(keys),
        "wall_time_s": wall_time,
        "converged_by": dict(steps),
        **{name: _spread(values, names) for name, values in columns.items()},
    }


def _row(record: ReferenceRecord) -> dict[str, Any]:
    occupied = record.mo_occ > 0
    row = {
        "name": record.structure.name or record.structure.formula,
        "atoms": len(record.structure),
        "orbitals": record.n_ao,
        "cycles": record.cycles,
        "ladder_step": record.ladder_step,
        "wall_time_s": record.wall_time,
        "energy_hartree": record.energy,
        "dipole_e_bohr": float(np.linalg.norm(record.dipole)),
    }
    if occupied.any() and not occupied.all():
        row["gap_hartree"] = float(record.mo_energy[~occupied].min() - record.mo_energy[occupied].max())
    else:
        row["gap_hartree"] = float("nan")
    return row


def _spread(values: np.ndarray[Any, np.dtype[np.float64]], names: Sequence[str]) -> dict[str, Any] | None:
    known = np.flatnonzero(np.isfinite(values))
    if not len(known):
        return None
    low, high = known[np.argmin(values[known])], known[np.argmax(values[known])]
    return {
        "mean": float(values[known].mean()),
        "min": float(values[low]),
        "min_of": names[low],
        "max": float(values[high]),
        "max_of": names[high],
    }


def _model(path: Path) -> dict[str, Any]:
    model, metadata = read_model(path)
    return {
        "kind": f"{metadata.kind} model",
        "path": str(path),
        "bytes": path.stat().st_size,
        "parameters": sum(p.numel() for p in model.parameters()),
        "elements": symbols_of(metadata.elements),
        "method": None if metadata.method is None else metadata.method.model_dump(mode="json"),
        "level": metadata.level,
        "data": metadata.spec.get("name"),
        "dataset_hash": metadata.dataset_hash,
        "units": metadata.units,
        "metrics": metadata.metrics,
        "training": metadata.training,
        "licence": metadata.spec.get("licence"),
        "citation": metadata.spec.get("citation"),
        "versions": metadata.versions,
    }
