"""Assertions on symmetry, for this package's tests and for models of your own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from qcsurrogate.basis import BasisSet
from qcsurrogate.conventions import block_diagonal_wigner, inverse_order
from qcsurrogate.models.base import SurrogateModel
from qcsurrogate.models.density import DensityModel
from qcsurrogate.models.hamiltonian import HamiltonianModel
from qcsurrogate.models.statistics import Standardisation
from qcsurrogate.structures import Structure

Array = NDArray[np.float64]


def random_rotation(seed: int, *, improper: bool = False) -> Array:
    """A (3, 3) rotation; improper ones also invert space."""
    matrix = Rotation.random(rng=np.random.default_rng(seed)).as_matrix()
    return np.asarray(-matrix if improper else matrix)


def orbital_rotation(basis: BasisSet, atomic_numbers: Sequence[int] | NDArray[np.int64], rotation: Array) -> Array:
    """(n, n) matrix D(R) of a molecule's functions in PySCF order.

    ``M(R x) = D M(x) D^T`` for matrices, ``c(R x) = D c(x)`` for coefficients.
    """
    shells = [l for z in atomic_numbers for l in basis[int(z)].angular_momenta]
    internal = block_diagonal_wigner(shells, torch.as_tensor(rotation)).numpy()
    back = inverse_order(basis.internal_order(atomic_numbers))
    return np.asarray(internal[np.ix_(back, back)])


def function_permutation(
    basis: BasisSet, atomic_numbers: NDArray[np.int64], order: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Indices of the functions of a molecule whose atoms are reordered as ``numbers[order]``."""
    starts = basis.offsets(atomic_numbers)
    return np.concatenate([np.arange(starts[atom], starts[atom + 1]) for atom in order])


def perturb(model: SurrogateModel, *, seed: int = 0, size: float = 0.1) -> None:
    """Add noise to every weight, and give every kind of label a spread.

    Freshly initialised networks hide mistakes behind gains of one and biases of zero.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_((size * noise).to(parameter))
        for module in model.modules():
            if isinstance(module, Standardisation):
                module.scale.fill_(1.0)


def assert_equivariant(
    model: SurrogateModel, structures: Sequence[Structure], *, tolerance: float = 1e-9, seed: int = 0
) -> None:
    """Check a model in float64 under every symmetry of a molecule.

    Proper and improper rotation, translation, permutation of the atoms, batching; and,
    of a Hamiltonian, exact symmetry; of a density, the exact number of electrons.

    Raises:
        AssertionError: naming the symmetry, the structure and the largest deviation.
    """
    predict, basis, transform = _view(model)
    together = predict(structures)
    rng = np.random.default_rng(seed)
    for structure, batched in zip(structures, together, strict=True):
        numbers = structure.atomic_numbers
        alone = predict([structure])[0]
        scale = max(1.0, float(np.abs(alone).max()))

        def compare(
            what: str, found: Array, expected: Array, structure: Structure = structure, scale: float = scale
        ) -> None:
            deviation = float(np.abs(found - expected).max()) / scale
            if not deviation <= tolerance:
                raise AssertionError(
                    f"{model.kind} of {structure.label} under {what}: deviates by {deviation:.2e}, expected at most "
                    f"{tolerance:.0e}"
                )

        compare("batching", batched, alone)
        for improper in (False, True):
            rotation = random_rotation(seed, improper=improper)
            turned = predict([structure.moved(structure.positions @ rotation.T)])[0]
            expected = transform(alone, orbital_rotation(basis, numbers, rotation))
            compare("improper rotation" if improper else "rotation", turned, expected)
        compare("translation", predict([structure.moved(structure.positions + rng.normal(size=3))])[0], alone)
        order = rng.permutation(len(structure))
        permuted = Structure(numbers[order], structure.positions[order], structure.charge, structure.spin)
        index = function_permutation(basis, numbers, order)
        expected = alone[np.ix_(index, index)] if alone.ndim == 2 else alone[index]
        compare("permutation of atoms", predict([permuted])[0], expected)
        _check_kind(model, structure, alone)


def _check_kind(model: SurrogateModel, structure: Structure, prediction: Array) -> None:
    if isinstance(model, HamiltonianModel):
        if not np.array_equal(prediction, prediction.T):
            raise AssertionError(f"hamiltonian of {structure.label} is not exactly symmetric")
    elif isinstance(model, DensityModel):
        charges = np.concatenate([model.functions[str(z)].charges.numpy() for z in structure.atomic_numbers])  # type: ignore[operator]
        surplus = float(charges @ prediction) + structure.charge
        if not abs(surplus) <= 1e-8:
            raise AssertionError(f"density of {structure.label} holds {surplus:+.1e} electrons too many")


def _view(
    model: SurrogateModel,
) -> tuple[Callable[[Sequence[Structure]], list[Array]], BasisSet, Callable[[Array, Array], Any]]:
    """How to predict with a model, in which basis, and how its prediction turns with D(R)."""
    if isinstance(model, HamiltonianModel):
        return model.delta_matrices, model.orbital_basis, lambda matrix, d: d @ matrix @ d.T
    if isinstance(model, DensityModel):
        return model.coefficients, model.density_basis, lambda coefficients, d: d @ coefficients
    raise TypeError(f"no symmetry is known for a model of kind '{model.kind}'")
