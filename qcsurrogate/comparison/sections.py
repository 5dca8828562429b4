"""The sections of the report that several quantities share, and the words around pictures and tables."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from qcsurrogate.comparison import pictures
from qcsurrogate.comparison.figures import DENSITY_NMAE, DIPOLE, HARTREE_ENERGY, QUADRUPOLE, Figure
from qcsurrogate.comparison.page import Picture, Section, Table, figure_table, titled
from qcsurrogate.comparison.schema import Comparison, FigureSummary, ModelDescription, ScfCounts
from qcsurrogate.comparison.showcase import FIT, PlaneDensities, Showcase
from qcsurrogate.comparison.subjects import Curve
from qcsurrogate.comparison.text import number, readable, spoken_settings
from qcsurrogate.registry import find_quantity
from qcsurrogate.units import duration

WORST = 8
"""How many of the worst molecules are named."""

_TABLE_ROWS = 100

_OF_DENSITIES = (DENSITY_NMAE, DIPOLE, QUADRUPOLE, HARTREE_ENERGY)
"""What every model that has a density is judged by, whichever way it comes by it."""


def density(comparison: Comparison, showcase: Showcase) -> Section | None:
    """Density errors, split into what the fit leaves and what the network adds."""
    total, rows, highlighted = DENSITY_NMAE.name, dict[str, list[float]](), []
    for label, figures in comparison.metrics.items():
        if total not in figures:
            continue
        name = _plain(label)
        highlighted.append(f"{name} model")
        for title, figure in (
            ("free atoms alone", f"{total}_free_atoms"),
            ("fit floor", f"{total}_fit_floor"),
            (f"network part ({name})", f"{total}_network"),
            (highlighted[-1], total),
        ):
            if found := comparison.values(label, figure):
                rows.setdefault(title, found)
    if not highlighted:
        return None
    percent = DENSITY_NMAE.unit
    shares = [FigureSummary.of(v, percent, title=t, definition="", shown=percent) for t, v in rows.items()]
    shown = [
        Picture(
            "Density error: fit floor, network, total",
            pictures.boxes(rows, "NMAE (% of the electrons)", highlighted),
            "Box plots of the density error for free atoms, the density fit, the network part and the models.",
            f"{len(rows[highlighted[0]])} molecules; boxes hold the middle half, whiskers 90 %. The fit floor is what "
            "the auxiliary basis cannot describe; the network part is prediction against fit. Parts need not add up, "
            "because they may cancel.",
            figure_table(shares),
        )
    ]
    return Section(
        "Electron density",
        (
            "NMAE = 100 · ∫|\u03c1 - \u03c1_KS| dr / N, against the true Kohn-Sham density on a PySCF grid of level "
            f"{comparison.settings.density_grid_level}: roughly, the percentage of the electrons that are in the wrong "
            "place.",
        ),
        tables=[] if (table := side_by_side(comparison, _OF_DENSITIES)) is None else [table],
        pictures=shown + ([] if showcase.plane is None else _plane_pictures(showcase.plane)),
    )


def side_by_side(comparison: Comparison, figures: Sequence[Figure]) -> Table | None:
    """Some figures of all models that have them, over the molecules that all of these have; None of fewer than two."""
    rows: list[tuple[str, ...]] = []
    for figure in figures:
        labels = [label for label, known in comparison.metrics.items() if figure.name in known]
        shared = [
            [m.values[label][figure.name] for label in labels]
            for m in comparison.molecules
            if all(figure.name in m.values.get(label, {}) for label in labels)
        ]
        if len(labels) < 2 or not shared:
            continue
        values = np.asarray(shared)
        numbers = np.stack([values.mean(0), np.median(values, 0), values.max(0)], axis=1)
        unit = readable(numbers.flatten().tolist(), figure.shown or figure.unit)
        best = (values == values.min(1, keepdims=True)) & (values < values.max(1, keepdims=True))
        for label, own, wins in zip(labels, numbers.tolist(), best.sum(0).tolist(), strict=True):
            title = unit.label(figure.title)
            rows.append((title, _plain(label), f"{len(values):,}", *map(unit.number, own), f"{wins:,}"))
    if not rows:
        return None
    header = ("", "model", "molecules", "mean", "median", "worst", "best for")
    caption = (
        "Densities of all models against Kohn-Sham, for the molecules that all of them have. 'Best for' counts the "
        "molecules for which a model has the smallest error; ties of all models count for none."
    )
    return Table(header, rows, caption, text_columns=2)


def _plane_pictures(plane: PlaneDensities) -> list[Picture]:
    shown = [
        Picture(
            "Kohn-Sham density",
            pictures.plane_picture(plane, None, 1.0),
            "Map of the Kohn-Sham electron density on the plane of the molecule, atoms marked.",
            f"{plane.name}, the molecule of median density error. Plane of best fit through the nuclei; grey lines are "
            "contours of the Kohn-Sham density. Faint atoms lie outside the plane.",
        )
    ]
    limits = _colour_limits(plane)
    for name in sorted(plane.differences, key=lambda name: name == FIT):
        what = "Density fit" if name == FIT else f"{name.capitalize()} model"
        end = readable([limits[name]], "e bohr^-3").text(limits[name])
        shown.append(
            Picture(
                f"{what} minus Kohn-Sham",
                pictures.plane_picture(plane, name, limits[name]),
                f"Map of the density difference, {what} minus Kohn-Sham, on the plane of the molecule, atoms marked.",
                f"Red: too many electrons; blue: too few. Colours end at ±{end}.",
            )
        )
    return shown


def _colour_limits(plane: PlaneDensities) -> dict[str, float]:
    """Where colours end; one value for the fit and for what is of its size, so that they can be compared."""
    limits = {name: max(float(np.percentile(np.abs(d), 99.7)), 1e-12) for name, d in plane.differences.items()}
    alike = [name for name in limits if FIT in limits and 0.1 < limits[name] / limits[FIT] < 10.0]
    return limits | dict.fromkeys(alike, max((limits[name] for name in alike), default=0.0))


def saving(comparison: Comparison, label: str) -> Section:
    """What an SCF saves when it starts at the surrogate."""
    total, metrics, method = comparison.saving[label], comparison.metrics[label], comparison.data.method or {}
    rows: list[tuple[str, ...]] = []
    for title, name, ratio in (
        ("cycles", "scf_cycles", total.cycle_ratio),
        ("Fock builds", "scf_fock_builds", total.fock_build_ratio),
        ("wall time", "scf_wall_time", total.wall_time_ratio),
    ):
        if ratio is not None:
            before, after = metrics[f"{name}_minao"], metrics[name]
            unit = readable([before.mean, after.mean, before.max, after.max], after.unit)
            means, worst = (unit.number(before.mean), unit.number(after.mean)), (before.max, after.max)
            rows.append((unit.label(title), *means, f"{100 * ratio:.0f} %", *map(unit.number, worst)))
    shares = (total.share_converged_minao, total.share_converged)
    rows.append(("converged", *(f"{100 * s:.0f} %" for s in shares), "", "", ""))
    runs = [(row, row.surrogates[label]) for row in comparison.scf if label in row.surrogates]
    seconds = readable([t for row, run in runs for t in (row.minao.wall_time, run.wall_time)], "s")
    energy = readable([run.energy - row.minao.energy for row, run in runs], "hartree")
    detail = [
        (
            row.name,
            *map(_cycles, (row.minao, run)),
            *(str(r.fock_builds) for r in (row.minao, run)),
            *(seconds.number(r.wall_time) for r in (row.minao, run)),
            energy.number(run.energy - row.minao.energy, sign=True),
        )
        for row, run in runs
    ]
    both = [f"{what}{start}" for what in ("cycles", "builds", seconds.label("time")) for start in (", minao", "")]
    worst_of = ("worst, minao", "worst, surrogate")
    return Section(
        titled("What an SCF saves", label, comparison.saving),
        (
            f"{total.molecules} molecules, each run twice with fresh objects and equal settings (energy to "
            f"{number(method['conv_tol'], 1)} Eh, gradient to {number(method['conv_tol_grad'], 1)}), once from PySCF's "
            "minao guess and once from the predicted density matrix. Cycles are PySCF's count; Fock builds include the "
            "initial and the final one; wall time includes grid, integrals and the prediction itself.",
        ),
        tables=(Table(("mean per molecule", "from minao", "from the surrogate", "ratio", *worst_of), rows),),
        pictures=(
            Picture(
                "SCF cycles",
                pictures.cycle_histogram([row.minao.cycles for row, _ in runs], [run.cycles for _, run in runs]),
                "Histogram of SCF cycles from minao and from the surrogate.",
                "Further left is better.",
                Table(("molecule", *both, energy.label("ΔE")), detail),
            ),
        ),
    )


def _cycles(run: ScfCounts) -> str:
    return f"{run.cycles}" if run.converged else f"{run.cycles}, not converged"


def trust(comparison: Comparison, label: str) -> Section | None:
    """Does a Fock build know where the surrogate is wrong?"""
    found, metrics = comparison.trust[label], comparison.metrics[label]
    shown = []
    for sign, name, correlation in (
        ("commutator_norm", DENSITY_NMAE.name, found.rank_correlation_density),
        ("remaining_energy", "one_shot_energy_error", found.rank_correlation_energy),
    ):
        pairs = [
            (v[sign], v[name]) for m in comparison.molecules if {sign, name} <= (v := m.values.get(label, {})).keys()
        ]
        x, y = np.array([pair for pair in pairs if np.isfinite(pair).all()]).reshape(-1, 2).T
        if len(x) < 3:
            continue
        title = f"{metrics[name].title.removesuffix(' error')} error"
        across, up = readable(x, metrics[sign].shown), readable(y, metrics[name].shown)
        said = "" if correlation is None else f" Rank correlation {correlation:.2f} (1: it orders molecules perfectly)."
        axes = (f"{across.label(metrics[sign].title)}: no reference needed", up.label(title))
        shown.append(
            Picture(
                f"{metrics[sign].title} and {title[0].lower()}{title[1:]}",
                pictures.scatter(x * across.factor, y * up.factor, axes),
                f"Scatter plot: {title} over '{metrics[sign].title}'.",
                f"{len(x)} molecules.{said}",
            )
        )
    if not shown:
        return None
    names = ("commutator_norm", "remaining_energy", "one_shot_energy_error", "corrected_energy_error")
    return Section(
        titled("When to trust it", label, comparison.trust),
        (
            "A single Fock build from the predicted density matrix needs no reference, so it can be asked of any new "
            "molecule. |FDS - SDF| is zero for a self-consistent answer; the energy that is estimated to "
            "remain is what an SCF would still gain, to second order. If they follow the true errors here, a large "
            "value is a warning there.",
        ),
        tables=(figure_table(metrics[name] for name in names if name in metrics),),
        pictures=shown,
    )


def calibration(comparison: Comparison, label: str) -> Section:
    """Are the errors that a model expects of itself those that it makes?"""
    metrics, rows, shown = comparison.metrics[label], [], []
    for name, found in comparison.calibration[label].items():
        figure = metrics[name]
        unit = readable([found.expected, found.actual], figure.shown)
        shares = (found.within_50, found.within_80, found.within_95)
        rank = "" if found.rank_correlation is None else f"{found.rank_correlation:.2f}"
        means = unit.number(found.expected), unit.number(found.actual)
        rows.append(
            (unit.label(figure.title), f"{found.molecules:,}", *means, *(f"{100 * s:.0f} %" for s in shares), rank)
        )
        pairs = [
            (m.expected[label][name], m.values[label][name])
            for m in comparison.molecules
            if name in m.expected.get(label, {}) and name in m.values.get(label, {})
        ]
        expected, actual = np.array(pairs).T
        axis = readable([*expected, *actual], figure.shown)
        shown.append(
            Picture(
                f"{figure.title}: expected and actual error",
                pictures.calibration(expected * axis.factor, actual * axis.factor, axis.label("{} error")),
                f"Scatter plot of the actual error of '{figure.title}' over the expected one, one point per molecule.",
                "On the line the error is what was expected; in the band at most twice, and at least half of it.",
            )
        )
    header = ("mean error of", "molecules", "expected", "actual", "within 50 %", "within 80 %", "within 95 %", "rank")
    return Section(
        titled("How well it knows its own errors", label, comparison.calibration),
        (
            "With every prediction comes an expected error, which needs no reference: how little the training data fix "
            "what the network puts out there, times what its validation molecules have taught. If it holds, half the "
            "molecules lie within what is said of 50 %, and so on; rank is Spearman's correlation (1: it orders them "
            "perfectly). It is learned from molecules like those of the validation set, and is a guess for all others.",
        ),
        tables=(Table(header, rows),),
        pictures=shown,
    )


def worst(comparison: Comparison) -> Section | None:
    """The molecules that a model does worst on, by name, and how its error spreads over all."""
    tables, shown = [], []
    for model in comparison.models:
        metrics, caption = comparison.metrics[model.label], f"{model.label.capitalize()} model"
        names = [name for name in find_quantity(model.kind).ranking if name in metrics]
        if not names:
            continue
        ranked = [m for m in comparison.molecules if names[0] in m.values.get(model.label, {})]
        ranked.sort(key=lambda m: m.values[model.label][names[0]], reverse=True)
        header, columns = ["molecule", "formula"], [[m.name for m in ranked[:WORST]], [m.formula for m in ranked]]
        for name in names:
            values = [m.values[model.label].get(name, np.nan) for m in ranked[:WORST]]
            unit = readable(values, metrics[name].shown)
            header.append(unit.label(metrics[name].title))
            columns.append([unit.number(v) if np.isfinite(v) else "" for v in values])
        tables.append(Table(header, list(zip(*columns, strict=False)), caption, text_columns=2))
        errors = np.array([m.values[model.label][names[0]] for m in ranked])
        title, unit = metrics[names[0]].title, readable(errors, metrics[names[0]].shown)
        shown.append(
            Picture(
                f"{caption}: spread over the molecules",
                pictures.spread_of_errors(errors * unit.factor, unit.label(f"{title} of a molecule")),
                f"Cumulative curve: share of molecules below a value of '{title}', {model.label} model.",
                "A curve with a long tail to the right means that a few molecules are far worse than the rest.",
            )
        )
    said = "An average hides them. If they have something in common, that is what the training data lacks."
    return Section("Worst molecules", (said,), tables=tables, pictures=shown) if tables else None


def training(comparison: Comparison, showcase: Showcase) -> Section | None:
    """Learning curves of the models that brought a log."""
    shown: list[Picture] = []
    for model in comparison.models:
        curves = showcase.curves.get(model.label, ())
        validation = {_words(c.name): c for c in curves if c.name != "train_loss"}
        unit = find_quantity(model.kind).validation_unit
        if unit and validation:  # of one unit: they belong into one picture
            shown.append(_curves(model, "validation error", validation, unit))
        else:
            shown += [_curves(model, f"validation {name}", {name: c}, "") for name, c in validation.items()]
        shown += [_curves(model, "training loss", {"loss": c}, "") for c in curves if c.name == "train_loss"]
    if not shown:
        return None
    said = "Still falling at the end: more training would help. Flat: more data or a better model would."
    return Section("Learning curves", (said,), pictures=shown)


def _curves(model: ModelDescription, title: str, curves: dict[str, Curve], unit: str) -> Picture:
    last = ", ".join(f"{name} {readable([c.values[-1]], unit).text(c.values[-1])}" for name, c in curves.items())
    return Picture(
        f"{model.label.capitalize()} model: {title}",
        pictures.learning_curve(curves, unit, title),
        f"Curve of the {title} of the {model.label} model over training time.",
        f"After {duration(max(c.seconds[-1] for c in curves.values()))}: {last}.",
    )


def _words(column: str) -> str:
    """A column's name in words."""
    words = re.sub(r"[^A-Za-z0-9]+", " ", column.removeprefix("validation_")).strip()[:40]
    return re.sub(r"\b(mae|rmse)\b", lambda match: match[0].upper(), words)


