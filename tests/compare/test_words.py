"""The words and numbers of the report are true and can be read."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcsurrogate import comparison
from qcsurrogate.comparison.headline import Rule, headline
from qcsurrogate.comparison.page import distribution_table, figure_table
from qcsurrogate.comparison.report import render_report
from qcsurrogate.comparison.schema import Distribution, FigureSummary, Saving
from qcsurrogate.comparison.text import readable, spoken, spoken_settings
from qcsurrogate.quantities.density.judge import DensityJudge
from qcsurrogate.quantities.hamiltonian.breakdown import by_distance, peak_borders
from qcsurrogate.quantities.hamiltonian.judge import HamiltonianJudge
from qcsurrogate.registry import BUILT_IN
from tests.compare.known import HOSTILE_NAME
from tests.compare.test_report import Page

# -- units -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (6.26e-8, "hartree", "62.6 nEh"),
        (-1.93 / 27.21138602, "eV", "-1.93 eV"),
        (5.98e-3, "hartree", "5.98 mEh"),
        (0.9996e-3, "hartree", "1.00 mEh"),
        (3.14e-9, "share", "3.14 ppb"),
        (0.0825, "share", "8.25 %"),
        (0.196, "%", "0.196 %"),
        (0.00202, "%", "20.2 ppm"),
        (0.1, "e bohr", "254 mD"),
        (1.0, "e bohr^2", "1.35 D Å"),
        (0.422, "s", "422 ms"),
        (7500.0, "s", "2.08 h"),
        (42.0, "s", "42.0 s"),
        (4.25, "cycles", "4.25 cycles"),
        (1.002, "1", "1.00"),
        (0.0, "hartree", "0 Eh"),
        (0.0, "eV", "0 eV"),
        (0.0, "%", "0 %"),
    ],
)
def test_values_have_the_prefix_that_makes_them_readable(value, unit, text):
    assert readable([value], unit).text(value) == text


@given(
    st.floats(1e-14, 900.0), st.sampled_from(["hartree", "eV", "e bohr", "e bohr^2", "e", "e bohr^-3"]), st.booleans()
)
def test_every_value_reads_between_1_and_1000(value, unit, negative):
    chosen = readable([-value if negative else value], unit)
    assert 0.9995 <= value * chosen.factor < 999.5
    assert re.fullmatch(r"\d{1,3}(\.\d+)?", chosen.number(value))


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=9))
def test_one_prefix_serves_all_values(values):
    """No other prefix lets more of them read from 1 to 1000 without taking others further from it."""
    unit = readable(values, "hartree")
    shown = np.abs(np.array(values)) * unit.factor
    if not (np.abs(values) > 1e-30).any():
        assert unit.symbol == "Eh"
    elif (np.abs(values) > 1e-12).all():
        assert shown.min() < 1000.0 or unit.symbol == "kEh"
        assert shown.max() >= 0.999


def test_a_zero_of_rounding_does_not_choose_the_prefix_of_a_column():
    dipoles = [0.484, 7.55e-10, 1.62, 52.9, 0.567]  # the second by symmetry
    unit = readable([d / 2.541746473 for d in dipoles], "e bohr")
    assert readable([5e-324, 1e-3], "hartree").symbol == "mEh"
    assert [unit.text(d / 2.541746473) for d in dipoles] == ["0.484 D", "< 0.0001 D", "1.62 D", "52.9 D", "0.567 D"]


def test_a_row_of_figures_and_a_column_of_pairs_have_one_unit_each():
    figure = FigureSummary.of([2e-7, 3e-6, 5e-6], "hartree", title="Error", definition="", shown="eV")
    table = figure_table([figure])
    assert table.rows[0][0] == "Error (µeV)"
    assert table.rows[0][2:] == ("74.4", "81.6", "131", "136")
    rows = [("near", Distribution.of([2e-6], "hartree")), ("far", Distribution.of([3e-8], "hartree"))]
    table = distribution_table(("pair",), rows, "blocks")
    assert table.header[2] == "mean (nEh)"
    assert [row[2] for row in table.rows] == ["2,000", "30.0"]


# -- headline ----------------------------------------------------------------------------------------------------------


def _one(rules, values, saving=None):
    metrics = {name: FigureSummary.of([v], unit, title="", definition="", shown=unit) for name, v, unit in values}
    return headline({"m": metrics}, {"m": rules}, {} if saving is None else {"m": saving})[0]


@pytest.mark.parametrize(
    ("nmae", "rating", "words"),
    [
        (8.19, "poor", "Hardly better than free atoms alone (8.29 %)."),
        (8.50, "poor", "No better than free atoms alone (8.29 %)."),
        (1.50, "fair", "18 % of the 8.29 % of free atoms alone."),
        (0.40, "good", "4.8 % of the 8.29 % of free atoms alone."),
        (2.10, "poor", "25 % of the 8.29 % of free atoms alone."),
    ],
)
def test_densities_are_rated_against_free_atoms(nmae, rating, words):
    item = _one(DensityJudge.rules, [("density_nmae", nmae, "%"), ("density_nmae_free_atoms", 8.29, "%")])
    assert (item.rating, item.verdict) == (rating, f"{words} Worst of 1: {readable([nmae], '%').text(nmae)}.")
    assert item.shown == readable([nmae], "%").text(nmae)


@pytest.mark.parametrize(
    ("mae", "baseline", "rating", "words"),
    [
        (3.59e-6, 17.3e-3, "good", "0.021 % of the 17.3 mEh of H0 alone."),
        (40e-6, 45e-6, "poor", "Hardly better than H0 alone (45.0 µEh)."),
        (40e-6, 30e-6, "poor", "No better than H0 alone (30.0 µEh)."),
        (222e-6, 4715e-6, "fair", "4.7 % of the 4.71 mEh of H0 alone."),
        (40e-6, 100e-6, "fair", "40 % of the 100 µEh of H0 alone."),
        (5.98e-3, 9.79e-3, "poor", "61 % of the 9.79 mEh of H0 alone."),
    ],
)
def test_hamiltonians_are_rated_against_what_needs_no_network(mae, baseline, rating, words):
    item = _one(HamiltonianJudge.rules, [("hamiltonian_mae", mae, "hartree"), ("baseline_mae", baseline, "hartree")])
    assert item.rating == rating
    assert item.verdict.startswith(words)


def test_without_a_baseline_the_limits_alone_count():
    item = _one(HamiltonianJudge.rules, [("hamiltonian_mae", 40e-6, "hartree")])
    assert (item.rating, item.verdict) == ("good", "Worst of 1: 40.0 µEh.")


def test_an_scf_that_the_surrogate_loses_is_poor():
    saving = Saving(
        molecules=4,
        converged_both=3,
        share_converged=0.75,
        share_converged_minao=1.0,
        cycle_ratio=0.4,
        fock_build_ratio=0.5,
        wall_time_ratio=0.6,
    )
    cycles = [("scf_cycles", 4.0, "cycles"), ("scf_cycles_minao", 10.0, "cycles")]
    item = _one((), cycles, saving)
    assert item.rating == "poor"
    assert "40 % of the 10.0 cycles of minao. 60 % of the wall time. 3 of 4 SCFs converge." in item.verdict
    kept = saving.model_copy(update={"share_converged": 1.0})
    assert _one((), cycles, kept).rating == "good"


def test_rules_are_in_order():
    for rule in (*DensityJudge.rules, *HamiltonianJudge.rules):
        assert isinstance(rule, Rule)
        assert rule.limits[0] <= rule.limits[1]
        assert rule.shares[0] < rule.shares[1] < 0.8


# -- distances ---------------------------------------------------------------------------------------------------------


def _water(count):
    """Distances in Angstrom of distorted waters, O-H and H-H."""
    rng = np.random.default_rng(count)
    positions = np.array([[0.0, 0.0, 0.0], [0.0, 0.76, 0.59], [0.0, -0.76, 0.59]])
    moved = positions + rng.normal(scale=0.05, size=(count, 3, 3))
    i, j = np.triu_indices(3, k=1)
    return np.linalg.norm(moved[:, i] - moved[:, j], axis=2).ravel()


PEAKS = {
    1.09: (0.015, 600),
    1.40: (0.03, 200),
    1.53: (0.02, 200),
    1.78: (0.02, 250),
    2.16: (0.05, 700),
    2.52: (0.04, 250),
}
"""Distances of organic molecules: X-H, aromatic and single bonds, geminal pairs, second and third neighbours."""


def _organic():
    rng = np.random.default_rng(0)
    near = [rng.normal(centre, width, count) for centre, (width, count) in PEAKS.items()]
    return np.concatenate([*near, 2.3 + rng.gamma(3.0, 0.8, 4000)])


@pytest.mark.parametrize("count", [5, 40, 400])
def test_no_bin_cuts_the_oh_peak_of_water(count):
    distances = _water(count)
    bonds, *others = by_distance(distances, distances)
    expected = np.sort(distances)[: 2 * count]
    assert (bonds.count, bonds.start_angstrom, bonds.stop_angstrom) == (2 * count, expected[0], expected[-1])
    assert sum(b.count for b in others) == count


def test_no_bin_cuts_a_peak_of_organic_molecules():
    distances = _organic()
    borders = np.array(peak_borders(distances))
    for centre, (width, _) in PEAKS.items():
        assert np.abs(borders - centre).min() > 1.5 * width, centre
    for low, high in ((1.09, 1.40), (1.53, 1.78), (1.78, 2.16)):
        assert ((borders > low) & (borders < high)).any(), (low, high)
    found = by_distance(distances, distances)
    assert 7 <= len(found) <= 16
    assert sum(b.count for b in found) == len(distances)
    assert all(b.stop_angstrom < a.start_angstrom for b, a in pairwise(found))
    assert max(b.stop_angstrom - b.start_angstrom for b in found[:-3]) < 1.3


def test_equal_distances_are_one_bin():
    (only,) = by_distance(np.full(4, 0.74), np.arange(4.0))
    assert (only.start_angstrom, only.stop_angstrom, only.count, only.mean) == (0.74, 0.74, 4, 1.5)


# -- settings in words -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "not set"),
        (True, "yes"),
        (False, "no"),
        (0, "0"),
        (1, "1"),
        ([], "none"),
        ({}, "none"),
        ([1, (2.0, None)], "1, 2.00, not set"),
        ({"a": {"b": True}, "c": []}, "a.b yes, c none"),
        (1e-10, "1.00 \u00d7 10⁻¹⁰"),
        ("x" * 500, "x" * 400 + "..."),
    ],
)
def test_settings_are_words(value, words):
    assert spoken(value) == words


def test_nested_settings_are_flat():
    config = {"model": {"encoder": {"layers": 2, "average_neighbours": None}}, "seed": 0, "extensions": []}
    assert list(spoken_settings(config)) == [
        ("model.encoder.layers", "2"),
        ("model.encoder.average_neighbours", "not set"),
        ("seed", "0"),
        ("extensions", "none"),
    ]


def test_the_page_speaks_no_python_and_no_powers_of_ten_before_a_unit(compared):
    shown, showcase = compared
    training = {"config": {"model": {"layers": 2, "reach": None}, "shuffle": True}, "extensions": [], "sizes": (1, 2)}
    models = [m.model_copy(update={"training": training}) for m in shown.models]
    html = render_report(shown.model_copy(update={"models": models}), showcase)
    words = Page(html.partition("<body>")[2].partition("</body>")[0]).words.replace(HOSTILE_NAME, "water")
    assert "config.model.reach" in words
    for syntax in ("{", "}", "': ", "[]", "['", "()", "None", "True", "False", "e-0", "e+0"):
        assert syntax not in words, syntax
    powers = re.findall(r"\d [^\s\d] 10[⁻⁰-⁹¹²³]+ [pnµmk]?(?:Eh|eV|D|e|s)\b", words)
    assert set(powers) <= {"1 \u00d7 10⁻¹⁰ Eh"}  # a threshold of the method


# -- rooms -------------------------------------------------------------------------------------------------------------

SHARED = sorted(p.stem for p in Path(comparison.__file__).parent.glob("*.py") if p.stem != "schema")


@pytest.mark.parametrize("module", SHARED)
def test_no_shared_module_of_the_comparison_asks_for_a_quantity(module):
    """Kinds are words of judges; ``density`` alone is a word of every quantity that has one."""
    text = (Path(comparison.__file__).parent / f"{module}.py").read_text(encoding="utf-8")
    for kind in BUILT_IN:
        assert f'"{kind}"' not in text
    assert "hamiltonian_" not in text
    assert "baseline_mae" not in text
