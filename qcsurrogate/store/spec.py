"""The data spec: where structures come from, the method, the targets, the split."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BaseModel, Field, model_validator

from qcsurrogate.errors import SpecError
from qcsurrogate.files import nested
from qcsurrogate.files.shipped import Shipped
from qcsurrogate.files.yaml_model import parse_yaml, read_yaml, validate
from qcsurrogate.reference.functional import require_functional
from qcsurrogate.reference.settings import Method, Targets
from qcsurrogate.sources.kinds import FROZEN, Number, Seed, Source, anchor, without_folders
from qcsurrogate.sources.readers.read import ENDINGS
from qcsurrogate.structures import Structure

SplitName = Literal["train", "validation", "test"]
SPLIT_NAMES: tuple[SplitName, ...] = ("train", "validation", "test")
DESCRIPTIVE: Final = ("name", "licence", "citation")
"""Keys that only describe a dataset: they may change while it grows, and are no part of its hash."""

_NEEDED = {
    "structures": "where they come from, such as {kind: file, path: molecules.xyz}",
    "method": "the level of theory, such as {xc: pbe, basis: def2-svp}",
}
"""What a spec must say; everything else has a default."""

SHIPPED = Shipped("spec", "data_specs")


class _Shares(BaseModel):
    model_config = FROZEN

    train: Annotated[int | float, Number, Field(gt=0)]
    validation: Annotated[int | float, Number, Field(ge=0)]
    test: Annotated[int | float, Number, Field(ge=0)]
    seed: Seed = 0

    @property
    def values(self) -> tuple[float, float, float]:
        """Train, validation, test."""
        return self.train, self.validation, self.test

    @property
    def are_fractions(self) -> bool:
        """Whether they are parts of one; otherwise they are counts."""
        return abs(sum(self.values) - 1) < 1e-9

    @model_validator(mode="after")
    def _counts_or_fractions(self) -> _Shares:
        if not self.are_fractions and any(value != int(value) for value in self.values):
            raise ValueError(
                f"train, validation, test = {self.train}, {self.validation}, {self.test}; "
                "expected three counts, or three fractions that add up to 1"
            )
        return self


class AutoSplit(BaseModel):
    """80, 10 and 10 % of the structures at random, and few structures are divided all the same.

    Of three or more, each part gets at least one; of two, one trains and one validates;
    a single one trains.
    """

    model_config = FROZEN

    kind: Literal["auto"]
    seed: Seed = 0

    values: ClassVar[tuple[float, float, float]] = (0.8, 0.1, 0.1)
    are_fractions: ClassVar[bool] = True

    def counts(self, n: int, held: tuple[int, int, int] = (0, 0, 0)) -> tuple[int, int, int]:
        """How many of ``n`` structures train, validate and test, where some have their part already."""
        tenth, new = max(1, round(0.1 * n)), n - sum(held)
        validation = min(max(tenth if n > 1 else 0, held[1]), held[1] + new)
        test = min(max(tenth if n > 2 else 0, held[2]), held[2] + new - (validation - held[1]))
        return n - validation - test, validation, test


class RandomSplit(_Shares):
    """Structures at random. With counts, surplus structures are left out of the store."""

    kind: Literal["random"]


class MoleculeSplit(_Shares):
    """Molecules at random: all structures of a molecule fall into one part.

    Shares count molecules. Two structures are the same molecule if they have the same
    ``identity``: *connectivity* (charge, elements and bonds; a bond is a distance below
    1.25 times the sum of the covalent radii), *formula* (charge and formula), or *group*
    (a file's own: ``groups`` of an npz file, ``group`` of extended xyz; of samplers, the
    molecule they started from).

    With *connectivity*, a structure in several pieces may be a stretched form of any of
    its formula and charge, so it makes one molecule of all of them, and structures of one
    group are one molecule too. What distances cannot tell is taken for another molecule:
    an opened ring, a moved proton. Where such geometries occur, take *group* or *formula*.
    """

    kind: Literal["by_molecule"]
    identity: Literal["connectivity", "formula", "group"] = "connectivity"


class HashSplit(_Shares):
    """By a seeded hash of each structure's ``identity``, whatever else is in the store.

    So a store that grows, in whatever steps and order, has the parts of one made at once;
    the fractions are met on average only. Identities: *formula* (charge and formula: no
    molecule is divided, however it is stretched, broken or rearranged), *group* (as of
    ``by_molecule``), or *structure* (each by itself, for frames of one molecule).
    """

    kind: Literal["by_hash"]
    identity: Literal["formula", "group", "structure"] = "formula"

    @model_validator(mode="after")
    def _fractions(self) -> HashSplit:
        if not self.are_fractions:
            raise ValueError(f"train, validation, test = {self.values}; by_hash expects fractions that add up to 1")
        return self


class SizeSplit(BaseModel):
    """Train and validate on small molecules, test on all larger ones."""

    model_config = FROZEN

    kind: Literal["by_size"]
    largest_training_size: Annotated[int, Field(ge=1, description="Non-hydrogen atoms of a small molecule, at most.")]
    validation: Annotated[float, Field(ge=0, lt=1, description="Fraction of the small molecules to validate on.")] = 0.1
    seed: Seed = 0


Split = AutoSplit | RandomSplit | MoleculeSplit | HashSplit | SizeSplit


class DataSpec(BaseModel):
    """One dataset: structures and method at least."""

    model_config = FROZEN

    spec_version: Annotated[Literal[1], Field(description="Version of this format; part of every record's key.")] = 1
    name: Annotated[
        str, Field(pattern=r"^[A-Za-z0-9._-]{1,80}$", description="Of the dataset; by default that of the spec's file.")
    ] = "dataset"
    structures: Annotated[Source, Field(discriminator="kind")]
    method: Method
    targets: Targets = Targets()
    split: Annotated[Split, Field(discriminator="kind")] = AutoSplit(kind="auto")
    shard_size: Annotated[int, Field(ge=1, le=10_000, description="Records in one file.")] = 200
    licence: Annotated[
        str,
        Field(description="Licence of the structures (SPDX identifier where there is one); '' where it is not stated."),
    ] = ""
    citation: Annotated[str, Field(description="What to cite for the structures.")] = ""

    @property
    def level(self) -> str:
        """Functional and basis."""
        return f"{self.method.xc}/{self.method.basis}"

    def record_key(self, structure: Structure) -> str:
        """Content key of a record: what was computed, and how; 32 hexadecimal digits.

        The geometry's key, method, targets and ``spec_version`` enter; names, splits, what
        runs the calculation and versions of packages do not. A setting of the method that
        was added later enters only where it differs from its default, so that new settings
        leave old keys alone: changing a default needs a new ``spec_version``.
        """
        before, after = _key_frame(self.method, self.targets, self.spec_version)
        return hashlib.sha256(f"{before}{structure.key}{after}".encode()).hexdigest()[:32]

    def identity(self) -> dict[str, Any]:
        """Everything that must stay the same in one store: all but the folder of a file."""
        data = self.model_dump(mode="json")
        without_folders(data["structures"])
        return data


@lru_cache(maxsize=64)
def _key_frame(method: Method, targets: Targets, spec_version: int) -> tuple[str, str]:
    """What the key is made of before and after the structure's own: made once, used for a million structures."""
    content = {
        "method": method.key_content(),
        "spec_version": spec_version,
        "structure": "",
        "targets": targets.key_content(),
    }
    before, after = json.dumps(content, sort_keys=True).split('"structure": ""')
    return f'{before}"structure": "', f'"{after}'


