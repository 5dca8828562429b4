"""What do group-invariant autoencoders reach: four-point shapes in random poses, digits at random angles?

The shapes are those of the e3nn tetris example, as in Winter et al., NeurIPS 2022: noise of 0.01 on every
coordinate, any rotation, translation and order of the points; there a mean squared error of 3.24e-5 of a
coordinate with an embedding of two numbers.  What two numbers cannot hold of the noise alone is (6 - 2) / 12
of 1e-4 = 3.3e-5: a shape of four points has six degrees of freedom beside its pose.

Run: PYTHONPATH=. OMP_NUM_THREADS=1 python tests/benchmarks/autoencoder.py [shapes] [digits] [--seed N] [--steps N]
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict

import numpy as np
import torch

from qcsurrogate.data.batches import Molecules
from qcsurrogate.images.reading import read_images
from qcsurrogate.images.training import compare
from qcsurrogate.quantities.autoencoder.model import AutoencoderModel
from qcsurrogate.quantities.autoencoder.settings import SMALL_ENCODER, AutoencoderSettings
from qcsurrogate.structures import Structure
from qcsurrogate.testing import random_rotation
from qcsurrogate.training.config import TrainingConfig
from qcsurrogate.training.optimisers import learning_rate_factor, make_optimisers, set_learning_rate

SHAPES = np.array(
    [
        [(0, 0, 0), (0, 0, 1), (1, 0, 0), (1, 1, 0)],  # two mirror images
        [(0, 0, 0), (0, 0, 1), (1, 0, 0), (1, -1, 0)],
        [(0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 1, 0)],
        [(0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 0, 3)],
        [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)],
        [(0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 1, 0)],
        [(0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 1, 1)],
        [(0, 0, 0), (1, 0, 0), (1, 1, 0), (2, 1, 0)],
    ],
    dtype=np.float64,
)
NOISE = 0.01
BATCH = 64


def shapes(count: int, seed: int, *, moved: bool) -> tuple[list[Structure], np.ndarray]:
    """Shapes as hydrogen atoms, one unit a bohr, and which of the eight each is."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(len(SHAPES), size=count)
    found = []
    for number, kind in enumerate(kinds):
        points = SHAPES[kind] + NOISE * rng.normal(size=(4, 3))
        if moved:
            points = points @ random_rotation(seed + number).T + 5.0 * rng.normal(size=3)
            points = points[rng.permutation(4)]
        found.append(Structure(np.ones(4, dtype=np.int64), points))
    return found, kinds


def shape_figures(embedding: int, steps: int, seed: int) -> None:
    """Train on shapes, print the errors on others in random poses."""
    settings = AutoencoderSettings(
        encoder=SMALL_ENCODER.model_copy(update={"average_neighbours": 3.0, "message_cutoff": 8.0}),
        embedding=embedding,
        width=128,
        atom_width=64,
        element_weight=0.0,
        continuous=False,
    )
    torch.manual_seed(seed)
    model = AutoencoderModel((1,), 4, settings)
    model.sizes.length.fill_(1.0)
    model.sizes.atoms.fill_(4.0)
    train = Molecules([s.moved(s.positions - s.positions.mean(0)) for s in shapes(10_000, seed, moved=False)[0]])
    optimisers = make_optimisers(model.parameters(), model.preconditioned_parameters(), TrainingConfig())
    rng, began = np.random.default_rng(seed), time.process_time()
    for step in range(steps):
        set_learning_rate(optimisers, 3e-3 * learning_rate_factor(step, steps, 50))
        for optimiser in optimisers:
            optimiser.zero_grad()
        chosen = rng.integers(len(train), size=BATCH).tolist()
        model.loss(train.graph(chosen, model.graphs, torch.float32)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
    seconds = time.process_time() - began
    test, kinds = shapes(2_000, seed + 1, moved=True)
    model.eval()
    with torch.no_grad():
        graph = model.graph(test)
        made = model.reconstruct(graph)
        errors = (made.positions - graph.positions).square().reshape(len(test), -1).mean(1).numpy()
        nearest = torch.cdist(made.embeddings, made.embeddings).fill_diagonal_(torch.inf).argmin(1).numpy()
    print(
        f"shapes, embedding of {embedding}: mean squared error {errors.mean():.3g} (median {np.median(errors):.3g}), "
        f"by shape {', '.join(f'{errors[kinds == k].mean():.2g}' for k in range(len(SHAPES)))}; nearest neighbour of "
        f"the same shape {np.mean(kinds[nearest] == kinds):.4f}; {steps} steps, seed {seed}, {seconds:.0f} s of CPU"
    )


def digit_figures(steps: int, seed: int) -> None:
    """Both autoencoders on the packaged digits."""
    images = read_images("digits")
    for name, found in compare(images, n_train=1297, steps=steps, seed=seed, side=24, size=16).items():
        figures = ", ".join(f"{key} {value:.4g}" for key, value in asdict(found).items())
        print(f"digits, {name}: {figures}; {steps} steps, seed {seed}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", help="shapes, digits; both if nothing is said")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="of training; 1,200 for shapes, 4,000 for digits")
    parser.add_argument("--embedding", type=int, nargs="+", default=[2, 16], help="numbers of an embedding of shapes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    what = options.what or ["shapes", "digits"]
    if "shapes" in what:
        for embedding in options.embedding:
            shape_figures(embedding, options.steps or 1200, options.seed)
    if "digits" in what:
        digit_figures(options.steps or 4000, options.seed)


if __name__ == "__main__":
    main()
