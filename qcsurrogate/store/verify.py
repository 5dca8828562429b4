"""Everything that can be checked about a store, and all that is wrong with it, not only the first thing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from qcsurrogate.basis import BasisSet
from qcsurrogate.errors import QCSurrogateError, RecordError, SpecError, StoreError
from qcsurrogate.files.atomic import TEMPORARY_SUFFIX, is_locked
from qcsurrogate.reference.compute import ELECTRON_COUNT_TOLERANCE, check_record, compute_reference
from qcsurrogate.reference.density_fit import charges
from qcsurrogate.reference.record import ReferenceRecord
from qcsurrogate.store.agreement import Difference, differences_of
from qcsurrogate.store.folder import StoreFolder
from qcsurrogate.store.header import PACKAGES, Header, plan_file, revision_in
from qcsurrogate.store.manifest import read_manifest
from qcsurrogate.store.plan import read_plan
from qcsurrogate.store.progress import Progress
from qcsurrogate.store.raw import RAW_SUFFIX
from qcsurrogate.store.shards import RecordSlices
from qcsurrogate.store.store import check_digest
from qcsurrogate.versions import installed_versions

OVERLAP_TOLERANCE = 1e-10

_INTERRUPTED = "; an interrupted `consolidate` leaves that: run it again"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong."""

    where: str
    check: str
    message: str


@dataclass(frozen=True)
class Recomputed:
    """A record that was computed again from nothing."""

    key: str
    name: str
    differences: tuple[Difference, ...]
    wall_time: float


@dataclass
class Verification:
    """What was checked, and every problem that was found."""

    path: Path
    planned: int = 0
    complete: int = 0
    files: int = 0
    checked: int = 0
    recomputed: list[Recomputed] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    versions_then: dict[str, str] = field(default_factory=dict)
    versions_now: dict[str, str] = field(default_factory=dict)

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def report(self, where: object, check: str, message: object) -> None:
        """Note a problem."""
        self.problems.append(Problem(str(where), check, str(message)))

    def to_dict(self) -> dict[str, Any]:
        """As JSON data."""
        data = {**asdict(self), "path": str(self.path), "sound": self.sound}
        for entry in data["recomputed"]:
            for difference in entry["differences"]:
                if not np.isfinite(difference["value"]):
                    difference["value"] = None
        return data


@dataclass(frozen=True)
class _Source:
    """A file of records, and whose they are said to be."""

    path: Path
    keys: tuple[str, ...]
    digest: str | None


def verify(
    path: str | Path,
    *,
    sample: int = 0,
    records: int | None = None,
    seed: int = 0,
    threads: int = 1,
    quiet: bool = False,
) -> Verification:
    """Check a store: files, manifests, plan and records; and compute some records again.

    Args:
        path: the store's folder.
        sample: how many records to compute again from nothing, drawn at random.
        records: check the contents of so many records, drawn at random; by default of all.
        seed: of both draws.
        threads: PySCF threads.
        quiet: whether to keep silent about progress.

    Raises:
        StoreError: if there is no store at all.
        SpecError: if a number is negative.
    """
    if sample < 0 or (records is not None and records < 0) or threads < 1:
        raise SpecError(f"sample = {sample}, records = {records}, threads = {threads}; expected no negative numbers")
    folder = StoreFolder(Path(path))
    if not folder.is_planned:
        folder.read_header()  # says what is there instead
    result = Verification(Path(path), versions_now=installed_versions(PACKAGES))
    try:
        header = folder.read_header()
    except QCSurrogateError as error:
        result.report(folder.path, "header", error)
        _check_shards_alone(folder, result)
        return result
    result.planned, result.versions_then = len(header.plan), dict(header.versions)
    sources = list(_sources(folder, result))
    result.files = len(sources)
    _check_keys(header, sources, result)
    _check_earlier(folder, header, result)
    _check_folder(folder, header, result)
    complete = {key for source in sources for key in source.keys if key in header.plan.index}
    result.complete = len(complete)
    _check_missing(folder, complete, result)
    ordered = [key for key in header.plan.keys if key in complete]
    wanted = set(ordered if records is None else _drawn(ordered, records, seed))
    again = set(_drawn(ordered, sample, seed))
    progress = Progress(len(wanted | again), "verifying", quiet)
    with closing(progress):
        for source in sources:
            _check_source(source, header, wanted, again, threads, result, progress)
    return result


