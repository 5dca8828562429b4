"""Expected errors: of whom nothing turns them, how they grow, and that validation data calibrate them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from qcsurrogate.models.base import SurrogateModel
from qcsurrogate.models.uncertainty import Blocks, Calibration, LastLayer, spread_over, watched
from qcsurrogate.nn.radial import smooth_cutoff
from qcsurrogate.quantities.density import uncertainty as density
from qcsurrogate.quantities.hamiltonian import uncertainty as hamiltonian
from qcsurrogate.structures import Structure
from qcsurrogate.testing import random_rotation
from tests.models.test_equivariance import FORMAMIDE, HYDROXIDE, WATER, model_of

Array = np.ndarray


def blocks_of(features: Tensor, kind: int = 0, reach: float = 1.0) -> Blocks:
    index = torch.arange(len(features))
    return Blocks("atoms", kind, features, torch.full((len(features),), reach, dtype=torch.float64), index, index)


def gram_of(features: Tensor, n_kinds: int = 2) -> Tensor:
    rows = torch.cat([features, torch.ones(len(features), 1)], 1).double()
    gram = torch.zeros(n_kinds, rows.shape[1], rows.shape[1], dtype=torch.float64)
    gram[0] = rows.T @ rows
    return gram


def normal(n: int, width: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def fitted_layer(errors: Callable[[Tensor], Tensor]) -> LastLayer:
    """Trained on one kind of two, and calibrated on what it gets wrong."""
    layer = LastLayer(2, 4)
    validation = normal(200, seed=1)
    spread = torch.tensor([0.5, 0.25], dtype=torch.float64)
    layer.fit(gram_of(normal(500)), spread, [(blocks_of(validation), errors(validation))])
    return layer


@pytest.mark.parametrize("factor", [0.02, 1.0])
def test_validation_errors_set_the_size(factor: float) -> None:
    def errors(features: Tensor) -> Tensor:
        return factor * 0.1 * features.norm(dim=1) / 2 * normal(len(features), 1, seed=5).squeeze(1).abs()

    layer, new = fitted_layer(errors), normal(2000, seed=2)
    expected, actual = layer(blocks_of(new)), errors(new)
    assert float(expected.mean() / actual.mean()) == pytest.approx(1.0, abs=0.15)
    order = torch.argsort(expected)
    assert actual[order[-500:]].mean() > 1.5 * actual[order[:500]].mean()


def test_far_from_the_training_set_more_is_expected_and_at_most_what_a_network_without_knowledge_gets_wrong() -> None:
    layer = fitted_layer(lambda features: torch.full((len(features),), 0.02, dtype=torch.float64))
    one = normal(1)
    near, far, beyond = (float(layer(blocks_of(size * one))) for size in (1.0, 4.0, 1e6))
    assert near < 0.5 * far < beyond
    assert beyond == pytest.approx(0.5, rel=1e-3)  # the spread of the labels


def test_a_kind_that_was_never_seen_is_as_wrong_as_its_labels_are_spread() -> None:
    layer = fitted_layer(lambda features: torch.full((len(features),), 0.02, dtype=torch.float64))
    new = normal(50, seed=3)
    assert float(layer(blocks_of(new, kind=0)).mean()) < 0.03
    np.testing.assert_allclose(layer(blocks_of(new, kind=1)).numpy(), 0.25, rtol=1e-9)


def test_expected_errors_vanish_with_the_reach() -> None:
    layer = fitted_layer(lambda features: torch.full((len(features),), 0.02, dtype=torch.float64))
    assert torch.equal(layer(blocks_of(normal(3), reach=0.0)), torch.zeros(3, dtype=torch.float64))


def test_without_validation_blocks_nothing_is_promised() -> None:
    layer = LastLayer(1, 4)
    layer.fit(gram_of(normal(100), 1), torch.tensor([2.0], dtype=torch.float64), [])
    assert float(layer(blocks_of(10 * normal(1)))) > 0.1


def test_a_figure_is_calibrated_and_few_molecules_are_not_believed() -> None:
    table = Calibration(["a", "b"])
    raw = np.linspace(1.0, 2.0, 1000)
    table.fit("a", raw, 7.0 * raw * np.tile([0.5, 0.5, 0.5, 1.5, 1.5], 200))
    factor, *within = table.rows()["a"]
    assert factor == pytest.approx(6.3, rel=1e-2)
    assert within == pytest.approx([0.556, 1.667, 1.667], rel=0.02)
    table.fit("b", raw[:1], raw[:1])
    assert table.rows()["b"][1:] == pytest.approx(((1 + 8.453) / 11, (1 + 16.062) / 11, (1 + 24.565) / 11), rel=1e-3)
    assert Calibration(["a"]).rows() == {}


def test_indices_are_spread_over_the_whole() -> None:
    assert spread_over(3, 5) == [0, 1, 2]
    assert spread_over(101, 3) == [0, 50, 100]
    assert spread_over(0, 3) == []


TRAINING = [WATER.moved(WATER.positions * s) for s in np.linspace(0.96, 1.04, 9)] + [HYDROXIDE]


def watched_model(kind: str) -> tuple[SurrogateModel, Callable[[Sequence[Structure]], list[Array]]]:
    """A model that was shown waters and hydroxide, and what it expects of the blocks of any molecule."""
    model = model_of(kind, "so2")
    own = hamiltonian if kind == "hamiltonian" else density

    def seen_of(structures: Sequence[Structure]) -> list[Blocks]:
        with watched(model, own.hidden(model)) as seen:
            model.predict_arrays(structures)
        return list(own.hidden_blocks(model, seen))

    training = seen_of(TRAINING)
    known = [(b, torch.full((len(b.features),), 0.01, dtype=torch.float64)) for b in training]
    spread = {name: torch.ones_like(layer.factor) for name, layer in model.error_model.readouts.items()}
    model.error_model.fit(training, known, spread)

    def expected(structures: Sequence[Structure]) -> list[Array]:
        with model.expecting() as told:
            model.predict_arrays(structures)
        return [each.blocks for each in told()]

    return model, expected


@pytest.mark.parametrize("kind", ["hamiltonian", "density"])
def test_no_symmetry_changes_what_is_expected(kind: str) -> None:
    _, expected = watched_model(kind)
    together = expected([WATER, FORMAMIDE, HYDROXIDE])
    alone = expected([FORMAMIDE])[0]
    np.testing.assert_allclose(together[1], alone, rtol=1e-9, atol=1e-15)
    for improper in (False, True):
        turn = random_rotation(3, improper=improper)
        turned = expected([FORMAMIDE.moved(FORMAMIDE.positions @ turn.T + 1.0)])[0]
        np.testing.assert_allclose(turned, alone, rtol=1e-9, atol=1e-15)
    order = np.array([3, 0, 5, 1, 4, 2])
    permuted = Structure(FORMAMIDE.atomic_numbers[order], FORMAMIDE.positions[order])
    found = expected([permuted])[0]
    np.testing.assert_allclose(found, alone[np.ix_(order, order)] if alone.ndim == 2 else alone[order], rtol=1e-9)
    if kind == "hamiltonian":
        np.testing.assert_array_equal(alone, alone.T)


@pytest.mark.parametrize("kind", ["hamiltonian", "density"])
def test_a_stretched_bond_is_less_certain(kind: str) -> None:
    _, expected = watched_model(kind)
    positions = WATER.positions.copy()
    positions[1] = positions[0] + 1.4 * (positions[1] - positions[0])
    near, far = expected([WATER, WATER.moved(positions)])
    if kind == "hamiltonian":
        assert far[0, 1] > 2.0 * near[0, 1]
        assert near[0, 1] == pytest.approx(0.01, rel=0.5)
    assert (np.diagonal(far) if far.ndim == 2 else far)[1] > 1.3 * (np.diagonal(near) if near.ndim == 2 else near)[1]


def test_a_pair_of_elements_that_was_never_seen_is_as_uncertain_as_its_labels_are_spread() -> None:
    model, expected = watched_model("hamiltonian")
    found = expected([FORMAMIDE])[0]
    for other in (1, 2):  # O-N, O-C; the spread is one
        length = torch.tensor(np.linalg.norm(FORMAMIDE.positions[0] - FORMAMIDE.positions[other]))
        assert found[0, other] == pytest.approx(float(smooth_cutoff(length, model.pair_readout.reach)), rel=1e-6)
    assert expected([WATER])[0][0, 1] < 0.03


def test_expected_errors_do_not_jump_where_a_pair_ends() -> None:
    model, expected = watched_model("hamiltonian")
    cutoffs = [model.graphs.message_cutoff, model.graphs.pair_cutoff]
    for cutoff in cutoffs:
        at = [Structure([1, 1], [[0.0, 0.0, 0.0], [0.0, 0.0, cutoff + d]]) for d in (-1e-8, 1e-8)]
        before, behind = expected(at)
        assert np.abs(before - behind).max() < 1e-6


def test_what_was_learned_is_forgotten() -> None:
    model = watched_model("density")[0]
    model.forget_uncertainty()
    assert not model.error_model.fitted
    with model.expecting() as told:
        model.predict_arrays([WATER, HYDROXIDE])
    assert told() == [None, None]
