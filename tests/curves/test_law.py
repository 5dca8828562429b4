"""The law of a learning curve, the order in which molecules join, and how a curve is shown."""

from __future__ import annotations

import numpy as np
import pytest

from qcsurrogate.comparison.schema import FigureSummary, Settings
from qcsurrogate.curves.picture import draw
from qcsurrogate.curves.schema import Curve, LearningCurve, Point, PowerLaw
from qcsurrogate.curves.subsets import checked_sizes, nested_order
from qcsurrogate.curves.text import lines, markdown
from qcsurrogate.errors import SpecError
from qcsurrogate.structures import Structure

SIZES = [60, 60, 180, 180, 500, 500]


def test_an_exact_law_is_found() -> None:
    law = PowerLaw.fit(SIZES, [0.3 * n**-0.7 for n in SIZES])
    assert law is not None
    assert (law.prefactor, law.exponent) == (pytest.approx(0.3), pytest.approx(0.7))
    assert law.exponent_error == pytest.approx(0.0, abs=1e-7)
    np.testing.assert_allclose(law.at(np.array([10.0, 100.0])), 0.3 * np.array([10.0, 100.0]) ** -0.7)


def test_scatter_gives_the_standard_error_of_a_linear_regression() -> None:
    values = [5.0, 4.0, 2.2, 2.9, 1.1, 1.4]
    law = PowerLaw.fit(SIZES, values)
    slope, covariance = np.polyfit(np.log(SIZES), np.log(values), 1, cov=True)
    assert law is not None
    assert law.exponent == pytest.approx(-slope[0])
    assert law.exponent_error == pytest.approx(np.sqrt(covariance[0, 0]))


def test_no_law_without_two_sizes_or_with_a_zero() -> None:
    assert PowerLaw.fit([60, 60], [1.0, 2.0]) is None
    assert PowerLaw.fit([60, 180], [1.0, 0.0]) is None
    two = PowerLaw.fit([10, 100], [1.0, 0.1])
    assert two is not None
    assert (two.exponent, two.exponent_error) == (pytest.approx(1.0), None)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ([], r"expected one or more numbers of 1 or more, got \[\]"),
        ([5, 0], "numbers of 1 or more"),
        ([7, 5, 7], "7 is there twice; expected each size once"),
        ([5, 11], "11 is more than the 10 complete molecules of the training split; expected at most 10"),
    ],
)
def test_impossible_sizes(sizes: list[int], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        checked_sizes(sizes, 10)


def test_sizes_are_sorted() -> None:
    assert checked_sizes([10, 2, 5], 10) == [2, 5, 10]


class Molecules:
    """What ``nested_order`` asks of a store."""

    path = "somewhere"

    def __init__(self, **splits: list[Structure]) -> None:
        self._splits = {split: {f"{split}{i}": s for i, s in enumerate(own)} for split, own in splits.items()}

    def keys(self, split: str) -> list[str]:
        return list(self._splits[split])

    def structure(self, key: str) -> Structure:
        return next(own[key] for own in self._splits.values() if key in own)


def molecule(*numbers: int, charge: int = 0, spin: int = 0) -> Structure:
    return Structure(np.array(numbers), 2.0 * np.arange(3 * len(numbers)).reshape(-1, 3), charge=charge, spin=spin)


def test_the_order_is_random_reproducible_and_complete() -> None:
    store = Molecules(train=[molecule(1, 1)] * 30, validation=[molecule(1, 1)], test=[molecule(1, 1)])
    order, first = nested_order(store, 3)  # type: ignore[arg-type]
    assert first == 1
    assert sorted(order) == sorted(store.keys("train"))
    assert order == nested_order(store, 3)[0]  # type: ignore[arg-type]
    assert order != nested_order(store, 4)[0]  # type: ignore[arg-type]


def test_what_validation_and_test_hold_comes_first() -> None:
    train = [molecule(1, 1)] * 40 + [molecule(9, 1), molecule(1, spin=1), molecule(10)]
    store = Molecules(train=train, validation=[molecule(1, 1), molecule(1, spin=1)], test=[molecule(9, 9)])
    for seed in range(3):
        order, first = nested_order(store, seed)  # type: ignore[arg-type]
        assert {"train40", "train41"} <= set(order[:first])
        assert first <= 3
        assert "train42" not in order[:first]  # neon is nowhere else


def test_what_the_training_split_lacks_is_named() -> None:
    store = Molecules(
        train=[molecule(1, 1)], validation=[molecule(1, 1)], test=[molecule(9, 1), molecule(1, 1, charge=2)]
    )
    with pytest.raises(SpecError, match="hold F, charge 2 with spin 0, which its training split lacks"):
        nested_order(store, 0)  # type: ignore[arg-type]


def example(name: str = "molecules", *, failures: int = 0) -> LearningCurve:
    """Two seeds of three sizes, with a floor."""
    points = [
        Point(
            size=size,
            seed=seed,
            run=f"seed_{seed}/size_{size}",
            model_sha256="0" * 64,
            best_step=5,
            cpu_time_s=1.0,
            failures=failures,
            headline={"error": "Error"},
            figures={
                "error": FigureSummary.of(
                    [(1 + 0.2 * seed) * size**-0.5, 2 * size**-0.5], "hartree", title="Error", definition="", shown="eV"
                )
            },
        )
        for size in (60, 180, 500)
        for seed in (0, 1)
    ]
    sizes, means = [p.size for p in points], [p.figures["error"].mean for p in points]
    law = PowerLaw.fit(sizes, means)
    curve = Curve(title="Error", unit="hartree", shown="eV", definition="", floor=0.01, mean_law=law, median_law=law)
    return LearningCurve(
        created="now",
        versions={},
        kind="toy",
        data=name,
        dataset_hash="0",
        split_sizes={"train": 600, "validation": 10, "test": 20},
        config={"preset": "small", "model": {}, "training": {"steps": 1500}},
        settings=Settings(split="test", limit=5, scf_molecules=0, density_molecules=4, seed=0, threads=1),
        sizes=[60, 180, 500],
        seeds=[0, 1],
        points=points,
        unfinished=[],
        shown=["error"],
        curves={"error": curve},
    )


def test_a_curve_is_drawn_the_same_each_time() -> None:
    svg, png = draw(example(), "svg"), draw(example(), "png")
    assert svg.startswith(b"<?xml")
    assert b"Date" not in svg
    assert svg == draw(example(), "svg")
    assert png.startswith(b"\x89PNG")


def test_a_curve_in_words() -> None:
    words = "\n".join(lines(example()))
    assert "Error: N^-0.50 ± " in words
    assert "twice the molecules divide it by 1.41; floor 272 meV" in words
    assert "5.45 (5.27 to 5.62)" in words
    page = markdown(example())
    assert "Means over 5 test molecules (densities on a grid: 4) of models" in page
    assert "preset small, 1,500 steps for every size" in page
    assert "| 180 | 3.14 (3.04 to 3.25) |" in page


def test_failures_are_said() -> None:
    assert "measurements failed" in "\n".join(lines(example(failures=2)))


def test_a_name_is_no_markup() -> None:
    assert "<script" not in markdown(example("<script>[x](y)"))
    assert "](y)" not in markdown(example("<script>[x](y)"))
