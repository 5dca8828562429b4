"""Commands that make references and say how far they are: generate, status, retry, keys, inspect."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from qcsurrogate.cli.arguments import (
    JSON,
    QUIET,
    STORE,
    Commands,
    argument,
    command,
    overrides,
    positive,
    print_json,
    print_tree,
    say,
    seconds,
    setting,
    tell,
)
from qcsurrogate.errors import ConvergenceError, SpecError

if TYPE_CHECKING:
    from qcsurrogate.clusters.settings import ClusterSettings


def add_commands(commands: Commands) -> None:
    command(
        commands,
        "generate",
        "compute the references of a data spec with PySCF, or go on with them",
        "qcsurrogate generate water_thermal --out water --workers 4",
        _generate,
        argument("spec", metavar="SPEC", help="a YAML file, or the name of a spec that comes with the package"),
        argument("--out", required=True, metavar="DIR", help="folder of the store; an existing one is continued"),
        setting("a value of the spec", "structures.path=ethanol.npz"),
        argument("--workers", type=positive, metavar="N", help="processes (default: one per core)"),
        argument("--threads", type=positive, metavar="N", help="PySCF threads per process (default: 1)"),
        argument("--cluster", metavar="FILE", help="where to compute: a YAML file, see docs/clusters.md"),
        argument("--scheduler", metavar="ADDRESS", help="of a Dask scheduler that runs, such as tls://node1:8786"),
        argument(
            "--tls-folder", metavar="DIR", help="keys for --scheduler, made by `keys` (default: ~/.qcsurrogate/tls)"
        ),
        argument("--dashboard", action="store_true", help="show Dask's page about the workers on this machine"),
        argument(
            "--time-limit", type=seconds, metavar="SECONDS", help="wall time that one structure may take (default: any)"
        ),
        argument(
            "--attempts",
            action="append",
            default=[],
            metavar="CAUSE=N",
            help="put a structure aside after N failed attempts of a cause, e.g. memory=3; repeatable",
        ),
        argument("--limit", type=positive, metavar="N", help="compute at most N structures this time"),
        argument("--retry-failed", action="store_true", help="compute structures that were put aside once more"),
        QUIET,
        JSON,
    )
    command(
        commands,
        "status",
        "say how far a store has come, and what failed",
        "qcsurrogate status water",
        _status,
        STORE,
        argument("--failures", action="store_true", help="group everything that failed by cause, and list it"),
        JSON,
    )
    command(
        commands,
        "retry",
        "let structures that were put aside be tried again by the next `generate`",
        "qcsurrogate retry water --cause memory",
        _retry,
        STORE,
        argument("names", metavar="NAME", nargs="*", help="names of structures (default: all)"),
        argument("--cause", metavar="CAUSE", help="only those put aside for this cause, see `status`"),
        JSON,
    )
    command(
        commands,
        "inspect",
        "check and describe a store, a shard of one, or a model file",
        "qcsurrogate inspect water/shards/shard_00000.h5",
        _inspect,
        argument("path", metavar="FILE|DIR", help="store, training run, shard (.h5) or model (.safetensors)"),
        JSON,
    )
    command(
        commands,
        "keys",
        "make the keys with which schedulers, workers and clients know each other",
        "qcsurrogate keys ~/.qcsurrogate/tls",
        _keys,
        argument("folder", metavar="DIR", help="folder for them, which every node sees and only you can read"),
    )


def _generate(options: argparse.Namespace) -> int:
    from qcsurrogate.generation import generate
    from qcsurrogate.store.spec import load_spec

    spec = load_spec(options.spec, overrides(options.set))
    summary = generate(
        spec,
        options.out,
        cluster=_cluster(options),
        quiet=options.quiet,
        limit=options.limit,
        retry_failed=options.retry_failed,
        time_limit=options.time_limit,
        attempts=_attempts(options.attempts),
    )
    data = {
        "store": str(options.out),
        "states": summary.counts,
        "computed": summary.computed,
        "wall_time_s": summary.wall_time,
        "failures": [f.to_dict() for f in summary.failures],
    }
    states = ", ".join(f"{n} {state}" for state, n in summary.counts.items() if n)
    tell(options, data, f"{options.out}: {states}; {summary.computed} computed in {summary.wall_time:.0f} s")
    if spec.split.kind == "auto" and not options.json and not options.quiet:
        _say_split(options.out)
    if summary.failures:
        say(f"{len(summary.failures)} structures failed; the first: {summary.failures[0].message}")
        say(f"see them with: qcsurrogate status {options.out} --failures")
    nothing = summary.failures and not summary.counts["complete"]
    return ConvergenceError.exit_code if nothing else 0


def _say_split(path: str) -> None:
    """How the structures were divided where the spec does not say."""
    from qcsurrogate.store.spec import SPLIT_NAMES
    from qcsurrogate.store.store import Store

    split = Store.open(path).plan.split
    say("split: " + ", ".join(f"{name} {(split == part).sum()}" for part, name in enumerate(SPLIT_NAMES)))
    if len(split) < 2:
        say("enough for labels; training needs at least one structure to train and one to validate on")


def _cluster(options: argparse.Namespace) -> ClusterSettings:
    from qcsurrogate.clusters.settings import load_cluster, local_cluster, running_scheduler

    if options.cluster is not None and options.scheduler is not None:
        raise SpecError("--scheduler is not allowed with --cluster; give the one where it is to be computed")
    if options.tls_folder is not None and options.scheduler is None:
        raise SpecError("--tls-folder goes with --scheduler; a cluster file says it itself: tls_folder")
    if options.cluster is None and options.scheduler is None:
        return local_cluster(options.workers, options.threads or 1, dashboard=options.dashboard)
    if options.workers is not None or options.threads is not None or options.dashboard:
        raise SpecError(
            "--workers, --threads and --dashboard are for processes on this machine; with --cluster, set them in its "
            "file, and with --scheduler, where the workers are started"
        )
    if options.cluster is not None:
        return load_cluster(options.cluster)
    return running_scheduler(options.scheduler, tls_folder=options.tls_folder)


def _attempts(texts: Sequence[str]) -> dict[str, int]:
    """``CAUSE=N`` texts as numbers by cause."""
    attempts = {}
    for text in texts:
        cause, _, number = text.partition("=")
        if not number.isdecimal():
            raise SpecError(f"cannot use --attempts '{text}'; expected CAUSE=N, such as memory=3")
        attempts[cause] = int(number)
    return attempts


def _status(options: argparse.Namespace) -> int:
    from qcsurrogate.inspection import failure_report, status

    data = status(options.store)
    if options.json:
        print_json(data)
        return 0
    print(f"{data['name']} in {data['path']}: {data['structures']} structures")
    for heading, counts in (
        ("states", data["states"]),
        ("put aside, by cause", data["errors_by_cause"]),
        ("failed and to be tried again, by cause", data["to_be_tried_again_by_cause"]),
        ("complete, by split", data["complete_by_split"]),
    ):
        if counts:
            print(f"  {heading}: " + ", ".join(f"{name} {n}" for name, n in counts.items()))
    _print_generation(data["generation"])
    for group in failure_report(options.store):
        print(f"  {group.cause}: {len(group.failures)} structures, {group.attempts} attempts: {group.pattern[:150]}")
        for failure in group.failures if options.failures else group.failures[:1]:
            print(f"    {failure.name} ({failure.attempts} x): {failure.message}")
    return 0


def _print_generation(data: Mapping[str, Any]) -> None:
    """Throughput, time left and the slowest structures."""
    if data["records_per_hour"] is not None:
        run = f"running on {data['workers']} workers" if data["is_on"] else "not running; the last run"
        left = data["expected_seconds"]
        eta = "" if left is None else f", about {timedelta(seconds=round(left))} left"
        print(f"  generation: {run}: {data['computed']} records, {data['records_per_hour']:.0f} an hour{eta}")
    if data["slowest"]:
        slowest = (f"{s['name']} {s['seconds']:.1f} s ({s['orbitals']} orbitals)" for s in data["slowest"][:5])
        print("  slowest: " + ", ".join(slowest))


def _retry(options: argparse.Namespace) -> int:
    from qcsurrogate.inspection import retry

    n = retry(options.store, options.cause, options.names)
    tell(
        options,
        {"store": str(options.store), "waiting_again": n},
        f"{n} structures wait again; run `qcsurrogate generate` with the same spec and --out {options.store}",
    )
    return 0


def _keys(options: argparse.Namespace) -> int:
    from qcsurrogate.clusters.tls import make_keys

    keys = make_keys(options.folder)
    for what, path in vars(keys).items():
        print(f"{what}: {path}")
    return 0


def _inspect(options: argparse.Namespace) -> int:
    from qcsurrogate.inspection import inspect

    data = inspect(options.path)
    if options.json:
        print_json(data)
    else:
        print_tree(data)
    return 0
