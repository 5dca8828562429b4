"""The sections of the report that list things: worst molecules, all figures, provenance, failures."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from qcsurrogate.comparison import pictures
from qcsurrogate.comparison.figures import FIGURE, Figure
from qcsurrogate.comparison.page import Picture, Section, Table
from qcsurrogate.comparison.schema import Comparison, ModelDescription, Molecule
from qcsurrogate.comparison.showcase import Showcase
from qcsurrogate.comparison.subjects import Curve
from qcsurrogate.comparison.tables import five
from qcsurrogate.comparison.text import duration, number
from qcsurrogate.registry import find_quantity

WORST = 8
"""How many of the worst molecules are named."""

_TABLE_ROWS = 100


def worst(comparison: Comparison) -> Section | None:
    """The molecules that a model does worst on, by name."""
    tables = []
    for model in comparison.models:
        measured = comparison.metrics[model.label]
        ranked = next((name for name in find_quantity(model.kind).ranking if name in measured), None)
        if ranked is None:
            continue
        others = ("gap_error", "density_nmae", "density_nmae_network", "dipole_error")
        columns = [FIGURE[name] for name in dict.fromkeys((ranked, *others)) if name in measured]
        molecules = [m for m in comparison.molecules if ranked in m.values.get(model.label, {})]
        molecules.sort(key=lambda m: m.values[model.label][ranked], reverse=True)
        if molecules:
            tables.append(
                Table(
                    ("molecule", "formula", *(f"{f.title} ({f.shown_unit})" for f in columns)),
                    [(m.name, m.formula, *_cells(m, model.label, columns)) for m in molecules[:WORST]],
                    caption=f"{model.label.capitalize()} model",
                    text_columns=2,
                )
            )
    if not tables:
        return None
    return Section(
        "worst",
        "Worst molecules",
        ("An average hides them. If they have something in common, that is what the training data lacks.",),
        tables=tables,
    )


def training(comparison: Comparison, showcase: Showcase) -> Section | None:
    """Learning curves of the models that brought a log."""
    shown: list[Picture] = []
    for model in comparison.models:
        curves = showcase.curves.get(model.label, ())
        loss = [c for c in curves if c.name == "train_loss"]
        validation = [c for c in curves if c.name != "train_loss"]
        unit, factor = find_quantity(model.kind).validation_unit
        if unit:  # of one unit: they belong into one picture
            shown += _curves(model, [c.scaled(factor) for c in validation], f"validation error ({unit})")
        else:
            shown += [p for c in validation for p in _curves(model, [c], f"validation {_spoken(c.name)}")]
        shown += _curves(model, loss, "training loss")
    if not shown:
        return None
    return Section(
        "training",
        "Learning curves",
        ("Still falling at the end: more training would help. Flat: more data or a better model would.",),
        pictures=shown,
    )


def _curves(model: ModelDescription, curves: Sequence[Curve], title: str) -> list[Picture]:
    """One picture, or none where there is nothing to draw."""
    if not curves:
        return []
    last = ", ".join(f"{_spoken(c.name)} {number(c.values[-1])}" for c in curves)
    return [
        Picture(
            f"{model.label.capitalize()} model: {title.split(' (')[0]}",
            pictures.learning_curve({_spoken(c.name): c for c in curves}, title),
            f"Curve of the {title} of the {model.label} model over training time.",
            f"After {duration(60 * max(c.minutes[-1] for c in curves))}: {last}.",
        )
    ]


def _spoken(column: str) -> str:
    """A column's name in words."""
    words = re.sub(r"[^A-Za-z0-9]+", " ", column.removeprefix("validation_")).strip()[:40]
    return re.sub(r"\b(mae|rmse)\b", lambda match: match[0].upper(), words)


def all_figures(comparison: Comparison) -> Section:
    """Everything that was measured, with definitions."""
    tables: list[Table] = []
    seen: dict[str, Figure] = {}
    for label, metrics in comparison.metrics.items():
        rows = [
            (f"{f.title} ({f.shown_unit})", str(s.count), *five(s, f.shown_factor))
            for name, s in metrics.items()
            if (f := FIGURE[name])
        ]
        seen |= {name: FIGURE[name] for name in metrics}
        tables.append(
            Table(("", "molecules", "mean", "median", "95 %", "max"), rows, caption=f"{label.capitalize()} model")
        )
    definitions = Table(("figure", "definition"), [(f.title, f.definition) for f in seen.values()], text_columns=2)
    return Section(
        "figures",
        "All figures",
        ("One value per molecule; for all of them, smaller is better. The same in atomic units: metrics.json.",),
        tables=tables,
        folded=(("Definitions", definitions),),
    )


def compared(comparison: Comparison) -> Section:
    """What was compared with what, so that it can be done again."""
    data, settings = comparison.data, comparison.settings
    grid = [s.count for m in comparison.metrics.values() for name, s in m.items() if name == "density_nmae"]
    auxiliary = data.method["auxiliary_basis"]
    if isinstance(auxiliary, Mapping):
        auxiliary = f"even-tempered, beta = {auxiliary['even_tempered_beta']:g}"
    entries = [
        ("data", f"{data.name}: {data.path}"),
        (
            "method",
            f"{data.method['xc']}/{data.method['basis']}, SCF grid level {data.method['grid_level']}, auxiliary "
            f"basis {auxiliary}, baseline {data.method['baseline']}",
        ),
        ("records", ", ".join(f"{n} {split}" for split, n in data.split_sizes.items())),
        (
            "compared",
            f"{data.compared} of the {settings.split} split; densities on a grid for {max(grid, default=0)}, SCFs "
            f"for {len(comparison.scf)}; drawn with seed {settings.seed}",
        ),
        ("elements", ", ".join(data.elements)),
        ("licence", data.licence or "not stated"),
        ("citation", data.citation or "not stated"),
        ("data hash", data.dataset_hash),
    ]
    for model in comparison.models:
        seen = "yes" if model.trained_on_this_data else "no: unseen molecules cannot be guaranteed"
        entries += [
            (f"{model.label} model", f"{model.path} (sha256 {model.sha256[:16] or 'unknown'})"),
            ("trained on this store", seen),
            *((f"training: {key}", _brief(value)) for key, value in model.training.items()),
            *((f"at saving: {key}", number(value)) for key, value in model.training_metrics.items()),
        ]
    entries.append(("versions", ", ".join(f"{name} {v}" for name, v in comparison.versions.items())))
    return Section("compared", "What was compared", entries=entries)


def failures(comparison: Comparison) -> Section | None:
    """What could not be measured."""
    if not comparison.failures:
        return None
    rows = [(f.name, f.model or "all", f.stage, f.message[:400]) for f in comparison.failures[:_TABLE_ROWS]]
    return Section(
        "failures",
        "Failures",
        ("These molecules are left out of the figures that they failed in, and of nothing else.",),
        tables=(Table(("molecule", "model", "stage", "what happened"), rows, text_columns=4),),
    )


def _cells(molecule: Molecule, label: str, columns: Sequence[Figure]) -> list[str]:
    values = molecule.values[label]
    return [number(f.shown(values[f.name])) if f.name in values else "" for f in columns]


def _brief(value: object) -> str:
    if isinstance(value, float):
        return number(value)
    text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, Mapping) else str(value)
    return text if len(text) <= 400 else f"{text[:400]}..."
