"""What is minimised, against sums over matrix elements and coefficients that are written out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from qcsurrogate.data.graphs import collate
from qcsurrogate.nn.layout import Row, bond_order
from qcsurrogate.quantities.density.labels import (
    DensityBatch,
    atom_functions,
    joined,
    molecular_metric,
    orthonormal_rows,
)
from qcsurrogate.quantities.density.model import DensityModel
from qcsurrogate.quantities.hamiltonian.model import HamiltonianModel
from qcsurrogate.reference.density_fit import charges
from qcsurrogate.registry import find_quantity
from qcsurrogate.store.store import Store
from qcsurrogate.structures import Structure
from qcsurrogate.training.config import TrainingConfig
from qcsurrogate.training.optimisers import learning_rate_factor, make_optimisers, set_learning_rate
from tests.models.test_equivariance import FORMAMIDE, WATER, model_of
from tests.models.test_models import batch_of


def hamiltonian_model() -> HamiltonianModel:
    model = model_of("hamiltonian", "so2")
    assert isinstance(model, HamiltonianModel)
    return model


def random_symmetric(structures: list[Structure], model: HamiltonianModel, seed: int) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    matrices = []
    for structure in structures:
        n = int(model.orbital_basis.offsets(structure.atomic_numbers)[-1])
        matrix = generator.normal(size=(n, n))
        matrices.append(matrix + matrix.T)
    return matrices


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
def test_with_equal_scales_the_loss_is_the_square_of_the_matrix(power: float) -> None:
    """Irreps, bond frames and the order by |m| are orthogonal: none of them may show in the loss."""
    model = hamiltonian_model()
    model.settings = model.settings.model_copy(update={"loss_power": power})
    for statistics in (model.pair_labels, *model.atom_labels.values()):
        statistics.mean.zero_()  # type: ignore[union-attr,operator]
        statistics.scale.fill_(0.5)  # type: ignore[union-attr,operator]
    hydroxide = Structure([8, 1], [[0.1, 0.2, -0.3], [1.2, -0.5, 1.1]], charge=-1, name="hydroxide")
    structures = [hydroxide]  # no two equal elements, where a matrix averages what the loss sees twice
    difference = random_symmetric(structures, model, 3)
    labels = [p + d for p, d in zip(model.predict_arrays(structures), difference, strict=True)]
    batch = batch_of(model, structures, labels)
    n_oxygen, n_hydrogen = (model.orbital_basis[z].n_functions for z in (8, 1))
    numbers = n_oxygen * (n_oxygen + 1) / 2 + n_hydrogen * (n_hydrogen + 1) / 2 + 2 * n_oxygen * n_hydrogen
    expected = np.square(difference[0]).sum() / 0.5**2 / numbers
    assert float(model.loss(batch).detach()) == pytest.approx(expected, rel=1e-9)


def test_the_hamiltonian_loss_row_by_row() -> None:
    """Every row is standardised by its own mean and scale; pairs of two elements count twice."""
    model = hamiltonian_model()
    generator = torch.Generator().manual_seed(5)
    for statistics in (model.pair_labels, *model.atom_labels.values()):
        statistics.mean.normal_(generator=generator)  # type: ignore[union-attr,operator]
        statistics.scale.uniform_(0.3, 3.0, generator=generator)  # type: ignore[union-attr,operator]
    structures = [WATER, FORMAMIDE]
    batch = batch_of(model, structures, random_symmetric(structures, model, 7))
    pairs, atoms = model(batch.graph, batch.inputs)
    power = model.settings.loss_power
    assert power > 0
    total = norm = 0.0

    def add(times: int, prediction: np.ndarray, label: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> None:
        nonlocal total, norm
        for p, y, m in zip(prediction, label, np.broadcast_to(mean, prediction.shape), strict=True):
            for k in range(len(y)):
                total += times * scale[k] ** power * (p[k] - (y[k] - m[k]) / scale[k]) ** 2
                norm += times * scale[k] ** power

    assert batch.graph.pairs is not None
    x = batch.graph.pairs.lengths.numpy() / model.pair_readout.reach
    decay = 1.0 - 10.0 * x**3 + 15.0 * x**4 - 6.0 * x**5
    first = 0
    for (kind, count), prediction, rows in zip(batch.graph.pair_kinds, pairs, batch.labels.pairs, strict=True):
        own = model.layouts.pair(kind)
        order = bond_order([Row(c.l, m, c.natural) for c in own.channels for m in range(-c.l, c.l + 1)])
        label = np.stack(
            [rows[:, k].numpy() * s for k, s in zip(order.index, order.sign.tolist(), strict=True)], axis=1
        )
        mean, scale = (t.numpy() for t in model.pair_labels.of(kind))
        add(
            1 if kind[0] == kind[1] else 2,
            prediction.detach().numpy(),
            label,
            decay[first : first + count, None] * mean,
            scale,
        )
        first += count
    for (z, prediction), (_, rows) in zip(atoms, batch.labels.atoms, strict=True):
        mean, scale = (getattr(model.atom_labels[str(z)], x).numpy() for x in ("mean", "scale"))
        add(1, prediction.detach().numpy(), rows.numpy(), mean, scale)
    assert float(model.loss(batch).detach()) == pytest.approx(total / norm, rel=1e-9)


def test_the_density_loss_row_by_row() -> None:
    model = model_of("density", "so2")
    assert isinstance(model, DensityModel)
    generator = torch.Generator().manual_seed(5)
    for statistics in model.statistics.values():
        statistics.mean.normal_(generator=generator)  # type: ignore[union-attr,operator]
        statistics.scale.uniform_(0.3, 3.0, generator=generator)  # type: ignore[union-attr,operator]
    settings = model.graphs
    graph = collate([settings.graph(s) for s in (WATER, FORMAMIDE)])
    rows = tuple(
        (z, torch.randn(len(i), model.density_basis[z].n_functions, dtype=torch.float64, generator=generator))
        for z, i in graph.atoms_by_element.items()
    )
    known = tuple(model.starting_rows([WATER, FORMAMIDE]))
    batch = DensityBatch(graph, rows, known)
    start = {z: k.numpy() for z, k in known}
    power = model.settings.loss_power
    assert power > 0
    total = norm = 0.0
    for (z, prediction), (_, labels) in zip(model(graph, known), rows, strict=True):
        mean, scale = (getattr(model.statistics[str(z)], x).numpy() for x in ("mean", "scale"))
        for p, y in zip(prediction.detach().numpy(), labels.numpy() - start[z], strict=True):
            for k in range(len(y)):
                total += scale[k] ** power * (p[k] - (y[k] - mean[k]) / scale[k]) ** 2
                norm += scale[k] ** power
    assert float(model.loss(batch).detach()) == pytest.approx(total / norm, rel=1e-9)

    squares = np.zeros(2)
    for (z, prediction), (_, labels) in zip(model(graph, known), rows, strict=True):
        mean, scale = (getattr(model.statistics[str(z)], x).numpy() for x in ("mean", "scale"))
        error = mean + scale * prediction.detach().numpy() + start[z] - labels.numpy()
        np.add.at(squares, graph.molecule[graph.atoms_by_element[z]].numpy(), (error**2).sum(1))
    sums, count = model.errors(batch)["coefficient_norm_per_electron"]
    norms = np.sqrt(squares) / [s.n_electrons for s in (WATER, FORMAMIDE)]
    assert float(sums.detach()) / count == pytest.approx(norms.mean(), rel=1e-9)


@pytest.mark.parametrize("metric", ["coulomb", "overlap"])
def test_the_density_loss_in_a_metric_is_that_of_the_coefficients(metric: Literal["coulomb", "overlap"]) -> None:
    """d^T M d per electron with d in PySCF's functions: nothing of rows, elements or orthonormal functions left."""
    structures = [FORMAMIDE, WATER]
    model = density_of(metric)
    functions = atom_functions(model.density_basis)
    for statistics in model.statistics.values():
        statistics.scale.fill_(0.3)  # type: ignore[union-attr,operator]
    labels = [np.random.default_rng(k).normal(size=len(c)) for k, c in enumerate(model.coefficients(structures))]
    rows = joined(
        [orthonormal_rows(s, c, model.density_basis, functions) for s, c in zip(structures, labels, strict=True)]
    )
    metrics = [molecular_metric(s, model.density_basis, functions, metric) for s in structures]
    graph = collate([model.graphs.graph(s) for s in structures])
    known = tuple(model.starting_rows(structures))
    loss = float(model.loss(DensityBatch(graph, rows, known, tuple(metrics))).detach())
    model._projected = unprojected(model)  # type: ignore[method-assign]
    expected = []
    for structure, label, predicted in zip(structures, labels, model.coefficients(structures), strict=True):
        mol = model.density_basis.build_mol(structure)
        plain = mol.intor({"coulomb": "int2c2e", "overlap": "int1e_ovlp"}[metric])
        expected.append((predicted - label) @ plain @ (predicted - label) / structure.n_electrons)
    assert loss == pytest.approx(np.mean(expected), rel=1e-8)
    with pytest.raises(ValueError, match=f"loss '{metric}' needs a metric of each molecule"):
        model.loss(DensityBatch(graph, rows, known))


