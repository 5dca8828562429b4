"""What models promise beside their symmetry: exact assembly, domains, descriptions, edge cases."""

from __future__ import annotations

import copy
import re

import numpy as np
import pytest
import torch

from qcsurrogate.basis import orbital_basis
from qcsurrogate.data.block_rows import block_rows, join_rows
from qcsurrogate.data.graphs import collate
from qcsurrogate.errors import DomainError, ModelFileError, SpecError
from qcsurrogate.models.build import validated
from qcsurrogate.models.settings import HamiltonianSettings
from qcsurrogate.quantities.hamiltonian.labels import HamiltonianBatch
from qcsurrogate.quantities.hamiltonian.model import HamiltonianModel, pair_cutoff
from qcsurrogate.registry import find_quantity
from qcsurrogate.structures import Structure
from qcsurrogate.testing import perturb
from tests.models.test_equivariance import FORMAMIDE, WATER, encoder, flat_potentials, model_of


@pytest.mark.parametrize("kind", ["hamiltonian", "density"])
def test_description_rebuilds_the_same_network(kind: str) -> None:
    model = model_of(kind, "so2")
    again = find_quantity(kind).build_model(model.description()).double()
    again.load_state_dict(model.state_dict())
    first, second = model.predict_arrays([WATER])[0], again.predict_arrays([WATER])[0]
    np.testing.assert_array_equal(first, second)


def test_description_of_another_kind_is_refused() -> None:
    with pytest.raises(ModelFileError, match="the description of a density model cannot be used"):
        find_quantity("density").build_model(model_of("hamiltonian", "so2").description())


@pytest.mark.parametrize("kind", ["hamiltonian", "density"])
def test_unknown_element_is_refused_by_name(kind: str) -> None:
    sulfide = Structure([16, 1, 1], WATER.positions * 1.3, name="hydrogen sulfide")
    model = model_of(kind, "so2")
    with pytest.raises(DomainError, match=r"'hydrogen sulfide' holds S; this model was trained on H, C, N, O only"):
        model.predict_arrays([WATER, sulfide])


@pytest.mark.parametrize("kind", ["hamiltonian", "density"])
def test_a_single_atom_and_a_far_pair_need_no_message(kind: str) -> None:
    # H0 feels what is far as well, however little; coordinates of a million bohr are exact to 1e-10 only
    far = Structure([8, 1, 1, 8, 1, 1], np.concatenate([WATER.positions, WATER.positions + 1e6]), name="two waters")
    model = model_of(kind, "so2")
    alone, pair = model.predict_arrays([WATER, far])
    n, allowed = len(alone), 2e-8 * np.abs(alone).max()
    if kind == "hamiltonian":
        np.testing.assert_allclose(pair[:n, :n], alone, rtol=0, atol=allowed)
        np.testing.assert_allclose(pair[n:, n:], alone, rtol=0, atol=allowed)
        assert not pair[:n, n:].any()
    else:
        np.testing.assert_allclose(pair[:n], alone, rtol=0, atol=allowed)
    oxide = Structure([8], np.zeros((1, 3)), charge=-2, name="oxide")
    assert np.isfinite(model.predict_arrays([oxide])[0]).all()


def test_a_kind_of_pair_never_seen_is_made_of_its_elements() -> None:
    """Nothing in the network belongs to a pair; its spread is made of those of the pairs that were seen."""
    model = model_of("hamiltonian", "so2")
    assert isinstance(model, HamiltonianModel)
    names = [name for name, _ in model.named_parameters()]
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    n_elements = len(model.elements)
    assert not [n for n in names if "_" in n.rsplit(".", 1)[-1] and n.rsplit(".", 1)[-1][0].isdigit()]
    assert n_elements**2 not in {shape[0] for name, shape in shapes.items() if "embedding" in name}
    generator = torch.Generator().manual_seed(0)
    spread = {z: torch.rand(8, generator=generator, dtype=torch.float64) + 0.5 for z in model.elements}

    def labels(kind: tuple[int, int]) -> torch.Tensor:
        """Rows whose spread is a product of one factor for each shell."""
        first, second = (spread[z] for z in kind)
        factors = [float(first[c.first_shell] * second[c.second_shell]) for c in model.layouts.pair(kind).channels]
        rows = [f for f, c in zip(factors, model.layouts.pair(kind).channels, strict=True) for _ in range(2 * c.l + 1)]
        return 1e-3 * torch.tensor(rows, dtype=torch.float64) * torch.tensor([[1.0], [-1.0]], dtype=torch.float64)

    unseen = (8, 7)
    model.pair_labels.fit({kind: labels(kind) for kind in model.block.kinds if kind != unseen})
    mean, scale = model.pair_labels.of(unseen)
    expected = model.block.sorted(unseen, labels(unseen)).abs()[0]
    assert not mean.any()
    np.testing.assert_allclose(scale.numpy(), expected.numpy(), rtol=1e-3)


