"""Assertions on symmetry, for this package's tests and for models of your own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from qcsurrogate.basis import BasisSet
from qcsurrogate.conventions import block_diagonal_wigner, inverse_order
from qcsurrogate.models.base import SurrogateModel
from qcsurrogate.models.statistics import Float64Buffers
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
            if isinstance(module, Float64Buffers) and "scale" in module._buffers:
                module._buffers["scale"] = torch.ones_like(module.get_buffer("scale"))


def assert_equivariant(
    model: SurrogateModel, structures: Sequence[Structure], *, tolerance: float = 1e-9, seed: int = 0
) -> None:
    """Check a model in float64 under every symmetry of a molecule.

    Proper and improper rotation, translation, permutation of the atoms, batching; and what
    the model itself says of its predictions (``check_prediction``): of a Hamiltonian, exact
    symmetry; of a density, the exact number of electrons.

    Raises:
        AssertionError: naming the symmetry, the structure and the largest deviation.
    """
    predict, basis = model.predict_arrays, model.output_basis
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
            expected = alone if basis is None else _turned(alone, orbital_rotation(basis, numbers, rotation))
            compare("improper rotation" if improper else "rotation", turned, expected)
        compare("translation", predict([structure.moved(structure.positions + rng.normal(size=3))])[0], alone)
        order = rng.permutation(len(structure))
        permuted = Structure(numbers[order], structure.positions[order], structure.charge, structure.spin)
        expected = alone if basis is None else _permuted(alone, function_permutation(basis, numbers, order))
        compare("permutation of atoms", predict([permuted])[0], expected)
        model.check_prediction(structure, alone)


def assert_continuous(
    model: SurrogateModel,
    first: Structure,
    second: Structure,
    *,
    tolerance: float = 1e-6,
    step: float = 1e-9,
    seed: int = 0,
) -> float:
    """Check that a prediction does not jump where two atoms come into each other's reach.

    The second molecule is moved away from the first along a line; for every pair of atoms
    and every reach of the model, just before and just behind it are predicted.

    Args:
        model: in float64.
        first, second: molecules, each centred where it likes.
        tolerance: largest change that counts as none, in the unit of the prediction.
        step: half the distance between before and behind, bohr.
        seed: of the direction.

    Returns:
        The largest change.

    Raises:
        AssertionError: naming the pair of atoms, the reach and the change.
    """
    direction = np.random.default_rng(seed).normal(size=3)
    direction /= np.linalg.norm(direction)
    moving = second.positions - second.positions.mean(0) + first.positions.mean(0)
    numbers = np.concatenate([first.atomic_numbers, second.atomic_numbers])
    charge, spin = first.charge + second.charge, first.spin + second.spin

    def at(distance: float) -> Structure:
        return Structure(numbers, np.concatenate([first.positions, moving + distance * direction]), charge, spin)

    largest = 0.0
    reaches = {r for r in (model.graphs.message_cutoff, model.graphs.pair_cutoff) if r is not None and np.isfinite(r)}
    for reach in sorted(reaches):
        for i, position in enumerate(first.positions):
            for j, other in enumerate(moving):
                # |other + t direction - position| = reach, the larger t
                apart = other - position
                along = float(apart @ direction)
                inside = along**2 - float(apart @ apart) + reach**2
                distance = -along + float(np.sqrt(inside)) if inside > 0 else 0.0
                if distance < 5.0:  # the molecules would lie in each other
                    continue
                before, behind = model.predict_arrays([at(distance - step), at(distance + step)])
                change = float(np.abs(behind - before).max())
                largest = max(largest, change)
                if not change <= tolerance:
                    raise AssertionError(
                        f"{model.kind} jumps by {change:.1e} where atom {i} of {first.label} and atom {j} of "
                        f"{second.label} are {reach:.3f} bohr apart; expected at most {tolerance:.0e}"
                    )
    return largest


def _turned(array: Array, rotation: Array) -> Array:
    return np.asarray(rotation @ array @ rotation.T if _matrices(array) else array @ rotation.T)


def _permuted(array: Array, index: NDArray[np.int64]) -> Array:
    return array[..., index[:, None], index] if _matrices(array) else array[..., index]


def _matrices(array: Array) -> bool:
    """Whether (..., n, n) are matrices, not (k, n) vectors."""
    return array.ndim > 1 and array.shape[-2] == array.shape[-1]
