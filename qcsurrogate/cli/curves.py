"""The command that measures what more molecules bring: learning-curve."""

from __future__ import annotations

import argparse
from pathlib import Path

from qcsurrogate.cli.arguments import (
    JSON,
    PRESET,
    QUIET,
    SOURCE,
    THREADS,
    Commands,
    argument,
    command,
    count,
    positive,
    presets,
    setting,
    tell,
)
from qcsurrogate.registry import quantity_names


def add_commands(commands: Commands) -> None:
    command(
        commands,
        "learning-curve",
        "train on growing parts of the training split, measure on the test split, draw the curve and its law",
        "qcsurrogate learning-curve hamiltonian molecules --out curve --sizes 60,180,500 --seeds 3 --preset small",
        _learning_curve,
        argument("kind", choices=quantity_names(), help="what the models predict"),
        SOURCE,
        argument(
            "--out",
            required=True,
            metavar="CURVE",
            help="folder of the curve and of its runs; an existing one is continued with its own settings, and with "
            "more sizes and seeds",
        ),
        argument(
            "--sizes",
            required=True,
            type=_sizes,
            metavar="N,N,...",
            help="numbers of training molecules; every part holds the smaller ones",
        ),
        argument(
            "--seeds",
            type=positive,
            default=1,
            metavar="N",
            help="models of each size, with other molecules and weights, from training.seed on (default: 1)",
        ),
        PRESET,
        argument("--config", metavar="YAML", help="file with the sections model and training"),
        setting("a setting of all runs", "training.steps=3000"),
        argument("--limit", type=positive, metavar="N", help="measure on at most N test molecules, drawn at random"),
        argument("--density-molecules", type=count, default=40, metavar="N", help="on a grid (default: 40)"),
        argument("--scf-molecules", type=count, default=0, metavar="N", help="with SCFs (default: 0)"),
        THREADS,
        QUIET,
        JSON,
        more=presets,
    )


def _sizes(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"'{text}' is no list of whole numbers, such as 60,180,500")
    return [int(part) for part in parts]


def _learning_curve(options: argparse.Namespace) -> int:
    from qcsurrogate.curves.run import CURVE_NAME, learning_curve
    from qcsurrogate.curves.text import lines

    curve = learning_curve(
        options.kind,
        options.store,
        options.out,
        sizes=options.sizes,
        seeds=options.seeds,
        preset=options.preset,
        config=options.config,
        overrides=options.set,
        limit=options.limit,
        density_molecules=options.density_molecules,
        scf_molecules=options.scf_molecules,
        threads=options.threads,
        quiet=options.quiet,
    )
    files = f"files: {Path(options.out) / CURVE_NAME}.json, .md, .png, .svg"
    tell(options, curve.model_dump(mode="json"), *lines(curve), files)
    return 0
