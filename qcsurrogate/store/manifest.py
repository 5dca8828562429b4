"""What a shard holds, beside it in JSON: its keys, its digest, and what its records were computed with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qcsurrogate.errors import StoreError
from qcsurrogate.files.atomic import read_sealed_json, sealed_json, write_atomically
from qcsurrogate.store.hdf5 import damaged

Versions = tuple[tuple[str, str], ...]
"""Names of packages and their versions, sorted."""


@dataclass(frozen=True)
class ShardManifest:
    """One file of finished records.

    Attributes:
        versions: what there was to compute with.
        computed_with: for every record, which of ``versions``.
    """

    path: Path
    keys: tuple[str, ...]
    digest: str
    versions: tuple[Versions, ...]
    computed_with: tuple[int, ...]

    def versions_of(self) -> dict[str, Versions]:
        """The versions that each record was computed with, by key."""
        return {key: self.versions[i] for key, i in zip(self.keys, self.computed_with, strict=True)}


def sorted_versions(versions: Mapping[str, str]) -> Versions:
    """In the form that manifests compare."""
    return tuple(sorted((str(name), str(version)) for name, version in versions.items()))


def write_manifest(path: Path, keys: Sequence[str], digest: str, versions: Mapping[str, Versions] | Versions) -> None:
    """Write the manifest of a shard; one without its shard counts as nothing, so it comes first."""
    of = versions if isinstance(versions, Mapping) else dict.fromkeys(keys, versions)
    kinds = list(dict.fromkeys(of[key] for key in keys))
    content: dict[str, object] = {"keys": list(keys), "sha256": digest, "versions": [dict(kind) for kind in kinds]}
    if len(kinds) > 1:
        number = {kind: i for i, kind in enumerate(kinds)}
        content["computed_with"] = [number[of[key]] for key in keys]
    write_atomically(path.with_suffix(".json"), sealed_json(content))


def read_manifest(path: Path) -> ShardManifest:
    """What the manifest of a shard says."""
    try:
        data = read_sealed_json(path.with_suffix(".json"))
    except StoreError as error:
        raise damaged(path, f"its manifest cannot be read ({error})") from error
    try:
        keys, digest = data["keys"], data["sha256"]
        found = data["versions"]
        versions = tuple(sorted_versions(v) for v in ([found] if isinstance(found, dict) else found))
        computed_with = data.get("computed_with", [0] * len(keys))
        if not isinstance(keys, list) or not keys or not all(isinstance(key, str) for key in keys):
            raise TypeError
        if (
            not isinstance(digest, str)
            or len(computed_with) != len(keys)
            or any(i not in range(len(versions)) for i in computed_with)
        ):
            raise TypeError
    except (KeyError, TypeError, AttributeError) as error:
        raise damaged(path, "its manifest lacks keys, sha256 or versions of every record") from error
    return ShardManifest(path, tuple(keys), digest, versions, tuple(computed_with))


def count_versions(versions: Iterable[Versions]) -> list[tuple[dict[str, str], int]]:
    """How many records were computed with which packages, most records first."""
    counts = Counter(versions)
    return [(dict(kind), n) for kind, n in sorted(counts.items(), key=lambda e: (-e[1], e[0]))]
