"""Compare surrogates with the reference: ``metrics.json`` and ``report.html``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from qcsurrogate.comparison.collect import Collection
from qcsurrogate.comparison.headline import headline
from qcsurrogate.comparison.report import render_report
from qcsurrogate.comparison.schema import Comparison, DataDescription, ModelDescription, Settings
from qcsurrogate.comparison.session import Session
from qcsurrogate.comparison.showcase import Showcase, choose_showcase
from qcsurrogate.comparison.subjects import Subject, check_domain, differences, load_subjects
from qcsurrogate.density.grid import LOWEST_GRID_LEVEL
from qcsurrogate.errors import OutputError, StoreError
from qcsurrogate.files.atomic import write_output
from qcsurrogate.files.yaml_model import validate
from qcsurrogate.store.spec import SPLIT_NAMES
from qcsurrogate.store.store import Store
from qcsurrogate.structures import symbols_of
from qcsurrogate.tables.opening import open_set
from qcsurrogate.tables.sets import StructureSet
from qcsurrogate.tables.table import Table
from qcsurrogate.versions import installed_versions

METRICS_FILE_NAME = "metrics.json"
REPORT_FILE_NAME = "report.html"

_PACKAGES = ("qcsurrogate", "torch", "e3nn", "pyscf", "numpy", "scipy")


def compare(
    models: Sequence[str | Path],
    data: str | Path,
    out: str | Path,
    *,
    split: str = "test",
    limit: int | None = None,
    scf_molecules: int = 20,
    density_molecules: int = 40,
    seed: int = 0,
    threads: int = 1,
    quiet: bool = False,
) -> dict[str, Any]:
    """Compare models with the references of a store, or the labels of a table, and write the report.

    Args:
        models: model files, or folders of training runs.
        data: the store, or the table: a file or folder of structures with labels, its YAML file or its name.
        out: folder for ``metrics.json`` and ``report.html``; made if it is missing.
        split: ``train``, ``validation`` or ``test``.
        limit: compare at most so many molecules of the split, drawn at random.
        scf_molecules: for how many molecules SCFs are run (saving, one-shot energy, trust).
        density_molecules: for how many molecules densities are integrated on a grid.
        seed: of the draws.
        threads: OpenMP threads of PySCF.
        quiet: print nothing.

    Returns:
        The content of ``metrics.json`` (:class:`qcsurrogate.comparison.schema.Comparison`).

    Raises:
        SpecError: if an argument cannot be used.
        StoreError: if the data cannot be read, a model needs a store, or the split is empty.
        StructureError: if a table is damaged.
        ModelFileError: if a model cannot be read.
        DomainError: if a model stands for another method or for other elements.
        OutputError: if the folder cannot be written to.
    """
    start = time.perf_counter()
    wanted = {
        "split": split,
        "limit": limit,
        "scf_molecules": scf_molecules,
        "density_molecules": density_molecules,
        "seed": seed,
        "threads": threads,
    }
    settings = validate(Settings, wanted, "compare")
    folder = _prepared_folder(Path(out))
    subjects = load_subjects(models)
    store = open_set(data)
    settings = with_grid(settings, store)
    comparison, showcase = compare_subjects(subjects, store, settings, quiet=quiet)
    comparison = comparison.model_copy(update={"elapsed_s": time.perf_counter() - start})
    report = render_report(comparison, showcase)
    write_output(folder / METRICS_FILE_NAME, comparison.to_json().encode(), "the metrics")
    write_output(folder / REPORT_FILE_NAME, report.encode(), "the report")
    return comparison.model_dump(mode="json")


def with_grid(settings: Settings, store: Store | Table) -> Settings:
    """The same settings, with the grid on which the densities of a store are compared."""
    if not isinstance(store, Store):
        return settings
    level = max(store.spec.method.grid_level, LOWEST_GRID_LEVEL)
    return settings.model_copy(update={"density_grid_level": level})


def compare_subjects(
    subjects: Sequence[Subject], store: Store | Table, settings: Settings, *, quiet: bool
) -> tuple[Comparison, Showcase]:
    """The comparison itself, without files: all figures, and what the pictures need beside them."""
    start = time.perf_counter()
    rng = np.random.default_rng(settings.seed)
    keys = _chosen_keys(store, settings, rng)
    collection = Collection(structures={key: store.structure(key) for key in keys})
    for subject in subjects:
        check_domain(subject, store, list(collection.structures.values()))
    # one order for both draws: the molecules with an SCF are the first of those on the grid
    order = rng.permutation(len(keys))
    session = Session(subjects, store, collection, threads=settings.threads, quiet=quiet)
    session.measure(keys, {keys[i] for i in order[: settings.density_molecules]})
    session.run_scfs([keys[i] for i in sorted(order[: settings.scf_molecules])])
    judges = session.judges
    metrics, saving = collection.summaries(session.figures), collection.savings()
    comparison = Comparison(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        elapsed_s=time.perf_counter() - start,
        versions=installed_versions(_PACKAGES),
        settings=settings,
        data=_data_description(store, collection),
        models=[_model_description(subject, store, collection) for subject in subjects],
        headline=headline(metrics, {label: judge.all_rules for label, judge in judges.items()}, saving),
        metrics=metrics,
        breakdowns={label: found for label, judge in judges.items() if (found := judge.breakdown()) is not None},
        saving=saving,
        trust=collection.trust(),
        calibration=collection.calibrations(),
        scf=collection.scf,
        molecules=collection.molecules(),
        failures=collection.failures,
    )
    return comparison, choose_showcase(subjects, collection, session)


def _prepared_folder(folder: Path) -> Path:
    """Make the folder, and find out now rather than at the end whether it can be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{METRICS_FILE_NAME}.probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError(
            f"cannot write to the folder '{folder}' ({error.strerror or error}); expected a folder that can be made "
            "and written to"
        ) from error
    return folder


