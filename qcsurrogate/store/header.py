"""The fixed part of a store: spec, plan, free atoms, versions; and the earlier extents of one that has grown.

``store.json`` names digests of everything else and is written last.  A store that grows
gets a plan and a spec of a new number beside the old ones; that ``store.json`` is
replaced makes them the valid ones, in one step.  The structures of an earlier plan are
the first of every later one, with the same keys and parts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from qcsurrogate.errors import BasisError, SpecError, StoreError
from qcsurrogate.files.atomic import read_limited, read_sealed_json, sealed_json, sha256, write_atomically
from qcsurrogate.files.yaml_model import MAXIMUM_YAML_BYTES, dump_yaml
from qcsurrogate.reference.atoms import FreeAtoms, free_atoms_from_dict, free_atoms_to_dict
from qcsurrogate.sources.kinds import source_files
from qcsurrogate.store.plan import Plan, read_plan, write_plan
from qcsurrogate.store.spec import DataSpec, parse_spec

HEADER_NAME: Final = "store.json"
FORMAT_VERSION: Final = 1
PACKAGES = ("qcsurrogate", "pyscf", "libxc", "pyscf-dispersion", "numpy", "scipy", "h5py", "ase", "dask", "distributed")

_PLAN_OR_SPEC = re.compile(r"(?:plan|spec)(?:_(\d{3,9}))?\.(?:h5|yaml)", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True)
class Extent:
    """What a store was before it grew.

    Attributes:
        plan_digest: SHA-256 of its plan.
        n_structures: how many it had; the first of the present ones.
        dataset_hash: of its spec and complete records, when it grew.
    """

    plan_digest: str
    n_structures: int
    dataset_hash: str


@dataclass(frozen=True, eq=False)
class Header:
    """The fixed part of a store.

    Attributes:
        spec, plan, atoms: what is computed, of what, and the free atoms of all elements.
        versions: packages when the store was first planned.
        collected: how many structures were read or sampled, left out and why.
        source_digest: of the structure files, where there are some.
        earlier: what it was before it grew, in order.
        plan_digest, spec_digest: SHA-256 of the files of plan and spec.
    """

    spec: DataSpec
    plan: Plan
    atoms: FreeAtoms
    versions: Mapping[str, str]
    collected: Mapping[str, int] = field(default_factory=dict)
    source_digest: str | None = None
    earlier: tuple[Extent, ...] = ()
    plan_digest: str = ""
    spec_digest: str = ""

    @property
    def revision(self) -> int:
        """Number of the plan and the spec: 1, and one more each time the store grew."""
        return len(self.earlier) + 1


def plan_file(store: Path, revision: int = 1) -> Path:
    """The plan of a store."""
    return store / ("plan.h5" if revision == 1 else f"plan_{revision:03d}.h5")


def spec_file(store: Path, revision: int = 1) -> Path:
    """The spec of a store."""
    return store / ("spec.yaml" if revision == 1 else f"spec_{revision:03d}.yaml")


def revision_in(name: str) -> int | None:
    """The number of a plan or spec, by the name of its file; None for other files."""
    match = _PLAN_OR_SPEC.fullmatch(name)
    return int(match[1] or 1) if match else None


def write_plan_and_spec(store: Path, header: Header) -> Header:
    """Write plan and spec of a header's revision, which nothing names yet; returns the header with their digests."""
    plan_digest = write_plan(plan_file(store, header.revision), header.plan)
    text = dump_yaml(header.spec.model_dump(mode="json")).encode()
    write_atomically(spec_file(store, header.revision), text)
    return replace(header, plan_digest=plan_digest, spec_digest=sha256(text))


def copy_plan_and_spec(source: Path, target: Path, header: Header) -> None:
    """Copy plan and spec of a header's revision as they are."""
    for name in (plan_file, spec_file):
        write_atomically(name(target, header.revision), read_limited(name(source, header.revision), 2**40))


def write_header(store: Path, header: Header) -> None:
    """Write ``store.json``: from here on the plan and spec that it has digests of are the valid ones."""
    content: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "versions": dict(header.versions),
        "spec_sha256": header.spec_digest,
        "plan_sha256": header.plan_digest,
        "source_sha256": header.source_digest,
        "free_atoms": free_atoms_to_dict(header.atoms),
        "collected": dict(header.collected),
    }
    if header.earlier:
        content["earlier"] = [
            {"plan_sha256": e.plan_digest, "structures": e.n_structures, "dataset_hash": e.dataset_hash}
            for e in header.earlier
        ]
    write_atomically(store / HEADER_NAME, sealed_json(content))


