# ruff: noqa: RUF001 - a cross product is written as one
"""The algebra of rotations on small vectors: every statement is a function, and a check that measures it.

Vectors are (3,) arrays x, y, z; rotations (3, 3) orthogonal matrices, improper ones included
unless a function says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from qcsurrogate.conventions import clebsch_gordan, internal_order, wigner_matrices

Array = NDArray[np.float64]

FIRST: Final = np.array([1.0, 2.0, 3.0])
SECOND: Final = np.array([2.0, 3.0, 2.0])
"""Their product is 14, and their cross product (-5, 4, -1)."""

EQUAL: Final = 1e-12
"""Relative to the numbers compared: what is equal by the algebra is equal to rounding."""

DIFFERENT: Final = 1e-2
"""What is not, differs by more than this."""

_AXES: Final = internal_order([1])
_HIGHEST: Final = 4


@dataclass(frozen=True)
class Check:
    """A statement and how far its two sides are apart.

    Attributes:
        statement: in words.
        left, right: both sides, as they are shown.
        deviation: largest difference, relative to the size of the right side.
        equal: whether the sides are claimed to be equal; else that they are not.
    """

    statement: str
    left: str
    right: str
    deviation: float
    equal: bool = True

    @property
    def holds(self) -> bool:
        """Whether the numbers say so too."""
        return self.deviation <= EQUAL if self.equal else self.deviation > DIFFERENT


def rotation_about(axis: Sequence[float], degrees: float) -> Array:
    """(3, 3) proper rotation about an axis."""
    unit = np.asarray(axis, dtype=np.float64)
    return np.asarray(Rotation.from_rotvec(np.radians(degrees) * unit / np.linalg.norm(unit)).as_matrix())


def tensor_product(a: Array, b: Array) -> Array:
    """(3, 3) all products a_i b_j; both vectors turned, it is R (a x b) R^T."""
    return np.outer(a, b)


def antisymmetric_vector(tensor: Array) -> Array:
    """(3,) the vector in the antisymmetric part, v_i = sum_jk eps_ijk T_jk: of a (x) b the cross product a x b."""
    return np.array([tensor[1, 2] - tensor[2, 1], tensor[2, 0] - tensor[0, 2], tensor[0, 1] - tensor[1, 0]])


def decompose(tensor: Array) -> tuple[Array, Array, Array]:
    """The parts l = 0, 1, 2 of a (3, 3) tensor, 1 + 3 + 5 numbers m = -l..l, by Clebsch-Gordan coefficients."""
    inner = tensor[np.ix_(_AXES, _AXES)]
    zero, one, two = (np.einsum("ab,abm->m", inner, clebsch_gordan(1, 1, l)) for l in range(3))
    return zero, one, two


def compose(parts: Sequence[Array]) -> Array:
    """The inverse of :func:`decompose`."""
    inner = sum(np.einsum("m,abm->ab", part, clebsch_gordan(1, 1, l)) for l, part in enumerate(parts))
    tensor = np.empty((3, 3))
    tensor[np.ix_(_AXES, _AXES)] = inner
    return tensor


def wigner(l: int, rotation: Array) -> Array:
    """(2l+1, 2l+1) matrix of a rotation on the functions of one l."""
    return np.asarray(wigner_matrices(l, torch.as_tensor(rotation))[l].numpy())


def shifted(x: Array, shift: Array) -> Array:
    """f(x) = x + t."""
    return x + shift


def deviation(left: Array | float, right: Array | float) -> float:
    """Largest difference, relative to the largest number on the right."""
    one, other = np.asarray(left), np.asarray(right)
    return float(np.abs(one - other).max() / max(float(np.abs(other).max()), 1e-300))


def algebra_checks(rotation: Array, other: Array) -> list[Check]:
    """Every statement, for the vectors :data:`FIRST` and :data:`SECOND`.

    Args:
        rotation, other: proper rotations, not about the same axis.
    """
    a, b, r, s = FIRST, SECOND, rotation, other
    ra, rb, product = r @ a, r @ b, tensor_product(a, b)
    turned = tensor_product(ra, rb)
    parts, parts_turned = decompose(product), decompose(turned)
    mirror = np.diag([1.0, 1.0, -1.0])
    cross = antisymmetric_vector(product)
    found = [
        _check("a ⊗ b turns as R (a ⊗ b) Rᵀ", turned, r @ product @ r.T),
        _check("its trace, a · b, does not turn", np.trace(turned), np.trace(product)),
        _check("its antisymmetric part is the vector a × b", cross, np.cross(a, b)),
        _check("rotating that vector is building it from rotated vectors", r @ cross, antisymmetric_vector(turned)),
        _check(
            "a mirror M does to it what it does to no polar vector: M (a × b) is not (M a) × (M b)",
            mirror @ cross,
            antisymmetric_vector(tensor_product(mirror @ a, mirror @ b)),
            equal=False,
        ),
        _check(
            "(M a) × (M b) is det(M) M (a × b): an axial vector",
            np.linalg.det(mirror) * mirror @ cross,
            antisymmetric_vector(tensor_product(mirror @ a, mirror @ b)),
        ),
        _check("3 ⊗ 3 = 0 ⊕ 1 ⊕ 2: the nine numbers come back from 1 + 3 + 5", compose(parts), product),
        _check(
            "lengths too: the squares of the three parts add up to |a|² |b|²",
            sum(float(part @ part) for part in parts),
            float(a @ a) * float(b @ b),
        ),
        _check("the part l = 0 is the trace over √3", parts[0], np.array([np.trace(product) / np.sqrt(3.0)])),
    ]
    found += [
        _check(f"the part l = {l} turns with its own matrix D({l}), and no other part enters", wigner(l, r) @ p, q)
        for l, (p, q) in enumerate(zip(parts, parts_turned, strict=True))
    ]
    found += [
        _check(f"D({l}) is a homomorphism: D(R S) = D(R) D(S)", wigner(l, r @ s), wigner(l, r) @ wigner(l, s))
        for l in range(1, _HIGHEST + 1)
    ]
    shift = np.array([1.0, 0.0, 0.0])
    found += [
        _check("the order of rotations matters: D(R S) is not D(S R)", wigner(2, r @ s), wigner(2, s @ r), equal=False),
        _check(
            "squares of the elements are no homomorphism",
            np.square(r @ s),
            np.square(r) @ np.square(s),
            equal=False,
        ),
        _check(
            "f(x) = x + t is not equivariant to rotations: f(R x) is not R f(x)",
            shifted(r @ a, shift),
            r @ shifted(a, shift),
            equal=False,
        ),
        _check("f(x) = |x|² x is", float(ra @ ra) * ra, r @ (float(a @ a) * a)),
    ]
    return found


def _check(statement: str, left: Array | float, right: Array | float, *, equal: bool = True) -> Check:
    return Check(statement, _shown(left), _shown(right), deviation(left, right), equal)


def _shown(value: Array | float) -> str:
    """A number or a short vector as the page shows it; of a matrix its first row."""
    array = np.asarray(value)
    if array.ndim == 0:
        return f"{float(array):.6g}"
    row = array[0] if array.ndim == 2 else array
    text = ", ".join(f"{x:.4g}" for x in np.round(row, 10) + 0.0)
    return f"({text}, ...)" if array.ndim == 2 else f"({text})"


Filter = Callable[[Array], Array]


def periodic_convolution(image: Array, kernel: Array) -> Array:
    """(n, n) image whose ends meet, with a (k, k) kernel, k odd: sum_ij kernel_ij image(x + i, y + j)."""
    half = len(kernel) // 2
    total = np.zeros_like(image)
    for (i, j), weight in np.ndenumerate(kernel):
        total += weight * np.roll(image, (half - i, half - j), axis=(0, 1))
    return total


def symmetrised(kernel: Array) -> Array:
    """A kernel's mean over its four turns by right angles."""
    return np.asarray(np.mean([np.rot90(kernel, k) for k in range(4)], axis=0))


