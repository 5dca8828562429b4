from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

from qcsurrogate.comparison import pictures, sections
from qcsurrogate.comparison.collect import calibration
from qcsurrogate.comparison.figures import DENSITY_NMAE, DIPOLE
from qcsurrogate.comparison.report import _warnings, render_report
from qcsurrogate.comparison.run import compare_subjects
from qcsurrogate.comparison.schema import Failure, PairSummary
from qcsurrogate.comparison.showcase import Plane, PlaneDensities
from qcsurrogate.comparison.subjects import Curve
from qcsurrogate.comparison.text import number
from qcsurrogate.prediction.uncertainty import ExpectedError
from qcsurrogate.quantities.hamiltonian.breakdown import BlockErrors, shell_names
from qcsurrogate.quantities.hamiltonian.judge import _shell_pictures
from qcsurrogate.structures import Structure
from qcsurrogate.units import duration
from tests.compare.conftest import METHOD, settings
from tests.compare.known import HOSTILE_NAME, known_density, known_hamiltonian, symmetric_noise
from tests.molecules import WATER

VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Tags in order, attributes, and whether every tag is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def _svg_of(source: str) -> ElementTree.Element:
    prefix = "data:image/svg+xml;base64,"
    assert source.startswith(prefix)
    return ElementTree.fromstring(base64.b64decode(source.removeprefix(prefix)))


@pytest.fixture(scope="module")
def html(compared) -> str:
    return render_report(*compared)


@pytest.fixture(scope="module")
def page(html) -> Page:
    return Page(html)


def test_the_page_is_closed_and_has_one_title(page):
    assert page.open == []
    assert len(page.all("title")) == len(page.all("h1")) == 1
    assert page.all("html")[0]["lang"] == "en"


def test_nothing_is_loaded_from_outside(html, page):
    assert not re.search(r"https?://|//[a-z]|@import|url\(", html)
    assert {name for name, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object", "embed"})
    assert all(a["src"].startswith("data:image/svg+xml;base64,") for a in page.all("img"))
    assert "default-src 'none'" in page.all("meta")[2]["content"]


def test_pictures_hold_no_script_and_no_outside_reference(page):
    for image in page.all("img"):
        for element in _svg_of(image["src"]).iter():
            assert not element.tag.endswith(("script", "foreignObject"))
            for name, value in element.attrib.items():
                if name.endswith("href"):
                    assert value.startswith(("#", "data:image/png;base64,"))


def test_every_picture_says_what_it_shows(html, page):
    images = page.all("img")
    assert len(images) >= 16
    assert "figure.wide img { max-width: none; }" in html
    assert all(len(image["alt"]) > 30 for image in images)
    assert len({image["alt"] for image in images}) == len(images)


def test_hostile_names_are_text(html, page):
    assert HOSTILE_NAME not in html
    assert page.words.count(f"{HOSTILE_NAME}_") > 5


@pytest.mark.parametrize(
    "words",
    [
        "Occupied orbital energies",
        "HOMO-LUMO gap",
        "Orbital levels of one molecule",
        "Error by element pair",
        "Error by distance",
        "Density error: fit floor, network, total",
        "Density model minus Kohn-Sham",
        "Density fit minus Kohn-Sham",
        "What an SCF saves",
        "When to trust it",
        "Worst molecules",
        "Learning curves",
        "What was compared",
        "drawn with seed 0",
        "distorted_water",
    ],
)
def test_the_report_shows(page, words):
    assert words in page.words


def test_numbers_of_the_page_are_those_of_the_file(compared, page):
    summary = compared[0].metrics["hamiltonian"]["hamiltonian_mae"]
    assert f"{number(summary.mean * 1e6)} µEh" in page.words
    ratio = compared[0].saving["hamiltonian"].cycle_ratio
    assert f"{100 * ratio:.0f} %" in page.words


def test_the_same_picture_gives_the_same_file(compared):
    levels = compared[1].judges["hamiltonian"].shown[0]
    shown = levels.reference, levels.predicted, levels.n_occupied
    assert pictures.level_diagram(*shown) == pictures.level_diagram(*shown)


def test_perfect_models_can_be_drawn(perfect):
    Page(render_report(*perfect))


def test_one_density_model_and_one_molecule_are_enough(store):
    asked = settings(limit=1, scf_molecules=1, density_molecules=0)
    comparison, showcase = compare_subjects([known_density(store)], store, asked, quiet=True)
    page = Page(render_report(comparison, showcase))
    assert "1 molecule of the test split" in page.words
    assert "What an SCF saves" not in page.words
    assert showcase.plane is None
    assert comparison.scf == []


@pytest.mark.slow
def test_two_models_of_one_kind_stand_side_by_side(store):
    subjects = [
        known_hamiltonian(store, symmetric_noise(1e-5, seed=seed), label=f"hamiltonian ({HOSTILE_NAME} {seed})")
        for seed in (1, 2)
    ]
    asked = settings(limit=3, scf_molecules=2, density_molecules=2)
    comparison, showcase = compare_subjects(subjects, store, asked, quiet=True)
    page = Page(render_report(comparison, showcase))
    assert len(comparison.saving) == len(comparison.trust) == len(comparison.breakdowns) == 2
    assert all(set(row.surrogates) == {s.label for s in subjects} for row in comparison.scf)
    anchors = [a["id"] for a in page.all("section") if "id" in a]
    assert len(anchors) == len(set(anchors))


def test_densities_of_all_models_stand_side_by_side(compared):
    comparison, _ = compared
    figures = (DENSITY_NMAE, DIPOLE)
    table = sections.side_by_side(comparison, figures)
    labels = [label for label in comparison.metrics if "density_nmae" in comparison.metrics[label]]
    assert len(table.rows) == 2 * len(labels)
    assert len(labels) >= 2
    own = {label: np.array(comparison.values(label, "dipole_error")) for label in labels}
    best = np.min(list(own.values()), axis=0)
    for row, label in zip(table.rows[len(labels) :], labels, strict=True):
        assert row[2] == str(len(best))
        assert row[-1] == str(int((own[label] == best).sum()))
    one = comparison.model_copy(update={"metrics": {labels[0]: comparison.metrics[labels[0]]}})
    assert sections.side_by_side(one, figures) is None


def test_training_data_is_called_so(compared):
    comparison, _ = compared
    trained = comparison.model_copy(update={"settings": settings(split="train")})
    assert _warnings(comparison) == []
    assert "were trained on" in _warnings(trained)[0]


def test_failures_are_in_the_report(compared):
    comparison, _ = compared
    assert sections.failures(comparison) is None
    failure = Failure(key="0", name=HOSTILE_NAME, model="density", stage="prediction", message="it burst")
    failed = comparison.model_copy(update={"failures": [failure]})
    assert _warnings(failed) == ["1 measurement failed; see the section on failures."]
    assert sections.failures(failed).tables[0].rows == [(HOSTILE_NAME, "density", "prediction", "it burst")]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (1234.5, "1,230"),
        (0.012345, "0.0123"),
        (9.996, "10.0"),
        (0.9999, "1.00"),
        (2.0, "2.00"),
        (-3.14159, "-3.14"),
        (4.5e-7, "4.50 \u00d7 10⁻⁷"),
        (9.999e-8, "1.00 \u00d7 10⁻⁷"),
    ],
)
def test_numbers_for_people(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.26, "0.3 s"),
        (45, "45 s"),
        (120, "2 min"),
        (200, "3 min 20 s"),
        (7500, "2 h 5 min"),
        (900_000, "10 days 10 h"),
    ],
)
def test_durations_for_people(seconds, text):
    assert duration(seconds) == text


