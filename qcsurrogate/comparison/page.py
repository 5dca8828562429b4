"""The parts that a report is made of; the template knows nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """A table; the first ``text_columns`` columns hold text, the others numbers."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    text_columns: int = 1


@dataclass(frozen=True)
class Picture:
    """A drawing (data URI) with all that is said about it."""

    title: str
    source: str
    alt: str
    caption: str
    table: Table | None = None


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it, in this order.

    Attributes:
        anchor: id in the page.
        entries: (term, text) pairs.
        lead: tables that stand above the pictures.
        folded: tables behind a line that opens them.
    """

    anchor: str
    title: str
    paragraphs: Sequence[str] = ()
    entries: Sequence[tuple[str, str]] = ()
    lead: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    folded: Sequence[tuple[str, Table]] = ()
