"""The sections of the report: which pictures and tables, and the words around them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from qcsurrogate.compare import pictures
from qcsurrogate.compare.figures import FIGURE, Figure
from qcsurrogate.compare.page import Picture, Section, Table
from qcsurrogate.compare.schema import Comparison, Distribution, Molecule, PairSummary
from qcsurrogate.compare.showcase import FIT, PlaneDensities, Showcase
from qcsurrogate.compare.text import duration, number
from qcsurrogate.units import EV_PER_HARTREE, MICROHARTREE_PER_HARTREE, MILLIELECTRONVOLT_PER_HARTREE

WORST = 8
"""How many of the worst molecules are named."""

_TABLE_ROWS = 100


def orbitals(comparison: Comparison, showcase: Showcase, label: str) -> Section:
    """Parity of orbital energies and gap, and the levels of one molecule."""
    points = showcase.parities[label]
    reference = np.concatenate(points.occupied_reference) * EV_PER_HARTREE
    predicted = np.concatenate(points.occupied_predicted) * EV_PER_HARTREE
    shown = [
        Picture(
            "Occupied orbital energies",
            pictures.parity(reference, predicted, "occupied orbital energy"),
            "Scatter plot of predicted against reference occupied orbital energies, with the errors below.",
            f"Every occupied orbital of every molecule ({len(reference)} points). On the line is right; the lower panel "
            "shows how far off, in meV.",
            _figure_table(comparison, label, ("occupied_energy_mae", "homo_error")),
        )
    ]
    if points.gap_reference:
        shown.append(
            Picture(
                "HOMO-LUMO gap",
                pictures.parity(
                    np.asarray(points.gap_reference) * EV_PER_HARTREE,
                    np.asarray(points.gap_predicted) * EV_PER_HARTREE,
                    "HOMO-LUMO gap",
                ),
                "Scatter plot of predicted against reference HOMO-LUMO gaps, with the errors below.",
                f"One point per molecule ({len(points.gap_reference)}).",
                _figure_table(comparison, label, ("gap_error", "lumo_error")),
            )
        )
    if label in showcase.levels:
        levels = showcase.levels[label]
        differences = (levels.predicted - levels.reference) * MILLIELECTRONVOLT_PER_HARTREE
        rows = [
            (
                f"{i + 1}" + {levels.n_occupied - 1: " HOMO", levels.n_occupied: " LUMO"}.get(i, ""),
                "2" if i < levels.n_occupied else "0",
                f"{levels.reference[i] * EV_PER_HARTREE:.4f}",
                f"{levels.predicted[i] * EV_PER_HARTREE:.4f}",
                f"{differences[i]:+.3f}",
            )
            for i in range(min(len(levels.reference), levels.n_occupied + 6))
        ]
        shown.append(
            Picture(
                "Orbital levels of one molecule",
                pictures.level_diagram(levels),
                "Orbital-level diagram: reference levels left, surrogate levels right, with their differences in meV.",
                f"{levels.name}, the molecule of median Hamiltonian error. Full lines are occupied, dashed lines empty; "
                "core levels are in the table only.",
                Table(("orbital", "electrons", "reference (eV)", "surrogate (eV)", "difference (meV)"), rows),
            )
        )
    subspace = comparison.metrics[label]["occupied_subspace_defect"]
    cosines = comparison.metrics[label]["orbital_cosine_defect"]
    return Section(
        f"orbitals-{_anchor(label)}",
        _titled("Orbitals", comparison, label),
        (
            "Energies from HC = SCe with the predicted Hamiltonian and the exact overlap.",
            f"The predicted occupied orbitals miss {number(subspace.mean * 1e6)} ppm of the occupied space on average, "
            f"{number(subspace.max * 1e6)} ppm at worst. (Orbital by orbital, 1 - |cos| is {number(cosines.mean * 1e6)} "
            "ppm; that figure is fragile, because nearly degenerate orbitals mix freely.)",
        ),
        pictures=shown,
    )


def hamiltonian(comparison: Comparison, showcase: Showcase, label: str) -> Section:
    """Where in the matrix the error sits."""
    breakdown = comparison.breakdowns[label]
    distances, errors = showcase.blocks[label].distance_points()
    elements = sorted({p.first for p in breakdown.element_pairs} | {p.second for p in breakdown.element_pairs})
    shells = _shell_order({p.first for p in breakdown.shell_pairs} | {p.second for p in breakdown.shell_pairs})
    shown = [
        Picture(
            "Error by element pair",
            pictures.element_heat_map(
                elements,
                np.diag(_pair_matrix(breakdown.element_pairs, elements, "same")),
                _pair_matrix(breakdown.element_pairs, elements, "different"),
            ),
            "Heat map of the mean Hamiltonian error for every pair of elements, and for single atoms.",
            "Mean absolute error of the matrix elements between two atoms, and (last row) on one atom.",
            _pair_table(breakdown.element_pairs),
        ),
    ]
    if len(distances):
        bins = [(b.start_angstrom, b.stop_angstrom, b.mean) for b in breakdown.distances]
        shown.append(
            Picture(
                "Error by distance",
                pictures.error_by_distance(distances, errors, bins),
                "Scatter plot of the Hamiltonian error of each pair of atoms over their distance.",
                f"{len(distances)} pairs of atoms; bars are means over bins of "
                f"{bins[0][1] - bins[0][0]:g} Å.",
                Table(
                    ("distance (Å)", "pairs", "mean (µEh)", "median", "95 %", "max"),
                    [
                        (f"{b.start_angstrom:g} to {b.stop_angstrom:g}", f"{b.count:,}", *_five(b, MICROHARTREE_PER_HARTREE))
                        for b in breakdown.distances
                    ],
                ),
            )
        )
    shown += [
        Picture(
            f"Error by shell pair, {title}",
            pictures.shell_heat_map(shells, _pair_matrix(breakdown.shell_pairs, shells, atoms)),
            f"Heat map of the mean Hamiltonian error for every pair of shells, {title}.",
            "Shells are numbered as in the basis: 2p is the first p shell, 3p the second.",
            _pair_table([p for p in breakdown.shell_pairs if p.atoms == atoms], worst=30),
        )
        for atoms, title in (("same", "one atom"), ("different", "two atoms"))
        if any(p.atoms == atoms for p in breakdown.shell_pairs)
    ]
    values = _values(comparison, label, "hamiltonian_mae")
    shown.append(
        Picture(
            "How the error spreads over molecules",
            pictures.spread_of_errors(
                {"hamiltonian": [v * MICROHARTREE_PER_HARTREE for v in values]}, "mean error of a molecule (µEh)"
            ),
            "Cumulative curve: share of molecules whose mean Hamiltonian error is below a value.",
            "A curve with a long tail to the right means that a few molecules are far worse than the rest.",
        )
    )
    figures = ("hamiltonian_mae", "hamiltonian_largest_error", "hamiltonian_rms_per_electron", "baseline_mae")
    table = _figure_table(comparison, label, figures)
    return Section(
        f"hamiltonian-{_anchor(label)}",
        _titled("Hamiltonian matrix", comparison, label),
        (
            "Absolute errors of the Kohn-Sham matrix, per kind of matrix element. H0 is what is known without a network; "
            "the network predicts the rest.",
        ),
        pictures=shown,
        tables=() if table is None else (table,),
    )


def density(comparison: Comparison, showcase: Showcase) -> Section | None:
    """Density errors, split into what the fit leaves and what the network adds."""
    rows: dict[str, list[float]] = {}
    highlighted = []
    for model in comparison.models:
        if not (total := _values(comparison, model.label, "density_nmae")):
            continue
        rows.setdefault("free atoms alone", _values(comparison, model.label, "density_nmae_free_atoms"))
        if model.kind == "density" and (floor := _values(comparison, model.label, "density_nmae_fit_floor")):
            rows["fit floor"] = floor
            rows[f"network part ({_plain(model.label)})"] = _values(comparison, model.label, "density_nmae_network")
        rows[f"{_plain(model.label)} model"] = total
        highlighted.append(f"{_plain(model.label)} model")
    if not highlighted:
        return None
    rows = {name: values for name, values in rows.items() if values}
    count = len(rows[highlighted[0]])
    shown = [
        Picture(
            "Density error: fit floor, network, total",
            pictures.boxes(rows, "NMAE (% of the electrons)", highlighted),
            "Box plots of the density error for free atoms, the density fit, the network part and the models.",
            f"{count} molecules; boxes hold the middle half, whiskers 90 %. The fit floor is what the auxiliary basis "
            "cannot describe; the network part is prediction against fit. Parts need not add up, because they may "
            "cancel.",
            Table(
                ("NMAE (%)", "molecules", "mean", "median", "95 %", "max"),
                [(name, str(len(values)), *_five_of(values)) for name, values in rows.items()],
            ),
        )
    ]
    if showcase.plane is not None:
        shown += _plane_pictures(showcase.plane)
    return Section(
        "density",
        "Electron density",
        (
            "NMAE = 100 · ∫|ρ - ρ_KS| dr / N, against the true Kohn-Sham density on a PySCF grid of level "
            f"{comparison.settings.density_grid_level}: roughly, the percentage of the electrons that are in the wrong "
            "place.",
        ),
        pictures=shown,
        tables=[
            table
            for model in comparison.models
            if (
                table := _figure_table(
                    comparison,
                    model.label,
                    [f.name for f in FIGURE.values() if f.group == "Density"],
                    caption=f"{model.label} model",
                )
            )
        ],
    )


def _plane_pictures(plane: PlaneDensities) -> list[Picture]:
    where = "Plane of best fit through the nuclei; grey lines are contours of the Kohn-Sham density."
    shown = [
        Picture(
            "Kohn-Sham density",
            pictures.plane_picture(plane, None, 1.0),
            "Map of the Kohn-Sham electron density on the plane of the molecule, atoms marked.",
            f"{plane.name}, the molecule of median density error. {where} Faint atoms lie outside the plane.",
        )
    ]
    names = sorted(plane.differences, key=lambda name: name == FIT)
    fitted = {name: float(np.percentile(np.abs(plane.differences[name]), 99.7)) for name in names}
    # an expansion in auxiliary functions is compared with its own fit on one scale
    shared = max((fitted[n] for n in names if n == FIT or (FIT in fitted and fitted[n] > 0.1 * fitted[FIT])), default=0.0)
    for name in names:
        limit = shared if name == FIT or (FIT in fitted and fitted[name] > 0.1 * fitted[FIT]) else fitted[name]
        what = "Density fit" if name == FIT else f"{name} model"
        shown.append(
            Picture(
                f"{what} minus Kohn-Sham",
                pictures.plane_picture(plane, name, limit or 1e-12),
                f"Map of the density difference, {what} minus Kohn-Sham, on the plane of the molecule, atoms marked.",
                f"Red: too many electrons; blue: too few. Colours end at ±{number(limit or 1e-12, 2)} e/bohr³.",
            )
        )
    return shown


def saving(comparison: Comparison, label: str) -> Section:
    """What an SCF saves when it starts at the surrogate."""
    total = comparison.saving[label]
    metrics = comparison.metrics[label]
    runs = [row for row in comparison.scf if label in row.surrogates]
    rows = []
    for title, name, ratio in (
        ("cycles", "scf_cycles", total.cycle_ratio),
        ("Fock builds", "scf_fock_builds", total.fock_build_ratio),
        ("wall time (s)", "scf_wall_time", total.wall_time_ratio),
    ):
        if ratio is not None and name in metrics:
            before, after = metrics[f"{name}_minao"], metrics[name]
            rows.append(
                (title, number(before.mean), number(after.mean), f"{100 * ratio:.0f} %", number(before.max), number(after.max))
            )
    shares = (total.share_converged_minao, total.share_converged)
    rows.append(("converged", *(f"{100 * s:.0f} %" for s in shares), "", "", ""))
    method = comparison.data.method
    detail = Table(
        ("molecule", "cycles, minao", "cycles", "builds, minao", "builds", "seconds, minao", "seconds", "ΔE (µEh)"),
        [
            (
                row.name,
                _count(row.minao.cycles, row.minao.converged),
                _count(run.cycles, run.converged),
                str(row.minao.fock_builds),
                str(run.fock_builds),
                f"{row.minao.wall_time:.2f}",
                f"{run.wall_time:.2f}",
                f"{(run.energy - row.minao.energy) * MICROHARTREE_PER_HARTREE:+.2g}",
            )
            for row in runs
            if (run := row.surrogates[label])
        ],
    )
    cycles = pictures.cycle_histogram([r.minao.cycles for r in runs], [r.surrogates[label].cycles for r in runs])
    return Section(
        f"saving-{_anchor(label)}",
        _titled("What an SCF saves", comparison, label),
        (
            f"{total.molecules} molecules, each run twice with fresh objects and equal settings (energy to "
            f"{method['conv_tol']:g} Eh, gradient to {method['conv_tol_grad']:g}), once from PySCF's minao guess and once from "
            "the predicted density matrix. Cycles are PySCF's count; Fock builds include the initial and the final one; "
            "wall time includes grid, integrals and the prediction itself.",
        ),
        tables=(
            Table(
                ("mean per molecule", "from minao", "from the surrogate", "ratio", "worst, minao", "worst, surrogate"), rows
            ),
        ),
        pictures=(
            Picture(
                "SCF cycles",
                cycles,
                "Histogram of SCF cycles from minao and from the surrogate.",
                "Further left is better.",
                detail,
            ),
        ),
    )


def trust(comparison: Comparison, label: str) -> Section | None:
    """Does the commutator norm know where the surrogate is wrong?"""
    found = comparison.trust[label]
    values = [m.values[label] for m in comparison.molecules if "commutator_norm" in m.values.get(label, {})]
    shown = []
    for name, title, correlation in (
        ("density_nmae", "density error (NMAE, %)", found.rank_correlation_density),
        ("one_shot_energy_error", "one-shot energy error (mEh)", found.rank_correlation_energy),
    ):
        both = [v for v in values if name in v]
        if len(both) < 3:
            continue
        factor = FIGURE[name].shown_factor
        said = "" if correlation is None else f" Rank correlation {correlation:.2f} (1: it orders molecules perfectly)."
        shown.append(
            Picture(
                f"Commutator and {title.split(' (')[0]}",
                pictures.trust_scatter(
                    [v["commutator_norm"] for v in both], [v[name] * factor for v in both], title
                ),
                f"Scatter plot of the {title} over the commutator norm.",
                f"{len(both)} molecules.{said}",
            )
        )
    if not shown:
        return None
    table = _figure_table(comparison, label, ("commutator_norm", "one_shot_energy_error"))
    return Section(
        f"trust-{_anchor(label)}",
        _titled("When to trust it", comparison, label),
        (
            "|FDS - SDF| after a single Fock build from the predicted density matrix is zero for a self-consistent "
            "answer. It needs no reference, so it can be asked of any new molecule: if it follows the true error here, a "
            "large value is a warning there.",
        ),
        pictures=shown,
        tables=() if table is None else (table,),
    )


def worst(comparison: Comparison) -> Section | None:
    """The molecules that a model does worst on, by name."""
    tables = []
    for model in comparison.models:
        first = "hamiltonian_mae" if model.kind == "hamiltonian" else "density_nmae"
        columns = [
            FIGURE[name]
            for name in (first, "gap_error", "density_nmae", "density_nmae_network", "dipole_error")
            if name in comparison.metrics[model.label] and (name != first or name == "hamiltonian_mae")
        ]
        ranked = first if first in comparison.metrics[model.label] else "dipole_error"
        molecules = [m for m in comparison.molecules if ranked in m.values.get(model.label, {})]
        molecules.sort(key=lambda m: m.values[model.label][ranked], reverse=True)
        if molecules:
            tables.append(
                Table(
                    ("molecule", "formula", *(f"{f.title} ({f.shown_unit})" for f in columns)),
                    [(m.name, m.formula, *_cells(m, model.label, columns)) for m in molecules[:WORST]],
                    caption=f"{model.label} model, by {FIGURE[ranked].title.lower()}",
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


def training(showcase: Showcase) -> Section | None:
    """Learning curves of the models that brought a log."""
    shown = []
    for label, curves in showcase.curves.items():
        loss = [c for c in curves if c.name == "train_loss"]
        validation = [c for c in curves if c.name != "train_loss"]
        for title, chosen in (("validation error", validation), ("training loss", loss)):
            if chosen:
                last = ", ".join(f"{c.name} {number(c.values[-1])} after {duration(60 * c.minutes[-1])}" for c in chosen)
                shown.append(
                    Picture(
                        f"{label} model: {title}",
                        pictures.learning_curve(chosen, title),
                        f"Curve of the {title} of the {label} model over training time.",
                        f"Last: {last}.",
                    )
                )
    if not shown:
        return None
    return Section(
        "training",
        "Learning curves",
        ("Still falling at the end: more training would help. Flat: more data or a better model would.",),
        pictures=shown,
    )


def all_figures(comparison: Comparison) -> Section:
    """Everything that was measured, with definitions."""
    tables, seen = [], {}
    for label, metrics in comparison.metrics.items():
        rows = [
            (f"{f.title} ({f.shown_unit})", str(s.count), *_five(s, f.shown_factor))
            for name, s in metrics.items()
            if (f := FIGURE[name])
        ]
        seen |= {name: FIGURE[name] for name in metrics}
        tables.append(Table(("", "molecules", "mean", "median", "95 %", "max"), rows, caption=f"{label} model"))
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
        ("method", f"{data.method['xc']}/{data.method['basis']}, SCF grid level {data.method['grid_level']}, auxiliary "
         f"basis {auxiliary}, baseline {data.method['baseline']}"),
        ("records", ", ".join(f"{n} {split}" for split, n in data.split_sizes.items())),
        ("compared", f"{data.compared} of the {settings.split} split; densities on a grid for {max(grid, default=0)}, SCFs "
         f"for {len(comparison.scf)}; drawn with seed {settings.seed}"),
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


def _values(comparison: Comparison, label: str, name: str) -> list[float]:
    return [m.values[label][name] for m in comparison.molecules if name in m.values.get(label, {})]


def _figure_table(comparison: Comparison, label: str, names: Sequence[str], caption: str = "") -> Table | None:
    found = comparison.metrics[label]
    rows = [
        (f"{FIGURE[n].title} ({FIGURE[n].shown_unit})", str(found[n].count), *_five(found[n], FIGURE[n].shown_factor))
        for n in names
        if n in found
    ]
    return Table(("", "molecules", "mean", "median", "95 %", "max"), rows, caption) if rows else None


def _five(summary: Distribution, factor: float) -> tuple[str, ...]:
    return tuple(number(v * factor) for v in (summary.mean, summary.median, summary.p95, summary.max))


def _five_of(values: Sequence[float]) -> tuple[str, ...]:
    array = np.asarray(values)
    return tuple(number(float(v)) for v in (array.mean(), np.median(array), np.percentile(array, 95), array.max()))


def _cells(molecule: Molecule, label: str, columns: Sequence[Figure]) -> list[str]:
    values = molecule.values[label]
    return [number(f.shown(values[f.name])) if f.name in values else "" for f in columns]


def _pair_table(pairs: Sequence[PairSummary], worst: int | None = None) -> Table:
    ordered = sorted(pairs, key=lambda p: p.mean, reverse=True)[:worst]
    return Table(
        ("pair", "atoms", "blocks", "mean (µEh)", "median", "95 %", "max"),
        [
            (f"{p.first} - {p.second}", p.atoms, f"{p.count:,}", *_five(p, MICROHARTREE_PER_HARTREE))
            for p in ordered
        ],
        caption="" if worst is None or len(pairs) <= worst else f"The worst {worst} of {len(pairs)}",
        text_columns=2,
    )


def _pair_matrix(pairs: Sequence[PairSummary], names: Sequence[str], atoms: str) -> NDArray[np.float64]:
    """(n, n) mean errors in µEh, lower triangle; NaN where there is no such pair."""
    matrix = np.full((len(names), len(names)), np.nan)
    index = {name: i for i, name in enumerate(names)}
    for pair in pairs:
        if pair.atoms == atoms:
            i, j = sorted((index[pair.first], index[pair.second]), reverse=True)
            matrix[i, j] = pair.mean * MICROHARTREE_PER_HARTREE
    return matrix


def _shell_order(names: set[str]) -> list[str]:
    """By element, then s, p, d, then number."""

    def place(name: str) -> tuple[str, int, int]:
        element, shell = name.split(" ")
        return element, "spdfghiklm".index(shell[-1]), int(shell[:-1])

    return sorted(names, key=place)


def _titled(title: str, comparison: Comparison, label: str) -> str:
    several = sum(m.kind == "hamiltonian" for m in comparison.models) > 1
    return f"{title}: {label}" if several else title


def _count(cycles: int, converged: bool) -> str:
    return str(cycles) if converged else f"{cycles}, not converged"


def _brief(value: object) -> str:
    if isinstance(value, float):
        return number(value)
    text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, Mapping) else str(value)
    return text if len(text) <= 400 else f"{text[:400]}..."


def _anchor(label: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", label).strip("-")


def _plain(label: str) -> str:
    """A label that is safe inside a drawing."""
    return re.sub(r"[^A-Za-z0-9 ().,_-]+", " ", label)[:40]
