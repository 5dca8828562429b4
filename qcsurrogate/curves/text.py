"""A learning curve in words: Markdown for a file, lines for a terminal."""

from __future__ import annotations

from qcsurrogate.comparison.text import number, readable, spoken_settings
from qcsurrogate.curves.schema import Curve, LearningCurve, PowerLaw


def rows(curve: LearningCurve) -> list[tuple[str, ...]]:
    """The table of shown figures: a header, then one row for each size."""
    header, columns = ["molecules"], []
    for name in curve.shown:
        spread = curve.spread(name)
        unit = readable((mean for _, mean, _, _ in spread), curve.curves[name].shown)
        header.append(unit.label(curve.curves[name].title))
        columns.append(
            {
                size: unit.number(mean) + (f" ({unit.number(low)} to {unit.number(high)})" if low < high else "")
                for size, mean, low, high in spread
            }
        )
    body = [(f"{size:,}", *(column.get(size, "") for column in columns)) for size in curve.sizes]
    return [tuple(header), *body]


def law_in_words(law: PowerLaw | None) -> str:
    """``N^-0.52 +- 0.03``."""
    if law is None:
        return "no law"
    error = "" if law.exponent_error is None else f" ± {number(law.exponent_error, 2)}"
    return f"N^{-law.exponent:.2f}{error}"


def sentence(curve: Curve) -> str:
    """What the law of one figure says."""
    if curve.mean_law is None:
        return f"{curve.title}: no law; expected two sizes or more, and errors above zero"
    factor = 2**curve.mean_law.exponent
    floor = "" if curve.floor is None else f"; floor {readable([curve.floor], curve.shown).text(curve.floor)}"
    return (
        f"{curve.title}: {law_in_words(curve.mean_law)} (median: {law_in_words(curve.median_law)}); "
        f"twice the molecules divide it by {number(factor)}{floor}"
    )


def lines(curve: LearningCurve) -> list[str]:
    """For a terminal."""
    table = rows(curve)
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    shown = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in table]
    return [*shown, *(sentence(curve.curves[name]) for name in curve.shown), *warnings(curve)]


def warnings(curve: LearningCurve) -> list[str]:
    """What a reader has to know before he believes it."""
    said = [f"not finished yet: {run}; the same command goes on" for run in curve.unfinished]
    failed = [p.run for p in curve.points if p.failures]
    return said + [f"measurements failed, so that not all means run over the same molecules: {run}" for run in failed]


def markdown(curve: LearningCurve) -> str:
    """The content of ``learning_curve.md``."""
    header, *body = rows(curve)
    seeds = f"seed {curve.seeds[0]}"
    if len(curve.seeds) > 1:
        seeds = f"{len(curve.seeds)} seeds, in brackets the smallest and the largest of their means"
    preset = curve.config.get("preset")
    table = ["| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *body)]
    counts, settings = curve.split_sizes, curve.settings
    n_test = min(counts["test"], settings.limit or counts["test"])
    return "\n".join(
        [
            f"# Learning curve: {curve.kind} models on {_plain(curve.data)}",
            "",
            f"Means over {n_test} test molecules (densities on a grid: {min(n_test, settings.density_molecules)}) "
            "of models trained on growing, nested parts of the "
            f"{counts['train']} training molecules; {seeds}; "
            f"{'preset ' + preset if preset else 'no preset'}, {curve.config['training']['steps']:,} steps for "
            "every size, the same validation and test molecules.",
            "",
            *table,
            "",
            *(f"- {sentence(curve.curves[name])}" for name in curve.shown),
            *(f"- **{warning}**" for warning in warnings(curve)),
            "",
            "![Errors against training molecules](learning_curve.svg)",
            "",
            "| all figures | law of the means | of the medians |",
            "|---|---|---|",
            *(
                f"| {c.title} | {law_in_words(c.mean_law)} | {law_in_words(c.median_law)} |"
                for c in curve.curves.values()
            ),
            "",
            "Settings: " + ", ".join(f"{key} {text}" for key, text in spoken_settings(curve.config)) + ".",
            "",
        ]
    )


def _plain(name: str) -> str:
    """A name from a file without what Markdown or HTML would take for markup."""
    return "".join(c if c.isalnum() or c in " -_.+" else " " for c in name)