def test_the_plane_of_water_holds_its_atoms():
    plane = Plane.of(WATER)
    in_plane, heights = plane.coordinates(WATER.positions)
    assert np.abs(heights).max() < 1e-10
    assert np.abs(in_plane).max() < plane.half_width
    assert plane.axes @ plane.axes.T == pytest.approx(np.eye(2), abs=1e-12)
    points = plane.points(5)
    assert np.abs(plane.coordinates(points)[1]).max() < 1e-10
    corners = plane.coordinates(points[[0, 4, 20, 24]])[0] / plane.half_width
    assert corners == pytest.approx(np.array([[-1, -1], [1, -1], [-1, 1], [1, 1]]), abs=1e-10)


@pytest.mark.parametrize("positions", [[[0.0, 0, 0]], [[0.0, 0, 0], [0, 0, 1.4]], [[0.0, 0, 0], [0, 0, 2], [0, 0, 4]]])
def test_atoms_and_linear_molecules_have_a_plane_too(positions):
    structure = Structure(np.full(len(positions), 2), np.array(positions))
    plane = Plane.of(structure)
    assert plane.axes @ plane.axes.T == pytest.approx(np.eye(2), abs=1e-12)
    assert np.abs(plane.coordinates(structure.positions)[1]).max() < 1e-10


def test_shells_are_named_as_chemists_do():
    names = [name for name, _ in shell_names(METHOD.model_copy(update={"basis": "def2-svp"}).orbital_basis([8]), 8)]
    assert names == ["O 1s", "O 2s", "O 3s", "O 2p", "O 3p", "O 3d"]


def test_a_single_atom_has_no_distances():
    blocks = BlockErrors(METHOD.orbital_basis([2]))
    blocks.add(Structure(np.array([2]), np.zeros((1, 3))), np.ones((1, 1)), np.zeros((1, 1)))
    found = blocks.summary()
    assert found.distances == []
    assert [pair.atoms for pair in found.element_pairs] == ["same"]


