"""Every model and both convolutions under every symmetry, in float64 with perturbed weights."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
import torch

from qcsurrogate.basis import BasisSet, even_tempered_basis, orbital_basis
from qcsurrogate.models.base import SurrogateModel
from qcsurrogate.models.settings import DensitySettings, EncoderSettings, HamiltonianSettings
from qcsurrogate.quantities.density.labels import atom_functions
from qcsurrogate.quantities.density.model import DensityModel
from qcsurrogate.quantities.density.start import StartingDensity
from qcsurrogate.quantities.hamiltonian.model import HamiltonianModel
from qcsurrogate.reference.atoms import FreeAtom
from qcsurrogate.reference.potentials import AtomicPotential, exponents_for
from qcsurrogate.structures import Structure
from qcsurrogate.testing import assert_continuous, assert_equivariant, perturb

WATER = Structure([8, 1, 1], [[0.0, 0.0, 0.1], [0.1, 1.4, 1.1], [0.05, -1.5, 1.0]], name="water")
FORMAMIDE = Structure(
    [8, 7, 6, 1, 1, 1],
    np.array(
        [[2.3, 0.2, 0.1], [-1.9, 0.7, 0.0], [0.3, -0.9, -0.1], [0.2, -3.0, 0.1], [-3.5, -0.4, 0.2], [-2.1, 2.6, 0.1]]
    ),
    name="formamide",
)
HYDROXIDE = Structure([8, 1], [[0.0, 0.0, 0.0], [0.3, 0.4, 1.7]], charge=-1, name="hydroxide")
STRUCTURES = (WATER, FORMAMIDE, HYDROXIDE)


def encoder(convolution: str, *, cutoff: float = 5.0) -> EncoderSettings:
    """Small, and with a cutoff that leaves some pairs without a message."""
    return EncoderSettings(
        convolution=convolution,
        channels=4,
        edge_channels=3,
        hidden=8,
        hidden_odd=3,
        gaussians=6,
        message_cutoff=cutoff,
        average_neighbours=2.5,
    )


FREE_ATOMS = {
    z: FreeAtom(z, np.array([0.4, 3.0]), z * np.array([0.5, 0.5]) * (np.array([0.4, 3.0]) / np.pi) ** 1.5)
    for z in (1, 6, 7, 8)
}


def flat_potentials(elements: Iterable[int]) -> dict[int, AtomicPotential]:
    """Neutral atoms whose electrons are spread evenly over all Gaussians."""
    found = {z: exponents_for(z) for z in elements}
    return {z: AtomicPotential(a, np.full(len(a), z / len(a)), np.full(len(a), z / len(a))) for z, a in found.items()}


def model_of(kind: str, convolution: str, basis_name: str = "def2-svp") -> SurrogateModel:
    basis = orbital_basis(basis_name, [1, 6, 7, 8])
    model: SurrogateModel
    if kind == "hamiltonian":
        settings = HamiltonianSettings(encoder=encoder(convolution), readout_hidden=8, atom_hidden=8)
        model = HamiltonianModel(basis, settings, flat_potentials(basis.elements))
    else:
        auxiliary: BasisSet = even_tempered_basis(basis, 2.5)
        settings = DensitySettings(encoder=encoder(convolution), readout_hidden=8)
        start = StartingDensity(flat_potentials(basis.elements), FREE_ATOMS)
        model = DensityModel(basis, auxiliary, settings, start)
        model.set_functions({z: (f.transform, f.charges) for z, f in atom_functions(auxiliary).items()})
    perturb(model.double(), seed=1)
    return model


@pytest.mark.parametrize("convolution", ["so2", "tensor_product"])
@pytest.mark.parametrize("kind", ["hamiltonian", "density"])
def test_equivariant(kind: str, convolution: str) -> None:
    assert_equivariant(model_of(kind, convolution), STRUCTURES, tolerance=1e-9)


@pytest.mark.parametrize("basis", ["sto-3g", pytest.param("def2-tzvp", marks=pytest.mark.slow)])
def test_equivariant_in_other_bases(basis: str) -> None:
    assert_equivariant(model_of("hamiltonian", "so2", basis), STRUCTURES[:2], tolerance=1e-9)


@pytest.mark.parametrize("kind", ["hamiltonian", "density"])
def test_the_check_itself_notices_a_broken_symmetry(kind: str) -> None:
    model = model_of(kind, "so2")
    sign = model.encoder.rotation.sign  # type: ignore[union-attr]
    sign[-5:] *= -1.0  # type: ignore[index]
    with pytest.raises(AssertionError, match="rotation: deviates by"):
        assert_equivariant(model, [FORMAMIDE], tolerance=1e-9)


@pytest.mark.parametrize("convolution", ["so2", "tensor_product"])
@pytest.mark.parametrize("kind", ["hamiltonian", "density"])
def test_continuous_where_atoms_come_into_reach(kind: str, convolution: str) -> None:
    assert assert_continuous(model_of(kind, convolution), WATER, FORMAMIDE, tolerance=1e-6) > 0


@pytest.mark.parametrize("what", ["messages", "pairs"])
def test_the_check_itself_notices_a_jump(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("hamiltonian", "so2")
    module = "qcsurrogate.models.encoder" if what == "messages" else "qcsurrogate.quantities.hamiltonian.model"
    monkeypatch.setattr(f"{module}.smooth_cutoff", lambda lengths, cutoff: torch.ones_like(lengths))
    with pytest.raises(AssertionError, match=r"hamiltonian jumps by .* where atom \d of structure 'water' and atom"):
        assert_continuous(model, WATER, FORMAMIDE, tolerance=1e-6)
