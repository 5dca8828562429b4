"""The few figures that a user wants first, each rated by a rule of its quantity, in plain words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final, Literal

from qcsurrogate.comparison.schema import FigureSummary, HeadlineItem, Saving
from qcsurrogate.comparison.text import number, readable

Metrics = Mapping[str, FigureSummary]
Rating = Literal["good", "fair", "poor"]
RATINGS: Final[tuple[Rating, ...]] = ("good", "fair", "poor")

CHEMICAL_ACCURACY_HARTREE = 1.594e-3
"""1 kcal/mol."""

HARDLY_BETTER = 0.8
"""From this share of what is to beat on, nothing is gained."""


@dataclass(frozen=True)
class Rule:
    """When the mean of a figure is good, when it is fair, and what that means.

    Attributes:
        limits: largest mean that is good, and largest that is fair, in the figure's unit.
        words: what is said of a good, a fair and a poor mean.
        beats: a figure that needs no network, and its name; it is rated by ``shares`` of its
            mean too, and the worse rating counts.
    """

    figure: str
    title: str
    limits: tuple[float, float] = (inf, inf)
    words: tuple[str, str, str] = ("", "", "")
    beats: tuple[str, str] = ("", "")
    shares: tuple[float, float] = (0.1, 0.5)

    def item(self, label: str, metrics: Metrics, saving: Saving | None) -> HeadlineItem | None:
        """What is said of one model; None where the figure was not measured."""
        if (found := metrics.get(self.figure)) is None:
            return None
        unit = readable([found.mean], found.shown)
        rank = _rank(found.mean, self.limits)
        said = [self.words[rank]]
        if (other := metrics.get(self.beats[0])) is not None and other.mean > 0:
            share = found.mean / other.mean
            rank = max(rank, _rank(share, self.shares))
            said.append(_against(share, self.beats[1], readable([other.mean], other.shown).text(other.mean)))
        if saving is not None:
            if saving.share_converged < saving.share_converged_minao:
                rank = 2
            if saving.wall_time_ratio:
                said.append(f"{number(100 * saving.wall_time_ratio, 2)} % of the wall time.")
            said.append(f"{round(saving.share_converged * saving.molecules)} of {saving.molecules} SCFs converge.")
        said.append(f"Worst of {found.count}: {readable([found.max], found.shown).text(found.max)}.")
        return HeadlineItem(
            model=label,
            name=self.figure,
            title=self.title,
            value=found.mean,
            unit=found.unit,
            shown=unit.text(found.mean),
            rating=RATINGS[rank],
            verdict=" ".join(filter(None, said)),
        )


def _rank(value: float, limits: tuple[float, float]) -> int:
    return sum(value > limit for limit in limits)


def _against(share: float, name: str, value: str) -> str:
    if share >= HARDLY_BETTER:
        return f"{'No' if share >= 1.0 else 'Hardly'} better than {name} ({value})."
    return f"{number(100 * share, 2)} % of the {value} of {name}."


DENSITY: Final = Rule(
    "density_nmae", "Density error", (0.5, 2.0), beats=("density_nmae_free_atoms", "free atoms alone")
)
SHARED: Final = (
    Rule(
        "one_shot_energy_error",
        "Energy error without an SCF",
        (CHEMICAL_ACCURACY_HARTREE / 10, CHEMICAL_ACCURACY_HARTREE),
        (
            "Within 0.1 kcal/mol (0.16 mEh) without an SCF.",
            "Within 1 kcal/mol (1.6 mEh) without an SCF.",
            "Beyond 1 kcal/mol (1.6 mEh): run the SCF.",
        ),
    ),
    Rule("scf_cycles", "SCF cycles", beats=("scf_cycles_minao", "minao"), shares=(0.5, 0.9)),
    DENSITY,
)
"""Rules of figures that several quantities share; they follow on those of the quantity."""


def headline(
    metrics: Mapping[str, Metrics], rules: Mapping[str, Sequence[Rule]], savings: Mapping[str, Saving]
) -> list[HeadlineItem]:
    """Headline items of every model, by the rules of its quantity; titles name the model where several have one."""
    items = []
    for label, figures in metrics.items():
        for rule in {r.figure: r for r in (*rules[label], *SHARED)}.values():
            saving = savings.get(label) if rule.figure == "scf_cycles" else None
            if (item := rule.item(label, figures, saving)) is not None:
                items.append(item)
    titles = Counter(item.title for item in items)
    return [i.model_copy(update={"title": f"{i.title} · {i.model}"}) if titles[i.title] > 1 else i for i in items]