def test_pictures_of_nothing_but_zeros():
    zeros = np.zeros(3)
    sources = [
        pictures.parity(zeros, zeros, "energy"),
        pictures.scatter(np.ones(3), zeros, ("distance", "error"), logarithmic="y", bars=[(1.0, 1.5, 0.0)]),
        pictures.heat_map(["H", "one atom"], ["H"], np.array([[np.nan], [0.0]]), rule=1),
        pictures.boxes({"a": [0.0], "b": [0.0, 0.0]}, "error", ["a"]),
        pictures.scatter(zeros, zeros, ("commutator", "error")),
        pictures.learning_curve({"loss": Curve("loss", (1.0,), (-1.0,))}, "", "loss"),
        pictures.spread_of_errors(zeros, "error"),
        pictures.level_diagram(np.array([-0.5]), np.array([-0.5]), 1),
        pictures.level_diagram(np.array([-99.0]), np.array([-99.0]), 1),
        pictures.plane_picture(
            PlaneDensities("x", WATER, Plane.of(WATER), np.zeros((9, 9)), {"a": np.zeros((9, 9))}), "a", 1e-12
        ),
    ]
    assert all(_svg_of(source).tag.endswith("svg") for source in sources)


def test_labels_of_dense_levels_do_not_overlap():
    heights = pictures._spread([0.0, 0.01, 0.02, 5.0, 5.0], 0.5)
    assert np.diff(heights).min() >= 0.5 - 1e-12
    assert np.mean(heights[:3]) == pytest.approx(0.01)


def _inches(source: str) -> tuple[float, float]:
    svg = _svg_of(source)
    return float(svg.attrib["width"].removesuffix("pt")) / 72, float(svg.attrib["height"].removesuffix("pt")) / 72


SHELLS = ("1s", "2s", "3s", "2p", "3p", "3d")


def test_a_heat_map_leaves_out_columns_without_a_value():
    """Water has no pair of oxygens: six empty columns made the others small."""
    values = np.full((9, 9), np.nan)
    values[:, :3] = 1e-6
    names = [f"H {shell}" for shell in SHELLS[1:4]] + [f"O {shell}" for shell in SHELLS]
    assert pictures.heat_map(names, names, values) == pictures.heat_map(names, names[:3], values[:, :3])


@pytest.mark.parametrize("elements", ["HO", "HCNOF", "HCNOFPSBI"])
def test_every_shell_of_a_heat_map_has_room_for_its_label(elements):
    """A fifth of an inch a row holds 8 points; the picture grows, keeps its size in the page and scrolls."""
    shells = [f"{element} {shell}" for element in elements for shell in SHELLS]
    pairs = [
        PairSummary.of([1e-6], "hartree", first=a, second=b, atoms=atoms)
        for i, a in enumerate(shells)
        for b in shells[i:]
        for atoms in ("same", "different")
        if atoms == "different" or a[0] == b[0]
    ]
    one_atom, two_atoms = _shell_pictures(pairs)
    assert (one_atom.wide, two_atoms.wide) == (False, len(shells) > 10)
    for picture in (one_atom, two_atoms):
        height = float(_svg_of(picture.source).attrib["height"].removesuffix("pt")) / 72
        assert height >= 0.2 * len(shells)
    width = float(_svg_of(two_atoms.source).attrib["width"].removesuffix("pt")) / 72
    assert width >= 0.2 * len(shells)


def test_expected_errors_are_held_against_actual_ones(compared):
    comparison = compared[0]
    found = comparison.calibration["hamiltonian"]["hamiltonian_mae"]
    actual = comparison.values("hamiltonian", "hamiltonian_mae")
    assert found.molecules == len(actual) == 5
    assert found.expected == pytest.approx(1e-5)  # what the known model expects of every block
    assert found.actual == pytest.approx(np.mean(actual))
    assert found.within_50 == np.mean(np.array(actual) <= 0.8e-5)
    assert found.within_95 == np.mean(np.array(actual) <= 2.4e-5)
    assert found.rank_correlation is None
    assert found.ence is None
    molecule = comparison.molecules[0]
    assert molecule.expected["density"] == {"density_nmae_network": pytest.approx(0.01 * (3 / 10) ** 0.5)}
    section = sections.calibration(comparison, "hamiltonian")
    assert section.title == "How well it knows its own errors: hamiltonian"
    assert len(section.pictures) == len(section.tables[0].rows) == 5
    assert all(_svg_of(picture.source).tag.endswith("svg") for picture in section.pictures)


def test_calibration_of_expected_errors_that_are_twice_too_large():
    pairs = [(ExpectedError(2.0 * x, "1", (1.8 * x, 3.0 * x, 4.0 * x)), x) for x in np.linspace(1.0, 2.0, 20)]
    found = calibration(pairs)
    assert (found.within_50, found.within_80, found.within_95) == (1.0, 1.0, 1.0)
    assert found.ence == pytest.approx(0.5)
    assert found.rank_correlation == pytest.approx(1.0)
    assert found.expected == pytest.approx(2 * found.actual)
