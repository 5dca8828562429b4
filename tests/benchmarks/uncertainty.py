"""Do the errors that a model expects of its blocks rank and size those that it makes?

    python tests/benchmarks/uncertainty.py runs/hamiltonian STORE --split test

For every readout and kind of block of a trained model, on one split of a store: mean expected and mean actual error,
Spearman's correlation, and the multiples of the expected error that 50, 80 and 95 % of the actual ones stay within.
Beside it, for all kinds of a readout together, the same of the plainest guess: the mean actual error of each kind.
Figures of whole molecules are in the report of `qcsurrogate compare`.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import torch
from ase.data import chemical_symbols
from numpy.typing import NDArray

from qcsurrogate.comparison.metrics import block_means, rank_correlation
from qcsurrogate.models.uncertainty import LEVELS, Blocks, places, watched
from qcsurrogate.prediction.surrogate import Surrogate, load
from qcsurrogate.quantities.density import uncertainty as of_densities
from qcsurrogate.quantities.density.model import DensityModel
from qcsurrogate.quantities.hamiltonian import uncertainty as of_hamiltonians
from qcsurrogate.registry import find_quantity
from qcsurrogate.store.store import Store

Array = NDArray[np.float64]


def kind_name(model: torch.nn.Module, block: Blocks) -> str:
    """``O-H`` or ``O``."""
    if block.readout == "pairs":
        return "-".join(chemical_symbols[z] for z in model.block.kinds[block.kind])  # type: ignore[union-attr, index, operator]
    return chemical_symbols[model.elements[block.kind]]  # type: ignore[index]


@torch.no_grad()
def measured(surrogate: Surrogate[object], store: Store, split: str) -> Iterator[tuple[str, str, Array, Array]]:
    """Readout, kind, expected and actual errors of the blocks of each molecule."""
    model = surrogate.model  # type: ignore[attr-defined]
    data = find_quantity(surrogate.kind).read_labels(
        store,
        (split,),
        model.settings,
        elements=model.elements,
        dtype=torch.float32,
        like=model,  # type: ignore[arg-type]
    )[0]
    own = of_densities if isinstance(model, DensityModel) else of_hamiltonians
    for index in range(len(data)):
        batch = data.batch([index])
        with watched(model, own.hidden(model)) as seen:
            model.errors(batch)
        if isinstance(model, DensityModel):
            by_element = dict(model.atom_errors(batch, seen.result))
        else:
            predicted, labels = model.matrices(batch, seen.result)
            numbers = batch.graph.atomic_numbers.tolist()
            errors = torch.as_tensor(
                block_means(np.abs(predicted[0] - labels[0]), model.orbital_basis.offsets(numbers)).ravel()
            )
        for block in own.hidden_blocks(model, seen):
            expected = model.error_model.readouts[block.readout](block).numpy()
            if isinstance(model, DensityModel):
                actual = by_element[model.elements[block.kind]].numpy()
            else:
                actual = errors[places(batch.graph, block.first, block.second)].numpy()
            yield block.readout, kind_name(model, block), expected, actual


def line(name: str, expected: Array, actual: Array) -> str:
    """One row of the table."""
    rank = rank_correlation(expected.tolist(), actual.tolist())
    within = " ".join(f"{q:.2f}" for q in np.quantile(actual / expected, LEVELS))
    shown = "     " if rank is None else f"{rank:5.2f}"
    return f"{name:>16} {len(actual):6d}  {expected.mean():.2e}  {actual.mean():.2e}  {shown}  {within}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("store")
    parser.add_argument("--split", default="test")
    options = parser.parse_args()
    found: dict[str, dict[str, list[tuple[Array, Array]]]] = defaultdict(lambda: defaultdict(list))
    for readout, kind, expected, actual in measured(load(options.model), Store.open(options.store), options.split):
        found[readout][kind].append((expected, actual))
    print(f"{'kind':>16} {'blocks':>6}  expected  actual     rank  50 80 95 % within so many times the expected")
    for readout, kinds in found.items():
        print(readout)
        joined = {kind: tuple(np.concatenate(side) for side in zip(*rows, strict=True)) for kind, rows in kinds.items()}
        for kind, (expected, actual) in sorted(joined.items()):
            print(line(kind, expected, actual))
        everything = [np.concatenate(side) for side in zip(*joined.values(), strict=True)]
        print(line("all", *everything))
        plain = np.concatenate([np.full(len(actual), actual.mean()) for _, actual in joined.values()])
        print(line("mean of its kind", plain, everything[1]))


if __name__ == "__main__":
    main()
