"""The lesson as a page: what is said about every measurement, with its table and its picture."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qcsurrogate.comparison.page import Picture, Section, Table
from qcsurrogate.comparison.report import render_page
from qcsurrogate.comparison.text import number
from qcsurrogate.lesson.algebra import FIRST, SECOND, Check
from qcsurrogate.lesson.contest import CONTESTANTS, LessonSettings, Result
from qcsurrogate.lesson.poses import EXAMPLE, Poses
from qcsurrogate.quantities.property.networks import NETWORKS
from qcsurrogate.units import duration

_OF_GROUP = {"none": "none", "E(3)": "invariant, E(3)", "O(3)": "equivariant, O(3)"}


@dataclass(frozen=True)
class Lesson:
    """Everything that was measured.

    Attributes:
        settings: how much was trained.
        algebra, convolution, molecule: checks of statements.
        poses: by network, the molecule and its rotation.
        results: of all trainings.
        wall_time: seconds.
    """

    settings: LessonSettings
    algebra: Sequence[Check]
    convolution: Sequence[Check]
    molecule: Sequence[Check]
    poses: Mapping[str, Poses]
    results: Sequence[Result]
    wall_time: float

    @property
    def checks(self) -> list[Check]:
        """All of them."""
        return [*self.algebra, *self.convolution, *self.molecule]


def sections(lesson: Lesson, pictures: Mapping[str, bytes]) -> list[Section]:
    """What the page holds.

    Args:
        lesson: the measurements.
        pictures: SVG by name: convolution, contest and ``poses_NETWORK``.
    """
    return [
        Section(
            "What turns how",
            (
                "A rotation R takes a vector a to R a. Whatever is made of vectors turns in some way of its own: by a "
                "matrix D(R) that depends on R alone, and for which D(R S) = D(R) D(S). Networks for molecules "
                "are made of operations that respect this, and of nothing else.",
                f"All numbers are of a = {_vector(FIRST)}, b = {_vector(SECOND)}, computed as the page was written. "
                "A deviation is the largest difference of both sides, relative to the largest number.",
            ),
            tables=[_checks(lesson.algebra)],
        ),
        Section(
            "A convolution knows translations, not rotations",
            (
                "Convolutional networks share their weights over places, so that a picture may be moved. Turned, it "
                "is another picture to them, unless the kernel is the same in all directions.",
            ),
            tables=[_checks(lesson.convolution)],
            pictures=[
                Picture(
                    "Two orders of doing the same",
                    _uri(pictures["convolution"]),
                    "An image and a kernel; the image moved and convolved in both orders, and turned and convolved in "
                    "both orders, with their differences",
                    f"The image is {EXAMPLE} seen from above, electrons of every atom blurred; its ends meet.",
                    wide=True,
                )
            ],
        ),
        Section(
            "A molecule and its rotation",
            (
                f"{EXAMPLE}, cyclopent-3-en-1-one oxime, as QM9 has it and turned, through two networks that were "
                "trained on other molecules. The naive one (GIN) is given coordinates as they stand in the file; the "
                "invariant one (EGNN) squared distances. Above are the atoms with their atomic numbers, below what "
                "each network holds of them, on the three axes along which that varies most.",
            ),
            tables=[_checks(lesson.molecule)],
            pictures=[
                Picture(
                    f"{name.capitalize()} network",
                    _uri(pictures[f"poses_{name}"]),
                    f"Atoms of {EXAMPLE} as given and turned, and below the embeddings of the {name} network",
                    f"Largest change of what it holds of an atom: {_percent(seen.change)} of the spread of all. The "
                    f"axes shown hold {_percent(seen.share)} of the variance.",
                )
                for name, seen in lesson.poses.items()
            ],
        ),
        Section(
            "What symmetry buys",
            (*_task(lesson.settings), *_findings(lesson.results)),
            tables=[contest_table(lesson.results)],
            pictures=[
                Picture(
                    "Errors as given and turned",
                    _uri(pictures["contest"]),
                    "Mean absolute test errors of all networks over training molecules, training time and parameters",
                    "Filled: test molecules as QM9 has them. Open and dashed: the same molecules, each turned at "
                    "random. Where symmetry is built in, both are the same number.",
                    wide=True,
                )
            ],
        ),
    ]


def render(lesson: Lesson, pictures: Mapping[str, bytes]) -> str:
    """``lesson.html``."""
    failed = [f"This does not hold: {check.statement}" for check in lesson.checks if not check.holds]
    return render_page(
        title="What symmetry buys",
        subtitle=f"qcsurrogate lesson · everything computed in {duration(lesson.wall_time)}, "
        f"seed {lesson.settings.seed}",
        content=sections(lesson, pictures),
        warnings=failed,
    )


def contest_table(results: Sequence[Result]) -> Table:
    """One row for every training."""
    groups = {c.key: _OF_GROUP[NETWORKS[c.settings.network].group] for c in CONTESTANTS}
    return Table(
        (
            "network",
            "symmetry",
            "molecules",
            "parameters",
            "CPU (s)",
            "as given (a₀²)",
            "turned (a₀²)",
            "change (a₀²)",
        ),
        [
            (
                r.title,
                groups[r.key],
                f"{r.n_train:,}",
                f"{r.n_parameters:,}",
                number(r.cpu_seconds, 2),
                number(r.error),
                number(r.error_rotated),
                number(r.change, 2),
            )
            for r in results
        ],
        "Mean absolute errors of <r²> on test molecules as given and turned, and how much a turn changes a prediction",
        text_columns=2,
    )


def markdown(lesson: Lesson) -> str:
    """The tables of the lesson as Markdown."""
    tables = [_checks(checks) for checks in (lesson.algebra, lesson.convolution, lesson.molecule)]
    return "\n".join(_markdown_table(table) for table in (*tables, contest_table(lesson.results)))


def _markdown_table(table: Table) -> str:
    rule = [" --- " if i < table.text_columns else " ---: " for i in range(len(table.header))]
    rows = [table.header, rule, *table.rows]
    return "\n".join(f"|{'|'.join(f' {cell.strip()} ' for cell in row)}|" for row in rows) + "\n"


def _checks(checks: Sequence[Check]) -> Table:
    return Table(
        ("statement", "left side", "right side", "expected", "deviation"),
        [
            (
                check.statement,
                check.left,
                check.right,
                "equal" if check.equal else "different",
                f"{number(check.deviation, 2)}{'' if check.holds else ' ✗'}",
            )
            for check in checks
        ],
        text_columns=4,
    )


def _task(settings: LessonSettings) -> tuple[str, ...]:
    return (
        "One task for all: the electronic spatial extent <r²> of QM9 molecules with at most eight heavy atoms, from "
        f"the same {settings.test} test molecules and nested parts of the same training molecules. "
        f"Every network makes {settings.steps:,} steps with {settings.batch_size} molecules each, with the same "
        "optimiser, and is read out as a sum over atoms; what elements contribute on average is taken away first. The "
        "last network is also told the form of <r²>: populations of atoms times their squared distances from the "
        "centre of nuclear charge, dipoles on atoms, extents of atoms.",
        "Turning the training molecules at random in every step (data augmentation) teaches a network without symmetry "
        "what the others know; it has to be learned, and never becomes exact.",
    )


def _findings(results: Sequence[Result]) -> tuple[str, ...]:
    """What the largest training set says, in words."""
    most = max(r.n_train for r in results)
    by_key = {r.key: r for r in results if r.n_train == most}
    plain = by_key.get("none")
    if plain is None:
        return ()
    best = min(by_key.values(), key=lambda r: r.error_rotated)
    said = [
        f"With {most:,} training molecules the network without symmetry is off by {number(plain.error)} a₀² on "
        f"molecules as given, and by {number(plain.error_rotated)} a₀² on the same molecules turned."
    ]
    if (augmented := by_key.get("augmented")) is not None:
        said.append(
            f"Trained on turned molecules it is off by {number(augmented.error_rotated)} a₀², and turning a molecule "
            f"still changes its answer by {number(augmented.change)} a₀²."
        )
    built_in = NETWORKS[_network_of(best.key)].group != "none"
    said.append(
        f"Best in any pose is '{best.title}' with {number(best.error_rotated)} a₀²"
        + (", the same number whether molecules are turned or not." if built_in else ".")
    )
    return (" ".join(said),)


def _network_of(key: str) -> str:
    return next(c.settings.network for c in CONTESTANTS if c.key == key)


def _vector(values: NDArray[np.float64]) -> str:
    return f"({', '.join(f'{x:g}' for x in values.tolist())})"


def _percent(share: float) -> str:
    return f"{number(100.0 * share, 2)} %"


def _uri(svg: bytes) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode()