def _chosen_keys(store: StructureSet, settings: Settings, rng: np.random.Generator) -> list[str]:
    keys = store.keys(settings.split)
    if not keys:
        sizes = ", ".join(f"{split}: {len(store.keys(split))}" for split in SPLIT_NAMES)
        raise StoreError(
            f"the store '{store.path}' has no complete record in the split '{settings.split}' ({sizes}); "
            "generate more of it, or choose another split"
            if isinstance(store, Store)
            else f"the table '{store.path}' has no molecule in the split '{settings.split}' ({sizes}); choose another"
        )
    if settings.limit is None or settings.limit >= len(keys):
        return list(keys)
    return [keys[i] for i in sorted(rng.permutation(len(keys))[: settings.limit])]


def _data_description(store: StructureSet, collection: Collection) -> DataDescription:
    spec = store.spec
    return DataDescription(
        path=str(store.path),
        name=spec.name,
        method=None if spec.method is None else spec.method.model_dump(mode="json"),
        level=spec.level,
        dataset_hash=store.dataset_hash(),
        split_sizes={split: len(store.keys(split)) for split in SPLIT_NAMES},
        compared=len(collection.references),
        elements=symbols_of({int(z) for s in collection.structures.values() for z in s.atomic_numbers}),
        licence=spec.licence,
        citation=spec.citation,
    )


def _model_description(subject: Subject, store: StructureSet, collection: Collection) -> ModelDescription:
    surrogate = subject.surrogate
    return ModelDescription(
        label=subject.label,
        kind=surrogate.kind,
        path=str(subject.path),
        sha256=subject.sha256,
        elements=symbols_of(surrogate.elements),
        method=None if surrogate.method is None else surrogate.method.model_dump(mode="json"),
        level=surrogate.level,
        dataset_hash=surrogate.metadata.dataset_hash,
        trained_on_this_data=all(map(store.has_been, surrogate.metadata.dataset_hashes)),
        notes=[*differences(subject, store), *_outside(subject, collection)],
        training=surrogate.metadata.training,
        training_metrics=surrogate.metadata.metrics,
        versions=surrogate.metadata.versions,
    )


def _outside(subject: Subject, collection: Collection) -> list[str]:
    """How many molecules lie outside of what a model was trained on, in words."""
    names, total = collection.outside[subject.label], len(collection.structures)
    if not names:
        return []
    if subject.surrogate.metadata.domain is None:
        return ["the model file does not say what it was trained on: whether molecules lie outside of it is not known"]
    return [f"{len(names)} of {total} molecules lie outside of its training data, '{names[0]}' among them"]
