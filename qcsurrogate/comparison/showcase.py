"""What the report shows beside the figures: judges with what they gathered, one density, training curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qcsurrogate.comparison.collect import Collection, name_of
from qcsurrogate.comparison.figures import DENSITY_NMAE
from qcsurrogate.comparison.judge import Judge
from qcsurrogate.comparison.session import Session
from qcsurrogate.comparison.subjects import Curve, Subject
from qcsurrogate.density.densities import ElectronDensity, GaussianDensity
from qcsurrogate.registry import find_quantity
from qcsurrogate.structures import Structure

Array = NDArray[np.float64]

FIT = "density fit"
"""What the store's fitted density is called."""

PLANE_POINTS = 161
PLANE_MARGIN_BOHR = 3.0


@dataclass(frozen=True, eq=False)
class Plane:
    """The plane that fits a molecule's nuclei best.

    Attributes:
        origin: (3,) bohr, the middle of the picture.
        axes: (2, 3) orthonormal directions.
        half_width: bohr, from the middle to an edge.
    """

    origin: Array
    axes: Array
    half_width: float

    @classmethod
    def of(cls, structure: Structure, margin: float = PLANE_MARGIN_BOHR) -> Plane:
        """Through the centroid, along the two directions of greatest extent."""
        positions = structure.positions
        origin = positions.mean(axis=0)
        axes = np.linalg.svd(positions - origin, full_matrices=True)[2][:2]
        for axis in axes:  # the sign of a singular vector is arbitrary: fix it, so that pictures can be repeated
            if axis[np.argmax(np.abs(axis))] < 0:
                axis *= -1.0
        in_plane = (positions - origin) @ axes.T
        middle = 0.5 * (in_plane.max(axis=0) + in_plane.min(axis=0))
        extent = float((in_plane.max(axis=0) - in_plane.min(axis=0)).max())
        return cls(origin + middle @ axes, axes, 0.5 * extent + margin)

    def coordinates(self, positions: Array) -> tuple[Array, Array]:
        """(n, 2) coordinates in the plane and (n,) heights above it, of (n, 3) positions; bohr."""
        shifted = positions - self.origin
        return shifted @ self.axes.T, shifted @ np.cross(*self.axes)

    def points(self, n: int = PLANE_POINTS) -> Array:
        """(n * n, 3) points, rows of constant second coordinate."""
        line = np.linspace(-self.half_width, self.half_width, n)
        second, first = np.meshgrid(line, line, indexing="ij")
        return self.origin + first.ravel()[:, None] * self.axes[0] + second.ravel()[:, None] * self.axes[1]


@dataclass(frozen=True, eq=False)
class PlaneDensities:
    """Densities of one molecule on its plane, (n, n), electrons / bohr^3.

    ``differences`` are named: each model less Kohn-Sham, and the fit less Kohn-Sham.
    """

    name: str
    structure: Structure
    plane: Plane
    kohn_sham: Array
    differences: Mapping[str, Array]


@dataclass(frozen=True, eq=False)
class Showcase:
    """What the pictures draw and ``metrics.json`` does not hold."""

    judges: Mapping[str, Judge]
    plane: PlaneDensities | None
    curves: Mapping[str, Sequence[Curve]]


def choose_showcase(subjects: Sequence[Subject], collection: Collection, session: Session) -> Showcase:
    """Predict the molecules that are shown in detail once more; each is the one of median error."""
    for subject in subjects:
        if (key := _median_key(collection, subject.label, find_quantity(subject.surrogate.kind).ranking)) is not None:
            reference = session.reference(key)
            prediction = subject.predict(reference.structure)
            session.judges[subject.label].show(prediction, reference, name_of(reference.structure, key))
    by_kind = sorted(subjects, key=lambda s: s.surrogate.kind)
    shown = next((k for s in by_kind if (k := _median_key(collection, s.label, [DENSITY_NMAE.name]))), None)
    return Showcase(
        judges=session.judges,
        plane=None if shown is None else _plane(subjects, shown, session, collection),
        curves={s.label: s.curves for s in subjects if s.curves},
    )


def _median_key(collection: Collection, label: str, ranking: Sequence[str]) -> str | None:
    """The molecule whose error, by the first figure of the ranking that was measured, is the (upper) median."""
    for figure in ranking:
        found = sorted((values[figure], key) for key, values in collection.values[label].items() if figure in values)
        if found:
            return found[len(found) // 2][1]
    return None


def _plane(subjects: Sequence[Subject], key: str, session: Session, collection: Collection) -> PlaneDensities:
    reference = session.reference(key)
    plane = Plane.of(reference.structure)
    points = plane.points()
    kohn_sham = reference.density.density.on_points(points)
    densities: dict[str, ElectronDensity] = {}
    for subject in subjects:
        if DENSITY_NMAE.name in collection.values[subject.label][key]:
            density = session.judges[subject.label].density(subject.predict(reference.structure), reference)
            if density is not None:
                densities[subject.label] = density
    if reference.fitted_density is not None and any(isinstance(d, GaussianDensity) for d in densities.values()):
        densities[FIT] = reference.fitted_density.density
    shape = (PLANE_POINTS, PLANE_POINTS)
    return PlaneDensities(
        name=name_of(reference.structure, key),
        structure=reference.structure,
        plane=plane,
        kohn_sham=kohn_sham.reshape(shape),
        differences={
            label: (density.on_points(points) - kohn_sham).reshape(shape) for label, density in densities.items()
        },
    )
