"""What every command of the command line shares: its parser, its options, how it prints."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from qcsurrogate.errors import SpecError, suggestion


class Parser(argparse.ArgumentParser):
    """Prints ``error: message`` as every other error of this program, with a suggestion."""

    def error(self, message: str) -> NoReturn:
        choice = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
        option = re.search(r"unrecognized arguments: (--[\w-]+)", message)
        if choice:
            message += suggestion(choice[1], re.findall(r"[\w-]+", choice[2]))
        elif option:
            message += suggestion(option[1], self._option_string_actions)
        self.exit(SpecError.exit_code, f"error: {message}; see '{self.prog} --help'\n")


_LONGEST_LIST, _SHOWN = 20, 5
"""A list longer than this is printed by its first entries and their number."""

Commands = Any
"""What ``add_subparsers`` returns; argparse keeps its type private."""


def command(commands: Commands, name: str, summary: str, example: str, **defaults: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(parser=parser, **defaults)
    return parser


def add_quiet(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quiet", action="store_true", help="print errors, warnings and data only, no progress")


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the result as JSON on standard output")


def add_set(parser: argparse.ArgumentParser, what: str, example: str) -> None:
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help=f"override {what}, e.g. {example}; repeatable"
    )


def overrides(texts: Sequence[str]) -> dict[str, Any]:
    """``KEY=VALUE`` texts as values by key; a value is written in YAML."""
    from qcsurrogate.files.yaml_model import parse_yaml

    values = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not all(key.split(".")):
            raise SpecError(f"cannot use --set '{text}'; expected KEY=VALUE, such as method.xc=b3lyp")
        values[key] = parse_yaml(f"value: {value}", text)["value"]
    return values


def positive(text: str) -> int:
    value = count(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number of 1 or more")
    return value


def seconds(text: str) -> float:
    """A positive time in seconds."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"'{text}' is not a positive number of seconds")
    return value


def count(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = -1
    if value < 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of 0 or more")
    return value


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def print_json(data: Any) -> None:
    print(json.dumps(data, indent=2, allow_nan=False))


def print_tree(data: Mapping[str, Any], indent: str = "") -> None:
    """Nested data as indented ``key: value`` lines."""
    for key, value in data.items():
        if isinstance(value, Mapping) and "max_of" in value:
            spread = "{mean:.6g} ({min:.6g} of {min_of} to {max:.6g} of {max_of})".format(**value)
            print(f"{indent}{key}: {spread}")
        elif isinstance(value, Mapping) and value:
            print(f"{indent}{key}:")
            print_tree(value, indent + "  ")
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            print(f"{indent}{key}: {len(value)}")
            for entry in value:
                print(f"{indent}  - " + ", ".join(f"{k}: {short(v)}" for k, v in entry.items()))
        else:
            print(f"{indent}{key}: {short(value)}")


def short(value: Any) -> str:
    if value is None or value in ({}, []):
        return "none"
    if value == "":
        return "not stated"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        more = len(value) > _LONGEST_LIST
        shown = ", ".join(short(entry) for entry in (value[:_SHOWN] if more else value))
        return f"{shown}, ... ({len(value)} in all; --json lists them)" if more else shown
    return str(value)
