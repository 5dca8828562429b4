"""Gaussian cube files: a density on a regular grid, in bohr."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qcsurrogate.errors import SpecError
from qcsurrogate.files.atomic import write_output
from qcsurrogate.structures import Structure

MAXIMUM_POINTS = 100_000_000
_VALUES_PER_LINE = 6


def write_cube(
    path: str | Path,
    structure: Structure,
    values: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    *,
    comment: str,
    resolution: float = 0.2,
    margin: float = 4.0,
) -> None:
    """Write a scalar field around a molecule as a Gaussian cube file.

    Positive numbers of voxels say that the lengths are in bohr; z runs fastest.

    Args:
        path: where to; an older file stays until the new one is complete.
        values: from (n, 3) points in bohr to (n,) values.
        resolution: distance of neighbouring points, bohr.
        margin: least distance from a nucleus to the edge of the box, bohr.

    Raises:
        SpecError: if resolution or margin cannot be used.
        OutputError: if the file cannot be written.
    """
    origin, shape = box(structure, resolution, margin)
    axes = [origin[k] + resolution * np.arange(shape[k]) for k in range(3)]
    plane = np.stack(np.meshgrid(np.zeros(1), axes[1], axes[2], indexing="ij"), axis=-1).reshape(-1, 3)
    row = _row_format(shape[2])
    slabs = [_header(structure, comment, origin, shape, resolution)]
    for x in axes[0]:
        plane[:, 0] = x
        rows = values(plane).reshape(shape[1], shape[2]).tolist()
        slabs.append("".join([row % tuple(r) for r in rows]))
    write_output(path, "".join(slabs).encode("ascii"), "the cube file")


def box(structure: Structure, resolution: float, margin: float) -> tuple[NDArray[np.float64], tuple[int, int, int]]:
    """Origin (3,) in bohr and numbers of points of the grid, centred on the molecule."""
    if not (np.isfinite(resolution) and resolution > 0):
        raise SpecError(f"resolution = {resolution} bohr; expected a positive distance such as 0.2")
    if not (np.isfinite(margin) and margin >= 0):
        raise SpecError(f"margin = {margin} bohr; expected a distance of zero or more, such as 4")
    low, high = structure.positions.min(axis=0) - margin, structure.positions.max(axis=0) + margin
    steps = np.ceil((high - low) / resolution)
    if np.prod(steps + 1) > MAXIMUM_POINTS:
        raise SpecError(
            f"a cube of resolution {resolution} bohr around {structure.label} has {np.prod(steps + 1):.3g} points; "
            f"expected at most {MAXIMUM_POINTS:.3g}: choose a coarser resolution or a smaller margin"
        )
    shape = tuple(int(n) + 1 for n in steps)
    return 0.5 * (low + high - steps * resolution), (shape[0], shape[1], shape[2])


def _row_format(n: int) -> str:
    """Format of one run along z: six values a line."""
    lines = [min(_VALUES_PER_LINE, n - start) for start in range(0, n, _VALUES_PER_LINE)]
    return "".join(" %12.5E" * length + "\n" for length in lines)


def _header(
    structure: Structure, comment: str, origin: NDArray[np.float64], shape: tuple[int, int, int], resolution: float
) -> str:
    lines = [
        " ".join(comment.split()).encode("ascii", "replace").decode(),
        "electrons / bohr^3; lengths in bohr; x outermost, z fastest",
        _numbers(len(structure), *origin),
    ]
    lines.extend(_numbers(n, *axis) for n, axis in zip(shape, resolution * np.eye(3), strict=True))
    for z, position in zip(structure.atomic_numbers, structure.positions, strict=True):
        lines.append(_numbers(int(z), float(z), *position))
    return "\n".join(lines) + "\n"


def _numbers(count: int, *values: float) -> str:
    return f"{count:5d}" + "".join(f" {value:12.6f}" for value in values)
