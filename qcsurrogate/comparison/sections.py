"""The sections of the report: which pictures and tables, and the words around them."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from qcsurrogate.comparison import pictures
from qcsurrogate.comparison.figures import FIGURE
from qcsurrogate.comparison.page import Picture, Section, Table
from qcsurrogate.comparison.schema import Comparison, PairSummary
from qcsurrogate.comparison.showcase import FIT, PlaneDensities, Showcase
from qcsurrogate.comparison.tables import figure_table, figure_values, five, five_of, pair_table
from qcsurrogate.comparison.text import number
from qcsurrogate.units import EV_PER_HARTREE, MICROHARTREE_PER_HARTREE, MILLIELECTRONVOLT_PER_HARTREE


def orbitals(comparison: Comparison, showcase: Showcase, label: str) -> Section:
    """Parity of orbital energies and gap, and the levels of one molecule."""
    points = showcase.parities[label]
    reference = np.concatenate(points.occupied_reference) * EV_PER_HARTREE
    predicted = np.concatenate(points.occupied_predicted) * EV_PER_HARTREE
    valence = reference > pictures.CORE_HARTREE * EV_PER_HARTREE
    if valence.any():
        reference, predicted = reference[valence], predicted[valence]
    shown = [
        Picture(
            "Occupied orbital energies",
            pictures.parity(reference, predicted, "occupied orbital energy"),
            "Scatter plot of predicted against reference occupied orbital energies, with the errors below.",
            f"Every occupied valence orbital of every molecule ({len(reference)} points). On the line is right; the "
            "lower panel shows how far off, in meV. The numbers below include the core.",
            figure_table(comparison, label, ("occupied_energy_mae", "homo_error")),
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
                figure_table(comparison, label, ("gap_error", "lumo_error")),
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
                f"{levels.name}, the molecule of median Hamiltonian error. Full lines are occupied, dashed lines "
                "empty; core levels are in the table only.",
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
            f"{number(subspace.max * 1e6)} ppm at worst. (Orbital by orbital, 1 - |cos| is "
            f"{number(cosines.mean * 1e6)} ppm; that is fragile, because nearly degenerate orbitals mix freely.)",
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
            pair_table(breakdown.element_pairs),
        ),
    ]
    if len(distances):
        bins = [(b.start_angstrom, b.stop_angstrom, b.mean) for b in breakdown.distances]
        shown.append(
            Picture(
                "Error by distance",
                pictures.error_by_distance(distances, errors, bins),
                "Scatter plot of the Hamiltonian error of each pair of atoms over their distance.",
                f"{len(distances)} pairs of atoms; bars are means over bins of {bins[0][1] - bins[0][0]:g} Å.",
                Table(
                    ("distance (Å)", "pairs", "mean (µEh)", "median", "95 %", "max"),
                    [
                        (
                            f"{b.start_angstrom:g} to {b.stop_angstrom:g}",
                            f"{b.count:,}",
                            *five(b, MICROHARTREE_PER_HARTREE),
                        )
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
            pair_table([p for p in breakdown.shell_pairs if p.atoms == atoms], worst=30),
        )
        for atoms, title in (("same", "one atom"), ("different", "two atoms"))
        if any(p.atoms == atoms for p in breakdown.shell_pairs)
    ]
    errors_of_molecules = figure_values(comparison, label, "hamiltonian_mae")
    shown.append(
        Picture(
            "How the error spreads over molecules",
            pictures.spread_of_errors(
                {"hamiltonian": [v * MICROHARTREE_PER_HARTREE for v in errors_of_molecules]},
                "mean error of a molecule (µEh)",
            ),
            "Cumulative curve: share of molecules whose mean Hamiltonian error is below a value.",
            "A curve with a long tail to the right means that a few molecules are far worse than the rest.",
        )
    )
    figures = ("hamiltonian_mae", "hamiltonian_largest_error", "hamiltonian_frobenius_per_sqrt_n", "baseline_mae")
    table = figure_table(comparison, label, figures)
    return Section(
        f"hamiltonian-{_anchor(label)}",
        _titled("Hamiltonian matrix", comparison, label),
        (
            "Absolute errors of the Kohn-Sham matrix, per kind of matrix element. H0 is what is known without a "
            "network; the network predicts the rest.",
        ),
        pictures=shown,
        tables=() if table is None else (table,),
    )


def density(comparison: Comparison, showcase: Showcase) -> Section | None:
    """Density errors, split into what the fit leaves and what the network adds."""
    rows: dict[str, list[float]] = {}
    highlighted = []
    for model in comparison.models:
        if not (total := figure_values(comparison, model.label, "density_nmae")):
            continue
        rows.setdefault("free atoms alone", figure_values(comparison, model.label, "density_nmae_free_atoms"))
        if model.kind == "density" and (floor := figure_values(comparison, model.label, "density_nmae_fit_floor")):
            rows["fit floor"] = floor
            rows[f"network part ({_plain(model.label)})"] = figure_values(
                comparison, model.label, "density_nmae_network"
            )
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
                [(name, str(len(values)), *five_of(values)) for name, values in rows.items()],
            ),
        )
    ]
    if showcase.plane is not None:
        shown += _plane_pictures(showcase.plane)
    return Section(
        "density",
        "Electron density",
        (
            "NMAE = 100 · ∫|\u03c1 - \u03c1_KS| dr / N, against the true Kohn-Sham density on a PySCF grid of level "
            f"{comparison.settings.density_grid_level}: roughly, the percentage of the electrons that are in the wrong "
            "place.",
        ),
        pictures=shown,
        folded=[
            (f"All density figures of the {model.label} model", table)
            for model in comparison.models
            if (
                table := figure_table(
                    comparison,
                    model.label,
                    [f.name for f in FIGURE.values() if f.group == "Density"],
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
    limits = _colour_limits(plane)
    for name in sorted(plane.differences, key=lambda name: name == FIT):
        limit = limits[name]
        what = "Density fit" if name == FIT else f"{name.capitalize()} model"
        shown.append(
            Picture(
                f"{what} minus Kohn-Sham",
                pictures.plane_picture(plane, name, limit),
                f"Map of the density difference, {what} minus Kohn-Sham, on the plane of the molecule, atoms marked.",
                f"Red: too many electrons; blue: too few. Colours end at ±{number(limit, 2)} e/bohr³.",
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
    total = comparison.saving[label]
    metrics = comparison.metrics[label]
    runs = [row for row in comparison.scf if label in row.surrogates]
    rows: list[tuple[str, ...]] = []
    for title, name, ratio in (
        ("cycles", "scf_cycles", total.cycle_ratio),
        ("Fock builds", "scf_fock_builds", total.fock_build_ratio),
        ("wall time (s)", "scf_wall_time", total.wall_time_ratio),
    ):
        if ratio is not None and name in metrics:
            before, after = metrics[f"{name}_minao"], metrics[name]
            rows.append(
                (
                    title,
                    number(before.mean),
                    number(after.mean),
                    f"{100 * ratio:.0f} %",
                    number(before.max),
                    number(after.max),
                )
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
            f"{method['conv_tol']:g} Eh, gradient to {method['conv_tol_grad']:g}), once from PySCF's minao guess and "
            "once from the predicted density matrix. Cycles are PySCF's count; Fock builds include the initial and the "
            "final one; wall time includes grid, integrals and the prediction itself.",
        ),
        lead=(
            Table(
                ("mean per molecule", "from minao", "from the surrogate", "ratio", "worst, minao", "worst, surrogate"),
                rows,
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
                pictures.trust_scatter([v["commutator_norm"] for v in both], [v[name] * factor for v in both], title),
                f"Scatter plot of the {title} over the commutator norm.",
                f"{len(both)} molecules.{said}",
            )
        )
    if not shown:
        return None
    table = figure_table(comparison, label, ("commutator_norm", "one_shot_energy_error"))
    return Section(
        f"trust-{_anchor(label)}",
        _titled("When to trust it", comparison, label),
        (
            "|FDS - SDF| after a single Fock build from the predicted density matrix is zero for a self-consistent "
            "answer. It needs no reference, so it can be asked of any new molecule: if it follows the true error here, "
            "a large value is a warning there.",
        ),
        pictures=shown,
        tables=() if table is None else (table,),
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


def _anchor(label: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", label).strip("-")


def _plain(label: str) -> str:
    """A label that is safe inside a drawing."""
    return re.sub(r"[^A-Za-z0-9 ().,_-]+", " ", label)[:40]
