"""Commands that make references and say how far they are: generate, status, inspect."""

from __future__ import annotations

import argparse

from qcsurrogate.cli.arguments import (
    Commands,
    add_json,
    add_quiet,
    add_set,
    command,
    overrides,
    positive,
    print_json,
    print_tree,
    say,
)
from qcsurrogate.errors import ConvergenceError


def add_generate(commands: Commands) -> None:
    parser = command(
        commands,
        "generate",
        "compute the references of a data spec with PySCF, or go on with them",
        "qcsurrogate generate water_thermal --out water --workers 4",
        run=_generate,
    )
    parser.add_argument("spec", metavar="SPEC", help="a YAML file, or the name of a spec that comes with the package")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the store; an existing one is continued")
    add_set(parser, "a value of the spec", "structures.path=ethanol.npz")
    parser.add_argument("--workers", type=positive, metavar="N", help="processes (default: one per core)")
    parser.add_argument(
        "--threads", type=positive, default=1, metavar="N", help="PySCF threads per process (default: 1)"
    )
    parser.add_argument("--limit", type=positive, metavar="N", help="compute at most N structures this time")
    parser.add_argument("--retry-failed", action="store_true", help="compute structures that failed once more")
    add_quiet(parser)
    add_json(parser)


def add_status(commands: Commands) -> None:
    parser = command(
        commands, "status", "say how far a store has come, and what failed", "qcsurrogate status water", run=_status
    )
    parser.add_argument("store", metavar="DIR", help="folder of the store")
    add_json(parser)


def add_inspect(commands: Commands) -> None:
    parser = command(
        commands,
        "inspect",
        "check and describe a store, a shard of one, or a model file",
        "qcsurrogate inspect water/shards/shard_00000.h5",
        run=_inspect,
    )
    parser.add_argument("path", metavar="FILE|DIR", help="store, training run, shard (.h5) or model (.safetensors)")
    add_json(parser)


def _generate(options: argparse.Namespace) -> int:
    from qcsurrogate.generation import generate
    from qcsurrogate.store.spec import load_spec

    spec = load_spec(options.spec, overrides(options.set))
    summary = generate(
        spec,
        options.out,
        n_workers=options.workers,
        threads=options.threads,
        quiet=options.quiet,
        limit=options.limit,
        retry_failed=options.retry_failed,
    )
    failures = [{"name": f.name, "cause": f.cause, "message": f.message} for f in summary.failures]
    if options.json:
        print_json(
            {
                "store": str(options.out),
                "states": summary.counts,
                "computed": summary.computed,
                "wall_time_s": summary.wall_time,
                "failures": failures,
            }
        )
    elif not options.quiet:
        states = ", ".join(f"{count} {state}" for state, count in summary.counts.items() if count)
        print(f"{options.out}: {states}; {summary.computed} computed in {summary.wall_time:.0f} s")
    if failures:
        say(f"{len(failures)} structures failed; the first: {failures[0]['message']}")
        say(f"see them with: qcsurrogate status {options.out}")
    nothing = failures and not summary.counts["complete"]
    return ConvergenceError.exit_code if nothing else 0


def _status(options: argparse.Namespace) -> int:
    from qcsurrogate.inspection import status

    data = status(options.store)
    if options.json:
        print_json(data)
        return 0
    print(f"{data['name']} in {data['path']}: {data['structures']} structures")
    for heading, counts in (("states", data["states"]), ("complete, by split", data["complete_by_split"])):
        print(f"  {heading}: " + ", ".join(f"{name} {count}" for name, count in counts.items()))
    for failure in data["failures"]:
        print(f"  failed: {failure['name']} ({failure['cause']}, {failure['attempts']} x): {failure['message']}")
    return 0


def _inspect(options: argparse.Namespace) -> int:
    from qcsurrogate.inspection import inspect

    data = inspect(options.path)
    if options.json:
        print_json(data)
    else:
        print_tree(data)
    return 0