def test_errors_are_those_of_the_assembled_matrices() -> None:
    """The error counted on irreps in bond frames is the mean over the matrix elements a user sees."""
    model = model_of("hamiltonian", "so2")
    assert isinstance(model, HamiltonianModel)
    other = copy.deepcopy(model)
    perturb(other, seed=5)
    structures = [WATER, FORMAMIDE]
    labels = other.predict_arrays(structures)
    batch = batch_of(model, structures, labels)
    total, count = model.errors(batch)["correction_mae"]
    differences = [p - q for p, q in zip(model.predict_arrays(structures), labels, strict=True)]
    assert count == sum(d.size for d in differences)
    assert float(total.detach()) == pytest.approx(sum(np.abs(d).sum() for d in differences), rel=1e-9)
    own = batch_of(other, structures, labels)
    assert float(other.errors(own)["correction_mae"][0].detach()) == pytest.approx(0.0, abs=1e-9)


def batch_of(model: HamiltonianModel, structures: list[Structure], labels: list[np.ndarray]) -> HamiltonianBatch:
    """The batch a data set would make of these labels."""
    graphs = [model.graphs.graph(structure) for structure in structures]
    known = [start.density for start in model.starting_points(structures)]
    rows, inputs = (
        join_rows([block_rows(m, graph, model.layouts) for m, graph in zip(matrices, graphs, strict=True)], graphs)
        for matrices in (labels, known)
    )
    return HamiltonianBatch(collate(graphs), rows, inputs, sum(m.size for m in labels), 0.0)


def test_pairs_reach_as_far_as_the_overlap() -> None:
    basis = orbital_basis("def2-svp", [1, 6])
    reach = pair_cutoff(basis, 1e-6)
    for distance, expected in ((0.8 * reach, True), (1.15 * reach, False)):
        mol = basis.build_mol(Structure([6, 6], [[0.0, 0.0, 0.0], [0.0, 0.0, distance]]))
        overlap = np.abs(mol.intor("int1e_ovlp")[: mol.nao // 2, mol.nao // 2 :]).max()
        assert (float(overlap) > 1e-6) == expected


def test_settings_suggest_the_key_that_was_meant() -> None:
    with pytest.raises(SpecError, match=r"unknown key 'model.encoder.chanels'; did you mean 'channels'\?"):
        validated(HamiltonianSettings, {"encoder": {"chanels": 8}})
    with pytest.raises(SpecError, match=r"unknown kind of model 'hamiltonan'.*did you mean 'hamiltonian'\?"):
        find_quantity("hamiltonan")


def test_statistics_stay_float64_beside_float32_weights() -> None:
    basis, settings = orbital_basis("sto-3g", [1]), HamiltonianSettings(encoder=encoder("so2"))
    model = HamiltonianModel(basis, settings, flat_potentials([1])).float()
    of_labels = re.compile(r"((pair|atom)_(labels|inputs)|error_model)\.")
    kinds = {name: tensor.dtype for name, tensor in model.state_dict().items()}
    assert {dtype for name, dtype in kinds.items() if of_labels.match(name)} == {torch.float64}
    assert {dtype for name, dtype in kinds.items() if not of_labels.match(name)} == {torch.float32}
