"""What the builders of all quantities' models share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from qcsurrogate.errors import BasisError, ModelFileError, SpecError, suggestion

S = TypeVar("S", bound=BaseModel)


class Neighbourhoods(Protocol):
    """Training data that knows how many messages an atom receives."""

    @property
    def average_neighbours(self) -> float: ...


def validated(settings: type[S], values: Mapping[str, Any]) -> S:
    """Settings of a model from plain values.

    Raises:
        SpecError: for an unknown key (with a suggestion) or a bad value.
    """
    try:
        return settings.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"])
        message = f"model.{path}: {first['msg']}; got {first['input']!r}"
        if first["type"] == "extra_forbidden":
            message = f"unknown key 'model.{path}'{suggestion(str(first['loc'][-1]), _keys(settings))}"
        raise SpecError(message) from error


def _keys(settings: type[BaseModel]) -> list[str]:
    """Names of all settings, those of sections included."""
    keys = []
    for name, field in settings.model_fields.items():
        keys.append(name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += _keys(field.annotation)
    return keys


def with_neighbours(settings: S, data: Neighbourhoods) -> S:
    """Settings whose ``encoder.average_neighbours`` is that of the training data, unless it is given."""
    encoder: BaseModel = settings.encoder  # type: ignore[attr-defined]
    if encoder.average_neighbours is not None:  # type: ignore[attr-defined]
        return settings
    known = encoder.model_copy(update={"average_neighbours": round(data.average_neighbours, 6)})
    return settings.model_copy(update={"encoder": known})


@contextmanager
def readable(name: str) -> Iterator[None]:
    """What goes wrong inside, reading a description, is said to be wrong with the description.

    Raises:
        ModelFileError: if it does not fit.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, BasisError, SpecError) as error:
        raise ModelFileError(f"the description of a {name} model cannot be used: {error}") from error
