"""Models of unrestricted Kohn-Sham: symmetries of molecules and of spins, charges and spins as inputs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from qcsurrogate.basis import even_tempered_basis, orbital_basis
from qcsurrogate.conventions import inverse_order
from qcsurrogate.data.block_rows import block_rows, join_rows
from qcsurrogate.data.blocks import BlockLayout
from qcsurrogate.data.graphs import collate
from qcsurrogate.errors import BasisError, DomainError
from qcsurrogate.models.base import SurrogateModel
from qcsurrogate.models.settings import DensitySettings, HamiltonianSettings
from qcsurrogate.quantities.density.labels import (
    DensityBatch,
    atom_functions,
    joined,
    molecular_metric,
    orthonormal_rows,
)
from qcsurrogate.quantities.density.model import DensityModel
from qcsurrogate.quantities.density.start import StartingDensity
from qcsurrogate.quantities.hamiltonian.model import HamiltonianModel
from qcsurrogate.quantities.hamiltonian.spin import spins_swapped
from qcsurrogate.reference.orthogonal import StartingPoint
from qcsurrogate.registry import find_quantity
from qcsurrogate.structures import Structure
from qcsurrogate.testing import assert_continuous, assert_equivariant, perturb
from tests.models.test_equivariance import FREE_ATOMS, HYDROXIDE, WATER, encoder, flat_potentials, model_of

AMIDOGEN = Structure([7, 1, 1], [[0.1, -0.2, 0.1], [1.5, 1.0, 0.3], [-1.4, 1.1, -0.2]], spin=1, name="amidogen")
WATER_CATION = replace(WATER, charge=1, spin=1, name="water cation")
OXYGEN = Structure([8, 8], [[0.0, 0.1, 0.0], [0.9, -0.8, 2.0]], spin=2, name="oxygen")
MIXED = (WATER, AMIDOGEN, HYDROXIDE, OXYGEN, WATER_CATION)


def open_shell_model(convolution: str = "so2", basis_name: str = "sto-3g") -> HamiltonianModel:
    basis = orbital_basis(basis_name, [1, 6, 7, 8])
    settings = HamiltonianSettings(encoder=encoder(convolution), readout_hidden=8, atom_hidden=8)
    model = HamiltonianModel(basis, settings, flat_potentials(basis.elements), 2)
    perturb(model.double(), seed=1)
    return model


def open_shell_density_model(convolution: str = "so2", loss: str = "coefficients") -> DensityModel:
    basis = orbital_basis("sto-3g", [1, 6, 7, 8])
    auxiliary = even_tempered_basis(basis, 2.5)
    settings = DensitySettings(encoder=encoder(convolution), readout_hidden=8, loss=loss)
    model = DensityModel(basis, auxiliary, settings, StartingDensity(flat_potentials(basis.elements), FREE_ATOMS), 2)
    model.set_functions({z: (f.transform, f.charges) for z, f in atom_functions(auxiliary).items()})
    perturb(model.double(), seed=1)
    return model


@pytest.fixture(scope="module")
def model() -> HamiltonianModel:
    return open_shell_model()


@pytest.fixture(scope="module")
def density_model() -> DensityModel:
    return open_shell_density_model()


@pytest.mark.parametrize(("convolution", "basis", "n"), [("so2", "def2-svp", 3), ("tensor_product", "sto-3g", 2)])
def test_equivariant_and_in_batches_of_mixed_charges_and_spins(convolution: str, basis: str, n: int) -> None:
    assert_equivariant(open_shell_model(convolution, basis), [AMIDOGEN, HYDROXIDE, WATER_CATION][:n], tolerance=1e-9)


@pytest.mark.parametrize(("convolution", "n"), [("so2", 4), ("tensor_product", 2)])
def test_densities_are_equivariant_and_hold_the_electrons_of_each_spin(convolution: str, n: int) -> None:
    structures = [AMIDOGEN, HYDROXIDE, WATER_CATION, OXYGEN][:n]
    assert_equivariant(open_shell_density_model(convolution), structures, tolerance=1e-9)


@pytest.mark.parametrize("kind", ["model", "density_model"])
def test_continuous_where_atoms_come_into_reach(kind: str, request: pytest.FixtureRequest) -> None:
    assert assert_continuous(request.getfixturevalue(kind), AMIDOGEN, HYDROXIDE, tolerance=1e-6) > 0


@pytest.mark.parametrize("kind", ["model", "density_model"])
def test_without_unpaired_electrons_the_spins_are_equal(kind: str, request: pytest.FixtureRequest) -> None:
    """Exactly, whatever the weights: alone, and beside radicals in a batch."""
    model: SurrogateModel = request.getfixturevalue(kind)
    for structure, (_, half) in zip(MIXED, model.predict_arrays(MIXED), strict=True):
        if structure.spin == 0:
            assert not half.any()
        else:
            assert np.abs(half).max() > 1e-3
    assert not model.predict_arrays([WATER])[0][1].any()


def test_swapped_spins_swap_what_is_predicted(model: HamiltonianModel) -> None:
    graphs = [model.graphs.graph(s) for s in MIXED]
    starts = model.starting_points(MIXED)
    known = [block_rows(start.density, graph, model.layouts) for start, graph in zip(starts, graphs, strict=True)]
    graph, inputs = collate(graphs), join_rows(known, graphs)
    with torch.no_grad():
        pairs, atoms = model(graph, inputs)
        other_pairs, other_atoms = model(graph, spins_swapped(inputs, graph, model.layouts))
    signs = [1.0 - 2.0 * model.block.odd_in_spin[model.block.place(kind)].double() for kind, _ in graph.pair_kinds]
    for rows, swapped, sign in zip(pairs, other_pairs, signs, strict=True):
        torch.testing.assert_close(swapped, rows * sign, rtol=0, atol=1e-12)
    for (z, rows), (_, swapped) in zip(atoms, other_atoms, strict=True):
        sign = 1.0 - 2.0 * model.layouts.atom(z).odd_in_spin.double()
        assert {float(x) for x in sign} == {1.0, -1.0}
        torch.testing.assert_close(swapped, rows * sign, rtol=0, atol=1e-12)


def test_swapped_spins_change_the_sign_of_a_spin_density_alone(density_model: DensityModel) -> None:
    graph = collate([density_model.graphs.graph(s) for s in MIXED])
    inputs = dict(density_model.starting_rows(MIXED))
    n = {z: density_model.density_basis[z].n_functions for z in inputs}
    swapped = {z: torch.cat([rows[:, : n[z]], -rows[:, n[z] :]], dim=1) for z, rows in inputs.items()}
    with torch.no_grad():
        found, other = (dict(density_model(graph, list(rows.items()))) for rows in (inputs, swapped))
    for z, rows in found.items():
        assert rows[:, n[z] :].abs().max() > 1e-3
        torch.testing.assert_close(other[z][:, : n[z]], rows[:, : n[z]], rtol=0, atol=0)
        torch.testing.assert_close(other[z][:, n[z] :], -rows[:, n[z] :], rtol=0, atol=0)


def test_the_density_loss_in_a_metric_is_that_of_both_densities() -> None:
    """d^T M d of alpha + beta and of alpha - beta, per electron, in PySCF's functions."""
    model = open_shell_density_model(loss="coulomb")
    structures = [AMIDOGEN, WATER_CATION]
    functions, basis = atom_functions(model.density_basis), model.density_basis
    rng = np.random.default_rng(0)
    labels = [rng.normal(size=(2, basis.n_functions(s.atomic_numbers))) for s in structures]
    rows = joined([orthonormal_rows(s, c, basis, functions) for s, c in zip(structures, labels, strict=True)])
    metrics = tuple(molecular_metric(s, basis, functions, "coulomb") for s in structures)
    graph = collate([model.graphs.graph(s) for s in structures])
    known = tuple(model.starting_rows(structures))
    loss = float(model.loss(DensityBatch(graph, rows, known, metrics)).detach())
    output = {z: rows.detach() + dict(known)[z] for z, rows in model(graph, known)}  # all spreads are one
    expected, taken = [], dict.fromkeys(output, 0)
    for structure, label in zip(structures, labels, strict=True):
        wrong = -label
        starts = basis.offsets(structure.atomic_numbers)
        for atom, z in enumerate(structure.atomic_numbers.tolist()):
            own = output[z][taken[z]].numpy().reshape(2, -1)[:, inverse_order(basis[z].internal_order)]
            wrong[:, starts[atom] : starts[atom + 1]] += own @ functions[z].transform.T
            taken[z] += 1
        metric = basis.build_mol(structure).intor("int2c2e")
        expected.append(np.einsum("kp,pq,kq->", wrong, metric, wrong) / structure.n_electrons)
    assert loss == pytest.approx(np.mean(expected), rel=1e-8)


