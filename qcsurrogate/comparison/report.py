"""``report.html``: one page without anything outside it."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

import jinja2

from qcsurrogate.comparison import sections
from qcsurrogate.comparison.page import Section
from qcsurrogate.comparison.schema import Comparison, HeadlineItem
from qcsurrogate.comparison.showcase import Showcase
from qcsurrogate.units import duration

_TEMPLATE = "report.html.j2"


def render_report(comparison: Comparison, showcase: Showcase) -> str:
    """The page as text; whatever comes from a file (names, paths) is escaped."""
    own = [s for label, judge in showcase.judges.items() for s in judge.sections(comparison, label)]
    count = comparison.data.compared
    when = f"{comparison.created[:16].replace('T', ' ')} UTC"
    return render_page(
        title=f"Surrogate against reference: {comparison.data.name}",
        subtitle=(
            f"{_level(comparison)} · {count} molecule{'s' * (count != 1)} of the "
            f"{comparison.settings.split} split · {when} · took {duration(comparison.elapsed_s)}"
        ),
        lead="Means over the molecules compared, each with what it says about the model.",
        warnings=_warnings(comparison),
        headline=comparison.headline,
        content=[*own, *filter(None, sections.shared(comparison, showcase))],
    )


def render_page(
    *,
    title: str,
    subtitle: str,
    content: Sequence[Section],
    lead: str = "",
    warnings: Sequence[str] = (),
    headline: Sequence[HeadlineItem] = (),
) -> str:
    """A page of sections; ``lead`` stands above the headline, and all texts are escaped."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string((files("qcsurrogate.comparison") / _TEMPLATE).read_text(encoding="utf-8"))
    return template.render(
        title=title, subtitle=subtitle, lead=lead, warnings=warnings, headline=headline, sections=content
    )


def _level(comparison: Comparison) -> str:
    functional, slash, basis = comparison.data.level.partition("/")
    return f"{functional.upper()}{slash}{basis}" or "level of theory unknown"


def _warnings(comparison: Comparison) -> list[str]:
    warnings = [f"{m.label.capitalize()} model: {note}." for m in comparison.models for note in m.notes]
    if comparison.settings.split == "train":
        warnings.append("These are molecules that the models were trained on: the figures say nothing about new ones.")
    if comparison.failures:
        n = len(comparison.failures)
        warnings.append(f"{n} measurement{'s' * (n != 1)} failed; see the section on failures.")
    return warnings
