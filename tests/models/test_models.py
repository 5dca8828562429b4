"""What models promise beside their symmetry: exact assembly, domains, descriptions, edge cases."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from qcsurrogate.basis import orbital_basis
from qcsurrogate.data.graphs import GraphSettings
from qcsurrogate.errors import DomainError, ModelFileError, SpecError
from qcsurrogate.models.build import validated
from qcsurrogate.models.settings import HamiltonianSettings
from qcsurrogate.quantities.hamiltonian.labels import HamiltonianBatch, HamiltonianDataset, hamiltonian_sample
from qcsurrogate.quantities.hamiltonian.model import HamiltonianModel, pair_cutoff
from qcsurrogate.registry import find_quantity
from qcsurrogate.structures import Structure
from qcsurrogate.testing import perturb
from tests.models.test_equivariance import FORMAMIDE, WATER, encoder, model_of


@pytest.mark.parametrize("kind", ["hamiltonian", "density"])
def test_description_rebuilds_the_same_network(kind: str) -> None:
    model = model_of(kind, "so2")
    again = find_quantity(kind).build_model(model.description()).double()
    again.load_state_dict(model.state_dict())
    predict = "delta_matrices" if kind == "hamiltonian" else "coefficients"
    first, second = getattr(model, predict)([WATER])[0], getattr(again, predict)([WATER])[0]
    np.testing.assert_array_equal(first, second)


def test_description_of_another_kind_is_refused() -> None:
    with pytest.raises(ModelFileError, match="the description of a density model cannot be used"):
        find_quantity("density").build_model(model_of("hamiltonian", "so2").description())


@pytest.mark.parametrize("kind", ["hamiltonian", "density"])
def test_unknown_element_is_refused_by_name(kind: str) -> None:
    sulfide = Structure([16, 1, 1], WATER.positions * 1.3, name="hydrogen sulfide")
    model = model_of(kind, "so2")
    predict = model.delta_matrices if isinstance(model, HamiltonianModel) else model.coefficients  # type: ignore[attr-defined]
    with pytest.raises(DomainError, match=r"'hydrogen sulfide' holds S; this model was trained on H, C, N, O only"):
        predict([WATER, sulfide])


@pytest.mark.parametrize("kind", ["hamiltonian", "density"])
def test_a_single_atom_and_a_far_pair_need_no_message(kind: str) -> None:
    ion = Structure([8], np.zeros((1, 3)), charge=-2, name="oxide")
    far = Structure([8, 8], [[0.0, 0.0, 0.0], [0.0, 0.0, 60.0]], name="two far atoms")
    model = model_of(kind, "so2")
    if isinstance(model, HamiltonianModel):
        alone, pair = model.delta_matrices([ion, far])
        n = len(alone)
        np.testing.assert_allclose(pair[:n, :n], alone, atol=1e-12)
        assert not pair[:n, n:].any()
    else:
        alone, pair = model.coefficients([ion, far])  # type: ignore[attr-defined]
        assert len(pair) == 2 * len(alone)


def test_a_kind_of_pair_never_seen_keeps_the_baseline() -> None:
    model = model_of("hamiltonian", "so2")
    assert isinstance(model, HamiltonianModel)
    model.statistics["8_7"].scale.zero_()  # type: ignore[union-attr,operator]
    starts = model.orbital_basis.offsets(FORMAMIDE.atomic_numbers)
    matrix = model.delta_matrices([FORMAMIDE])[0]
    assert not matrix[starts[0] : starts[1], starts[1] : starts[2]].any()
    assert matrix[starts[0] : starts[1], starts[2] : starts[3]].any()


def test_errors_are_those_of_the_assembled_matrices() -> None:
    """The error counted on irreps in bond frames is the mean over the matrix elements a user sees."""
    model = model_of("hamiltonian", "so2")
    assert isinstance(model, HamiltonianModel)
    other = copy.deepcopy(model)
    perturb(other, seed=5)
    settings = model.graphs
    structures = [WATER, FORMAMIDE]
    labels = other.delta_matrices(structures)
    batch = batch_of(model, settings, structures, labels)
    total, count = model.errors(batch)["hamiltonian_mae"]
    differences = [p - q for p, q in zip(model.delta_matrices(structures), labels, strict=True)]
    assert count == sum(d.size for d in differences)
    assert float(total.detach()) == pytest.approx(sum(np.abs(d).sum() for d in differences), rel=1e-9)
    own = batch_of(other, settings, structures, labels)
    assert float(other.errors(own)["hamiltonian_mae"][0].detach()) == pytest.approx(0.0, abs=1e-9)


def batch_of(
    model: HamiltonianModel, settings: GraphSettings, structures: list[Structure], labels: list[np.ndarray]
) -> HamiltonianBatch:
    """The batch a data set would make of these labels."""
    samples = [
        hamiltonian_sample(structure, label, model.layouts, settings, torch.float64)
        for structure, label in zip(structures, labels, strict=True)
    ]
    keys = [s.key for s in structures]
    return HamiltonianDataset(samples, keys, model.orbital_basis, settings).batch(range(len(structures)))


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
    model = HamiltonianModel(orbital_basis("sto-3g", [1]), HamiltonianSettings(encoder=encoder("so2"))).float()
    kinds = {name: tensor.dtype for name, tensor in model.state_dict().items()}
    assert {dtype for name, dtype in kinds.items() if name.startswith("statistics")} == {torch.float64}
    assert {dtype for name, dtype in kinds.items() if not name.startswith("statistics")} == {torch.float32}
