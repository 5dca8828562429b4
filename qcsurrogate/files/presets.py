"""Presets: settings of a training run that go by a name, in a file ``presets.yaml`` in the folder of each quantity."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

from qcsurrogate.errors import SpecError, suggestion
from qcsurrogate.files.yaml_model import read_yaml, validate
from qcsurrogate.registry import BUILT_IN, find_quantity

PRESETS_NAME: Final = "presets.yaml"
_ABOVE_PACKAGE = Path(__file__).parents[2]


class Preset(BaseModel):
    """What a preset is for, and what it sets; everything else keeps its default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    purpose: Annotated[str, Field(min_length=1, description="What it is for, in a line.")]
    model: Annotated[dict[str, Any], Field(description="Settings of the network.")] = {}
    training: Annotated[dict[str, Any], Field(description="Settings of the training.")] = {}


def read_presets(folder: Path) -> dict[str, Preset]:
    """The presets that the file in a folder has, small to large.

    Raises:
        SpecError: if it cannot be read, or is none of presets.
    """
    path = folder / PRESETS_NAME
    return {name: validate(Preset, content, f"'{path}', {name}") for name, content in read_yaml(path).items()}


def presets_of(kind: str) -> Mapping[str, Preset]:
    """The presets of a quantity by its name; of one of the package without importing it, for help texts."""
    if kind in BUILT_IN:
        return read_presets(_ABOVE_PACKAGE.joinpath(*BUILT_IN[kind].split(".")))
    return find_quantity(kind).presets


def find_preset(presets: Mapping[str, Preset], name: str) -> Preset:
    """A preset by its name.

    Raises:
        SpecError: if there is none, with a suggestion.
    """
    if not presets:
        raise SpecError(f"unknown preset '{name}'; this kind of model has no presets: leave it out")
    if name not in presets:
        raise SpecError(f"unknown preset '{name}'; expected one of {', '.join(presets)}{suggestion(name, presets)}")
    return presets[name]
