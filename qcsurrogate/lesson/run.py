"""The lesson from nothing to a page: measure, train, draw, write."""

from __future__ import annotations

import copy
import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from qcsurrogate.errors import SpecError
from qcsurrogate.files.atomic import json_bytes, make_folder, write_output
from qcsurrogate.lesson.algebra import Check, algebra_checks, convolution_checks, rotation_about
from qcsurrogate.lesson.contest import CONTESTANTS, Contestant, LessonSettings, Result, judged, train
from qcsurrogate.lesson.page import Lesson, markdown, render
from qcsurrogate.lesson.pictures import draw_contest, draw_convolution, draw_poses
from qcsurrogate.lesson.poses import EXAMPLE, Poses, example, picture_of, poses
from qcsurrogate.structures import Structure
from qcsurrogate.tables.table import Table, open_table

PAGE_NAME: Final = "lesson.html"
FIGURES_NAME: Final = "lesson.json"
TABLE_NAME: Final = "qm9_properties"

SHOWN: Final = {"none": "naive", "invariant": "invariant"}
"""Contestants whose embeddings are drawn, and what the pictures call them."""

ROTATION: Final = rotation_about((1.0, 2.0, 2.0), 70.0)
OTHER_ROTATION: Final = rotation_about((0.0, 1.0, -1.0), 130.0)
KERNEL: Final = np.array([[-1.0, 0.0, 2.0], [-2.0, 1.0, 2.0], [-1.0, 0.0, 1.0]])
"""Finds edges, and more so on one side: turned it is another one."""
SHIFT: Final = (9, -14)

Trained = tuple[Result, Poses | None]


def lesson(
    out: str | Path,
    settings: LessonSettings | None = None,
    *,
    contestants: Sequence[Contestant] = CONTESTANTS,
    workers: int | None = None,
    formats: Sequence[str] = ("png", "svg"),
    quiet: bool = False,
) -> Lesson:
    """Compute everything and write ``lesson.html``, ``lesson.json``, ``lesson.md`` and the figures.

    Args:
        out: folder, made if it does not exist.
        settings: how much is trained.
        contestants: which networks; those of :data:`SHOWN` are needed.
        workers: processes that train, of one thread each; as many as there are cores, at most four, if None.
        formats: of the figures' files; those in the page are SVG.
        quiet: no progress.

    Raises:
        SpecError: if there are fewer molecules than the settings ask for.
        OutputError, StoreError: if the folder cannot be written.
    """
    began = time.perf_counter()
    settings = settings or LessonSettings()
    table = open_table(TABLE_NAME)
    _check_sizes(settings, table)
    out = Path(out)
    make_folder(out)
    structure = example()
    image = picture_of(structure)
    algebra = algebra_checks(ROTATION, OTHER_ROTATION)
    convolution = convolution_checks(image, KERNEL, SHIFT)
    found: dict[tuple[str, int], Result] = {}
    seen: dict[str, Poses] = {}
    tasks = [(contestant, size) for size in settings.sizes for contestant in contestants]
    progress = tqdm(total=len(tasks), desc="training", unit="network", disable=quiet)
    with progress:
        for result, clouds in _all_trained(tasks, settings, workers or min(4, os.cpu_count() or 1)):
            found[result.key, result.n_train] = result
            if clouds is not None:
                seen[result.key] = clouds
            progress.update()
    measured = Lesson(
        settings,
        algebra,
        convolution,
        _molecule_checks(seen),
        {name: seen[key] for key, name in SHOWN.items()},
        [found[c.key, size] for c in contestants for size in settings.sizes],
        time.perf_counter() - began,
    )
    _write(measured, image, out, formats)
    return measured


def _check_sizes(settings: LessonSettings, table: Table) -> None:
    known = len(table.keys("train"))
    if not settings.sizes or max(settings.sizes) > known or min(settings.sizes) < 1 or settings.steps < 1:
        raise SpecError(
            f"a lesson with {list(settings.sizes)} training molecules and {settings.steps} steps; expected numbers of "
            f"1 to {known:,}, the training molecules of '{TABLE_NAME}', and one step or more"
        )


def _all_trained(tasks: Sequence[tuple[Contestant, int]], settings: LessonSettings, workers: int) -> Iterator[Trained]:
    if workers == 1:
        yield from (_trained(contestant, size, settings) for contestant, size in tasks)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        # the longest first, so that no core waits for them at the end
        futures = [pool.submit(_trained, contestant, size, settings) for contestant, size in reversed(tasks)]
        try:
            yield from (future.result() for future in as_completed(futures))
        finally:
            pool.shutdown(cancel_futures=True)


def _trained(contestant: Contestant, size: int, settings: LessonSettings) -> Trained:
    """One training, its errors, and what it makes of the example."""
    table = open_table(TABLE_NAME)
    structures, labels = _molecules(table, ("train",), settings.seed)
    model, cpu_seconds = train(contestant, structures[:size], labels[:size], settings)
    test, expected = _molecules(table, ("validation", "test"), settings.seed)
    test, expected = test[: settings.test], expected[: settings.test]
    result = judged(contestant, model, size, cpu_seconds, test, expected, settings.seed)
    wanted = contestant.key in SHOWN and size == max(settings.sizes)
    return result, poses(copy.deepcopy(model).double(), example(), ROTATION) if wanted else None


def _molecules(table: Table, splits: Sequence[Any], seed: int) -> tuple[list[Structure], NDArray[np.float64]]:
    """Molecules of some parts of the table in a drawn order, and their <r^2>."""
    keys = [key for split in splits for key in table.keys(split)]
    keys = [keys[i] for i in np.random.default_rng(seed).permutation(len(keys))]
    labels = np.array(table.labels(["r2"], keys)["r2"], dtype=np.float64)
    return [table.structure(key) for key in keys], labels


def _molecule_checks(seen: dict[str, Poses]) -> list[Check]:
    """What a rotation does to what two networks hold."""
    claims = (
        ("none", f"what the naive network holds of {EXAMPLE} is something else when it is turned", False),
        ("invariant", f"what the invariant network holds of {EXAMPLE} is the same when it is turned", True),
    )
    return [Check(claim, "turned", "as given", seen[key].change, equal) for key, claim, equal in claims if key in seen]


def _write(measured: Lesson, image: NDArray[np.float64], out: Path, formats: Sequence[str]) -> None:
    in_page: dict[str, bytes] = {}
    for file_format in sorted({*formats, "svg"}):
        drawn = {
            "convolution": draw_convolution(image, KERNEL, SHIFT, file_format),
            "contest": draw_contest(measured.results, file_format),
            **{f"poses_{name}": draw_poses(seen, file_format) for name, seen in measured.poses.items()},
        }
        for name, content in drawn.items() if file_format in formats else ():
            write_output(out / f"{name}.{file_format}", content, "a figure of the lesson")
        in_page = drawn if file_format == "svg" else in_page
    figures = {
        "settings": asdict(measured.settings),
        "checks": [{**asdict(check), "holds": check.holds} for check in measured.checks],
        "results": [asdict(result) for result in measured.results],
        "wall_time_s": measured.wall_time,
    }
    write_output(out / FIGURES_NAME, json_bytes(figures), "the figures of the lesson")
    write_output(out / "lesson.md", markdown(measured).encode(), "the tables of the lesson")
    write_output(out / PAGE_NAME, render(measured, in_page).encode(), "the lesson")
