"""Commands that train, use and judge surrogates: train, predict, compare, schema, demo."""

from __future__ import annotations

import argparse
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qcsurrogate.cli.arguments import (
    JSON,
    PRESET,
    QUIET,
    SEED,
    SOURCE,
    THREADS,
    Commands,
    argument,
    command,
    count,
    positive,
    presets,
    print_json,
    say,
    setting,
    short,
    tell,
)
from qcsurrogate.errors import QCSurrogateError, SpecError
from qcsurrogate.registry import find_quantity, quantity_names

if TYPE_CHECKING:
    from qcsurrogate.prediction.results import Prediction


def add_commands(commands: Commands) -> None:
    command(
        commands,
        "train",
        "train a model on a store or a table, or go on with it",
        "qcsurrogate train hamiltonian water --out runs/water --set training.steps=8000",
        _train,
        argument("kind", choices=quantity_names(), help="what the model predicts"),
        SOURCE,
        argument(
            "--out",
            required=True,
            metavar="RUN",
            help="folder of the run; an existing one is continued with its own settings, or to a larger training.steps",
        ),
        argument(
            "--from",
            dest="origin",
            metavar="MODEL",
            help="fine-tune this model: a model file, or the folder of a run; not repeated when the run goes on",
        ),
        PRESET,
        argument("--config", metavar="YAML", help="file with the sections model and training"),
        setting("a setting", "training.steps=8000"),
        QUIET,
        JSON,
        more=presets,
    )
    command(
        commands,
        "predict",
        "predict densities, Hamiltonians or properties for structures",
        "qcsurrogate predict runs/water waters.xyz --out waters.npz --json",
        _predict,
        argument("model", metavar="MODEL", help="model file, or folder of a training run"),
        argument(
            "structures",
            metavar="STRUCTURES",
            nargs="+",
            help="xyz, extxyz, SDF, npz or ASE db files, archives or folders of them",
        ),
        argument("--out", required=True, metavar="FILE", help="arrays of all structures, .npz or .h5"),
        argument(
            "--cube",
            choices=["density"],
            help="also write a cube file of the electron density of every structure beside FILE",
        ),
        argument(
            "--resolution", type=float, default=0.2, metavar="BOHR", help="distance of the cube's points (default: 0.2)"
        ),
        argument(
            "--margin", type=float, default=4.0, metavar="BOHR", help="room around the nuclei in the cube (default: 4)"
        ),
        argument("--batch-size", type=positive, default=32, metavar="N", help="molecules at a time (default: 32)"),
        argument("--device", default="cpu", help="cpu or cuda (default: cpu)"),
        argument("--strict", action="store_true", help="refuse what lies outside of the training data"),
        QUIET,
        JSON,
    )
    command(
        commands,
        "compare",
        "compare models with the reference, and write report.html and metrics.json",
        "qcsurrogate compare runs/hamiltonian runs/density --data water --out report",
        _compare,
        argument("models", metavar="MODEL", nargs="+", help="model files, or folders of training runs"),
        argument("--data", required=True, metavar="DATA", help="folder of the store; for properties also a table"),
        argument("--out", required=True, metavar="REPORT", help="folder of the report"),
        argument("--split", default="test", help="train, validation or test (default: test)"),
        argument("--limit", type=positive, metavar="N", help="compare at most N molecules, drawn at random"),
        argument("--scf-molecules", type=count, default=20, metavar="N", help="with SCFs (default: 20)"),
        argument("--density-molecules", type=count, default=40, metavar="N", help="on a grid (default: 40)"),
        SEED,
        THREADS,
        QUIET,
        JSON,
    )
    command(
        commands,
        "schema",
        "print the JSON schema of data specs or of training configurations, for editors and checks",
        "qcsurrogate schema > data_spec.schema.json",
        _schema,
        argument(
            "of",
            nargs="?",
            default="spec",
            choices=["spec", "table", *quantity_names()],
            help="a data spec (default), a table of labels, or the configuration of training that kind of model",
        ),
    )
    command(
        commands,
        "demo",
        "run the whole path on water: generate, train both models, compare",
        "qcsurrogate demo --out demo",
        _demo,
        argument("--out", default="demo", metavar="DIR", help="folder for everything (default: demo)"),
        QUIET,
        JSON,
    )


def _train(options: argparse.Namespace) -> int:
    from qcsurrogate.pipeline import train_surrogate

    result = train_surrogate(
        options.kind,
        options.store,
        options.out,
        config=options.config,
        overrides=options.set,
        preset=options.preset,
        origin=options.origin,
        quiet=options.quiet,
    )
    data = {
        "model": None if result.model_path is None else str(result.model_path),
        "finished": result.finished,
        "steps": result.steps,
        "best_step": result.best_step,
        "wall_time_s": result.wall_time,
        "cpu_time_s": result.cpu_time,
        "metrics": dict(result.metrics),
    }
    state = "finished" if result.finished else "stopped; the same command goes on"
    lines = [f"{state} after {result.steps} steps and {result.wall_time / 60:.1f} min"]
    if result.model_path is not None:
        lines.append(f"best model (step {result.best_step}): {result.model_path}")
        lines += [f"  {name} = {v:.4g}" for name, v in result.metrics.items() if name.startswith("validation_")]
    tell(options, data, *lines)
    return 0


