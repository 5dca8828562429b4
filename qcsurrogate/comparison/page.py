"""The parts that a report is made of; the template knows nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from qcsurrogate.comparison.schema import Distribution, FigureSummary
from qcsurrogate.comparison.text import readable


@dataclass(frozen=True)
class Table:
    """A table; the first ``text_columns`` columns hold text, the others numbers.

    Where ``folded`` is set, it stands behind this line, which opens it.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    text_columns: int = 1
    folded: str = ""


@dataclass(frozen=True)
class Picture:
    """A drawing (data URI) with all that is said about it; a ``wide`` one takes the width of the page."""

    title: str
    source: str
    alt: str
    caption: str
    table: Table | None = None
    wide: bool = False


@dataclass(frozen=True)
class Section:
    """A heading, unique in the page, and what stands below it, in this order; entries are (term, text)."""

    title: str
    paragraphs: Sequence[str] = ()
    entries: Sequence[tuple[str, str]] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()

    @property
    def anchor(self) -> str:
        """Its id in the page."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


def titled(title: str, label: str, labels: Iterable[str]) -> str:
    """A title, with the model's label where several models have such a section."""
    return f"{title}: {label}" if len([*labels]) > 1 else title


def figure_table(figures: Iterable[FigureSummary], caption: str = "") -> Table:
    """One row per figure, each in a unit of its own."""
    rows = []
    for figure in figures:
        unit = readable(figure.numbers, figure.shown)
        rows.append((unit.label(figure.title), f"{figure.count:,}", *map(unit.number, figure.numbers)))
    return Table(("", "molecules", "mean", "median", "95 %", "max"), rows, caption)


def distribution_table(
    header: Sequence[str], rows: Sequence[tuple[*tuple[str, ...], Distribution]], counted: str, caption: str = ""
) -> Table:
    """One row per distribution after the texts that name it, all in one unit."""
    unit = readable((n for row in rows for n in row[-1].numbers), rows[0][-1].unit)
    return Table(
        (*header, counted, *map(unit.label, ("mean", "median", "95 %", "max"))),
        [(*names, f"{d.count:,}", *map(unit.number, d.numbers)) for *names, d in rows],
        caption,
        text_columns=len(header),
    )
