"""The most diverse subset of many structures."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from qcsurrogate.errors import SpecError
from qcsurrogate.structures import Structure, equal_sizes

_LOADER: Final = "qcsurrogate.prediction.surrogate"


def coulomb_spectra(structures: Sequence[Structure]) -> NDArray[np.float32]:
    """Fingerprints that rotation, reflection, translation and order of atoms leave alone.

    Eigenvalues of the Coulomb matrix, Z_i Z_j / |r_i - r_j| and 0.5 Z_i^2.4 on the
    diagonal, in descending order, filled up with zeros (M. Rupp et al., Phys. Rev. Lett.
    108, 058301 (2012)).

    Returns:
        (n_structures, atoms of the largest) in Hartree.
    """
    counts = np.array([len(s) for s in structures], dtype=np.int64)
    spectra = np.zeros((len(structures), int(counts.max(initial=0))), dtype=np.float32)
    for size, indices in equal_sizes(counts):
        charges = np.stack([structures[i].atomic_numbers for i in indices]).astype(np.float64)
        positions = np.stack([structures[i].positions for i in indices])
        squared = sum((positions[:, :, None, k] - positions[:, None, :, k]) ** 2 for k in range(3))
        atoms = np.arange(size)
        distances = np.sqrt(squared)
        distances[:, atoms, atoms] = 1.0
        matrices = charges[:, :, None] * charges[:, None, :] / distances
        matrices[:, atoms, atoms] = 0.5 * charges**2.4
        spectra[indices, :size] = np.linalg.eigvalsh(matrices)[:, ::-1]
    return spectra


def embeddings(structures: Sequence[Structure], model: str | Path) -> NDArray[np.float32]:
    """Fingerprints that an autoencoder has learned: it tells mirror images apart, and conformers from each other.

    Args:
        structures: of elements and sizes that it was trained on.
        model: its file, or the folder of its run.

    Returns:
        (n_structures, length of an embedding), centred.

    Raises:
        SpecError: if this is a model of another kind.
        ModelFileError: if it cannot be read.
        DomainError: for a structure that it cannot embed.
    """
    surrogate = import_module(_LOADER).load(model)  # models stand right of sources: found only when one is named
    if not hasattr(surrogate, "embed"):
        raise SpecError(f"structures.subset.embedding: '{model}' is a {surrogate.kind} model; expected an autoencoder")
    found = np.asarray(surrogate.embed(structures), dtype=np.float64)
    return np.asarray(found - found.mean(0), dtype=np.float32)


def most_diverse(
    structures: Sequence[Structure], count: int, seed: int, *, embedding: str | Path | None = None
) -> list[int]:
    """Indices of structures that lie far from each other, in ascending order.

    Farthest-point selection (T. F. Gonzalez, Theor. Comput. Sci. 38, 293 (1985)) by
    :func:`coulomb_spectra`, or by :func:`embeddings` where a model is given: the first is
    drawn with the seed; then always the one whose nearest chosen neighbour is farthest.
    Time grows with structures times ``count``, memory with structures.
    """
    n = len(structures)
    if count >= n:
        return list(range(n))
    spectra = coulomb_spectra(structures) if embedding is None else embeddings(structures, embedding)
    lengths = np.einsum("sd,sd->s", spectra, spectra, dtype=np.float64)
    chosen = [int(np.random.default_rng(seed).integers(n))]
    nearest = np.full(n, np.inf)
    while True:
        last = chosen[-1]
        squared = lengths + lengths[last] - 2.0 * (spectra @ spectra[last])
        np.minimum(nearest, squared, out=nearest)
        nearest[last] = -np.inf
        if len(chosen) == count:
            return sorted(chosen)
        chosen.append(int(np.argmax(nearest)))