def density_of(loss: str) -> DensityModel:
    """The density model of the other tests with another loss."""
    model = model_of("density", "so2")
    assert isinstance(model, DensityModel)
    model.settings = model.settings.model_copy(update={"loss": loss})
    return model


def unprojected(model: DensityModel) -> Callable[[Structure, list[np.ndarray]], np.ndarray]:
    """Rows to PySCF's coefficients without the correction of the number of electrons."""

    def plain(structure: Structure, rows: list[np.ndarray]) -> np.ndarray:
        parts = []
        for z, row in zip(structure.atomic_numbers.tolist(), rows, strict=True):
            own = np.empty_like(row)
            own[model.density_basis[z].internal_order] = row
            parts.append(model._functions(z).transform.numpy() @ own)
        return np.concatenate(parts)

    return plain


@pytest.mark.parametrize(("numbers", "charge"), [([8, 1], -1), ([8, 1, 1], 0), ([8, 1, 1, 1], 1)])
def test_the_start_of_a_density_holds_the_electrons_of_an_ion(numbers: list[int], charge: int) -> None:
    model = density_of("coefficients")
    assert model.start is not None
    positions = [[0.0, 0.0, 0.0], [1.75, 0.0, 0.5], [-0.9, 1.55, 0.5], [-0.9, -1.55, 0.5]]
    ion = Structure(numbers, positions[: len(numbers)], charge=charge)
    found = model.start.coefficients(ion, model.orbital_basis, model.density_basis)
    assert charges(model.density_basis.build_mol(ion)) @ found == pytest.approx(-charge, abs=1e-10)
    assert np.abs(found).max() > 1e-2


