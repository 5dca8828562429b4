"""YAML files read into pydantic models, with errors that name file, key, expected, got."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from qcsurrogate.errors import SpecError, suggestion

MAXIMUM_YAML_BYTES = 2**20
_MAXIMUM_REPORTED = 8
_SCALAR_TAGS = ("str", "int", "float", "bool")

Model = TypeVar("Model", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """``yaml.safe_load``, but with YAML 1.2's numbers and booleans, and no surprises.

    ``1e-10`` is a number, ``No`` (nobelium) is text, a key may occur once, and anchors
    are refused, because a few lines of them can unfold to gigabytes.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.composer.ComposerError(None, None, "anchors and aliases are not supported", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen if isinstance(key.value, str) else False:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key.value}' occurs twice; expected it once", key.start_mark
                )
            seen.add(str(key.value))
        return super().construct_mapping(node, deep=deep)


_BOOLEAN, _FLOAT = "tag:yaml.org,2002:bool", "tag:yaml.org,2002:float"
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in (_BOOLEAN, _FLOAT)]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_BOOLEAN, re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver(
    _FLOAT,
    re.compile(
        r"""^[-+]?(?:[0-9]+[eE][-+]?[0-9]+
        |(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?
        |\.(?:inf|Inf|INF|nan|NaN|NAN))$""",
        re.VERBOSE,
    ),
    list("-+0123456789."),
)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file whose top level is a mapping.

    Raises:
        SpecError: if it is missing, too large, not YAML, or something else.
    """
    try:
        if path.stat().st_size > MAXIMUM_YAML_BYTES:
            raise SpecError(f"'{path}' has {path.stat().st_size} bytes; expected at most {MAXIMUM_YAML_BYTES}")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise SpecError(f"cannot find the file '{path}'") from error
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"cannot read '{path}' as YAML: {error}") from error
    return parse_yaml(text, str(path))


def parse_yaml(text: str, source: str) -> dict[str, Any]:
    """YAML text whose top level is a mapping; ``source`` is what messages call it."""
    try:
        data = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise SpecError(f"cannot read '{source}' as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        found = "nothing" if data is None else type(data).__name__
        raise SpecError(f"'{source}': expected a mapping (lines 'key: value'), got {found}")
    return data


def dump_yaml(data: Mapping[str, Any]) -> str:
    """YAML text that :func:`parse_yaml` reads back."""
    return yaml.safe_dump(dict(data), sort_keys=False, allow_unicode=True, default_flow_style=None, width=110)


def validate(model: type[Model], data: Mapping[str, Any], source: str) -> Model:
    """A model from plain data.

    Raises:
        SpecError: naming source, key path, what was expected, what was got and, for an
            unknown key, the nearest known one.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems = _problems(model, error.errors(include_url=False))
        shown = problems[:_MAXIMUM_REPORTED]
        if len(problems) > len(shown):
            shown.append(f"and {len(problems) - len(shown)} more")
        lines = shown[0] if len(shown) == 1 else "\n  " + "\n  ".join(shown)
        raise SpecError(f"{source}: {lines}") from error


def _problems(model: type[BaseModel], entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line per mistake: what only follows from another mistake is left out."""
    of_models = [e for e in entries if isinstance(e["input"], dict) and e["type"].endswith("_type")]
    lines = {_problem(model, e): e for e in entries if e not in of_models} or {_problem(model, e): e for e in entries}
    missing = {".".join(_walk(model, e["loc"])[0]): line for line, e in lines.items() if e["type"] == "missing"}
    for line, entry in lines.items():
        near = re.search(r"did you mean '(.*)'", line)
        if entry["type"] == "extra_forbidden" and near:
            missing.pop(".".join([*_walk(model, entry["loc"])[0][:-1], near[1]]), None)
    return [line for line, entry in lines.items() if entry["type"] != "missing" or line in missing.values()]


def _problem(model: type[BaseModel], entry: Mapping[str, Any]) -> str:
    path, models = _walk(model, entry["loc"])
    where = ".".join(path) or "the whole"
    context = entry.get("ctx", {})
    match entry["type"]:
        case "extra_forbidden":
            known = sorted({name for m in models for name in m.model_fields})
            near = suggestion(path[-1], known) or f"; expected one of {known}"
            return f"{where}: unknown key '{path[-1]}'{near}"
        case "missing":
            return f"{where}: missing; expected a value"
        case "union_tag_not_found":
            return f"{where}.{_bare(context['discriminator'])}: missing; expected one of {_tags(model, entry['loc'])}"
        case "union_tag_invalid":
            tags, tag = _tags(model, entry["loc"]), str(context["tag"])
            key = f"{where}.{_bare(context['discriminator'])}"
            return f"{key}: expected one of {tags}, got '{tag}'{suggestion(tag, tags)}"
        case "literal_error":
            near = suggestion(str(entry["input"]), re.findall(r"'([^']*)'", context["expected"]))
            return f"{where}: expected {context['expected']}, got {_shown(entry['input'])}{near}"
        case "value_error" | "assertion_error":
            return f"{where}: {context['error']}"
        case _:
            expected = re.sub(r"^Input should be |^Unable to parse input string as ", "", entry["msg"])
            expected = re.sub(
                r"^a valid dictionary or (instance of \w+|object to extract fields from)", "a mapping", expected
            )
            return f"{where}: expected {expected}, got {_shown(entry['input'])}"


def _bare(discriminator: object) -> str:
    return str(discriminator).strip("'")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _walk(model: type[BaseModel], loc: Sequence[str | int]) -> tuple[list[str], list[type[BaseModel]]]:
    """The user's key path (without pydantic's tags) and the models at its end's parent."""
    path: list[str] = []
    annotation: Any = model
    parents: list[type[BaseModel]] = [model]
    for position, part in enumerate(loc):
        models = list(_models(annotation))
        holders = [m for m in models if part in m.model_fields]
        tagged = [m for m in models if part in (m.__name__, *_tag_of(m))]
        if holders:
            parents, annotation = holders, holders[0].model_fields[str(part)].annotation
        elif tagged:
            parents, annotation = tagged[:1], tagged[0]
            continue
        elif isinstance(part, str) and models and position == len(loc) - 1:
            if part in _SCALAR_TAGS:
                continue
            parents = models
        elif isinstance(part, int):
            annotation = next(iter(_members(annotation)), annotation)
        else:
            continue
        path.append(str(part))
    return path, parents


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, types.UnionType, Annotated):
        for argument in get_args(annotation):
            yield from _models(argument)


def _members(annotation: Any) -> Iterator[Any]:
    """What the tuples of an annotation hold."""
    if get_origin(annotation) is tuple:
        yield get_args(annotation)[0]
    elif get_origin(annotation) in (Union, types.UnionType, Annotated):
        for argument in get_args(annotation):
            yield from _members(argument)


def _tag_of(model: type[BaseModel]) -> list[str]:
    return [str(t) for t in get_args(model.model_fields["kind"].annotation)] if "kind" in model.model_fields else []


def _tags(model: type[BaseModel], loc: Sequence[str | int]) -> list[str]:
    annotation: Any = model
    for part in loc:
        if isinstance(part, int):
            annotation = next(iter(_members(annotation)), annotation)
        holder = next((m for m in _models(annotation) if part in m.model_fields), None)
        if holder is not None:
            annotation = holder.model_fields[str(part)].annotation
    return [tag for m in _models(annotation) for tag in _tag_of(m)]
