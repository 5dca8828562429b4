"""Commands for a finished data set: consolidate, verify, merge, export, card."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from qcsurrogate.cli.arguments import (
    JSON,
    QUIET,
    SEED,
    STORE,
    THREADS,
    Commands,
    argument,
    command,
    count,
    print_json,
    say,
    tell,
)
from qcsurrogate.errors import SpecError, StoreError

if TYPE_CHECKING:
    from qcsurrogate.store.verify import Verification

_FACTORS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_ENDINGS = {"qcschema": "FILE.jsonl or a folder", "extxyz": "FILE.extxyz", "qh9": "FILE.db"}


def add_commands(commands: Commands) -> None:
    max_bytes = argument(
        "--max-bytes",
        type=_bytes,
        default=_FACTORS["g"] * 2,
        metavar="N",
        help="of one file's values before compression, such as 500MiB (default: 2GiB)",
    )
    command(
        commands,
        "consolidate",
        "put the records of a store into few large shards",
        "qcsurrogate consolidate water --max-bytes 2GiB",
        _consolidate,
        STORE,
        argument("--out", metavar="DIR", help="folder of a new store (default: change the store itself)"),
        max_bytes,
        QUIET,
        JSON,
    )
    command(
        commands,
        "verify",
        "check files and records of a store, compute some again, and list every problem",
        "qcsurrogate verify water --sample 5",
        _verify,
        STORE,
        argument(
            "--sample", type=count, default=0, metavar="N", help="compute N records again from nothing (default: 0)"
        ),
        argument(
            "--records", type=count, metavar="N", help="check the contents of N records, drawn at random (default: all)"
        ),
        SEED,
        THREADS,
        QUIET,
        JSON,
    )
    command(
        commands,
        "merge",
        "make one store of all structures and records of several stores of equal method",
        "qcsurrogate merge all water_node1 water_node2",
        _merge,
        argument("out", metavar="OUT", help="folder of the new store"),
        argument("stores", metavar="DIR", nargs="+", help="folders of the stores, which are only read"),
        max_bytes,
        QUIET,
        JSON,
    )
    endings = "; ".join(f"{name}: {ending}" for name, ending in sorted(_ENDINGS.items()))
    command(
        commands,
        "export",
        "write the records of a store in a format of others",
        "qcsurrogate export water --format extxyz --out water.extxyz",
        _export,
        STORE,
        argument("--format", required=True, choices=sorted(_ENDINGS), help="QCSchema JSON, extended xyz, QH9"),
        argument("--out", required=True, metavar="PATH", help=endings),
        argument("--split", choices=["train", "validation", "test"], help="one part only (default: all)"),
        QUIET,
        JSON,
    )
    command(
        commands,
        "card",
        "write a data card: what a store holds and how it was made, in markdown",
        "qcsurrogate card water --out water/README.md",
        _card,
        STORE,
        argument("--out", metavar="FILE", help="file to write (default: standard output)"),
        argument("--map", metavar="MODEL", help="draw a map of the molecules as this autoencoder embeds them"),
        QUIET,
    )


def _bytes(text: str) -> int:
    match = re.fullmatch(r"(\d+)\s*([kmgt]?)(i?b)?", text.strip().lower())
    if not match or int(match[1]) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of bytes such as 2GiB, 500MiB or 1000000")
    return int(match[1]) * _FACTORS[match[2]]


def _size(n_bytes: int) -> str:
    power = min(len(_FACTORS) - 1, max(0, (n_bytes.bit_length() - 1) // 10))
    unit = ("bytes", "KiB", "MiB", "GiB", "TiB")[power]
    return f"{n_bytes / 2 ** (10 * power):.{1 if power else 0}f} {unit}"


def _consolidate(options: argparse.Namespace) -> int:
    from qcsurrogate.store.consolidate import consolidate

    result = consolidate(options.store, options.out, max_bytes=options.max_bytes, quiet=options.quiet)
    data = {
        "store": str(result.path),
        "records": result.n_records,
        "files": [str(path) for path in result.files],
        "bytes": result.n_bytes,
        "bytes_before": result.bytes_before,
    }
    tell(
        options,
        data,
        f"{result.path}: {result.n_records} records in {len(result.files)} files, {_size(result.n_bytes)} "
        f"(before: {_size(result.bytes_before)})",
    )
    return 0


def _verify(options: argparse.Namespace) -> int:
    from qcsurrogate.store.verify import verify

    result = verify(
        options.store,
        sample=options.sample,
        records=options.records,
        seed=options.seed,
        threads=options.threads,
        quiet=options.quiet,
    )
    if options.json:
        print_json(result.to_dict())
    else:
        if not options.quiet:
            _print_verification(result)
        for problem in result.problems:
            print(f"  {problem.check}: {problem.where}: {problem.message}")
    if not result.sound:
        say(f"error: '{options.store}' has {len(result.problems)} problems; expected none")
    return 0 if result.sound else StoreError.exit_code


def _print_verification(result: Verification) -> None:
    print(
        f"{result.path}: {result.complete} of {result.planned} records in {result.files} files; contents of "
        f"{result.checked} checked, {len(result.recomputed)} computed again"
    )
    for entry in result.recomputed:
        differences = ", ".join(f"{d.quantity} {d.value:.1e}" for d in entry.differences)
        print(f"  {entry.name}: computed again in {entry.wall_time:.1f} s; largest differences: {differences}")
    changed = {
        name: (then, result.versions_now.get(name, "?"))
        for name, then in result.versions_then.items()
        if then != result.versions_now.get(name)
    }
    if changed:
        print("  versions then and now: " + ", ".join(f"{n} {a} -> {b}" for n, (a, b) in changed.items()))
    print(f"  {len(result.problems) or 'no'} problems")


def _merge(options: argparse.Namespace) -> int:
    from qcsurrogate.store.merge import merge

    result = merge(options.out, options.stores, max_bytes=options.max_bytes, quiet=options.quiet)
    taken = dict(zip(options.stores, result.taken, strict=True))
    data = {"store": str(result.path), "records": result.n_records, "taken": taken}
    tell(
        options,
        data | {"repeated": result.repeated, "missing": result.missing},
        f"{result.path}: {result.n_records} records ({', '.join(f'{n} from {path}' for path, n in taken.items())}); "
        f"{result.repeated} were in several stores and agree; {result.missing} are missing everywhere",
    )
    return 0


def _export(options: argparse.Namespace) -> int:
    from contextlib import closing

    from qcsurrogate.store.export.extxyz import export_extxyz
    from qcsurrogate.store.export.qcschema import export_qcschema
    from qcsurrogate.store.export.qh9 import export_qh9
    from qcsurrogate.store.store import Store

    write = {"extxyz": export_extxyz, "qcschema": export_qcschema, "qh9": export_qh9}[options.format]
    with closing(Store.open(options.store)) as store:
        written = write(store, options.out, options.split, quiet=options.quiet)
        n_records = len(store.keys(options.split))
    data = {"format": options.format, "records": n_records, "files": [str(path) for path in written]}
    tell(options, data, f"{n_records} records as {options.format}: {options.out}")
    return 0


def _card(options: argparse.Namespace) -> int:
    from qcsurrogate.store.card import data_card
    from qcsurrogate.store.export import text_in_place_of

    card = data_card(options.store)
    if options.map is not None:
        from qcsurrogate.comparison.embedding_map import map_of_store
        from qcsurrogate.files.atomic import write_output

        if options.out is None:
            raise SpecError("--map draws a picture beside the card; expected --out FILE too")
        picture = Path(options.out).with_name(f"{Path(options.out).stem}-map.svg")
        section, drawing = map_of_store(options.store, options.map, picture.name)
        write_output(picture, drawing, "the map")
        card += f"\n{section}"
    if options.out is None:
        print(card, end="")
        return 0
    with text_in_place_of(Path(options.out)) as file:
        file.write(card)
    if not options.quiet:
        say(f"wrote {options.out}")
    return 0