def convolution_checks(image: Array, kernel: Array, shift: tuple[int, int]) -> list[Check]:
    """A convolution under translations and under rotations, measured on an image.

    Args:
        image: (n, n), not symmetric itself.
        kernel: (k, k), not symmetric itself.
        shift: pixels.
    """

    def filtered(x: Array) -> Array:
        return periodic_convolution(x, kernel)

    def symmetric(x: Array) -> Array:
        return periodic_convolution(x, symmetrised(kernel))

    def moved(x: Array) -> Array:
        return np.roll(x, shift, axis=(0, 1))

    by = f"{shift[0]}, {shift[1]} pixels"
    return [
        _commuting(f"convolving an image moved by {by} is moving the convolved image", filtered, moved, image),
        _commuting("convolving a turned image is not turning the convolved image", filtered, np.rot90, image, False),
        _commuting("but it is where the kernel is the mean of its own turns", symmetric, np.rot90, image),
    ]


def _commuting(statement: str, one: Filter, other: Filter, image: Array, equal: bool = True) -> Check:
    left, right = one(other(image)), other(one(image))
    return Check(statement, _size(left), _size(right), deviation(left, right), equal)


def _size(image: Array) -> str:
    return f"{image.shape[0]} × {image.shape[1]} pixels, up to {np.abs(image).max():.3g}"
