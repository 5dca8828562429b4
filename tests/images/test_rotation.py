"""An embedding of images that no rotation changes, and an angle that turns with them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from qcsurrogate.errors import SpecError
from qcsurrogate.images.model import PlainAutoencoder, RotationAutoencoder, plain_like
from qcsurrogate.images.reading import read_images
from qcsurrogate.images.rotation import CircularHarmonics, on_canvas, rotate
from qcsurrogate.images.training import compare, evaluate

SIDE = 24


@pytest.fixture(scope="module")
def digits() -> Tensor:
    """(32, 24, 24) float64."""
    return torch.from_numpy(on_canvas(read_images("digits").taken(range(32)), SIDE, 16).pixels).double()


@pytest.fixture
def model() -> RotationAutoencoder:
    torch.manual_seed(0)
    model = RotationAutoencoder(SIDE, embedding=8, width=32).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def turn(images: Tensor, angle: float) -> Tensor:
    return rotate(images, torch.full((len(images),), angle, dtype=images.dtype))


def difference(angles: Tensor, expected: Tensor | float) -> Tensor:
    return ((angles - expected + math.pi) % (2 * math.pi) - math.pi).abs()


def test_images_turn_counter_clockwise_and_back(digits: Tensor) -> None:
    for quarters in range(4):
        turned = turn(digits, quarters * math.pi / 2)
        torch.testing.assert_close(turned, torch.rot90(digits, quarters, (1, 2)), atol=1e-12, rtol=0)
    there = turn(turn(digits, 0.3), -0.3)
    assert (there - digits).square().mean() < 0.02 * digits.square().mean()


def test_a_square_canvas_holds_what_is_turned(digits: Tensor) -> None:
    mass = digits.sum((1, 2))
    torch.testing.assert_close(turn(digits, math.pi / 4).sum((1, 2)), mass, rtol=0.02, atol=0)


def test_circular_harmonics_turn_by_phases(digits: Tensor) -> None:
    harmonics = CircularHarmonics(SIDE, 8)
    own, orders = harmonics(digits), torch.arange(9, dtype=torch.float64)
    quarter = harmonics(torch.rot90(digits, 1, (1, 2)))
    phases = torch.exp(-0.5j * math.pi * orders)
    assert (quarter - own * phases).abs().max() < 1e-12
    turned = harmonics(turn(digits, 0.4))
    wrong = (turned - own * torch.exp(-0.4j * orders)).abs().square().sum((0, 1)) / own.abs().square().sum((0, 1))
    assert wrong[:3].max() < 0.01  # interpolation dampens what is fine, and little else
    assert wrong.max() < 0.2
    assert (turned - own).abs().square().sum() > 10 * (turned - own * torch.exp(-0.4j * orders)).abs().square().sum()


def test_quarter_turns_are_exact(digits: Tensor, model: RotationAutoencoder) -> None:
    embeddings, angles = model.encode(digits)
    for quarters in (1, 2, 3):
        turned = torch.rot90(digits, quarters, (1, 2))
        again, others = model.encode(turned)
        torch.testing.assert_close(again, embeddings, atol=1e-12, rtol=0)
        assert difference(others - angles, quarters * math.pi / 2).max() < 1e-9
        torch.testing.assert_close(model(turned), torch.rot90(model(digits), quarters, (1, 2)), atol=1e-9, rtol=0)
        torch.testing.assert_close(model.loss(turned), model.loss(digits), atol=1e-12, rtol=1e-10)


def test_any_turn_changes_the_embedding_by_what_resampling_does(digits: Tensor, model: RotationAutoencoder) -> None:
    embeddings, angles = model.encode(digits)
    turned, others = model.encode(turn(digits, 0.7))
    spread = (embeddings - embeddings.mean(0)).square().mean().sqrt()
    assert (turned - embeddings).square().mean().sqrt() < 0.25 * spread
    assert difference(others - angles, 0.7).median() < 0.1
    plain = plain_like(model, SIDE, 8).double()
    own, other = plain.encode(digits)[0], plain.encode(turn(digits, 0.7))[0]
    assert (own - other).square().mean().sqrt() > 0.5 * (own - own.mean(0)).square().mean().sqrt()


def test_images_without_direction_have_gradients(model: RotationAutoencoder) -> None:
    blank = torch.zeros(2, SIDE, SIDE, dtype=torch.float64)
    ring = rotate(torch.ones(1, SIDE, SIDE, dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
    for images in (blank, ring):
        model.zero_grad()
        model.loss(images).backward()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_both_have_the_same_size() -> None:
    own = RotationAutoencoder(SIDE)
    plain = plain_like(own, SIDE, 16)
    assert isinstance(plain, PlainAutoencoder)
    assert abs(plain.n_parameters / own.n_parameters - 1) < 0.01


def test_what_knows_rotations_finds_more_neighbours() -> None:
    images = read_images("digits").taken(range(450))
    found = compare(images, n_train=300, steps=40, seed=0, side=SIDE, size=16)
    own, plain = found["rotation"], found["plain"]
    assert own.accuracy > plain.accuracy + 0.1
    assert own.change < 0.2 < plain.change
    assert own.error < own.variance
    with pytest.raises(SpecError, match="without labels"):
        evaluate(RotationAutoencoder(8), replace(images, labels=None), images, seed=0)
    assert np.isfinite([own.cpu_seconds, plain.cpu_seconds]).all()
