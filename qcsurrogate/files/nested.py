"""Nested settings: flat keys ``a.b``, changes ``a.b=c``, and what differs between two of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qcsurrogate.errors import SpecError
from qcsurrogate.files.yaml_model import parse_yaml


def flat(data: object, prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}, "c": [{"d": 2}]}`` as ``{"a.b": 1, "c.0.d": 2}``."""
    if isinstance(data, list) and any(isinstance(value, Mapping) for value in data):
        data = dict(enumerate(data))
    if not isinstance(data, Mapping) or (prefix and not data):
        return {prefix: data}
    return {
        key: value
        for name, inner in data.items()
        for key, value in flat(inner, f"{prefix}.{name}" if prefix else str(name)).items()
    }


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """A line ``method.xc: 'pbe' -> 'b3lyp'`` for everything that is not the same."""
    before, after = flat(old), flat(new)
    return [
        " -> ".join([f"{key}: {_shown(before, key)}", _shown(after, key)])
        for key in dict.fromkeys([*before, *after])
        if key not in before or key not in after or before[key] != after[key]
    ]


def _shown(values: Mapping[str, Any], key: str) -> str:
    return repr(values[key]) if key in values else "nothing"


def parse_override(text: str) -> tuple[str, Any]:
    """Key and value of ``a.b=c``; the value is written in YAML."""
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not all(key.split(".")):
        raise SpecError(
            f"cannot use --set '{text}'; expected KEY=VALUE, such as method.xc=b3lyp or training.steps=2000"
        )
    return key, parse_yaml(f"value: {value}", text)["value"]


def override(data: dict[str, Any], key: str, value: Any, source: str) -> None:
    """Put a value in at ``a.b``; ``source`` is what messages call the data."""
    *parents, last = key.split(".")
    for parent in parents:
        inner = data.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise SpecError(f"{source}: cannot set '{key}': '{parent}' is no mapping")
        data = inner
    data[last] = value
