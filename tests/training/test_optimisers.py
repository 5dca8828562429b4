"""Optimisers, schedule, moving average and sampler."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from qcsurrogate.errors import TrainingError
from qcsurrogate.training.averaging import MovingAverage, decay_at
from qcsurrogate.training.config import TrainingConfig
from qcsurrogate.training.optimisers import learning_rate_factor, make_optimisers
from qcsurrogate.training.sampler import EpochSampler
from qcsurrogate.training.soap import SOAP
from tests.training.tiny import TinyModel


def descend(optimiser: torch.optim.Optimizer, weights: list[nn.Parameter], steps: int) -> float:
    """Loss of an ill-conditioned least-squares problem in all weights after some steps."""
    generator = torch.Generator().manual_seed(0)
    scales = [torch.logspace(0, -2, w.shape[-2], dtype=w.dtype).diag() for w in weights]
    goals = [torch.randn(w.shape, generator=generator, dtype=w.dtype) for w in weights]
    rotations = [
        torch.linalg.qr(torch.randn(w.shape[-2], w.shape[-2], generator=generator, dtype=w.dtype)).Q for w in weights
    ]
    loss = torch.tensor(0.0)
    for _ in range(steps):
        optimiser.zero_grad()
        terms = [(s @ r @ (w - g)).square().sum() for w, g, s, r in zip(weights, goals, scales, rotations, strict=True)]
        loss = torch.stack(terms).sum()
        loss.backward()
        optimiser.step()
    return float(loss.detach())


def matrices() -> list[nn.Parameter]:
    return [nn.Parameter(torch.zeros(shape)) for shape in [(6, 4), (6, 4), (3, 5, 5), (5, 5)]]


def test_soap_descends_faster_than_adam() -> None:
    soap, adam = matrices(), matrices()
    assert descend(SOAP(soap, lr=0.03), soap, 300) < 0.2 * descend(torch.optim.Adam(adam, lr=0.03), adam, 300)


def test_soap_does_not_mix_matrices() -> None:
    """A stack, and matrices that share a bucket, move as each would alone."""
    shapes = [(5, 5), (2, 3, 5, 5), (5, 5), (4, 4)]  # square: one gradient fixes the whole eigenbasis
    together, alone = ([nn.Parameter(torch.zeros(s, dtype=torch.float64)) for s in shapes] for _ in range(2))
    optimisers = [SOAP(together, lr=0.01), *(SOAP([w], lr=0.01) for w in alone)]
    generator = torch.Generator().manual_seed(0)
    for _ in range(25):
        for a, b in zip(together, alone, strict=True):
            a.grad = b.grad = torch.randn(a.shape, generator=generator, dtype=torch.float64)
        for optimiser in optimisers:
            optimiser.step()
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


def test_soap_is_adam_where_nothing_is_preconditioned() -> None:
    """With both sides too long, what is left is Adam without its first step."""
    weights = [nn.Parameter(torch.zeros(6, 4))]
    reference = [nn.Parameter(torch.zeros(6, 4))]
    soap = SOAP(weights, lr=0.01, maximum_dimension=3)
    descend(soap, weights, 21)
    descend(torch.optim.Adam(reference, lr=0.01, betas=(0.95, 0.95), eps=1e-8), reference, 20)
    torch.testing.assert_close(weights[0], reference[0], rtol=1e-4, atol=1e-6)


def test_soap_is_equivariant_under_rotation_of_the_columns() -> None:
    """The eigenbasis follows the gradient: training in rotated coordinates is the same training."""
    torch.manual_seed(3)
    inputs, targets = torch.randn(50, 4, dtype=torch.float64), torch.randn(50, 4, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64)).Q
    results = []
    for turn in (torch.eye(4, dtype=torch.float64), rotation):
        weight = nn.Parameter(torch.zeros(4, 4, dtype=torch.float64))
        optimiser = SOAP([weight], lr=0.01)
        for _ in range(40):
            optimiser.zero_grad()
            ((inputs @ weight - targets @ turn) ** 2).mean().backward()
            optimiser.step()
        results.append(weight.detach() @ turn.T)
    torch.testing.assert_close(results[0], results[1], rtol=1e-6, atol=1e-9)


def test_soap_takes_missing_gradients_as_zero_and_refuses_vectors() -> None:
    weights = matrices()
    optimiser = SOAP(weights, lr=0.01)
    for _ in range(3):
        weights[0].grad = torch.ones_like(weights[0])
        optimiser.step()
    assert weights[0].abs().sum() > 0
    assert weights[1].abs().sum() == 0
    assert weights[2].abs().sum() == 0
    with pytest.raises(ValueError, match="give vectors to another optimiser"):
        SOAP([nn.Parameter(torch.zeros(3))], lr=0.1)


def test_each_parameter_has_one_optimiser() -> None:
    model = TinyModel()
    optimisers = make_optimisers(model.parameters(), model.preconditioned_parameters(), TrainingConfig())
    assert [type(o).__name__ for o in optimisers] == ["SOAP", "AdamW"]
    taken = Counter(id(p) for o in optimisers for g in o.param_groups for p in g["params"])
    assert taken == Counter(id(p) for p in model.parameters())
    alone = make_optimisers(model.parameters(), model.preconditioned_parameters(), TrainingConfig(optimiser="adamw"))
    assert [type(o).__name__ for o in alone] == ["AdamW"]


def test_nothing_to_train_and_vectors_for_soap_are_refused() -> None:
    with pytest.raises(TrainingError, match="no trainable parameter"):
        make_optimisers([], [], TrainingConfig())
    vector = nn.Parameter(torch.zeros(3))
    with pytest.raises(TrainingError, match=r"parameter 'bias' of shape \(3,\) was given to SOAP"):
        make_optimisers([vector], [("bias", vector)], TrainingConfig())


def test_learning_rate_at_its_landmarks() -> None:
    assert learning_rate_factor(0, 1000, 100) == pytest.approx(0.01, rel=1e-4)
    assert learning_rate_factor(99, 1000, 100) == pytest.approx(0.5 * (1 + math.cos(math.pi * 0.099)))
    assert learning_rate_factor(500, 1000, 100) == pytest.approx(0.5)
    assert learning_rate_factor(1000, 1000, 100) == 0.0
    assert learning_rate_factor(0, 10, 0) == 1.0
    assert learning_rate_factor(0, 1, 100) == pytest.approx(0.01)


@given(steps=st.integers(1, 500), warmup=st.integers(0, 50))
def test_learning_rate_falls_after_the_warmup(steps: int, warmup: int) -> None:
    values = [learning_rate_factor(step, steps, warmup) for step in range(warmup, steps + 1)]
    assert all(0 <= b <= a <= 1 for a, b in itertools.pairwise(values))


def test_moving_average_is_the_weighted_sum_it_claims_to_be() -> None:
    model = TinyModel()
    average = MovingAverage(model, decay=0.9)
    expected = model.mix.detach().clone()
    for step in range(1, 40):
        with torch.no_grad():
            model.mix.normal_()
            model.scale.fill_(float(step))
        average.update(model, step)
        d = decay_at(step, 0.9)
        expected = d * expected + (1 - d) * model.mix.detach()
    torch.testing.assert_close(average.network.mix.detach(), expected)
    assert float(average.network.scale) == 39.0  # buffers are copied
    assert not average.network.training
    assert not any(p.requires_grad for p in average.network.parameters())
    assert model.mix.requires_grad


def test_decay_starts_short() -> None:
    assert decay_at(1, 0.99) == pytest.approx(2 / 11)
    assert decay_at(10**6, 0.99) == 0.99
    assert decay_at(5, 0.0) == 0.0


@given(n=st.integers(1, 40), size=st.integers(1, 50), seed=st.integers(0, 2**63 - 1))
def test_every_epoch_holds_every_sample_once(n: int, size: int, seed: int) -> None:
    sampler = EpochSampler(n, size, seed)
    epochs = 3
    stream = [i for step in range(-(-epochs * n // size)) for i in sampler.indices(step)]
    for epoch in range(epochs):
        assert sorted(stream[epoch * n : (epoch + 1) * n]) == list(range(n))
    assert all(len(sampler.indices(step)) == size for step in range(3))


def test_order_depends_on_seed_and_epoch_but_not_on_history() -> None:
    sampler, other = EpochSampler(100, 100, seed=0), EpochSampler(100, 100, seed=1)
    assert sampler.indices(0) != sampler.indices(1)
    assert sampler.indices(0) != other.indices(0)
    late = EpochSampler(100, 100, seed=0).indices(7)
    assert [sampler.indices(step) for step in range(8)][7] == late
    assert sampler.epoch(3) == 3.0
    with pytest.raises(ValueError, match="at least one sample"):
        EpochSampler(0, 1, 0)
