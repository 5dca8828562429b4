"""How wrong a predicted density is expected to be: of every atom, and in percent of the electrons.

Of an atom the error is the norm of that of its coefficients, which belong to functions that are orthonormal on each
atom in the Coulomb metric: the square root of the self-repulsion of what is wrong there; of unrestricted Kohn-Sham in
the density of both spins together.  With u_A expected, the density error of a molecule (NMAE) goes as
(sum_A u_A^2 / N)^(1/2); the factor is found on validation molecules, whose errors are integrated over a coarse grid.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from pyscf import dft
from torch import Tensor, nn

from qcsurrogate.basis import BasisSet
from qcsurrogate.density.densities import GaussianDensity
from qcsurrogate.models.uncertainty import (
    MOST_MOLECULES,
    Blocks,
    ErrorModel,
    Watched,
    passes,
    spread_over,
    watched,
)
from qcsurrogate.prediction.uncertainty import Told, Uncertainty
from qcsurrogate.structures import Structure

if TYPE_CHECKING:
    from qcsurrogate.quantities.density.labels import DensityDataset
    from qcsurrogate.quantities.density.model import DensityModel

Array = NDArray[np.float64]

FIGURE: Final = "density_nmae_network"
UNIT: Final = "hartree^0.5"
ATOMS: Final = "atoms"
GRID_LEVEL: Final = 0
"""Of PySCF; a factor needs no fine grid."""


def new_error_model(model: DensityModel) -> ErrorModel:
    """One that expects nothing yet."""
    width = model.settings.readout_hidden + len(_irreps(model))
    return ErrorModel({ATOMS: (len(model.elements), width)}, (FIGURE,))


def _irreps(model: DensityModel) -> list[slice]:
    """Rows of every irrep of an atom but the invariant one."""
    return list(model.features.slices[1:])


def hidden(model: DensityModel) -> dict[str, nn.Module]:
    """The modules that put out the last hidden features."""
    return {str(z): model.blocks[str(z)] for z in model.elements}


def hidden_blocks(model: DensityModel, seen: Watched) -> Iterator[Blocks]:
    """The atoms of what was watched, element by element."""
    for z, index in seen.molecules.atoms_by_element.items():
        if (features := seen.features(str(z), _irreps(model))) is not None:
            yield Blocks(ATOMS, model.elements.index(z), features, features.new_ones(len(index)), index, index)


def expected_errors(model: DensityModel, seen: Watched) -> list[Uncertainty | None]:
    """For every molecule of what was watched the expected errors of its atoms; None before :func:`fit_errors`."""
    graph = seen.molecules
    if not model.error_model.fitted:
        return [None] * graph.n_molecules
    rows = model.error_model.calibration.rows()
    blocks = model.error_model.of_molecules(hidden_blocks(model, seen), graph)
    return [Uncertainty(np.diagonal(expected), UNIT, rows) for expected in blocks]


def nmae_estimate(expected: Array, n_electrons: int) -> dict[str, float]:
    """Raw estimate of the error of a molecule's density from those of its (n_atoms,) atoms."""
    return {FIGURE: float(np.sqrt(np.square(expected).sum() / n_electrons))}


@contextmanager
def expecting(model: DensityModel) -> Iterator[Told]:
    """While open, the model is watched; what is given out says what is expected of its last predictions."""
    with watched(model, hidden(model)) as seen:
        yield lambda: expected_errors(model, seen)


@torch.no_grad()
def fit_errors(model: DensityModel, training: DensityDataset, validation: DensityDataset, size: int) -> None:
    """Learn how large the errors are, of atoms and of whole densities.

    Args:
        model: with its final weights.
        training, validation: its data.
        size: molecules at a time.
    """

    def passed(data: DensityDataset, indices: Sequence[int]) -> Iterator[tuple[Sequence[int], Any, Watched]]:
        return passes(model, hidden(model), data, indices, size)

    known: list[tuple[Blocks, Tensor]] = []
    for _, batch, seen in passed(
        validation, sorted({*spread_over(len(validation), MOST_MOLECULES), *validation.references})
    ):
        errors = dict(model.atom_errors(batch, seen.result))
        known += [(b, errors[model.elements[b.kind]]) for b in hidden_blocks(model, seen)]
    training_blocks = (
        block
        for _, _, seen in passed(training, spread_over(len(training), MOST_MOLECULES))
        for block in hidden_blocks(model, seen)
    )
    model.error_model.fit(training_blocks, known, {ATOMS: model.spread_of_atoms()})
    raw, actual = [], []
    for chosen, _, seen in passed(validation, sorted(validation.references)):
        structures = [validation.references[i][0] for i in chosen]
        for i, told, found in zip(chosen, expected_errors(model, seen), model.coefficients(structures), strict=True):
            if told is not None:
                structure, fitted = validation.references[i]
                raw.append(nmae_estimate(told.blocks, structure.n_electrons)[FIGURE])
                actual.append(_nmae(structure, model.density_basis, np.atleast_2d(found)[0] - fitted))
    model.error_model.calibration.fit(FIGURE, raw, actual)


def _nmae(structure: Structure, basis: BasisSet, wrong: Array) -> float:
    """100 int |sum of wrong coefficients times functions| / N."""
    mol = basis.build_mol(structure)
    grids = dft.gen_grid.Grids(mol)
    grids.level, grids.verbose = GRID_LEVEL, 0
    grids.build()
    density = GaussianDensity(mol, wrong).on_points(np.asarray(grids.coords))
    return float(100.0 * (np.asarray(grids.weights) @ np.abs(density)) / structure.n_electrons)