def test_a_density_of_both_spins_needs_a_start_that_knows_them() -> None:
    basis = orbital_basis("sto-3g", [1, 8])
    settings = DensitySettings(encoder=encoder("so2"), readout_hidden=8, start="free_atoms")
    with pytest.raises(ValueError, match="2 components from 'free_atoms'; expected 1, or 2 that start from 'h0'"):
        DensityModel(basis, even_tempered_basis(basis, 2.5), settings, None, 2)


def test_charge_and_spin_are_seen(model: HamiltonianModel) -> None:
    """The same nuclei with other electrons have another Hamiltonian."""
    neutral, cation, dication = (
        model.predict_arrays([replace(WATER, charge=charge, spin=charge % 2)])[0][0] for charge in (0, 1, 2)
    )
    for one, other in ((neutral, cation), (cation, dication)):
        assert np.abs(one - other).max() > 1e-3


def test_two_components_are_two_matrices_of_one_layout() -> None:
    """Rows of a stack are those of each matrix, one after the other."""
    basis = orbital_basis("def2-svp", [8])[8]
    one, two = (BlockLayout(basis, basis, symmetric=True, n_components=n) for n in (1, 2))
    blocks = torch.randn(5, 2, basis.n_functions, basis.n_functions, dtype=torch.float64)
    blocks = blocks + blocks.mT
    rows = two.to_irreps(blocks)
    torch.testing.assert_close(rows, torch.cat([one.to_irreps(blocks[:, 0]), one.to_irreps(blocks[:, 1])], dim=1))
    torch.testing.assert_close(two.to_blocks(rows), blocks, rtol=0, atol=1e-12)
    assert two.n_rows == 2 * one.n_rows
    assert two.odd_in_spin.tolist() == [False] * one.n_rows + [True] * one.n_rows


