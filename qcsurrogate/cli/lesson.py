"""The command that shows what symmetry buys: lesson."""

from __future__ import annotations

import argparse
from pathlib import Path

from qcsurrogate.cli.arguments import JSON, QUIET, Commands, argument, command, count, positive, say, tell
from qcsurrogate.errors import QCSurrogateError


def add_commands(commands: Commands) -> None:
    command(
        commands,
        "lesson",
        "what symmetry buys, computed: the algebra of rotations, a molecule and its rotation, networks with less and "
        "more symmetry on one task; a page with figures, in a few minutes",
        "qcsurrogate lesson --out lesson",
        _lesson,
        argument("--out", default="lesson", metavar="DIR", help="folder of page and figures (default: lesson)"),
        argument("--steps", type=positive, metavar="N", help="training steps of every network (default: 600)"),
        argument("--workers", type=positive, metavar="N", help="processes that train (default: one per core, up to 4)"),
        argument("--seed", type=count, default=0, metavar="N", help="of molecules, weights and turns (default: 0)"),
        QUIET,
        JSON,
    )


def _lesson(options: argparse.Namespace) -> int:
    from dataclasses import asdict, replace

    from qcsurrogate.comparison.text import number
    from qcsurrogate.lesson.contest import LessonSettings
    from qcsurrogate.lesson.run import PAGE_NAME, lesson

    settings = LessonSettings(seed=options.seed)
    if options.steps is not None:
        settings = replace(settings, steps=options.steps)
    found = lesson(options.out, settings, workers=options.workers, quiet=options.quiet)
    failed = [check for check in found.checks if not check.holds]
    page = Path(options.out) / PAGE_NAME
    lines = [
        f"{r.title}, {r.n_train:,} molecules: error {number(r.error)} a0^2 as given, {number(r.error_rotated)} turned "
        f"({r.n_parameters:,} parameters, {number(r.cpu_seconds, 2)} s)"
        for r in found.results
    ]
    data = {
        "checks": [{**asdict(check), "holds": check.holds} for check in found.checks],
        "results": [asdict(result) for result in found.results],
        "page": str(page),
        "wall_time_s": found.wall_time,
    }
    tell(options, data, *lines, f"{len(found.checks) - len(failed)} of {len(found.checks)} statements hold", f"{page}")
    for check in failed:
        say(f"this does not hold: {check.statement} (deviation {check.deviation:.1e})")
    return QCSurrogateError.exit_code if failed else 0
