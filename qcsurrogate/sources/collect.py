"""Collect the structures that a spec names: read or sample, then choose."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from qcsurrogate.errors import SpecError, suggestion
from qcsurrogate.reference.settings import Method
from qcsurrogate.sources.chosen import Collected, choose
from qcsurrogate.sources.kinds import (
    ConformerSource,
    FileSource,
    PackagedSource,
    SeveralSource,
    Source,
    expanded,
)
from qcsurrogate.sources.readers import read_geometries
from qcsurrogate.sources.readers.geometries import Geometries, joined
from qcsurrogate.sources.sampled import conformers, sampled


class Wanted(Protocol):
    """What a spec says of its structures."""

    @property
    def structures(self) -> Source: ...
    @property
    def method(self) -> Method: ...


def collect(spec: Wanted) -> Collected:
    """All structures that a spec names, with their group labels if the source has any, and what was left out.

    Raises:
        StructureError: for a file or geometry that cannot be used.
        SpecError: for packaged geometries, a pattern or an extra that does not exist, or if
            nothing is left.
        ConvergenceError: if a molecule that is to be sampled cannot be computed.
    """
    collected = _collected(spec.structures, spec.method)
    if not collected.structures:
        raise SpecError(f"structures: nothing is left ({collected.summary()}); loosen the subset or the source")
    return collected


def _collected(source: Source, method: Method) -> Collected:
    if isinstance(source, FileSource | PackagedSource):
        found = _read(source, method)
    elif isinstance(source, ConformerSource):
        found = conformers(source)
    elif isinstance(source, SeveralSource):
        found = _one_after_the_other([_collected(inner, method) for inner in source.sources])
    else:
        starts = None if source.molecules is None else _collected(source.molecules, method)
        found = sampled(source, starts, method)
    return choose(source, found)


def _one_after_the_other(parts: Sequence[Collected]) -> Collected:
    """All of them; where only some have groups, the structures of the others get empty labels."""
    groups = [label for part in parts for label in part.groups or [""] * len(part.structures)]
    report: Counter[str] = Counter()
    for part in parts:
        report.update(part.report)
    grouped = any(part.groups is not None for part in parts)
    return Collected([s for part in parts for s in part.structures], groups if grouped else None, dict(report))


def packaged_file(source: PackagedSource) -> Path:
    """The file of packaged geometries."""
    folder = Path(str(resources.files("qcsurrogate.resources")))
    path = folder / f"{source.name}.npz"
    if not path.is_file():
        names = sorted(p.stem for p in folder.glob("*.npz"))
        raise SpecError(
            f"structures.name: no packaged geometries '{source.name}'; expected one of {', '.join(names)}"
            f"{suggestion(source.name, names)}"
        )
    return path


def _read(source: FileSource | PackagedSource, method: Method) -> Collected:
    paths = expanded(source) if isinstance(source, FileSource) else [packaged_file(source)]
    geometries = joined([read_geometries(p, method.charge, method.spin, skip_bad=source.skip_bad) for p in paths])
    return checked(source, geometries)


def checked(source: FileSource | PackagedSource, geometries: Geometries) -> Collected:
    """The structures of what was read, without those that the source leaves out before it chooses.

    Raises:
        StructureError: for a bad geometry, unless the source skips them.
        SpecError: if a list of what to leave out cannot be used.
    """
    report = {"read": len(geometries) + geometries.unreadable}
    if geometries.unreadable:
        report["left out: unreadable file"] = geometries.unreadable
    if isinstance(source, FileSource) and source.leave_out is not None:
        kept = not_listed(Path(source.leave_out), geometries)
        report["left out: listed"] = len(geometries) - len(kept)
        geometries = geometries.taken(kept)
    if isinstance(source, FileSource) and source.stride > 1:
        kept = np.arange(0, len(geometries), source.stride)
        report["left out: stride"] = len(geometries) - len(kept)
        geometries = geometries.taken(kept)
    structures, good = geometries.structures(skip_bad=source.skip_bad)
    if len(good) < len(geometries):
        report["left out: bad geometry"] = len(geometries) - len(good)
    groups = None if geometries.groups is None else [geometries.groups[i] for i in good.tolist()]
    return Collected(structures, groups, report)


def not_listed(path: Path, geometries: Geometries) -> NDArray[np.int64]:
    """Indices of the geometries whose names are not in a list of names to leave out.

    Raises:
        SpecError: if the list cannot be read, or none of its names is there.
    """
    names = listed_names(path)
    kept = np.array([i for i, name in enumerate(geometries.names) if name not in names], dtype=np.int64)
    if len(kept) == len(geometries):
        raise SpecError(
            f"structures.leave_out: none of the {len(names)} names in '{path}' is in '{geometries.source}', whose "
            f"first is '{geometries.names[0]}'; expected the first word of each line to be a name, or "
            "a number n for gdb_n"
        )
    return kept


_FOOTERS = ("compounds", "molecules", "structures")
_LONGEST_LIST_BYTES = 2**28


def listed_names(path: Path) -> set[str]:
    """First words of a text file's lines; in QM9's list of uncharacterised molecules they are indices."""
    try:
        if path.stat().st_size > _LONGEST_LIST_BYTES:
            raise SpecError(f"structures.leave_out: '{path}' has more than {_LONGEST_LIST_BYTES} bytes")
        lines = [line.split() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError as error:
        raise SpecError(f"structures.leave_out: cannot read '{path}': {error.strerror or error}") from error
    words = [line[0] for line in lines if line and not (len(line) == 2 and line[1].lower() in _FOOTERS)]
    return {f"gdb_{int(word)}" if word.isdecimal() and len(word) < 10 else word for word in words}