def all_figures(comparison: Comparison) -> Section:
    """Everything that was measured, with definitions."""
    tables = [figure_table(m.values(), f"{label.capitalize()} model") for label, m in comparison.metrics.items()]
    seen = {f.title: f.definition for metrics in comparison.metrics.values() for f in metrics.values()}
    tables.append(Table(("figure", "definition"), list(seen.items()), text_columns=2, folded="Definitions"))
    said = "One value per molecule; for all of them, smaller is better. The same in atomic units: metrics.json."
    return Section("All figures", (said,), tables=tables)


def compared(comparison: Comparison) -> Section:
    """What was compared with what, so that it can be done again."""
    data, settings = comparison.data, comparison.settings
    grid = max((m[DENSITY_NMAE.name].count for m in comparison.metrics.values() if DENSITY_NMAE.name in m), default=0)
    entries = [
        ("data", f"{data.name}: {data.path}"),
        ("method", data.level or "not stated"),
        ("records", ", ".join(f"{n} {split}" for split, n in data.split_sizes.items())),
        (
            "compared",
            f"{data.compared} of the {settings.split} split; densities on a grid for {grid}, SCFs for "
            f"{len(comparison.scf)}; drawn with seed {settings.seed}",
        ),
        ("elements", ", ".join(data.elements)),
        ("licence", data.licence or "not stated"),
        ("citation", data.citation or "not stated"),
        ("data hash", data.dataset_hash),
    ]
    settings_of = [] if data.method is None else [("Method of the references", data.method)]
    for model in comparison.models:
        seen = "trained on this store alone" if model.trained_on_this_data else "not trained on this store alone"
        entries.append((f"{model.label} model", f"{model.path} (sha256 {model.sha256[:16] or 'unknown'}); {seen}"))
        told = {**model.training, "at saving": model.training_metrics}
        settings_of.append((f"Training of the {model.label} model", told))
    entries.append(("versions", ", ".join(f"{name} {v}" for name, v in comparison.versions.items())))
    head = ("setting", "value")
    tables = [Table(head, spoken_settings(said), text_columns=2, folded=title) for title, said in settings_of]
    return Section("What was compared", entries=entries, tables=tables)


def failures(comparison: Comparison) -> Section | None:
    """What could not be measured."""
    if not comparison.failures:
        return None
    rows = [(f.name, f.model or "all", f.stage, f.message[:400]) for f in comparison.failures[:_TABLE_ROWS]]
    said = "These molecules are left out of the figures that they failed in, and of nothing else."
    return Section(
        "Failures", (said,), tables=(Table(("molecule", "model", "stage", "what happened"), rows, text_columns=4),)
    )


def shared(comparison: Comparison, showcase: Showcase) -> Sequence[Section | None]:
    """All of these, in the order of the report."""
    return (
        density(comparison, showcase),
        *(saving(comparison, label) for label in comparison.saving),
        *(trust(comparison, label) for label in comparison.trust),
        *(calibration(comparison, label) for label in comparison.calibration),
        worst(comparison),
        training(comparison, showcase),
        all_figures(comparison),
        compared(comparison),
        failures(comparison),
    )


def _plain(label: str) -> str:
    """A label that is safe inside a drawing."""
    return re.sub(r"[^A-Za-z0-9 ().,_-]+", " ", label)[:40]
