"""A map of a data set: what a model embeds molecules as, on two principal components."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from qcsurrogate.comparison.pictures import rendered
from qcsurrogate.errors import SpecError, StoreError
from qcsurrogate.models.uncertainty import spread_over
from qcsurrogate.prediction.surrogate import load
from qcsurrogate.store.store import Store
from qcsurrogate.structures import Structure
from qcsurrogate.tables.records import labelled

Array = NDArray[np.float64]

MOST: Final = 2000
"""Molecules of a map."""
_COLOURS: Final = ("gap", "energy")
"""By what a map is coloured: the first that is known, else the number of atoms."""
_SHOWN: Final = 5
_RASTERISE_ABOVE: Final = 1500


def projected(embeddings: Array) -> tuple[Array, Array]:
    """Embeddings on their two principal components, and the share of the variance that each of these has.

    Signs are chosen so that the larger excursion is positive: the same embeddings give the same map.

    Args:
        embeddings: (n, d), at least one.

    Returns:
        (n, 2) and (2,); components that do not exist are zero.
    """
    centred = embeddings - embeddings.mean(0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    k = min(2, len(s))
    points, shares = np.zeros((len(embeddings), 2)), np.zeros(2)
    points[:, :k] = u[:, :k] * s[:k]
    points *= np.where(points.max(0) >= -points.min(0), 1.0, -1.0)
    total = float(np.square(s).sum())
    shares[:k] = np.square(s[:k]) / total if total else 0.0
    return points, shares


def nearest(embeddings: Array, others: Array | None = None) -> tuple[NDArray[np.int64], Array]:
    """The nearest neighbour of each embedding (n, d) among others (m, d), or among the rest of them.

    Returns:
        (n,) indices and (n,) distances; with nothing to compare, index -1 and an infinite distance.
    """
    known, own = (embeddings, 1) if others is None else (others, 0)
    if not len(known):
        return np.full(len(embeddings), -1), np.full(len(embeddings), np.inf)
    distance, index = KDTree(known).query(embeddings, k=[1, 2])
    rows = np.arange(len(embeddings))
    second = own * (index[:, 0] == rows)  # of equal embeddings either may come first
    index, distance = index[rows, second], distance[rows, second]
    return np.where(np.isinf(distance), -1, index), distance


def draw_map(points: Array, shares: Array, values: Array, label: str) -> bytes:
    """The map as SVG.

    Args:
        points, shares: of :func:`projected`.
        values: (n,) by which points are coloured.
        label: what these are.
    """

    def draw(axes: Any) -> None:
        dots = axes.scatter(
            *points.T, s=12, lw=0, alpha=0.8, c=values, cmap="viridis", rasterized=len(points) > _RASTERISE_ABOVE
        )
        axes.figure.colorbar(dots, ax=axes, label=label)
        for name, share, order in zip("xy", shares, ("first", "second"), strict=True):
            axes.set(**{f"{name}label": f"{order} component ({100 * share:.0f} % of the variance)"})

    return rendered(draw, (5.4, 4.0))


def map_of_store(path: str | Path, model: str | Path, picture: str) -> tuple[str, bytes]:
    """A section of a data card with a map of the store, and the map as SVG.

    Args:
        path: the store.
        model: an autoencoder: its file, or the folder of its run.
        picture: name under which the map will lie beside the card.

    Raises:
        SpecError: if the model embeds nothing.
        StoreError: if the store is damaged, or empty.
        DomainError: for molecules that the model cannot embed.
    """
    surrogate = load(model)
    if not hasattr(surrogate, "embed"):
        raise SpecError(f"'{model}' is a {surrogate.kind} model; expected an autoencoder")
    store = Store.open(path)
    keys = store.keys()
    if not keys:
        raise StoreError(f"the store '{path}' holds no complete record; expected some to make a map of")
    keys = [keys[i] for i in spread_over(len(keys), MOST)]
    structures = [store.structure(key) for key in keys]
    embeddings = surrogate.embed(structures)
    points, shares = projected(embeddings)
    values, label = _colours(store, keys, structures)
    distances = nearest(embeddings)[1]
    far = np.argsort(-distances, kind="stable")[:_SHOWN]
    named = ", ".join(structures[i].name or structures[i].formula for i in far)
    section = (
        f"## Map\n\n![map of the molecules]({picture})\n\n{len(keys):,} molecules as the autoencoder "
        f"`{surrogate.source.sha256[:16]}` embeds them, on two principal components; colour: {label}. Farthest from "
        f"all others: {named}.\n"
    )
    return section, draw_map(points, shares, values, label)


def _colours(store: Store, keys: Sequence[str], structures: Sequence[Structure]) -> tuple[Array, str]:
    known = labelled(store)
    for name in _COLOURS:
        if name in known.targets:
            values = known.labels([name], keys)[name]
            return np.array([float(value) for value in values]), f"{name} ({known.targets[name].unit})"
    return np.array([float(len(s)) for s in structures]), "number of atoms"
