"""Every property network under every symmetry, with the group that it declares; heads and targets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from qcsurrogate.basis import orbital_basis
from qcsurrogate.data.graphs import Graph, collate
from qcsurrogate.errors import SpecError
from qcsurrogate.quantities.property.networks import (
    NETWORKS,
    ElectronicRows,
    ElectronicStart,
    NetworkSettings,
    PropertyHeads,
    PropertyNetwork,
    TargetSpec,
    build_network,
    graph_settings,
)
from qcsurrogate.quantities.property.networks.targets import OF_LEVELS
from qcsurrogate.structures import Structure
from qcsurrogate.testing import random_rotation
from tests.models.test_equivariance import flat_potentials

WATER = Structure([8, 1, 1], [[0.0, 0.0, 0.1], [0.1, 1.4, 1.1], [0.05, -1.5, 1.0]], name="water")
FORMAMIDE = Structure(
    [8, 7, 6, 1, 1, 1],
    np.array(
        [[2.3, 0.2, 0.1], [-1.9, 0.7, 0.0], [0.3, -0.9, -0.1], [0.2, -3.0, 0.1], [-3.5, -0.4, 0.2], [-2.1, 2.6, 0.1]]
    ),
    name="formamide",
)
HYDROXIDE = Structure([8, 1], [[0.0, 0.0, 0.0], [0.3, 0.4, 1.7]], charge=-1, name="hydroxide")
MOLECULES = (WATER, FORMAMIDE, HYDROXIDE)

SMALL = {
    "naive": {"channels": 12},
    "invariant": {"channels": 12},
    "vector": {"channels": 8, "layers": 2, "gaussians": 6, "message_cutoff": 5.0},
    "tensor_product": {"channels": 3, "edge_channels": 2, "gaussians": 6, "message_cutoff": 5.0, "readout": 6},
    "so2": {"channels": 4, "edge_channels": 3, "hidden": 8, "hidden_odd": 3, "gaussians": 6, "message_cutoff": 5.0},
}
ELECTRONIC = "so2, electronic inputs"
VECTORS_ONLY = "so2, l_max 1"
CASES = [*NETWORKS, ELECTRONIC, VECTORS_ONLY]
BASIS = orbital_basis("def2-svp", [1, 6, 7, 8])

TARGETS = (
    TargetSpec("energy", "scalar", "sum", 0.1, 0.5, {1: -0.5, 6: -38.0, 7: -54.0, 8: -75.0}),
    TargetSpec("gap", "scalar", "mean", 0.3, 0.1),
    TargetSpec("charges", "scalar", "charges", 0.0, 0.3, {1: 0.2, 6: 0.3, 7: -0.4, 8: -0.6}),
    TargetSpec("length", "scalar", "dipole", spread=0.7),
    TargetSpec("dipole", "vector", "dipole", spread=0.7),
    TargetSpec("forces", "vector", "atoms", spread=0.05),
    TargetSpec("r2", "scalar", "r2", 1.0, 9.0, {1: 2.0, 8: 7.0}, {1: 0.9, 6: 6.0, 7: 7.1, 8: 8.1}),
    TargetSpec("alpha", "tensor", "polarisability", spread=2.0, references={1: 1.5, 6: 8.0, 7: 7.0, 8: 4.0}),
    TargetSpec("quadrupole", "tensor", "quadrupole", spread=1.5),
    TargetSpec("homo", "scalar", "homo", -0.05, 0.05),
    TargetSpec("lumo", "scalar", "lumo", -0.02, 0.05),
    TargetSpec("orbital gap", "scalar", "gap", 0.03, 0.05),
)


class Predictor:
    """A network and heads of all targets that it can have, float64, perturbed."""

    def __init__(self, case: str) -> None:
        torch.manual_seed(0)
        name = case.split(",")[0]
        self.start = ElectronicStart(BASIS, flat_potentials(BASIS.elements)) if case == ELECTRONIC else None
        more = {} if self.start is None else {"inputs": "electronic", "h0_from": "nowhere"}
        if case == VECTORS_ONLY:
            more = {"l_max": 1}
        self.settings = NetworkSettings(network=name, average_neighbours=2.5, **(SMALL[name] | more))
        self.graphs = graph_settings(self.settings, self.start)
        self.network: PropertyNetwork = build_network((1, 6, 7, 8), self.settings, self.start)
        widths = self.network.widths
        targets = [t for t in TARGETS if t.name != "forces" or widths.vectors]
        self.heads = PropertyHeads([t for t in targets if t.readout not in OF_LEVELS or widths.levels], widths)
        for module in (self.network, self.heads):
            module.double().requires_grad_(requires_grad=False)
            for parameter in module.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        if self.start is not None:
            graphs = [self.graphs.graph(structure) for structure in MOLECULES]
            self.network.fit_inputs([self.start.rows(s, g) for s, g in zip(MOLECULES, graphs, strict=True)], graphs)

    def inputs(self, structures: Sequence[Structure]) -> tuple[Graph, ElectronicRows | None]:
        graphs = [self.graphs.graph(structure) for structure in structures]
        if self.start is None:
            return collate(graphs), None
        rows = [self.start.rows(s, graph) for s, graph in zip(structures, graphs, strict=True)]
        return collate(graphs), ElectronicRows.joined(rows, graphs)

    def __call__(self, structures: Sequence[Structure]) -> dict[str, Tensor]:
        graph, known = self.inputs(structures)
        return self.heads.restore(self.heads(self.network(graph, known), graph, known), graph, known)


@cache
def predictor(case: str) -> Predictor:
    return Predictor(case)


def turned(values: Tensor, target: TargetSpec, rotation: NDArray[np.float64]) -> Tensor:
    r = torch.tensor(rotation)
    if target.rank == "scalar":
        return values
    return values @ r.T if target.rank == "vector" else r @ values @ r.T


def deviations(predict: Predictor, structure: Structure, seed: int = 3) -> dict[str, float]:
    """By symmetry the largest deviation of any target, relative to its size."""
    rng = np.random.default_rng(seed)
    alone = predict([structure])
    found: dict[str, float] = {}

    def compare(what: str, other: Structure, expected: dict[str, Tensor]) -> None:
        moved = predict([other])
        found[what] = max(
            float((moved[name] - value).abs().max() / value.abs().max().clamp(min=0.1))
            for name, value in expected.items()
        )

    for what, improper in (("rotation", False), ("reflection", True)):
        rotation = random_rotation(seed, improper=improper)
        expected = {t.name: turned(alone[t.name], t, rotation) for t in predict.heads.targets}
        compare(what, structure.moved(structure.positions @ rotation.T), expected)
    shift = rng.normal(size=3)
    expected = dict(alone)
    expected["dipole"] = alone["dipole"] + structure.charge * torch.tensor(shift)  # of an ion, about the origin
    compare("translation", structure.moved(structure.positions + shift), expected)
    order = rng.permutation(len(structure))
    permuted = Structure(structure.atomic_numbers[order], structure.positions[order], structure.charge, structure.spin)
    per_atom = {t.name for t in predict.heads.targets if t.per_atom}
    compare("permutation", permuted, {n: v[order] if n in per_atom else v for n, v in alone.items()})
    return found


@pytest.mark.parametrize("name", CASES)
def test_every_network_has_the_symmetry_it_declares_and_no_other(name: str) -> None:
    predict = predictor(name)
    for structure in MOLECULES:
        found = deviations(predict, structure)
        if predict.network.group == "none":
            assert found.pop("permutation") <= 1e-9
            assert min(found.values()) > 1e-4, found
        else:
            assert max(found.values()) <= 1e-9, found


@pytest.mark.parametrize("name", [case for case in CASES if NETWORKS[case.split(",")[0]].edges == "radius"])
def test_nothing_jumps_where_atoms_come_into_reach(name: str) -> None:
    predict = predictor(name)
    reach, step = predict.settings.message_cutoff, 1e-9
    near, far = (
        Structure([8, 1, 1, 7], np.concatenate([WATER.positions, [[0.0, 0.0, 0.1 - reach - sign * step]]]), spin=1)
        for sign in (-1.0, 1.0)
    )
    assert len(predict.graphs.graph(near).messages) == len(predict.graphs.graph(far).messages) + 2
    before, behind = predict([near]), predict([far])
    assert max(float((before[target] - behind[target]).abs().max()) for target in before) < 1e-6


@pytest.mark.parametrize("name", CASES)
def test_a_batch_holds_what_its_molecules_hold_alone(name: str) -> None:
    predict = predictor(name)
    together = predict(MOLECULES)
    alone = [predict([structure]) for structure in MOLECULES]
    for target, values in together.items():
        torch.testing.assert_close(values, torch.cat([one[target] for one in alone]), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", [name for name, network in NETWORKS.items() if network.group == "O(3)"])
def test_vectors_and_tensors_of_atoms_turn_with_the_molecule(name: str) -> None:
    predict, rotation = predictor(name), random_rotation(1, improper=True)
    r = torch.tensor(rotation)
    features = predict.network(predict.graphs.graph(FORMAMIDE))
    moved = predict.network(predict.graphs.graph(FORMAMIDE.moved(FORMAMIDE.positions @ rotation.T)))
    assert features.vectors is not None
    assert features.tensors is not None
    expected = torch.einsum("ab,nbc->nac", r, features.vectors)
    torch.testing.assert_close(moved.vectors, expected, rtol=1e-9, atol=1e-9)
    expected = torch.einsum("ab,nbdc,ed->naec", r, features.tensors, r)
    torch.testing.assert_close(moved.tensors, expected, rtol=1e-9, atol=1e-9)
    assert float(features.vectors.abs().max()) > 1e-3
    assert float(features.tensors.abs().max()) > 1e-3


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_reach_the_positions(name: str) -> None:
    """And are those of differences: ``Graph.at`` moves all that a network looks at."""
    predict = predictor(name)
    graph = predict.graphs.graph(FORMAMIDE)

    def total(positions: Tensor) -> Tensor:
        moved = graph.at(positions)
        outputs = predict.heads(predict.network(moved), moved)
        return outputs["energy"].sum() + outputs["r2"].sum() + outputs["dipole"].sum()

    positions = torch.tensor(FORMAMIDE.positions, requires_grad=True)
    (gradient,) = torch.autograd.grad(total(positions), positions)
    direction = torch.randn(positions.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        slope = float(total(positions + 1e-5 * direction) - total(positions - 1e-5 * direction)) / 2e-5
    assert abs(slope - float((gradient * direction).sum())) < 1e-7 * max(1.0, abs(slope))


def test_charges_add_up_and_quadrupoles_have_no_trace() -> None:
    predicted = predictor("so2")(MOLECULES)
    charges = torch.stack([part.sum() for part in predicted["charges"].split([len(s) for s in MOLECULES])])
    torch.testing.assert_close(charges, torch.tensor([0.0, 0.0, -1.0], dtype=torch.float64), rtol=0, atol=1e-12)
    assert float(predicted["quadrupole"].diagonal(dim1=1, dim2=2).sum(1).abs().max()) < 1e-12
    torch.testing.assert_close(predicted["alpha"], predicted["alpha"].mT, rtol=0, atol=1e-12)


def test_standardising_is_undone_by_restoring() -> None:
    predict = predictor("vector")
    graph = collate([predict.graphs.graph(s) for s in MOLECULES])
    labels = predict(MOLECULES)
    restored = predict.heads.restore(predict.heads.standardise(labels, graph), graph)
    for name, values in labels.items():
        torch.testing.assert_close(restored[name], values, rtol=1e-13, atol=1e-12)


def test_a_network_without_vectors_has_no_vectors_of_atoms() -> None:
    network = predictor("invariant").network
    with pytest.raises(SpecError, match="'forces' is a vector of every atom, which this network does not have"):
        PropertyHeads([TargetSpec("forces", "vector", "atoms")], network.widths)


def test_levels_of_h0_need_electronic_inputs() -> None:
    with pytest.raises(SpecError, match="'homo' is read out as 'homo' of H0's levels, which this network is not told"):
        PropertyHeads([TargetSpec("homo", "scalar", "homo")], predictor("so2").network.widths)


def test_h0_comes_from_a_store_or_a_hamiltonian_model(tiny_store: Path, tiny_runs: dict[str, Path]) -> None:
    fitted = ElectronicStart.of(tiny_store, [1, 8])
    of_model = ElectronicStart.of(tiny_runs["hamiltonian"], [1, 8])
    again = ElectronicStart.from_dict(json.loads(json.dumps(of_model.to_dict())))
    settings = NetworkSettings(inputs="electronic", h0_from=str(tiny_store))
    graph = graph_settings(settings, fitted).graph(WATER)
    expected = fitted.rows(WATER, graph)
    for start in (of_model, again):
        rows = start.rows(WATER, graph)
        torch.testing.assert_close(rows.levels, expected.levels, rtol=0, atol=1e-12)
        torch.testing.assert_close(rows.density.pairs, expected.density.pairs, rtol=0, atol=1e-12)
    with pytest.raises(SpecError, match="knows H, O, but not N; expected a hamiltonian model or a store with every"):
        ElectronicStart.of(tiny_store, [1, 7, 8])
    with pytest.raises(SpecError, match="is a model without atomic potentials"):
        ElectronicStart.of(tiny_runs["density"], [1, 8])


def test_shares_of_frontier_orbitals_add_up_and_degenerate_ones_are_not_told_apart() -> None:
    """Of N2 the LUMO is a pair of pi* orbitals: a turn about the axis mixes them, and moves nothing."""
    start = ElectronicStart(BASIS, flat_potentials(BASIS.elements))
    settings = NetworkSettings(inputs="electronic", h0_from="nowhere")
    structure = Structure([7, 7], [[0.0, 0.0, 0.0], [0.3, 1.2, 1.7]])
    rows = start.rows(structure, graph_settings(settings, start).graph(structure))
    torch.testing.assert_close(rows.populations.sum(0), torch.ones(2, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(rows.populations[0], rows.populations[1], rtol=0, atol=1e-9)
    assert float(rows.levels[0, 0]) < float(rows.levels[0, 1])


def test_two_targets_of_one_name_are_refused() -> None:
    widths = predictor("invariant").network.widths
    with pytest.raises(SpecError, match="different names"):
        PropertyHeads([TargetSpec("gap", "scalar", "mean")] * 2, widths)


def test_settings_have_the_defaults_of_their_network() -> None:
    assert NetworkSettings(network="invariant").layers == 2
    assert NetworkSettings(network="naive").channels != NetworkSettings(network="so2").channels
    chosen = NetworkSettings(network="vector", layers=5, average_neighbours=7.0)
    assert chosen.layers == 5
    assert NetworkSettings.model_validate(chosen.model_dump()) == chosen


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"network": "naive", "l_max": 4}, "network 'naive' has no setting 'l_max'"),
        ({"network": "vector", "edge_channels": 8}, "network 'vector' has no setting 'edge_channels'"),
        ({"network": "vector", "inputs": "electronic"}, "network 'vector' has no setting 'inputs'"),
        ({"network": "so2", "inputs": "electronic"}, "need the path of a hamiltonian model or of a store in h0_from"),
        ({"network": "so2", "h0_from": "run"}, "need the path of a hamiltonian model or of a store in h0_from"),
        ({"network": "cubic"}, "Input should be 'naive'"),
        ({"network": "so2", "chanels": 8}, "Extra inputs are not permitted"),
    ],
)
def test_settings_that_a_network_does_not_have_are_refused(values: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        NetworkSettings.model_validate(values)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (("mu", "vector", "sum"), "a vector has no readout 'sum'"),
        (("mu", "scalar", "dipole", 1.0), "neither mean nor references"),
        (("gap", "scalar", "mean", 0.0, 0.0), "a positive spread"),
        (("gap", "scalar", "mean", 0.0, 1.0, {}, {1: 1.0}), "only the readout r2 has populations"),
        (("alpha", "tensor", "polarisability", 1.0), "a tensor has references, no mean"),
    ],
)
def test_impossible_targets_are_refused(values: tuple[object, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TargetSpec(*values)  # type: ignore[arg-type]


def test_targets_are_fitted_to_labels() -> None:
    """Labels that follow from elements and places alone leave nothing to learn, and their numbers are found again."""
    rng = np.random.default_rng(0)
    structures = [s.moved(s.positions + 0.2 * rng.normal(size=s.positions.shape)) for s in MOLECULES * 8]
    populations, extents = {1: 0.8, 6: 6.1, 7: 7.2, 8: 8.3}, {1: 1.0, 6: 5.0, 7: 5.5, 8: 6.0}

    def extent(s: Structure) -> float:
        centre = np.average(s.positions, axis=0, weights=s.atomic_numbers)
        squares = np.square(s.positions - centre).sum(1)
        own = zip(s.atomic_numbers.tolist(), squares.tolist(), strict=True)
        return sum(populations[z] * square + extents[z] for z, square in own)

    target = TargetSpec.fitted("r2", "scalar", "r2", [extent(s) for s in structures], structures)
    assert target.spread < 1e-5
    assert {z: round(n, 6) for z, n in target.populations.items()} == populations
    energies = [float(-np.square(s.atomic_numbers).sum()) for s in structures]
    target = TargetSpec.fitted("energy", "scalar", "sum", energies, structures)
    graph = graph_settings(NetworkSettings(network="invariant")).graph(WATER)
    heads = PropertyHeads([target], predictor("invariant").network.widths)
    assert float(heads.restore({"energy": torch.zeros(1)}, graph)["energy"]) == pytest.approx(-66.0, abs=1e-9)
    assert TargetSpec.from_dict(target.to_dict()) == target


def test_charges_are_fitted_by_element() -> None:
    labels = [np.where(s.atomic_numbers == 1, 0.3, -0.5) for s in MOLECULES]
    target = TargetSpec.fitted("charges", "scalar", "charges", labels, MOLECULES)
    assert target.references[1] == pytest.approx(0.3)
    assert target.references[7] == pytest.approx(-0.5)
    assert target.per_atom
