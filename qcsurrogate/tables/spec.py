"""What a table is: where its structures and labels lie, which are kept, and how they are divided."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BaseModel, Field

from qcsurrogate.errors import SpecError
from qcsurrogate.files.yaml_model import read_yaml, validate
from qcsurrogate.reference.settings import Method
from qcsurrogate.sources.kinds import FROZEN, FileSource, PackagedSource, anchor, without_folders
from qcsurrogate.store.spec import AutoSplit, HashSplit, MoleculeSplit, RandomSplit, SizeSplit, name_of

DEFAULT_SEED: Final = 420
YAML_ENDINGS: Final = (".yaml", ".yml")

Names = tuple[str | int, ...]


class ExplicitSplit(BaseModel):
    """Parts by name, in the spec or in a file (JSON or npz) with ``train``, ``validation`` and ``test``.

    A number n means gdb_n. What is in no part is left out.
    """

    model_config = FROZEN

    kind: Literal["explicit"]
    path: Annotated[str | None, Field(description="JSON or npz; or give the three lists here.")] = None
    train: Names = ()
    validation: Names = ()
    test: Names = ()


TableSplit = AutoSplit | RandomSplit | MoleculeSplit | HashSplit | SizeSplit | ExplicitSplit


class TableSpec(BaseModel):
    """Structures, and labels that come from elsewhere."""

    model_config = FROZEN

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,80}$", description="By default that of the file.")] = "table"
    structures: Annotated[
        FileSource | PackagedSource,
        Field(
            discriminator="kind",
            description="Files of structures, and of labels where they hold any: QM9's archive or xyz files, gdb9.sdf "
            "with gdb9.sdf.csv beside it, npz with targets and target_names.",
        ),
    ]
    duplicates: Annotated[
        Literal["refuse", "leave_out"],
        Field(description="Of molecules that are there twice with the same atoms at the same places: the second."),
    ] = "refuse"
    split: Annotated[TableSplit, Field(discriminator="kind")] = AutoSplit(kind="auto", seed=DEFAULT_SEED)
    level: Annotated[
        str, Field(description="Level of theory of the labels; '' is that of QM9 if they are QM9's, else unknown.")
    ] = ""
    licence: str = ""
    citation: str = ""

    method: ClassVar[Method | None] = None

    def identity(self) -> dict[str, Any]:
        """Everything that must stay the same: all but the folders of files."""
        data = self.model_dump(mode="json")
        without_folders(data["structures"])
        if data["split"].get("path"):
            data["split"]["path"] = Path(data["split"]["path"]).name
        return data


def table_spec(source: str | Path) -> TableSpec:
    """The spec of a YAML file, of a file or folder of structures, or of what comes with the package.

    Raises:
        SpecError: if a YAML file does not fit.
    """
    path = Path(source).expanduser()
    if path.suffix.lower() in YAML_ENDINGS:
        data = read_yaml(path)
        if "method" in data:
            raise SpecError(
                f"'{path}' is a data spec: its references are yet to be computed; expected a store: "
                f"`qcsurrogate generate {path} --out STORE`, then give STORE"
            )
        data.setdefault("name", name_of(path))
        anchor(data.get("structures"), path.parent)
        split = data.get("split")
        if isinstance(split, dict) and isinstance(split.get("path"), str):
            split["path"] = str((path.parent / Path(split["path"]).expanduser()).resolve())
        return validate(TableSpec, data, f"'{path}'")
    if path.exists():
        return TableSpec(name=name_of(path), structures=FileSource(kind="file", path=str(path.resolve())))
    return TableSpec(name=str(source), structures=PackagedSource(kind="packaged", name=str(source)))


def table_schema() -> dict[str, Any]:
    """JSON schema of a table's YAML file, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **TableSpec.model_json_schema()}


def packaged_names() -> list[str]:
    """What comes with the package."""
    return sorted(
        p.name.removesuffix(".npz")
        for p in resources.files("qcsurrogate.resources").iterdir()
        if p.name.endswith(".npz")
    )
