"""The statements of the lesson, one by one, and that the checks notice what is wrong."""

from __future__ import annotations

import numpy as np
import pytest

from qcsurrogate.lesson import algebra
from qcsurrogate.lesson.algebra import FIRST, SECOND, Check
from qcsurrogate.lesson.poses import example, picture_of
from qcsurrogate.lesson.run import KERNEL, OTHER_ROTATION, ROTATION, SHIFT
from qcsurrogate.testing import random_rotation

ROTATIONS = [ROTATION, random_rotation(1), random_rotation(2, improper=True)]


@pytest.mark.parametrize("rotation", ROTATIONS)
def test_a_tensor_of_two_vectors_turns_from_both_sides(rotation: np.ndarray) -> None:
    turned = algebra.tensor_product(rotation @ FIRST, rotation @ SECOND)
    np.testing.assert_allclose(turned, rotation @ algebra.tensor_product(FIRST, SECOND) @ rotation.T, atol=1e-13)


@pytest.mark.parametrize("rotation", ROTATIONS)
def test_its_trace_is_14_in_every_pose(rotation: np.ndarray) -> None:
    assert np.trace(algebra.tensor_product(FIRST, SECOND)) == 14.0
    assert np.trace(algebra.tensor_product(rotation @ FIRST, rotation @ SECOND)) == pytest.approx(14.0, abs=1e-12)


@pytest.mark.parametrize("rotation", ROTATIONS)
def test_its_antisymmetric_part_is_an_axial_vector(rotation: np.ndarray) -> None:
    built_first = algebra.antisymmetric_vector(algebra.tensor_product(FIRST, SECOND))
    np.testing.assert_array_equal(built_first, [-5.0, 4.0, -1.0])
    built_after = algebra.antisymmetric_vector(algebra.tensor_product(rotation @ FIRST, rotation @ SECOND))
    np.testing.assert_allclose(np.linalg.det(rotation) * rotation @ built_first, built_after, atol=1e-13)


@pytest.mark.parametrize("rotation", ROTATIONS)
def test_nine_numbers_are_one_and_three_and_five(rotation: np.ndarray) -> None:
    """Of any tensor: each part turns by itself, also in a mirror, where all have even parity."""
    tensor = np.random.default_rng(3).normal(size=(3, 3))
    parts = algebra.decompose(tensor)
    assert [len(part) for part in parts] == [1, 3, 5]
    np.testing.assert_allclose(algebra.compose(parts), tensor, atol=1e-14)
    sign = np.linalg.det(rotation)
    for l, (part, turned) in enumerate(zip(parts, algebra.decompose(rotation @ tensor @ rotation.T), strict=True)):
        even = sign**l * algebra.wigner(l, rotation)  # Wigner matrices of functions have parity (-1)^l
        np.testing.assert_allclose(even @ part, turned, atol=1e-13)
    symmetric = tensor + tensor.T
    assert float(np.abs(algebra.decompose(symmetric)[1]).max()) < 1e-14
    assert float(np.abs(algebra.decompose(tensor - tensor.T)[2]).max()) < 1e-14


def test_wigner_matrices_are_a_homomorphism_and_orthogonal() -> None:
    r, s = ROTATIONS[1:]
    for l in range(5):
        d = algebra.wigner(l, r)
        np.testing.assert_allclose(algebra.wigner(l, r @ s), d @ algebra.wigner(l, s), atol=1e-13)
        np.testing.assert_allclose(d @ d.T, np.eye(2 * l + 1), atol=1e-13)


def test_every_statement_of_the_page_holds() -> None:
    checks = algebra.algebra_checks(ROTATION, OTHER_ROTATION)
    assert len(checks) >= 15
    assert [check.statement for check in checks if not check.holds] == []
    assert any(not check.equal for check in checks)


def test_an_image_may_be_moved_and_not_turned() -> None:
    image = picture_of(example())
    same, different, symmetric = algebra.convolution_checks(image, KERNEL, SHIFT)
    assert (same.deviation, symmetric.deviation) == (pytest.approx(0, abs=1e-13), pytest.approx(0, abs=1e-13))
    assert different.deviation > 0.1
    assert different.holds
    assert np.abs(algebra.symmetrised(KERNEL)).max() > 0.1


def test_a_convolution_is_what_its_formula_says() -> None:
    rng = np.random.default_rng(0)
    image, kernel = rng.normal(size=(6, 6)), rng.normal(size=(3, 3))
    expected = sum(kernel[i + 1, j + 1] * image[(2 + i) % 6, (5 + j) % 6] for i in (-1, 0, 1) for j in (-1, 0, 1))
    assert algebra.periodic_convolution(image, kernel)[2, 5] == pytest.approx(expected)


def test_a_check_fails_where_the_numbers_say_something_else() -> None:
    assert not Check("equal", "", "", deviation=1e-6).holds
    assert not Check("different", "", "", deviation=1e-6, equal=False).holds
    mirrored = ROTATION @ np.diag([1.0, 1.0, -1.0])
    failed = [check for check in algebra.algebra_checks(mirrored, OTHER_ROTATION) if not check.holds]
    assert [check.statement for check in failed if "rotating that vector" in check.statement]