def _drawn(keys: list[str], count: int, seed: int) -> list[str]:
    chosen = np.random.default_rng(seed).permutation(len(keys))[:count]
    return [keys[i] for i in sorted(chosen)]


def _sources(folder: StoreFolder, result: Verification) -> Iterator[_Source]:
    """Every file of records whose manifest can be read."""
    for path in sorted(folder.shards.glob("*.h5")):
        try:
            shard = read_manifest(path)
        except StoreError as error:
            result.report(path, "manifest", error)
        else:
            yield _Source(path, shard.keys, shard.digest)
    for path in sorted(folder.pending.glob(f"*{RAW_SUFFIX}")):
        yield _Source(path, (path.stem,), None)


def _check_missing(folder: StoreFolder, complete: set[str], result: Verification) -> None:
    """Manifests whose shard is gone, if no other file holds its records."""
    for manifest in sorted(folder.shards.glob("*.json")):
        path = manifest.with_suffix(".h5")
        if path.is_file():
            continue
        try:
            lost = [key for key in read_manifest(path).keys if key not in complete]
        except StoreError as error:
            result.report(manifest, "manifest", error)
            continue
        if lost:
            result.report(
                path,
                "missing",
                f"its manifest lists {len(lost)} records that lie nowhere else; run `generate` to compute them again",
            )


def _check_shards_alone(folder: StoreFolder, result: Verification) -> None:
    """What can be said without a plan: whether shards are as their manifests say."""
    for path in sorted(folder.shards.glob("*.h5")):
        try:
            check_digest(path, read_manifest(path).digest)
        except StoreError as error:
            result.report(path, "checksum", error)


def _check_keys(header: Header, sources: Iterable[_Source], result: Verification) -> None:
    """No key twice, none that is not planned."""
    places: dict[str, list[Path]] = {}
    for source in sources:
        for key, count in Counter(source.keys).items():
            places.setdefault(key, []).extend([source.path] * count)
    for key, paths in places.items():
        if key not in header.plan.index:
            result.report(paths[0], "plan", f"it holds the record '{key}', which the plan does not have")
        elif len(paths) > 1:
            names = ", ".join(path.name for path in paths)
            result.report(
                header.plan.label(key), "twice", f"its record lies in {len(paths)} files: {names}{_INTERRUPTED}"
            )


def _check_earlier(folder: StoreFolder, header: Header, result: Verification) -> None:
    """Earlier plans, where they are still there, are the beginning of the present one."""
    for revision, extent in enumerate(header.earlier, start=1):
        path, n = plan_file(folder.path, revision), extent.n_structures
        if not path.is_file():
            continue
        try:
            plan = read_plan(path, extent.plan_digest)
        except StoreError as error:
            result.report(path, "earlier plan", error)
        else:
            if plan.keys != header.plan.keys[:n] or not np.array_equal(plan.split, header.plan.split[:n]):
                result.report(path, "earlier plan", "its structures and parts are not the first of the present plan")


def _check_folder(folder: StoreFolder, header: Header, result: Verification) -> None:
    """What a process left that died, while nobody works in the store."""
    if is_locked(folder.lock_file):
        return
    for place in (folder.path, *folder.folders):
        for path in sorted(place.glob(f"*{TEMPORARY_SUFFIX}")) if place.is_dir() else ():
            result.report(path, "left over", "an unfinished file; the next `generate` or `consolidate` removes it")
    for path in sorted(folder.path.iterdir()):
        if (revision_in(path.name) or 0) > header.revision:
            result.report(path, "left over", "of a store that did not come to grow; the next `generate` removes it")


