"""The cost model learns, and batches are of the right size, in the right order."""

from __future__ import annotations

import numpy as np
import pytest

from qcsurrogate.generation.batches import (
    LONGEST_BATCH_SECONDS,
    MOST_STRUCTURES,
    CostModel,
    Queue,
    size_measures,
)


def taught(
    scale: float, exponent: float, n: int = 200, noise: float = 0.2, seed: int = 0
) -> tuple[CostModel, np.ndarray]:
    """A model that measured n structures whose time is scale * size^exponent, with noise."""
    generator = np.random.default_rng(seed)
    sizes = np.exp(generator.uniform(0, 5, n))
    model = CostModel()
    for size in sizes:
        model.learn(size, scale * size**exponent * np.exp(noise * generator.standard_normal()))
    return model, sizes


def drained(queue: Queue, model: CostModel, slots: int) -> list[np.ndarray]:
    batches = []
    while len(queue):
        batches.append(queue.take(model, slots))
    return batches


def test_sizes_are_in_units_of_water() -> None:
    np.testing.assert_allclose(size_measures(np.array([3, 6]), np.array([24, 48])), [1, 8])


@pytest.mark.parametrize(("scale", "exponent"), [(0.5, 0.8), (30.0, 1.2), (0.005, 0.6)])
def test_the_cost_model_learns_scale_and_exponent(scale: float, exponent: float) -> None:
    model, sizes = taught(scale, exponent)
    np.testing.assert_allclose(model.seconds(sizes), scale * sizes**exponent, rtol=0.15)


def test_one_measurement_already_moves_the_estimate() -> None:
    model = CostModel()
    before = model.seconds(np.array([1.0]))[0]
    model.learn(1.0, 40.0)
    assert 20 < model.seconds(np.array([1.0]))[0] < 41
    assert before < 2


def test_moments_come_back_and_others_give_the_prior() -> None:
    model, sizes = taught(3.0, 1.0)
    again = CostModel.from_moments(model.to_moments())
    np.testing.assert_array_equal(again.seconds(sizes), model.seconds(sizes))
    assert again.measured == 200
    for wrong in ((), (1.0,) * 6, (0.0,) * 7, (1.0, 5.0, 5.0, 1.0, 0.0, 0.0, 3.0)):
        np.testing.assert_array_equal(CostModel.from_moments(wrong).seconds(sizes), CostModel().seconds(sizes))


def test_every_structure_once_largest_first_and_equal_ones_in_planned_order() -> None:
    sizes = np.array([1.0, 8.0, 1.0, 27.0, 8.0, 1.0, 64.0])
    model = CostModel()
    rows = np.array([0, 1, 2, 3, 4, 6])
    queue = Queue(sizes, rows)
    assert np.concatenate(drained(queue, model, 1)).tolist() == [6, 3, 1, 4, 0, 2]
    assert len(queue) == 0
    assert queue.expected_seconds(model) == 0


def test_batches_hold_one_to_ten_minutes_of_estimated_work() -> None:
    generator = np.random.default_rng(1)
    sizes = np.round(np.exp(generator.uniform(2, 5, 20_000)))
    model, _ = taught(1.0, 0.9, noise=0.0)
    batches = drained(Queue(sizes, np.arange(20_000)), model, 50)
    work = np.array([model.seconds(sizes[batch]).sum() for batch in batches])
    assert work[(work > 60) & (work < 600)].sum() > 0.95 * work.sum()
    assert work.max() <= LONGEST_BATCH_SECONDS + model.seconds(sizes.max(keepdims=True))[0]
    assert work[-1] < 0.1 * work[0]  # small ones in the end, so that all finish together
    assert sum(len(batch) for batch in batches) == 20_000


def test_few_structures_are_spread_over_all_slots() -> None:
    model, _ = taught(1.0, 0.9, noise=0.0)
    batches = drained(Queue(np.ones(200), np.arange(200)), model, 2)
    assert 12 <= len(batches) <= 60
    assert max(len(b) for b in batches) <= 200 // 2 // 4


def test_cheap_structures_do_not_make_endless_batches() -> None:
    model, _ = taught(1e-3, 0.5, noise=0.0)
    batches = drained(Queue(np.ones(100_000), np.arange(100_000)), model, 2)
    assert max(len(b) for b in batches) == MOST_STRUCTURES


def test_the_first_batches_are_small_until_something_was_measured() -> None:
    queue = Queue(np.ones(10_000), np.arange(10_000))
    model = CostModel()
    assert model.seconds(np.ones(len(queue.take(model, 4)))).sum() <= 20
    for _ in range(8):
        model.learn(1.0, 1.0)
    assert model.seconds(np.ones(len(queue.take(model, 4)))).sum() > 60


def test_the_estimate_of_what_is_left_is_the_sum_over_it() -> None:
    generator = np.random.default_rng(2)
    sizes = np.round(np.exp(generator.uniform(0, 3, 500)))
    model, _ = taught(2.0, 0.7)
    queue = Queue(sizes, np.arange(500))
    left = sizes.copy()
    while len(queue):
        assert queue.expected_seconds(model) == pytest.approx(model.seconds(left[left > 0]).sum())
        left[queue.take(model, 3)] = 0
