"""The command line ``qcsurrogate``: parse, call, print.

Data goes to standard output, everything else to standard error.  What a command needs is
imported when it runs, so that ``--help`` is immediate.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from qcsurrogate.errors import ConvergenceError, QCSurrogateError, SpecError, suggestion

if TYPE_CHECKING:
    from qcsurrogate.prediction.results import Prediction

EXIT_CODES = """\
exit codes:
  0    done (structures that failed are counted and listed; they do not fail the command)
  1    anything else that went wrong; demo: a target was missed
  2    an option, a spec or a configuration that cannot be used
  3    a structure, a structure file or a basis that cannot be used
  4    no structure converged, or a reference record failed its checks
  5    a store that is missing, damaged or not writable
  6    a model file that is missing or damaged
  7    a model asked about elements, a charge, a spin or a basis it was not trained on
  8    training that cannot start, resume or go on
  9    a result that cannot be written
  130  stopped by Ctrl-C; generate, train and demo go on when they are started again
  141  whatever read the output closed it"""

_INTERRUPTED, _PIPE_CLOSED = 130, 141


class _Parser(argparse.ArgumentParser):
    """Prints ``error: message`` as every other error of this program, with a suggestion."""

    def error(self, message: str) -> NoReturn:
        choice = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
        option = re.search(r"unrecognized arguments: (--[\w-]+)", message)
        if choice:
            message += suggestion(choice[1], re.findall(r"[\w-]+", choice[2]))
        elif option:
            message += suggestion(option[1], self._option_string_actions)
        self.exit(SpecError.exit_code, f"error: {message}; see '{self.prog} --help'\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code, see :data:`EXIT_CODES`.
    """
    try:
        try:
            return _run(arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes standard output once more at exit; let that go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _PIPE_CLOSED
    except KeyboardInterrupt:
        _say("interrupted; generate, train and demo go on when they are started again")
        return _INTERRUPTED
    except (QCSurrogateError, OSError) as error:
        if os.environ.get("QCSURROGATE_TRACEBACK"):
            raise
        _say(f"error: {error}")
        return error.exit_code if isinstance(error, QCSurrogateError) else QCSurrogateError.exit_code


def _run(arguments: Sequence[str] | None) -> int:
    options, unknown = build_parser().parse_known_args(arguments)
    if unknown:
        options.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    code: int = options.run(options)
    return code


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = _Parser(
        prog="qcsurrogate",
        description="Neural surrogates of Kohn-Sham density functional theory: generate references with PySCF, train "
        "equivariant networks, predict densities and Hamiltonians, compare.",
        epilog=EXIT_CODES + "\n\nQCSURROGATE_TRACEBACK=1 shows where an error comes from.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Parser)
    for add in (
        _add_generate,
        _add_status,
        _add_inspect,
        _add_train,
        _add_predict,
        _add_compare,
        _add_schema,
        _add_demo,
    ):
        add(commands)
    return parser


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        import qcsurrogate

        print(f"qcsurrogate {qcsurrogate.__version__}")
        parser.exit()


Commands = Any
"""What ``add_subparsers`` returns; argparse keeps its type private."""


def _command(commands: Commands, name: str, summary: str, example: str, **defaults: Any) -> argparse.ArgumentParser:
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


def _add_quiet(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quiet", action="store_true", help="print errors and data only, no progress")


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the result as JSON on standard output")


def _add_set(parser: argparse.ArgumentParser, what: str, example: str) -> None:
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help=f"override {what}, e.g. {example}; repeatable"
    )


def _add_generate(commands: Commands) -> None:
    parser = _command(
        commands,
        "generate",
        "compute the references of a data spec with PySCF, or go on with them",
        "qcsurrogate generate water_thermal --out water --workers 4",
        run=_generate,
    )
    parser.add_argument("spec", metavar="SPEC", help="a YAML file, or the name of a spec that comes with the package")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the store; an existing one is continued")
    _add_set(parser, "a value of the spec", "structures.path=ethanol.npz")
    parser.add_argument("--workers", type=_positive, metavar="N", help="processes (default: one per core)")
    parser.add_argument(
        "--threads", type=_positive, default=1, metavar="N", help="PySCF threads per process (default: 1)"
    )
    parser.add_argument("--limit", type=_positive, metavar="N", help="compute at most N structures this time")
    parser.add_argument("--retry-failed", action="store_true", help="compute structures that failed once more")
    _add_quiet(parser)
    _add_json(parser)


def _add_status(commands: Commands) -> None:
    parser = _command(
        commands, "status", "say how far a store has come, and what failed", "qcsurrogate status water", run=_status
    )
    parser.add_argument("store", metavar="DIR", help="folder of the store")
    _add_json(parser)


def _add_inspect(commands: Commands) -> None:
    parser = _command(
        commands,
        "inspect",
        "check and describe a store, a shard of one, or a model file",
        "qcsurrogate inspect water/shards/shard_00000.h5",
        run=_inspect,
    )
    parser.add_argument("path", metavar="FILE|DIR", help="store, training run, shard (.h5) or model (.safetensors)")
    _add_json(parser)


def _add_train(commands: Commands) -> None:
    parser = _command(
        commands,
        "train",
        "train a model on a store, or go on with it",
        "qcsurrogate train hamiltonian water --out runs/water --set training.steps=8000",
        run=_train,
    )
    parser.add_argument("kind", choices=["density", "hamiltonian"], help="what the model predicts")
    parser.add_argument("store", metavar="DIR", help="folder of the store")
    parser.add_argument("--out", required=True, metavar="RUN", help="folder of the run; an existing one is continued")
    parser.add_argument("--config", metavar="YAML", help="file with the sections model and training")
    _add_set(parser, "a setting", "training.steps=8000")
    _add_quiet(parser)
    _add_json(parser)


def _add_predict(commands: Commands) -> None:
    parser = _command(
        commands,
        "predict",
        "predict densities or Hamiltonians for structures",
        "qcsurrogate predict runs/water waters.xyz --out waters.npz --json",
        run=_predict,
    )
    parser.add_argument("model", metavar="MODEL", help="model file, or folder of a training run")
    parser.add_argument("structures", metavar="STRUCTURES", nargs="+", help="xyz, extxyz or npz files")
    parser.add_argument("--out", required=True, metavar="FILE", help="arrays of all structures, .npz or .h5")
    parser.add_argument(
        "--cube", choices=["density"], help="also write a cube file beside FILE for every structure (density models)"
    )
    parser.add_argument(
        "--resolution", type=float, default=0.2, metavar="BOHR", help="distance of the cube's points (default: 0.2)"
    )
    parser.add_argument(
        "--margin", type=float, default=4.0, metavar="BOHR", help="room around the nuclei in the cube (default: 4)"
    )
    parser.add_argument(
        "--batch-size", type=_positive, default=32, metavar="N", help="molecules at a time (default: 32)"
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    _add_quiet(parser)
    _add_json(parser)


def _add_compare(commands: Commands) -> None:
    parser = _command(
        commands,
        "compare",
        "compare models with the reference, and write report.html and metrics.json",
        "qcsurrogate compare runs/hamiltonian runs/density --data water --out report",
        run=_compare,
    )
    parser.add_argument("models", metavar="MODEL", nargs="+", help="model files, or folders of training runs")
    parser.add_argument("--data", required=True, metavar="DIR", help="folder of the store")
    parser.add_argument("--out", required=True, metavar="REPORT", help="folder of the report")
    parser.add_argument("--split", default="test", help="train, validation or test (default: test)")
    parser.add_argument("--limit", type=_positive, metavar="N", help="compare at most N molecules, drawn at random")
    parser.add_argument("--scf-molecules", type=_count, default=20, metavar="N", help="with SCFs (default: 20)")
    parser.add_argument("--density-molecules", type=_count, default=40, metavar="N", help="on a grid (default: 40)")
    parser.add_argument("--seed", type=_count, default=0, metavar="N", help="of the draws (default: 0)")
    parser.add_argument("--threads", type=_positive, default=1, metavar="N", help="PySCF threads (default: 1)")
    _add_quiet(parser)
    _add_json(parser)


def _add_schema(commands: Commands) -> None:
    parser = _command(
        commands,
        "schema",
        "print the JSON schema of data specs or of training configurations, for editors and checks",
        "qcsurrogate schema > data_spec.schema.json",
        run=_schema,
    )
    parser.add_argument(
        "of",
        nargs="?",
        default="spec",
        choices=["spec", "hamiltonian", "density"],
        help="a data spec (default), or the configuration of training that kind of model",
    )


def _add_demo(commands: Commands) -> None:
    parser = _command(
        commands,
        "demo",
        "run the whole path on water: generate, train both models, compare",
        "qcsurrogate demo --out demo",
        run=_demo,
    )
    parser.add_argument("--out", default="demo", metavar="DIR", help="folder for everything (default: demo)")
    _add_quiet(parser)
    _add_json(parser)


def _generate(options: argparse.Namespace) -> int:
    from qcsurrogate.generation import generate
    from qcsurrogate.store.spec import load_spec

    spec = load_spec(options.spec, _overrides(options.set))
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
        _print_json(
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
        _say(f"{len(failures)} structures failed; the first: {failures[0]['message']}")
        _say(f"see them with: qcsurrogate status {options.out}")
    nothing = failures and not summary.counts["complete"]
    return ConvergenceError.exit_code if nothing else 0


def _status(options: argparse.Namespace) -> int:
    from qcsurrogate.inspection import status

    data = status(options.store)
    if options.json:
        _print_json(data)
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
        _print_json(data)
    else:
        _print_tree(data)
    return 0


def _train(options: argparse.Namespace) -> int:
    from qcsurrogate.pipeline import train_surrogate

    result = train_surrogate(
        options.kind, options.store, options.out, config=options.config, overrides=options.set, quiet=options.quiet
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
    if options.json:
        _print_json(data)
    elif not options.quiet:
        state = "finished" if result.finished else "stopped; the same command goes on"
        print(f"{state} after {result.steps} steps and {result.wall_time / 60:.1f} min")
        if result.model_path is not None:
            print(f"best model (step {result.best_step}): {result.model_path}")
            for name, value in result.metrics.items():
                if name.startswith("validation_"):
                    print(f"  {name} = {value:.4g}")
    return 0


def _predict(options: argparse.Namespace) -> int:
    from qcsurrogate.prediction.files import check_suffix, save, summary
    from qcsurrogate.prediction.results import DensityPrediction
    from qcsurrogate.prediction.surrogate import load
    from qcsurrogate.structures import read_structures

    out = check_suffix(options.out)
    surrogate = load(options.model, options.device)
    if options.cube and surrogate.kind != "density":
        raise SpecError(f"--cube density needs a density model; '{options.model}' is a {surrogate.kind} model")
    charge, spin = surrogate.method.charge, surrogate.method.spin
    structures = [s for path in options.structures for s in read_structures(path, charge, spin)]
    predictions: Sequence[Prediction] = surrogate.predict(structures, batch_size=options.batch_size)
    save(predictions, out)
    cubes = []
    if options.cube:
        names = _file_names(out, [p.structure.name for p in predictions])
        for path, prediction in zip(names, predictions, strict=True):
            if isinstance(prediction, DensityPrediction):
                prediction.write_cube(path, resolution=options.resolution, margin=options.margin)
                cubes.append(str(path))
    data = {"out": str(out), **({"cubes": cubes} if cubes else {}), **summary(predictions)}
    if options.json:
        _print_json(data)
    elif not options.quiet:
        _print_predictions(data)
        for written in (str(out), *cubes):
            _say(f"wrote {written}")
    return 0


def _compare(options: argparse.Namespace) -> int:
    from qcsurrogate.compare.run import METRICS_FILE_NAME, REPORT_FILE_NAME, compare

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
    if options.json:
        _print_json(result)
    elif not options.quiet:
        for item in result["headline"]:
            print(f"{item['title']}: {item['shown']} ({item['rating']}). {item['verdict']}")
        print(f"report: {out / REPORT_FILE_NAME}")
        print(f"figures: {out / METRICS_FILE_NAME}")
    if result["failures"]:
        _say(f"{len(result['failures'])} comparisons failed; the report names them")
    return 0


def _schema(options: argparse.Namespace) -> int:
    if options.of == "spec":
        from qcsurrogate.store.spec import spec_schema

        _print_json(spec_schema())
    else:
        from qcsurrogate.pipeline import config_schema

        _print_json(config_schema(options.of))
    return 0


def _demo(options: argparse.Namespace) -> int:
    from qcsurrogate.demo import demo

    result = demo(options.out, quiet=options.quiet)
    if options.json:
        _print_json(
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


def _overrides(texts: Sequence[str]) -> dict[str, Any]:
    """``KEY=VALUE`` texts as values by key; a value is written in YAML."""
    from qcsurrogate.store.yaml_model import parse_yaml

    values = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not all(key.split(".")):
            raise SpecError(f"cannot use --set '{text}'; expected KEY=VALUE, such as method.xc=b3lyp")
        values[key] = parse_yaml(f"value: {value}", text)["value"]
    return values


def _positive(text: str) -> int:
    value = _count(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number of 1 or more")
    return value


def _count(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = -1
    if value < 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of 0 or more")
    return value


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _print_json(data: Any) -> None:
    print(json.dumps(data, indent=2, allow_nan=False))


def _print_tree(data: Mapping[str, Any], indent: str = "") -> None:
    """Nested data as indented ``key: value`` lines."""
    for key, value in data.items():
        if isinstance(value, Mapping) and "max_of" in value:
            spread = "{mean:.6g} ({min:.6g} of {min_of} to {max:.6g} of {max_of})".format(**value)
            print(f"{indent}{key}: {spread}")
        elif isinstance(value, Mapping) and value:
            print(f"{indent}{key}:")
            _print_tree(value, indent + "  ")
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            print(f"{indent}{key}: {len(value)}")
            for entry in value:
                print(f"{indent}  - " + ", ".join(f"{k}: {_short(v)}" for k, v in entry.items()))
        else:
            print(f"{indent}{key}: {_short(value)}")


def _short(value: Any) -> str:
    if value is None or value in ({}, []):
        return "none"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(_short(entry) for entry in value)
    return str(value)


def _print_predictions(data: Mapping[str, Any]) -> None:
    for entry in data["structures"]:
        values = [
            f"{name} {_short(entry[name])} {unit}"
            for name, unit in data["units"].items()
            if not (isinstance(entry[name], list) and isinstance(entry[name][0], list))
        ]
        print(f"{entry['name'] or entry['formula']}: " + "; ".join(values))


def _file_names(out: Path, names: Sequence[str]) -> list[Path]:
    """One cube file for each structure, beside ``out``: numbered, with what of its name a file may have."""
    if len(names) == 1:
        return [out.with_suffix(".cube")]
    width = len(str(len(names) - 1))
    safe = [re.sub(r"[^A-Za-z0-9._-]+", "_", name)[:60] for name in names]
    return [out.with_name(f"{out.stem}_{i:0{width}d}_{name}".rstrip("_") + ".cube") for i, name in enumerate(safe)]


if __name__ == "__main__":
    sys.exit(main())