def _check_source(
    source: _Source,
    header: Header,
    wanted: set[str],
    again: set[str],
    threads: int,
    result: Verification,
    progress: Progress,
) -> None:
    if source.digest is not None:
        try:
            check_digest(source.path, source.digest)
        except StoreError as error:
            result.report(source.path, "checksum", error)
    if any(key not in header.plan.index for key in source.keys) or len(set(source.keys)) != len(source.keys):
        return  # reported already; such a file cannot be held against the plan
    try:
        slices = RecordSlices(source.path, source.keys, header.plan, header.spec)
    except StoreError as error:
        result.report(source.path, "declaration", error)
        return
    elements = header.plan.elements
    orbital = header.spec.method.orbital_basis(elements)
    density = header.spec.method.density_basis(elements) if header.spec.targets.density_coefficients else None
    with closing(slices):
        for key in source.keys:
            if key not in wanted and key not in again:
                continue
            try:
                record = slices.record(key)
            except StoreError as error:
                result.report(f"{header.plan.label(key)} in {source.path}", "record", error)
                progress.advance(failed=True)
                continue
            before = len(result.problems)
            if key in wanted:
                result.checked += 1
                for check, message in _record_problems(key, record, header, orbital, density):
                    result.report(f"{record.structure.label} in {source.path}", check, message)
            if key in again:
                _recompute(key, record, header, threads, result)
            progress.advance(failed=len(result.problems) > before)
            progress.show()


def _record_problems(
    key: str, record: ReferenceRecord, header: Header, orbital: BasisSet, density: BasisSet | None
) -> Iterator[tuple[str, str]]:
    """What is wrong with the contents of a record: (check, message)."""
    structure = record.structure
    if header.spec.record_key(structure) != key:
        yield "key", f"its key is {header.spec.record_key(structure)} by the spec, but {key} in the plan"
    try:
        check_record(record)
    except RecordError as error:
        yield "physics", str(error)
    overlap = orbital.build_mol(structure).intor_symmetric("int1e_ovlp")
    if overlap.shape != record.overlap.shape:
        yield "overlap", f"it has {len(record.overlap)} orbitals; the basis has {len(overlap)}"
    elif (deviation := float(np.abs(overlap - record.overlap).max())) > OVERLAP_TOLERANCE:
        yield "overlap", f"it differs from that of the basis by {deviation:.1e}; expected at most {OVERLAP_TOLERANCE:g}"
    if density is not None:
        integrals = charges(density.build_mol(structure))
        targets = {
            "density_coefficients": structure.n_electrons - float(structure.atomic_numbers.sum()),
            "spin_density_coefficients": float(structure.spin),
        }
        for name, expected in targets.items():
            coefficients = record.value(name)
            if coefficients is None:
                continue
            found = float(integrals @ np.asarray(coefficients))
            if not abs(found - expected) <= ELECTRON_COUNT_TOLERANCE:
                yield "density", f"{name} integrate to {found:.10f}, expected {expected:.10f}"


def _recompute(key: str, stored: ReferenceRecord, header: Header, threads: int, result: Verification) -> None:
    start = perf_counter()
    structure, spec = stored.structure, header.spec
    try:
        record = compute_reference(structure, spec.method, spec.targets, header.atoms, threads=threads)
    except QCSurrogateError as error:
        result.report(structure.label, "recomputed", f"it could not be computed again: {error}")
        return
    differences = tuple(differences_of(stored, record, spec.method))
    result.recomputed.append(Recomputed(key, structure.name, differences, perf_counter() - start))
    for difference in differences:
        if not difference.within:
            result.report(structure.label, "recomputed", f"stored and recomputed {difference}")