def test_densities_of_h0_hold_the_electrons_of_each_spin() -> None:
    basis, potentials = orbital_basis("sto-3g", [1, 6, 7, 8]), flat_potentials([1, 6, 7, 8])
    for structure in MIXED:
        total, spin = StartingPoint.of(structure, basis, potentials, unrestricted=True).density
        assert np.trace(total) == pytest.approx(structure.n_electrons, abs=1e-9)
        assert np.trace(spin) == pytest.approx(structure.spin, abs=1e-9)
        if structure.spin == 0:
            assert not spin.any()
            closed = StartingPoint.of(structure, basis, potentials)
            np.testing.assert_allclose(total, closed.density, atol=1e-12)


def test_corrections_and_hamiltonians_are_inverses() -> None:
    basis = orbital_basis("sto-3g", [7, 1])
    start = StartingPoint.of(AMIDOGEN, basis, flat_potentials([1, 7]), unrestricted=True)
    components = np.random.default_rng(0).normal(size=(2, *start.baseline.shape))
    components += components.swapaxes(1, 2)
    np.testing.assert_allclose(start.hamiltonian(start.correction(components)), components, atol=1e-10)
    difference = start.correction(components)[1]
    np.testing.assert_allclose(start.root @ difference @ start.root, components[1], atol=1e-10)


def test_more_electrons_of_one_spin_than_functions_are_refused() -> None:
    triplet = Structure([2], [[0.0, 0.0, 0.0]], spin=2, name="helium")
    with pytest.raises(BasisError, match=r"'helium': 2 electrons of one spin do not fit into the 1 functions"):
        StartingPoint.of(triplet, orbital_basis("sto-3g", [2]), flat_potentials([2]), unrestricted=True)


@pytest.mark.parametrize("kind", ["hamiltonian", "density"])
def test_closed_shell_models_refuse_unpaired_electrons(kind: str) -> None:
    with pytest.raises(DomainError, match=r"'amidogen' has spin 1 .* restricted Kohn-Sham, closed shells only: train"):
        model_of(kind, "so2").predict_arrays([WATER, AMIDOGEN])


def test_description_rebuilds_both_components(model: HamiltonianModel) -> None:
    again = find_quantity("hamiltonian").build_model(model.description()).double()
    again.load_state_dict(model.state_dict())
    np.testing.assert_array_equal(again.predict_arrays([AMIDOGEN])[0], model.predict_arrays([AMIDOGEN])[0])


def test_what_is_odd_in_spin_has_no_mean(model: HamiltonianModel) -> None:
    """A mean would split the spins of a closed shell."""
    rows = {}
    for kind in model.block.kinds:
        n_rows = model.layouts.pair(kind).n_rows
        rows[kind] = torch.randn(7, n_rows, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 3.0
    fitted = open_shell_model()
    fitted.pair_labels.fit(rows)
    for kind in model.block.kinds:
        mean, scale = fitted.pair_labels.of(kind)
        odd = fitted.block.odd_in_spin[fitted.block.place(kind)]
        assert mean[~odd].any()
        assert not mean[odd].any()
        assert (scale > 0).all()
