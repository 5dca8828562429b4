"""How wrong a predicted Hamiltonian is expected to be: its blocks, and what is read from it.

Everything begins with the expected error u_AB of an element of D between atoms A and B, in the orthogonalised basis.
An orbital with the share w_A on atom A (Löwdin) then moves by about (sum_AB w_A w_B u_AB^2)^(1/2), to first order and
as if blocks went wrong independently; they do not, and one factor for each figure, from validation molecules, makes up
for it.  Shares, and so all estimates, are those of a turned molecule too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from qcsurrogate.basis import BasisSet
from qcsurrogate.comparison.metrics import block_means
from qcsurrogate.data.graphs import Graph
from qcsurrogate.models.statistics import Standardisation
from qcsurrogate.models.uncertainty import (
    MOST_MOLECULES,
    Blocks,
    ErrorModel,
    Watched,
    passes,
    places,
    spread_over,
    watched,
)
from qcsurrogate.nn.radial import smooth_cutoff
from qcsurrogate.prediction.uncertainty import Told, Uncertainty
from qcsurrogate.reference.orthogonal import StartingPoint

if TYPE_CHECKING:
    from qcsurrogate.quantities.hamiltonian.labels import HamiltonianDataset, HamiltonianSample
    from qcsurrogate.quantities.hamiltonian.model import HamiltonianModel

Array = NDArray[np.float64]

FIGURES: Final = ("hamiltonian_mae", "occupied_energy_mae", "homo_error", "lumo_error", "gap_error")
"""Figures of a molecule whose errors are expected, as comparisons name them."""

PAIRS: Final = "pairs"
ATOMS: Final = "atoms"


def new_error_model(model: HamiltonianModel) -> ErrorModel:
    """One that expects nothing yet."""
    settings = model.settings
    readouts = {
        ATOMS: (len(model.elements), settings.atom_hidden + len(_irreps(model))),
        PAIRS: (len(model.block.kinds), settings.readout_hidden + len(_orders(model))),
    }
    return ErrorModel(readouts, FIGURES)


def _irreps(model: HamiltonianModel) -> list[slice]:
    """Rows of every irrep of an atom but the invariant one."""
    return list(model.features.slices[1:])


def _orders(model: HamiltonianModel) -> list[slice]:
    """Rows +m and -m of a pair."""
    return [slice(2 * m - 1, 2 * m + 1) for m in range(1, model.features.l_max + 1)]


def hidden(model: HamiltonianModel) -> dict[str, nn.Module]:
    """The modules that put out the last hidden features."""
    return {PAIRS: model.pair_readout.gate} | {str(z): model.atom_blocks[str(z)] for z in model.elements}


def hidden_blocks(model: HamiltonianModel, seen: Watched) -> Iterator[Blocks]:
    """The blocks of what was watched."""
    graph = seen.molecules
    if graph.pairs is not None and (features := seen.features(PAIRS, _orders(model))) is not None:
        first = 0
        for kind, count in graph.pair_kinds:
            part = slice(first, first + count)
            reach = smooth_cutoff(graph.pairs.lengths[part].double(), model.pair_readout.reach)
            ends = graph.pairs.target[part], graph.pairs.source[part]
            yield Blocks(PAIRS, model.block.kinds.index(kind), features[part], reach, *ends)
            first += count
    for z, index in graph.atoms_by_element.items():
        if (features := seen.features(str(z), _irreps(model))) is not None:
            kind_of_atom = model.elements.index(z)
            yield Blocks(ATOMS, kind_of_atom, features, features.new_ones(len(index)), index, index)


def expected_errors(model: HamiltonianModel, seen: Watched) -> list[Uncertainty | None]:
    """For every molecule of what was watched the expected errors of elements of D; None before :func:`fit_errors`."""
    graph = seen.molecules
    if not model.error_model.fitted:
        return [None] * graph.n_molecules
    rows = model.error_model.calibration.rows()
    blocks = model.error_model.of_molecules(hidden_blocks(model, seen), graph)
    return [Uncertainty(expected, "hartree", rows) for expected in blocks]


@contextmanager
def expecting(model: HamiltonianModel) -> Iterator[Told]:
    """While open, the model is watched; what is given out says what is expected of its last predictions."""
    with watched(model, hidden(model)) as seen:
        yield lambda: expected_errors(model, seen)


@torch.no_grad()
def fit_errors(
    model: HamiltonianModel, training: HamiltonianDataset, validation: HamiltonianDataset, size: int
) -> None:
    """Learn how large the errors are, of blocks and of figures.

    Args:
        model: with its final weights.
        training, validation: its data.
        size: molecules at a time.
    """
    device, basis = model.encoder.embedding.weight.device, model.orbital_basis

    def passed(data: HamiltonianDataset, indices: Sequence[int]) -> Iterator[tuple[Sequence[int], Any, Watched]]:
        return passes(model, hidden(model), data, indices, size)

    known: list[tuple[Blocks, Tensor]] = []
    molecules: list[tuple[Graph, list[Blocks], list[tuple[int, Array, Array]]]] = []
    for chosen, batch, seen in passed(
        validation, sorted({*spread_over(len(validation), MOST_MOLECULES), *validation.starts})
    ):
        predicted, labels = model.matrices(batch, seen.result)
        numbers = [z.tolist() for z in batch.graph.atomic_numbers.split(list(batch.graph.atom_counts))]
        means = [
            block_means(_each_spin_error(p - l), basis.offsets(z))
            for p, l, z in zip(predicted, labels, numbers, strict=True)
        ]
        errors, blocks = torch.as_tensor(np.concatenate([m.ravel() for m in means])), list(hidden_blocks(model, seen))
        known += [(b, errors[places(batch.graph, b.first, b.second)].to(device)) for b in blocks]
        molecules.append((batch.graph, blocks, list(zip(chosen, predicted, labels, strict=True))))
    training_blocks = (
        block
        for _, _, seen in passed(training, spread_over(len(training), MOST_MOLECULES))
        for block in hidden_blocks(model, seen)
    )
    model.error_model.fit(training_blocks, known, _spread(model))
    raw: dict[str, list[float]] = {name: [] for name in FIGURES}
    actual: dict[str, list[float]] = {name: [] for name in FIGURES}
    for graph, blocks, found in molecules:
        for expected, (index, d, label) in zip(model.error_model.of_molecules(blocks, graph), found, strict=True):
            if (start := validation.starts.get(index)) is not None:
                for name, pair in _estimates_and_errors(validation.samples[index], start, basis, expected, d, label):
                    raw[name].append(pair[0])
                    actual[name].append(pair[1])
    for name in FIGURES:
        model.error_model.calibration.fit(name, raw[name], actual[name])


def _each_spin_error(difference: Array) -> Array:
    """(n, n) absolute errors; of a mean and half a difference of two spins the mean of both spins' errors."""
    if difference.ndim == 2:
        return np.abs(difference)
    mean, half = difference
    return 0.5 * (np.abs(mean + half) + np.abs(mean - half))


