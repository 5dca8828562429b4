"""The few figures that a user wants first, each with a verdict in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from qcsurrogate.comparison.figures import FIGURE
from qcsurrogate.comparison.schema import FigureSummary, HeadlineItem, Saving
from qcsurrogate.comparison.text import number

Rating = Literal["good", "fair", "poor"]
Metrics = Mapping[str, FigureSummary]

CHEMICAL_ACCURACY_HARTREE = 1.594e-3
"""1 kcal/mol."""


def headline(metrics: Mapping[str, Metrics], savings: Mapping[str, Saving]) -> list[HeadlineItem]:
    """Headline items of every model, in the order in which one asks for them."""
    items = []
    for label, figures in metrics.items():
        several = sum(("hamiltonian_mae" in f) == ("hamiltonian_mae" in figures) for f in metrics.values()) > 1
        found = [
            _hamiltonian(figures),
            _level(figures, "occupied_energy_mae", "Orbital-energy error"),
            _level(figures, "gap_error", "HOMO-LUMO gap error"),
            _energy(figures),
            _saving(figures, savings.get(label)),
            _density(figures, "density_nmae_fit_floor" in figures or "hamiltonian_mae" not in figures),
            _dipole(figures),
        ]
        items += [_item(label, several, *entry) for entry in found if entry is not None]
    return items


Entry = tuple[str, str, float, str, str, Rating, str]
"""name, title, value, unit, shown, rating, verdict"""


def _item(
    label: str, several: bool, name: str, title: str, value: float, unit: str, shown: str, rating: Rating, verdict: str
) -> HeadlineItem:
    return HeadlineItem(
        model=label,
        name=name,
        title=f"{title} · {label}" if several else title,
        value=value,
        unit=unit,
        shown=shown,
        rating=rating,
        verdict=verdict,
    )


def _rate(value: float, good: float, fair: float) -> Rating:
    return "good" if value <= good else "fair" if value <= fair else "poor"


def _shown(name: str, value: float) -> str:
    figure = FIGURE[name]
    return f"{number(figure.shown(value))} {figure.shown_unit}"


def _hamiltonian(figures: Metrics) -> Entry | None:
    if (found := figures.get("hamiltonian_mae")) is None:
        return None
    parts = []
    if (baseline := figures.get("baseline_mae")) is not None and baseline.mean > 0:
        parts.append(
            f"{number(100.0 * found.mean / baseline.mean, 2)} % of the error of H0, which needs no network "
            f"({_shown('baseline_mae', baseline.mean)})."
        )
    parts.append(f"Worst molecule: {_shown('hamiltonian_mae', found.max)}.")
    rating = _rate(found.mean, 50e-6, 500e-6)
    return (
        "hamiltonian_mae",
        "Hamiltonian error",
        found.mean,
        found.unit,
        _shown("hamiltonian_mae", found.mean),
        rating,
        " ".join(parts),
    )


def _level(figures: Metrics, name: str, title: str) -> Entry | None:
    if (found := figures.get(name)) is None:
        return None
    rating = _rate(found.mean, CHEMICAL_ACCURACY_HARTREE / 10, CHEMICAL_ACCURACY_HARTREE)
    words = {
        "good": "Far below what one functional differs from the next.",
        "fair": "Within 1 kcal/mol (43 meV).",
        "poor": "Beyond 1 kcal/mol (43 meV): use with care.",
    }[rating]
    return (
        name,
        title,
        found.mean,
        found.unit,
        _shown(name, found.mean),
        rating,
        f"{words} Worst molecule: {_shown(name, found.max)}.",
    )


def _energy(figures: Metrics) -> Entry | None:
    name = "one_shot_energy_error"
    if (found := figures.get(name)) is None:
        return None
    rating = _rate(found.mean, CHEMICAL_ACCURACY_HARTREE / 10, CHEMICAL_ACCURACY_HARTREE)
    words = {
        "good": "Chemically exact without an SCF.",
        "fair": "Within 1 kcal/mol (1.6 mEh) without an SCF.",
        "poor": "Beyond 1 kcal/mol (1.6 mEh): run the SCF.",
    }[rating]
    return (
        name,
        "Energy error without an SCF",
        found.mean,
        found.unit,
        _shown(name, found.mean),
        rating,
        f"{words} Worst of {found.count}: {_shown(name, found.max)}.",
    )


def _saving(figures: Metrics, saving: Saving | None) -> Entry | None:
    if saving is None or saving.cycle_ratio is None or "scf_cycles" not in figures:
        return None
    after, before = figures["scf_cycles"], figures["scf_cycles_minao"]
    lost = saving.share_converged < saving.share_converged_minao
    rating: Rating = "poor" if lost else _rate(saving.cycle_ratio, 0.5, 0.9)
    verdict = (
        f"SCF from the surrogate, {number(100 * saving.cycle_ratio, 2)} % of the cycles from minao"
        + (f" and {number(100 * saving.wall_time_ratio, 2)} % of the time" if saving.wall_time_ratio else "")
        + f"; {round(saving.share_converged * saving.molecules)} of {saving.molecules} converge."
    )
    return (
        "scf_cycle_ratio",
        "SCF cycles",
        saving.cycle_ratio,
        "1",
        (f"{number(after.mean, 2)} instead of {number(before.mean, 2)}"),
        rating,
        verdict,
    )


def _density(figures: Metrics, from_density_model: bool) -> Entry | None:
    name = "density_nmae"
    if (found := figures.get(name)) is None:
        return None
    title = "Density error, density model" if from_density_model else "Density error, Hamiltonian model"
    shown = f"{number(found.mean)} %"
    worst = f"Worst of {found.count}: {number(found.max)} %."
    floor = figures.get("density_nmae_fit_floor")
    if floor is None:
        rating = _rate(found.mean, 0.5, 2.0)
        part = "Share of the electron density in the wrong place."
        return name, title, found.mean, "%", shown, rating, f"{part} {worst}"
    ratio = found.mean / floor.mean
    rating = _rate(ratio, 1.3, 3.0)
    words = {
        "good": "Limited by the auxiliary basis, not by the network",
        "fair": "Network and auxiliary basis both count",
        "poor": "Limited by the network",
    }[rating]
    return (
        name,
        title,
        found.mean,
        "%",
        shown,
        rating,
        (f"{words}: {number(ratio)} times the fit's own error of {number(floor.mean)} %. {worst}"),
    )


def _dipole(figures: Metrics) -> Entry | None:
    if (found := figures.get("dipole_error")) is None or "hamiltonian_mae" in figures:
        return None
    rating = _rate(found.mean, 0.02 / FIGURE["dipole_error"].shown_factor, 0.1 / FIGURE["dipole_error"].shown_factor)
    words = {
        "good": "Below what basis sets and functionals differ by.",
        "fair": "Good enough to rank molecules by polarity.",
        "poor": "Too far off for electrostatics.",
    }[rating]
    return (
        "dipole_error",
        "Dipole error",
        found.mean,
        found.unit,
        _shown("dipole_error", found.mean),
        rating,
        f"{words} Worst molecule: {_shown('dipole_error', found.max)}.",
    )