def read_header(store: Path) -> Header:
    """The fixed part of a store."""
    header, earlier, spec, atoms = _read_fixed(store)
    try:
        versions = {str(k): str(v) for k, v in header["versions"].items()}
        digests = str(header["plan_sha256"]), str(header["spec_sha256"])
        source = header.get("source_sha256")
        collected = {str(k): int(n) for k, n in header.get("collected", {}).items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(f"'{store / HEADER_NAME}' is damaged: {error}") from error
    plan = read_plan(plan_file(store, len(earlier) + 1), digests[0])
    if any(extent.n_structures > len(plan) for extent in earlier):
        raise StoreError(f"'{store / HEADER_NAME}' is damaged: the store had more structures before it grew")
    source = None if source is None else str(source)
    return Header(spec, plan, atoms, versions, collected, source, earlier, *digests)


def read_method(store: Path) -> tuple[DataSpec, FreeAtoms]:
    """The spec and the free atoms: what a worker needs beside its batch."""
    return _read_fixed(store)[2:]


def read_digests(store: Path) -> tuple[str, ...]:
    """SHA-256 of the plan's file, and before it those of the plans that it continues."""
    header = read_sealed_json(store / HEADER_NAME, unsealed=True)
    return (*(extent.plan_digest for extent in _earlier(store, header)), str(header.get("plan_sha256")))


def _read_fixed(store: Path) -> tuple[dict[str, Any], tuple[Extent, ...], DataSpec, FreeAtoms]:
    path = store / HEADER_NAME
    if not store.is_dir():
        raise StoreError(f"cannot find the store '{store}'; expected a folder made by `qcsurrogate generate`")
    if not path.is_file():
        raise StoreError(f"'{store}' is no store: it has no {HEADER_NAME}; expected a folder made by `generate`")
    header = read_sealed_json(path, unsealed=True)
    if header.get("format_version") != FORMAT_VERSION:
        raise StoreError(
            f"'{store}' has store format {header.get('format_version')!r}; this version reads {FORMAT_VERSION}"
        )
    if (store / "consolidated" / "catalog.json").is_file():
        raise StoreError(
            f"'{store}' was consolidated by a development version before 0.1, into another form; expected all "
            "records in 'shards'; read it with that version, or generate it again"
        )
    earlier = _earlier(store, header)
    spec_path = spec_file(store, len(earlier) + 1)
    text = read_limited(spec_path, MAXIMUM_YAML_BYTES)
    if sha256(text) != header.get("spec_sha256"):
        raise StoreError(
            f"'{spec_path}' was changed after the store was planned; expected it untouched: put it back, or "
            "generate the new spec into another folder"
        )
    try:
        spec = parse_spec(text.decode(), str(spec_path))
        atoms = free_atoms_from_dict(header["free_atoms"])
    except (SpecError, BasisError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"'{path}' is damaged: {error}") from error
    return header, earlier, spec, atoms


def _earlier(store: Path, header: Mapping[str, Any]) -> tuple[Extent, ...]:
    try:
        found = tuple(
            Extent(str(e["plan_sha256"]), int(e["structures"]), str(e["dataset_hash"]))
            for e in header.get("earlier", [])
        )
        sizes = [extent.n_structures for extent in found]
        if sizes != sorted(sizes) or min(sizes, default=1) < 1:
            raise ValueError("the sizes that the store had do not grow")
        if not all(_DIGEST.fullmatch(d) for extent in found for d in (extent.plan_digest, extent.dataset_hash)):
            raise ValueError("the digests of earlier plans are none")
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"'{store / HEADER_NAME}' is damaged: {error}") from error
    return found


def source_digest(spec: DataSpec) -> str | None:
    """SHA-256 of the spec's structure files, if it has some and they are there.

    Of several files, the digest of their names and digests.
    """
    files = source_files(spec.structures)
    if not files or not all(path.is_file() for path in files):
        return None
    digests = [sha256(path.read_bytes()) for path in files]
    if len(digests) == 1:
        return digests[0]
    return sha256("\n".join(f"{path.name} {digest}" for path, digest in zip(files, digests, strict=True)).encode())