def _estimates_and_errors(
    sample: HamiltonianSample, start: StartingPoint, basis: BasisSet, expected: Array, predicted: Array, label: Array
) -> Iterator[tuple[str, tuple[float, float]]]:
    """For every figure its raw estimate and its error, of one molecule."""
    numbers = sample.graph.atomic_numbers.tolist()
    counts = np.diff(basis.offsets(numbers))
    estimates, errors = matrix_estimate(expected, counts), {}
    if predicted.ndim == 3:  # of two spins: only the mean matrix is looked at
        predicted, label = predicted[0], label[0]
    else:
        bare = start.inverse_root @ start.baseline @ start.inverse_root
        energies, vectors = np.linalg.eigh(bare + predicted)
        n_occupied = (sum(numbers) - int(sample.graph.charge[0])) // 2
        errors = orbital_errors(energies, np.linalg.eigvalsh(bare + label), n_occupied)
        estimates |= orbital_estimates(expected, shares(vectors, counts), n_occupied)
    errors["hamiltonian_mae"] = float(np.abs(start.root @ (predicted - label) @ start.root).mean())
    for name in FIGURES:
        if name in errors and name in estimates:
            yield name, (estimates[name], errors[name])


def orbital_errors(predicted: NDArray[Any], reference: NDArray[Any], n_occupied: int) -> dict[str, float]:
    """Errors of ascending orbital energies (n,) of a closed shell."""
    if n_occupied == 0:
        return {}
    errors = np.abs(predicted - reference)
    values = {"occupied_energy_mae": float(errors[:n_occupied].mean()), "homo_error": float(errors[n_occupied - 1])}
    if n_occupied < len(errors):
        gaps = [float(e[n_occupied] - e[n_occupied - 1]) for e in (predicted, reference)]
        values |= {"lumo_error": float(errors[n_occupied]), "gap_error": abs(gaps[0] - gaps[1])}
    return values


def matrix_estimate(expected: Array, counts: NDArray[np.int64]) -> dict[str, float]:
    """Mean over all elements of a matrix.

    Args:
        expected: (n_atoms, n_atoms) errors of an element of each block.
        counts: (n_atoms,) functions.
    """
    return {"hamiltonian_mae": float(counts @ expected @ counts / counts.sum() ** 2)}


def shares(vectors: Array, counts: NDArray[np.int64]) -> Array:
    """(n_atoms, n_orbitals) of each orbital on each atom, from (n, n) vectors in the orthogonalised basis (Löwdin)."""
    return np.asarray(np.add.reduceat(vectors**2, np.cumsum(counts) - counts, axis=0))


def orbital_estimates(expected: Array, share: Array, n_occupied: int) -> dict[str, float]:
    """Raw estimates of the errors of orbital energies; those that do not exist are left out."""
    moves = np.sqrt(np.einsum("ai,ab,bi->i", share, expected**2, share))
    if n_occupied == 0:
        return {}
    homo = float(moves[n_occupied - 1])
    estimates = {"occupied_energy_mae": float(moves[:n_occupied].mean()), "homo_error": homo}
    if n_occupied < len(moves):
        lumo = float(moves[n_occupied])
        estimates |= {"lumo_error": lumo, "gap_error": float(np.hypot(homo, lumo))}
    return estimates


def _spread(model: HamiltonianModel) -> dict[str, Tensor]:
    """Root mean square of the labels' elements about their mean, of every kind; Hartree."""
    basis, pairs, atoms = model.orbital_basis, [], []
    for kind in model.block.kinds:
        size = basis[kind[0]].n_functions * basis[kind[1]].n_functions
        pairs.append((model.pair_labels.of(kind)[1].square().sum() / size).sqrt())
    for z in model.elements:
        scale = cast(Standardisation, model.atom_labels[str(z)]).scale
        atoms.append((scale.square().sum() / basis[z].n_functions ** 2).sqrt())
    return {PAIRS: torch.stack(pairs), ATOMS: torch.stack(atoms)}