def load_spec(source: str | Path, overrides: Mapping[str, Any] | None = None) -> DataSpec:
    """A spec from a YAML file, or a shipped one by its name.

    A spec says where its structures come from and how they are computed; what else it
    does not say is taken from :class:`DataSpec`, its name from that of the file.

    Args:
        source: a path, or a name of ``SHIPPED``. Relative paths of structures
            in a file are relative to that file's folder; in a shipped spec, to the
            current folder.
        overrides: values by key path, such as ``{"structures.path": "ethanol.npz"}``;
            relative paths in them are relative to the current folder.

    Raises:
        SpecError: if the file is missing or does not fit; the message names file, key
            path, what was expected and what was got; or if PySCF does not compute the functional.
    """
    if str(source).lower().endswith(ENDINGS) and Path(source).expanduser().is_file():
        raise SpecError(f"'{source}' holds structures, no spec: `qcsurrogate init {source}` writes one for them")
    path = SHIPPED.find(source)
    folder = path.parent if Path(source).expanduser().is_file() else Path.cwd()
    data = read_yaml(path)
    data.setdefault("name", name_of(path))
    return make_spec(data, str(path), folder, overrides)


def make_spec(data: dict[str, Any], source: str, folder: Path, overrides: Mapping[str, Any] | None = None) -> DataSpec:
    """A spec from plain data, which are changed: overrides put in, paths made absolute from ``folder``.

    Raises:
        SpecError: as :func:`load_spec`; ``source`` is what messages call the data.
    """
    anchor(data.get("structures"), folder)
    for key, value in (overrides or {}).items():
        nested.override(data, key, value, source)
    anchor(data.get("structures"), Path.cwd())
    spec = _validated(data, source)
    try:
        require_functional(spec.method.xc)
    except SpecError as error:
        raise SpecError(f"{source}: {error}") from error
    return spec


def name_of(path: Path) -> str:
    """What a dataset is called after its file, in letters, digits and ``._-``."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", path.stem)[:80] or "dataset"


def parse_spec(text: str, source: str) -> DataSpec:
    """A spec from YAML text; ``source`` is what messages call it."""
    return _validated(parse_yaml(text, source), source)


def spec_schema() -> dict[str, Any]:
    """JSON schema of a spec, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **DataSpec.model_json_schema()}


def differences(before: DataSpec, after: DataSpec) -> list[str]:
    """Lines ``method.xc: 'pbe' -> 'b3lyp'`` for everything that must not change."""
    return nested.differences(before.identity(), after.identity())


def _validated(data: dict[str, Any], source: str) -> DataSpec:
    missing = [key for key in _NEEDED if key not in data]
    if missing and not set(data) - set(DataSpec.model_fields):  # an unknown key may be the missing one misspelt
        raise SpecError(f"{source}: {missing[0]}: missing; expected {_NEEDED[missing[0]]}")
    return validate(DataSpec, data, source)
