"""Question: how large are the models of the presets, and what does a step of each cost on one CPU thread?

    python tests/benchmarks/presets.py STORE [--molecules 32] [--steps 6]

CPU milliseconds of a whole step (batch, loss, gradient, optimiser) at the preset's batch size, the median of all
but the first two steps, in which the optimiser begins; no validation.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from qcsurrogate.registry import BUILT_IN, find_quantity
from qcsurrogate.store.store import Store
from qcsurrogate.training.config import load_run_config
from qcsurrogate.training.optimisers import make_optimisers
from qcsurrogate.training.sampler import EpochSampler


def measured(kind: str, preset: str, store: Store, steps: int) -> str:
    """A row of the table."""
    quantity = find_quantity(kind)
    run = load_run_config(quantity.settings, presets=quantity.presets, preset=preset)
    elements = sorted({int(z) for key in store.keys("train") for z in store.structure(key).atomic_numbers})
    (data,) = quantity.read_labels(store, ("train",), run.model, elements=elements, dtype=torch.float32)
    model = quantity.new_model(run.model, data, seed=0)
    optimisers = make_optimisers(model.parameters(), model.preconditioned_parameters(), run.training)
    sampler = EpochSampler(len(data), run.training.batch_size, 0)
    times = []
    for step in range(steps):
        start = time.process_time()
        loss = model.loss(data.batch(sampler.indices(step)))
        for optimiser in optimisers:
            optimiser.zero_grad()
        loss.backward()
        for optimiser in optimisers:
            optimiser.step()
        times.append(time.process_time() - start)
    cost = 1e3 * statistics.median(times[2:])
    hours = cost * run.training.steps / 3.6e6
    n = sum(p.numel() for p in model.parameters())
    size = run.training.batch_size
    return f"| {kind} | {preset} | {n:,} | {size} | {cost:,.0f} | {run.training.steps:,} | {hours:.2g} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store")
    parser.add_argument("--molecules", type=int, default=32)
    parser.add_argument("--steps", type=int, default=6)
    options = parser.parse_args()
    torch.set_num_threads(1)
    store = Store.open(options.store)
    store = store.training_on(store.keys("train")[: options.molecules])
    print("| model | preset | parameters | batch | CPU ms/step | steps | CPU hours |\n|---|---|---|---|---|---|---|")
    for kind in (name for name in sorted(BUILT_IN) if find_quantity(name).needs_store):
        for preset in find_quantity(kind).presets:
            print(measured(kind, preset, store, options.steps), flush=True)


if __name__ == "__main__":
    main()