def _predict(options: argparse.Namespace) -> int:
    from qcsurrogate.domain import OutsideTrainingDomain
    from qcsurrogate.prediction.files import check_suffix, save_predictions, summary
    from qcsurrogate.prediction.results import PredictionWithDensity
    from qcsurrogate.prediction.surrogate import load
    from qcsurrogate.sources.readers import read_structures

    out = check_suffix(options.out)
    surrogate = load(options.model, options.device)
    if options.cube and not issubclass(find_quantity(surrogate.kind).prediction, PredictionWithDensity):
        raise SpecError(
            f"--cube density: the predictions of a {surrogate.kind} model, such as '{options.model}', have no electron "
            "density; expected a model of densities or Hamiltonians: leave --cube out"
        )
    charge, spin = surrogate.default_state
    structures = [s for path in options.structures for s in read_structures(path, charge, spin)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OutsideTrainingDomain)  # said below, for every structure
        predictions: Sequence[Prediction] = surrogate.predict(
            structures, batch_size=options.batch_size, strict=options.strict
        )
    save_predictions(predictions, out)
    cubes = []
    if options.cube:
        names = _file_names(out, [p.structure.name for p in predictions])
        for path, prediction in zip(names, predictions, strict=True):
            if isinstance(prediction, PredictionWithDensity):
                prediction.write_cube(path, resolution=options.resolution, margin=options.margin)
                cubes.append(str(path))
    for prediction in predictions:
        if not prediction.domain.inside:
            say(f"warning: {prediction.structure.label}: {prediction.domain.summary}")
    data = {"out": str(out), **({"cubes": cubes} if cubes else {}), **summary(predictions)}
    if options.json:
        print_json(data)
    elif not options.quiet:
        _print_predictions(data)
        for written in (str(out), *cubes):
            say(f"wrote {written}")
    return 0


def _compare(options: argparse.Namespace) -> int:
    from qcsurrogate.comparison.run import METRICS_FILE_NAME, REPORT_FILE_NAME, compare

    result = compare(
        options.models,
        options.data,
        options.out,
        split=options.split,
        limit=options.limit,
        scf_molecules=options.scf_molecules,
        density_molecules=options.density_molecules,
        seed=options.seed,
        threads=options.threads,
        quiet=options.quiet,
    )
    out = Path(options.out)
    items = (f"{i['title']}: {i['shown']} ({i['rating']}). {i['verdict']}" for i in result["headline"])
    tell(options, result, *items, f"report: {out / REPORT_FILE_NAME}", f"figures: {out / METRICS_FILE_NAME}")
    if result["failures"]:
        say(f"{len(result['failures'])} comparisons failed; the report names them")
    return 0


def _schema(options: argparse.Namespace) -> int:
    if options.of == "spec":
        from qcsurrogate.store.spec import spec_schema

        print_json(spec_schema())
    elif options.of == "table":
        from qcsurrogate.tables.spec import table_schema

        print_json(table_schema())
    else:
        from qcsurrogate.pipeline import config_schema

        print_json(config_schema(options.of))
    return 0


def _demo(options: argparse.Namespace) -> int:
    from qcsurrogate.demo import demo

    result = demo(options.out, quiet=options.quiet)
    if options.json:
        print_json(
            {
                "targets": [{**vars(target), "passed": target.passed} for target in result.targets],
                "report": str(result.report),
                "metrics": str(result.metrics),
                "wall_time_s": result.wall_time,
            }
        )
    else:
        width = max(len(target.title) for target in result.targets)
        for target in result.targets:
            mark = "PASS" if target.passed else "FAIL"
            print(f"{mark}  {target.title:{width}}  {target.value:8.3f} {target.unit} (target: <= {target.limit:g})")
        print(f"report: {result.report}")
    return 0 if all(target.passed for target in result.targets) else QCSurrogateError.exit_code


def _print_predictions(data: Mapping[str, Any]) -> None:
    for entry in data["structures"]:
        values = [
            f"{name} {short(entry[name])} {unit}"
            for name, unit in data["units"].items()
            if not (isinstance(entry[name], list) and isinstance(entry[name][0], list))
        ]
        print(f"{entry['name'] or entry['formula']}: " + "; ".join(values))
        errors = [f"{name} {short(e['value'])} {e['unit']}" for name, e in (entry["expected_errors"] or {}).items()]
        if errors:
            print(f"  expected errors: {'; '.join(errors)}")


def _file_names(out: Path, names: Sequence[str]) -> list[Path]:
    """One cube file for each structure, beside ``out``: numbered, with what of its name a file may have."""
    if len(names) == 1:
        return [out.with_suffix(".cube")]
    width = len(str(len(names) - 1))
    safe = [re.sub(r"[^A-Za-z0-9._-]+", "_", name)[:60] for name in names]
    return [out.with_name(f"{out.stem}_{i:0{width}d}_{name}".rstrip("_") + ".cube") for i, name in enumerate(safe)]