@pytest.mark.parametrize("kind", ["hamiltonian", "density"])
def test_four_molecules_are_learned_by_heart(kind: str, tiny_store: Path) -> None:
    """One unit of loss is the spread of the labels: what knows no geometry cannot go below it."""
    store = Store.open(tiny_store)
    quantity = find_quantity(kind)
    settings = quantity.settings.model_validate({"encoder": {"channels": 16, "edge_channels": 8, "layers": 2}})
    (labels,) = quantity.read_labels(store, ["train"], settings, elements=sorted(store.atoms), dtype=torch.float32)
    model = quantity.new_model(settings, labels, seed=0)
    batch = labels.batch(range(len(labels)))
    assert batch.graph.n_molecules == 4
    untrained = float(model.loss(batch).detach())
    before = error_of(model, batch)
    config = TrainingConfig(steps=200, learning_rate=1e-2, warmup_steps=20)
    optimisers = make_optimisers(model.parameters(), model.preconditioned_parameters(), config)
    for step in range(config.steps):
        set_learning_rate(
            optimisers, config.learning_rate * learning_rate_factor(step, config.steps, config.warmup_steps)
        )
        loss = model.loss(batch)
        for optimiser in optimisers:
            optimiser.zero_grad()
        loss.backward()
        for optimiser in optimisers:
            optimiser.step()
    assert untrained > 0.5
    assert float(model.loss(batch).detach()) < 0.02
    assert error_of(model, batch) < 0.15 * before, (error_of(model, batch), before)


def error_of(model: HamiltonianModel | DensityModel, batch: object) -> float:
    """The error that a validation would report (labels' units)."""
    with torch.no_grad():
        total, count = model.errors(batch)[model.monitored]
    return float(total) / count


def test_labels_keep_their_digits_until_the_mean_is_gone(tiny_store: Path) -> None:
    """In float32 a label of -20 Hartree is only known to a microhartree, as much as it may vary here."""
    store = Store.open(tiny_store)
    quantity = find_quantity("hamiltonian")
    settings = quantity.settings.model_validate({"encoder": {"channels": 4, "edge_channels": 4, "layers": 1}})
    elements = sorted(store.atoms)
    single, double = (
        quantity.read_labels(store, ["train"], settings, elements=elements, dtype=d)[0]
        for d in (torch.float32, torch.float64)
    )
    model = quantity.new_model(settings, single, seed=0)
    assert single.batch([0]).graph.messages.lengths.dtype == torch.float32
    assert torch.equal(single.rows_of_atoms(8), double.rows_of_atoms(8))
    pairs = single.rows_of_pairs((8, 1)), double.rows_of_pairs((8, 1))
    assert pairs[0] is not None
    assert pairs[1] is not None
    assert torch.equal(*pairs)
    oxygen = model.atom_labels["8"]
    oxygen.mean.fill_(-20.0)  # type: ignore[union-attr,operator]
    rows = oxygen.mean + 1e-6 * torch.arange(-3.0, 4.0, dtype=torch.float64).unsqueeze(1)  # type: ignore[union-attr,operator]
    oxygen.scale.fill_(1e-6)  # type: ignore[union-attr,operator]
    standardised = oxygen.standardise(rows)  # type: ignore[union-attr,operator]
    np.testing.assert_allclose(standardised.numpy()[:, 0], np.arange(-3.0, 4.0), atol=1e-6)
    assert model.loss(single.batch([0])).dtype == torch.float32
