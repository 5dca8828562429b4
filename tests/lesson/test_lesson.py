"""The lesson from nothing to its page, with networks of a few steps."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from qcsurrogate.cli import main
from qcsurrogate.errors import SpecError
from qcsurrogate.lesson.contest import CONTESTANTS, Contestant, LessonSettings, judged, train
from qcsurrogate.lesson.page import Lesson
from qcsurrogate.lesson.pictures import draw_contest, readable_on
from qcsurrogate.lesson.poses import example, poses
from qcsurrogate.lesson.run import ROTATION, lesson
from qcsurrogate.quantities.property.networks import NETWORKS, NetworkSettings
from qcsurrogate.structures import Structure
from tests.quantities.test_property_networks import FORMAMIDE, WATER

SETTINGS = LessonSettings(sizes=(4, 8), test=6, steps=2, batch_size=2)
SMALL = (
    Contestant("none", "no symmetry", NetworkSettings(network="naive", channels=8)),
    Contestant("augmented", "turned", NetworkSettings(network="naive", channels=8), augmented=True),
    Contestant("invariant", "invariant", NetworkSettings(network="invariant", channels=8)),
)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Lesson]:
    out = tmp_path_factory.mktemp("lesson")
    return out, lesson(out, SETTINGS, contestants=SMALL, workers=1, formats=["svg"], quiet=True)


def test_the_page_stands_alone_and_holds_every_table(written: tuple[Path, Lesson]) -> None:
    out, measured = written
    page = (out / "lesson.html").read_text(encoding="utf-8")
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert page.count("<table>") == 4
    assert page.count("data:image/svg+xml") == 4
    assert "Means over the molecules compared" not in page
    assert all(check.holds for check in measured.checks)
    assert "This does not hold" not in page
    for name in ("contest", "convolution", "poses_naive", "poses_invariant"):
        assert b"<svg" in (out / f"{name}.svg").read_bytes()
    assert (out / "lesson.md").read_text(encoding="utf-8").count("---: |\n") == 4


def test_pictures_are_drawn_as_png_too(written: tuple[Path, Lesson]) -> None:
    assert draw_contest(written[1].results, "png").startswith(b"\x89PNG")


def test_the_figures_are_those_of_every_network_and_size(written: tuple[Path, Lesson]) -> None:
    out, measured = written
    figures = json.loads((out / "lesson.json").read_text())
    assert [(r["key"], r["n_train"]) for r in figures["results"]] == [(c.key, n) for c in SMALL for n in (4, 8)]
    by_key = {r.key: r for r in measured.results}
    assert by_key["invariant"].change < 1e-2
    assert by_key["none"].change > 10 * by_key["invariant"].change
    assert measured.poses["invariant"].change < 1e-12
    assert measured.poses["naive"].change > 1e-2


def test_every_group_is_there() -> None:
    groups = {NETWORKS[c.settings.network].group for c in CONTESTANTS}
    assert groups == {"none", "E(3)", "O(3)"}
    assert [c.augmented for c in CONTESTANTS].count(True) == 1


def test_training_lowers_the_error_and_is_repeated_by_its_seed() -> None:
    structures = [WATER, FORMAMIDE] * 4
    rng = np.random.default_rng(0)
    structures = [s.moved(s.positions + 0.1 * rng.normal(size=s.positions.shape)) for s in structures]
    labels = np.array([float(np.square(s.positions - s.positions.mean(0)).sum()) for s in structures])
    errors = []
    for steps in (1, 2, 2, 250):
        settings = LessonSettings(steps=steps, batch_size=8, learning_rate=1e-2)
        model, _ = train(SMALL[2], structures, labels, settings)
        errors.append(judged(SMALL[2], model, 8, 0.0, structures, labels, 0).error)
    assert errors[3] < 0.5 * errors[0]
    assert errors[1] == errors[2] != errors[0]


def test_augmentation_shows_other_poses_in_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    from qcsurrogate.lesson.contest import LessonModel

    seen: list[torch.Tensor] = []
    forward = LessonModel.forward

    def watching(self: LessonModel, graph: object) -> torch.Tensor:
        seen.append(graph.positions.clone())  # type: ignore[attr-defined]
        return forward(self, graph)  # type: ignore[arg-type]

    monkeypatch.setattr(LessonModel, "forward", watching)
    water = [WATER]
    for contestant in SMALL[:2]:
        train(contestant, water, np.array([1.0]), LessonSettings(steps=2, batch_size=1))
    plain, turned = seen[:2], seen[2:]
    torch.testing.assert_close(plain[0], plain[1])
    assert float((turned[0] - turned[1]).abs().max()) > 0.1
    torch.testing.assert_close(torch.pdist(turned[0]), torch.pdist(plain[0]), rtol=0, atol=1e-5)


def test_the_example_is_the_molecule_that_it_says() -> None:
    molecule = example()
    assert (molecule.name, molecule.formula, len(molecule)) == ("gdb_814", "C5H7NO", 14)


def test_clouds_keep_their_distances(written: tuple[Path, Lesson]) -> None:
    """Three axes of a cloud that has no more are the cloud itself, turned; places only turn."""
    _, measured = written
    seen = measured.poses["naive"]
    np.testing.assert_allclose(seen.places[1], seen.places[0] @ ROTATION.T, atol=1e-12)
    assert 0.0 < seen.share <= 1.0
    assert len(seen.bonds) == 14


@pytest.mark.parametrize(
    ("colour", "text"), [("#ffffff", "#1f2937"), ("#000000", "#ffffff"), ("#dbe4ee", "#1f2937"), ("#e03131", "#ffffff")]
)
def test_numbers_can_be_read_on_light_and_dark_points(colour: str, text: str) -> None:
    assert readable_on(colour) == text


def test_more_molecules_than_there_are_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="expected numbers of 1 to 1,692"):
        lesson(tmp_path, LessonSettings(sizes=(5000,)), quiet=True)


def test_the_command_prints_data_and_says_what_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], written: tuple[Path, Lesson], tmp_path: Path
) -> None:
    _, measured = written
    asked: list[LessonSettings] = []

    def finished(out: str, settings: LessonSettings, **_: object) -> Lesson:
        asked.append(settings)
        return measured

    monkeypatch.setattr("qcsurrogate.lesson.run.lesson", finished)
    assert main(["lesson", "--out", str(tmp_path), "--steps", "7", "--seed", "3", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert (asked[0].steps, asked[0].seed) == (7, 3)
    assert len(data["results"]) == len(measured.results)
    monkeypatch.setattr("qcsurrogate.lesson.algebra.EQUAL", -1.0)
    assert main(["lesson", "--out", str(tmp_path), "--quiet"]) == 1
    assert "this does not hold: a ⊗ b turns" in capsys.readouterr().err


def test_poses_of_a_symmetric_molecule_do_not_need_three_axes() -> None:
    hydrogen = Structure([1, 1], [[0.0, 0.0, 0.0], [0.0, 0.0, 1.4]])
    model, _ = train(SMALL[2], [hydrogen], np.array([3.0]), LessonSettings(steps=1, batch_size=1))
    seen = poses(model.double(), hydrogen, ROTATION)
    assert seen.embeddings.shape == (2, 2, 3)
