"""What every command of the command line shares: its parser, its options, how it prints."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from qcsurrogate.errors import SpecError, suggestion


class Parser(argparse.ArgumentParser):
    """Prints ``error: message`` as every other error of this program, with a suggestion.

    Attributes:
        more: what else stands in the help, found out when it is printed.
    """

    more: Callable[[], str] | None = None

    def format_help(self) -> str:
        own = super().format_help()
        return own if self.more is None else f"{own}\n{self.more()}\n"

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


Argument = tuple[tuple[str, ...], Mapping[str, Any]]
"""Names and settings, as ``add_argument`` takes them."""


def argument(*names: str, **settings: Any) -> Argument:
    return names, settings


def command(
    commands: Commands,
    name: str,
    summary: str,
    example: str,
    run: Callable[[argparse.Namespace], int],
    *arguments: Argument,
    more: Callable[[], str] | None = None,
) -> None:
    """Add a command that runs a function of its options, which returns the exit code; its help may tell ``more``."""
    parser: Parser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.more = more
    parser.set_defaults(parser=parser, run=run)
    for names, settings in arguments:
        parser.add_argument(*names, **settings)


def setting(what: str, example: str) -> Argument:
    explained = f"override {what}, e.g. {example}; repeatable"
    return argument("--set", action="append", default=[], metavar="KEY=VALUE", help=explained)


def overrides(texts: Sequence[str]) -> dict[str, Any]:
    """``KEY=VALUE`` texts as values by key."""
    from qcsurrogate.files.nested import parse_override

    return dict(map(parse_override, texts))


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number of 1 or more")
    return int(text)


def count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of 0 or more")
    return int(text)


def seconds(text: str) -> float:
    """A positive time in seconds."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"'{text}' is not a positive number of seconds")
    return value


def presets() -> str:
    """What the presets of every quantity are for."""
    from qcsurrogate.files.presets import presets_of
    from qcsurrogate.registry import quantity_names

    lines = []
    for kind in quantity_names():
        found = presets_of(kind)
        lines += [f"presets of {kind} models:"] * bool(found)
        lines += [f"  {name:8} {preset.purpose}" for name, preset in found.items()]
    return "\n".join(lines)


PRESET = argument("--preset", metavar="NAME", help="settings by name, see below; --config and --set win over them")
STORE = argument("store", metavar="DIR", help="folder of the store")
SOURCE = argument(
    "store",
    metavar="DATA",
    help="folder of the store; for properties also a file or folder of structures with labels (QM9's archive, "
    "gdb9.sdf, npz), the YAML file of a table, or qm9_properties, which comes with the package",
)
QUIET = argument("--quiet", action="store_true", help="print errors, warnings and data only, no progress")
JSON = argument("--json", action="store_true", help="print the result as JSON on standard output")
SEED = argument("--seed", type=count, default=0, metavar="N", help="of the draws (default: 0)")
THREADS = argument("--threads", type=positive, default=1, metavar="N", help="PySCF threads (default: 1)")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def print_json(data: Any) -> None:
    print(json.dumps(data, indent=2, allow_nan=False))


def tell(options: argparse.Namespace, data: Any, *lines: str) -> None:
    """A result as JSON or in words, whichever is wanted."""
    if options.json:
        print_json(data)
    elif not getattr(options, "quiet", False):
        print(*lines, sep="\n")


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
