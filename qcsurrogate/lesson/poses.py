"""A molecule and its rotation, as two networks see them: places of atoms, and what the networks make of every atom."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import as_file, files
from typing import cast

import ase.io
import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray

from qcsurrogate.lesson.contest import LessonModel
from qcsurrogate.sources.bonds import bonded
from qcsurrogate.structures import Structure
from qcsurrogate.units import ANGSTROM_PER_BOHR

EXAMPLE = "gdb_814"

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Poses:
    """A molecule and its rotation, before and behind a network.

    Attributes:
        atomic_numbers: (n_atoms,).
        bonds: (n_bonds, 2) atoms.
        places: (2, n_atoms, 3) Angstrom, about their centre, as given and turned.
        embeddings: (2, n_atoms, 3) what the network holds of every atom, on the three axes along which it varies
            most; the same axes for both.
        share: of the variance of the embeddings that these axes show.
        change: largest change of a number that the network holds, relative to the spread of all.
    """

    atomic_numbers: NDArray[np.int64]
    bonds: NDArray[np.int64]
    places: Array
    embeddings: Array
    share: float
    change: float


def example() -> Structure:
    """The lesson's molecule, which is in no training set of the lesson."""
    with as_file(files("qcsurrogate.resources") / f"{EXAMPLE}.xyz") as path:
        return Structure.from_ase(cast(Atoms, ase.io.read(path, format="xyz")), name=EXAMPLE)


@torch.no_grad()
def poses(model: LessonModel, structure: Structure, rotation: Array) -> Poses:
    """What a model holds of the atoms of a molecule as it is, and turned."""
    turned = structure.moved(structure.positions @ rotation.T)
    both = np.stack([model.embeddings(model.graph([s])).scalars.double().numpy() for s in (structure, turned)])
    flat = both.reshape(-1, both.shape[-1])
    centred = flat - flat.mean(axis=0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    axes = left[:, :3] * sizes[:3]
    places = np.stack([s.positions - s.positions.mean(axis=0) for s in (structure, turned)]) * ANGSTROM_PER_BOHR
    return Poses(
        structure.atomic_numbers,
        np.argwhere(np.triu(bonded(structure))),
        places,
        axes.reshape(2, len(structure), 3),
        float(np.square(sizes[:3]).sum() / max(np.square(sizes).sum(), np.finfo(np.float64).tiny)),
        float(np.abs(both[1] - both[0]).max() / flat.std()),
    )


def picture_of(structure: Structure, n_pixels: int = 64, width_angstrom: float = 9.0, blur: float = 0.45) -> Array:
    """(n_pixels, n_pixels) a molecule seen along z: a Gaussian for every atom, as high as its number of electrons.

    Args:
        structure: the molecule.
        n_pixels: along each side.
        width_angstrom: of the picture.
        blur: standard deviation of a Gaussian, Angstrom.
    """
    axis = (np.arange(n_pixels) / n_pixels - 0.5) * width_angstrom
    places = (structure.positions - structure.positions.mean(axis=0)) * ANGSTROM_PER_BOHR
    rows, columns = (np.exp(-np.square(axis[:, None] - places[None, :, k]) / (2.0 * blur**2)) for k in (1, 0))
    return np.asarray((rows * structure.atomic_numbers) @ columns.T)[::-1]
