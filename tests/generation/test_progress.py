"""Progress and the time that is left, with a clock of the tests' own."""

from __future__ import annotations

import heapq

import numpy as np
import pytest

from qcsurrogate.generation.batches import CostModel, Queue, seconds_left
from qcsurrogate.store.progress import Progress


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("slots", [1, 2, 8])
@pytest.mark.parametrize(("scale", "exponent"), [(2.0, 0.85), (0.3, 1.1)])
def test_the_estimate_holds_although_the_largest_come_first(slots: int, scale: float, exponent: float) -> None:
    generator = np.random.default_rng(4)
    n = 190
    sizes = np.exp(generator.uniform(0, 5, n))
    true = scale * sizes**exponent * np.exp(0.1 * generator.standard_normal(n))
    clock, model, queue = Clock(), CostModel(), Queue(sizes, np.arange(n))
    progress = Progress(n, "a", quiet=True, clock=clock)
    waiting: list[np.ndarray] = []
    running: list[tuple[float, int, np.ndarray]] = []
    start, done = clock.now, 0
    estimates, by_count, fractions = [], [], []
    while len(queue) or waiting or running:
        while len(queue) and len(waiting) + len(running) < 2 * slots:
            waiting.append(queue.take(model, slots))
        while waiting and len(running) < slots:
            batch = waiting.pop(0)
            heapq.heappush(running, (clock.now + true[batch].sum(), int(batch[0]), batch))
        clock.now, _, batch = heapq.heappop(running)
        for row in batch:
            model.learn(float(sizes[row]), float(true[row]))
            progress.advance(failed=False)
        done += len(batch)
        in_work = [sizes[b] for b in [*waiting, *(entry[2] for entry in running)]]
        left = seconds_left(model, queue, in_work, slots, 0.0)
        progress.show(left)
        estimates.append((clock.now, left))
        by_count.append((clock.now - start) * (n - done) / done)
        fractions.append((clock.now, progress.fraction))
    total = clock.now - start
    actual = np.array([clock.now - now for now, _ in estimates])
    early = slice(0, len(estimates) // 2)
    wrong = np.abs(np.array([left for _, left in estimates]) - actual) / total
    assert wrong[early].max() < 0.3
    assert np.median(wrong) < 0.12
    assert np.abs(np.array(by_count) - actual)[early].max() / total > 1  # what counting says
    assert max(abs(f - (now - start) / total) for now, f in fractions) < 0.25
    assert progress.fraction == 1.0


def test_what_is_in_work_counts_and_shrinks_while_nothing_comes_back() -> None:
    model = CostModel()
    for _ in range(100):
        model.learn(1.0, 10.0)
    empty = Queue(np.ones(4), np.array([], dtype=np.int64))
    in_work = [np.ones(4), np.ones(4)]
    assert seconds_left(model, empty, in_work, 2, 0.0) == pytest.approx(40, rel=0.02)
    assert seconds_left(model, empty, in_work, 2, 15.0) == pytest.approx(25, rel=0.04)
    assert seconds_left(model, empty, in_work[:1], 8, 0.0) == pytest.approx(40, rel=0.02)
    assert seconds_left(model, empty, in_work, 2, 1e4) > 0
    assert seconds_left(model, empty, [], 2, 0.0) == 0


def test_words_and_fraction() -> None:
    clock = Clock()
    progress = Progress(4, "waters", quiet=True, clock=clock)
    assert (progress.text(), progress.fraction) == ("0/4 in 0 s", 0)
    clock.now += 30
    progress.show(90.0)
    assert (progress.text(), progress.fraction) == ("0/4 in 30 s, about 90 s left", 0.25)
    progress.advance(failed=True)
    progress.show(None)
    assert (progress.text(), progress.fraction) == ("1/4, 1 failed in 30 s, about 90 s left", 0.25)
    for _ in range(3):
        progress.advance(failed=False)
    assert (progress.text(), progress.fraction) == ("4/4, 1 failed in 30 s", 1)


def test_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    clock = Clock()
    progress = Progress(2, "waters", quiet=False, clock=clock)
    clock.now += 10
    progress.show(30.0)
    progress.close()
    assert " 25%|" in (shown := capsys.readouterr().err)
    assert "0/2 in 10 s, about 30 s left" in shown
