"""Train on growing parts of a training split, measure on the test split, and draw what it brings."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from qcsurrogate.comparison.run import compare_subjects, with_grid
from qcsurrogate.comparison.schema import Comparison, FigureSummary, Settings, read_comparison
from qcsurrogate.comparison.subjects import load_subjects
from qcsurrogate.curves.picture import draw
from qcsurrogate.curves.schema import Curve, LearningCurve, Point, PowerLaw
from qcsurrogate.curves.subsets import checked_sizes, nested_order
from qcsurrogate.curves.text import markdown
from qcsurrogate.errors import SpecError, StoreError, TrainingError
from qcsurrogate.files.atomic import json_bytes, make_folder, read_json, sha256, write_output
from qcsurrogate.files.nested import differences
from qcsurrogate.files.yaml_model import dump_yaml, validate
from qcsurrogate.pipeline import open_data, train_surrogate
from qcsurrogate.registry import Quantity, find_quantity
from qcsurrogate.store.spec import SPLIT_NAMES
from qcsurrogate.store.store import Store
from qcsurrogate.tables.sets import StructureSet
from qcsurrogate.tables.table import Table
from qcsurrogate.training.config import HARMLESS_KEYS, RunConfig, load_run_config
from qcsurrogate.training.outputs import CONFIG_NAME, MODEL_NAME
from qcsurrogate.versions import installed_versions

CURVE_NAME: Final = "learning_curve"
"""Name of the files of the result: .json, .md, .png, .svg."""

STUDY_NAME: Final = "study.json"
"""What the folder is about: quantity and data."""

KEYS_NAME: Final = "keys.json"
"""For each seed, the keys of the training split in the order in which they join."""

MEASURED_NAME: Final = "comparison.json"
"""In the folder of each run: its comparison with the test split, as ``compare`` writes it."""

_PACKAGES = ("qcsurrogate", "torch", "e3nn", "numpy", "pyscf")


def learning_curve(
    kind: str,
    store: str | Path,
    out: str | Path,
    *,
    sizes: Sequence[int],
    seeds: int = 1,
    preset: str | None = None,
    config: str | Path | None = None,
    overrides: Sequence[str] = (),
    limit: int | None = None,
    density_molecules: int = 40,
    scf_molecules: int = 0,
    threads: int = 1,
    quiet: bool = False,
) -> LearningCurve:
    """Errors on the test split of models that were trained on more and more molecules, and the law they follow.

    For each seed the training split is brought into a random order once, in which the
    molecules come first without which an element, or a charge and spin, of validation or
    test would be unknown; a model of size N is trained on the first N of it as if the
    store held no others (its H0 and statistics are fitted to these N alone), always for
    ``training.steps`` steps and validated on the same molecules. All are measured as
    :func:`qcsurrogate.compare` does it, on the same test molecules.

    Started again, it goes on: what is trained and measured stays, an interrupted run is
    continued, and sizes and seeds may be added. ``out`` then holds the settings.

    Args:
        kind: name of a quantity, such as ``hamiltonian`` or ``density``.
        store: folder of the store, or a table, as for :func:`qcsurrogate.train_surrogate`.
        out: folder for ``learning_curve.json``, ``.md``, ``.png`` and ``.svg``, and for the runs.
        sizes: numbers of training molecules.
        seeds: how many models of each size, of different order of molecules and weights; the
            first seed is ``training.seed``.
        preset, config, overrides: as for :func:`qcsurrogate.train_surrogate`.
        limit, density_molecules, scf_molecules, threads: as for :func:`qcsurrogate.compare`.
        quiet: say nothing.

    Raises:
        SpecError: for an argument, a size or a setting that cannot be used.
        StoreError: if the store cannot be read, or lacks what this kind is trained on.
        TrainingError: if ``out`` holds a curve of something else, or a run cannot go on.
        OutputError: if the result cannot be written.
    """
    if seeds < 1:
        raise SpecError(f"seeds: expected 1 or more, got {seeds}")
    quantity, folder = find_quantity(kind), Path(out)
    opened = open_data(quantity, store)
    wanted = {
        "split": "test",
        "limit": limit,
        "scf_molecules": scf_molecules,
        "density_molecules": density_molecules,
        "seed": 0,
        "threads": threads,
    }
    settings = validate(Settings, wanted, "learning curve")
    ascending = checked_sizes(sizes, len(_keys_of_all_splits(opened)["train"]))
    run = _settled(quantity, opened, folder, config, overrides, preset)
    study = _Study(quantity, opened, store, folder, run, with_grid(settings, opened), quiet)
    all_seeds = list(range(run.training.seed, run.training.seed + seeds))
    orders = {seed: study.order(seed, ascending[0]) for seed in all_seeds}
    make_folder(folder)
    write_output(folder / STUDY_NAME, json_bytes(_identity(quantity, opened)), "what the folder is about")
    write_output(folder / CONFIG_NAME, dump_yaml(run.model_dump(mode="json")).encode(), "the settings")
    found: list[Point | str] = []
    runs = [(size, seed) for size in ascending for seed in all_seeds]
    for number, (size, seed) in enumerate(runs, start=1):
        study.say(f"{size} molecules, seed {seed} ({number} of {len(runs)})")
        known = study.known(size, seed)
        found.append(known or study.new(size, seed, orders[seed][:size]))
        if known is None and number < len(runs):
            study.write(_result(study, ascending, all_seeds, found))  # something to look at meanwhile
    result = _result(study, ascending, all_seeds, found)
    study.write(result)
    return result


@dataclass(frozen=True)
class _Study:
    """What all points of a curve share."""

    quantity: Quantity
    store: Store | Table
    source: str | Path
    folder: Path
    config: RunConfig[Any]
    settings: Settings
    quiet: bool

    def say(self, text: str) -> None:
        if not self.quiet:
            print(f"learning curve: {text}", file=sys.stderr, flush=True)

    def order(self, seed: int, smallest: int) -> list[str]:
        """Keys of the training split in the order in which they join: as recorded, or new, and then recorded."""
        path = self.folder / f"seed_{seed}" / KEYS_NAME
        order, first = nested_order(self.store, seed)
        if smallest < first:
            raise SpecError(
                f"sizes: {smallest} is fewer than the {first} molecules with which every element, and every charge "
                f"and spin, of validation and test is known (seed {seed}); expected at least {first}"
            )
        if path.is_file():
            recorded = read_json(path).get("keys")
            if not isinstance(recorded, list) or sorted(map(str, recorded)) != sorted(order):
                raise TrainingError(
                    f"'{path}' does not hold the keys of the training split; expected each once: remove "
                    f"'{path.parent}' to begin this seed anew"
                )
            return recorded
        make_folder(path.parent)
        write_output(path, json_bytes({"seed": seed, "keys": order}), "the order of the molecules")
        return order

    def path(self, size: int, seed: int) -> Path:
        """The folder of one run."""
        return self.folder / f"seed_{seed}" / f"size_{size}"

    def known(self, size: int, seed: int) -> Point | None:
        """A point that was measured before, if it is of the model, the data and the settings that there are now."""
        run = self.path(size, seed)
        try:
            comparison = read_comparison(run / MEASURED_NAME)
            digest = sha256((run / MODEL_NAME).read_bytes())
        except (StoreError, OSError):
            return None  # not there, or of another version: measured again
        same = comparison.settings == self.settings and comparison.data.dataset_hash == self.store.dataset_hash()
        if not same or [model.sha256 for model in comparison.models] != [digest]:
            return None
        return self._point(size, seed, comparison)

    def new(self, size: int, seed: int, keys: Sequence[str]) -> Point | str:
        """Train one model, or go on with it, and measure it; the folder of a run that is not finished."""
        run = self.path(size, seed)
        result = train_surrogate(
            self.quantity.name,
            self.source,
            run,
            config=self.folder / CONFIG_NAME,
            overrides=[f"training.seed={seed}"],
            training_keys=keys,
            quiet=self.quiet,
        )
        if not result.finished:
            return str(run.relative_to(self.folder))
        comparison, _ = compare_subjects(load_subjects([run]), self.store, self.settings, quiet=self.quiet)
        write_output(run / MEASURED_NAME, comparison.to_json().encode(), "the comparison")
        return self._point(size, seed, comparison)

    def _point(self, size: int, seed: int, comparison: Comparison) -> Point:
        (model,) = comparison.models
        return Point(
            size=size,
            seed=seed,
            run=str(self.path(size, seed).relative_to(self.folder)),
            model_sha256=model.sha256,
            best_step=model.training["step"],
            cpu_time_s=model.training["cpu_time_s"],
            failures=len(comparison.failures),
            headline={item.name: item.title for item in comparison.headline},
            figures=comparison.metrics[model.label],
        )

    def write(self, curve: LearningCurve) -> None:
        """The files of the result; with pictures as soon as there is something to draw."""
        contents = {"json": json_bytes(curve.model_dump(mode="json"))}
        if curve.shown:
            contents |= {"md": markdown(curve).encode(), "svg": draw(curve, "svg"), "png": draw(curve, "png")}
        for suffix, content in contents.items():
            write_output(self.folder / f"{CURVE_NAME}.{suffix}", content, "the learning curve")


def _keys_of_all_splits(store: StructureSet) -> dict[str, list[str]]:
    keys = {str(split): store.keys(split) for split in SPLIT_NAMES}
    if empty := [split for split, own in keys.items() if not own]:
        raise StoreError(
            f"the store '{store.path}' has no complete record in the split '{empty[0]}'; expected molecules to train, "
            "to validate and to test on: generate more of it, or change its split"
        )
    return keys


def _identity(quantity: Quantity, store: StructureSet) -> dict[str, str]:
    return {"kind": quantity.name, "dataset_hash": store.dataset_hash()}


def _settled(
    quantity: Quantity,
    store: StructureSet,
    folder: Path,
    config: str | Path | None,
    overrides: Sequence[str],
    preset: str | None,
) -> RunConfig[Any]:
    """The settings of all runs: those of the folder, which may not change, or new ones."""
    own, study = folder / CONFIG_NAME, folder / STUDY_NAME
    if own.is_file() and not study.is_file():
        raise TrainingError(f"'{folder}' holds a training run and no learning curve; expected another folder")
    source = own if config is None and own.is_file() else config
    run = load_run_config(quantity.settings, source, overrides, presets=quantity.presets, preset=preset)
    if run.origin is not None:
        raise SpecError(f"'{source}': origin: models of a learning curve begin with random weights; leave it out")
    if study.is_file() and (changes := differences(read_json(study), _identity(quantity, store))):
        raise TrainingError(
            f"'{folder}' holds the learning curve of another quantity or of other data ({changes[0][:200]}); expected "
            "the same to go on: choose another folder"
        )
    if own.is_file():
        recorded = load_run_config(quantity.settings, own, presets=quantity.presets)
        if changes := differences(_that_counts(recorded), _that_counts(run)):
            raise TrainingError(
                f"'{folder}' holds a learning curve with other settings ({'; '.join(changes[:5])}); expected the same "
                "for all sizes: set them back, or choose another folder"
            )
    return run


def _that_counts(run: RunConfig[Any]) -> dict[str, Any]:
    content = run.model_dump(mode="json")
    return {**content, "training": {k: v for k, v in content["training"].items() if k not in HARMLESS_KEYS}}


def _result(study: _Study, sizes: Sequence[int], seeds: Sequence[int], found: Sequence[Point | str]) -> LearningCurve:
    """What is known so far."""
    points = [point for point in found if isinstance(point, Point)]
    figures = {name: summary for point in points for name, summary in point.figures.items()}
    ranked = [name for name in study.quantity.ranking if name in figures]
    # a ratio or a count follows no law
    headline = [name for point in points for name in point.headline if figures[name].unit != "1"]
    return LearningCurve(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=installed_versions(_PACKAGES),
        kind=study.quantity.name,
        data=study.store.spec.name,
        dataset_hash=study.store.dataset_hash(),
        split_sizes={split: len(keys) for split, keys in _keys_of_all_splits(study.store).items()},
        config=study.config.model_dump(mode="json"),
        settings=study.settings,
        sizes=list(sizes),
        seeds=list(seeds),
        points=points,
        unfinished=[point for point in found if isinstance(point, str)],
        shown=list(dict.fromkeys([*ranked, *headline])),
        curves={name: _curve(study, points, name, summary) for name, summary in figures.items()},
    )


def _curve(study: _Study, points: Sequence[Point], name: str, about: FigureSummary) -> Curve:
    """The law and the floor of one figure."""
    own = [p for p in points if name in p.figures]
    floors = [p.figures[below].mean for p in own if (below := study.quantity.floors.get(name)) in p.figures]
    sizes = [p.size for p in own]
    return Curve(
        title=next((p.headline[name] for p in own if name in p.headline), about.title),
        unit=about.unit,
        shown=about.shown,
        definition=about.definition,
        floor=sum(floors) / len(floors) if floors else None,
        mean_law=PowerLaw.fit(sizes, [p.figures[name].mean for p in own]),
        median_law=PowerLaw.fit(sizes, [p.figures[name].median for p in own]),
    )
