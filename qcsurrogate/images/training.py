"""Trains both autoencoders on images in all orientations, and measures what they have learned."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qcsurrogate.errors import SpecError
from qcsurrogate.images.model import ImageAutoencoder, RotationAutoencoder, plain_like
from qcsurrogate.images.reading import Images
from qcsurrogate.images.rotation import on_canvas, rotate
from qcsurrogate.training.optimisers import learning_rate_factor

_BATCH: Final = 128
_WARM_UP: Final = 50
_CHUNK: Final = 1024


@dataclass(frozen=True)
class Comparison:
    """Figures of one autoencoder on test images, each in an orientation drawn at random.

    Attributes:
        error: mean squared error of a pixel.
        variance: of the pixels about the mean of the test images: the error of one image for all.
        accuracy: share of test images whose nearest neighbour among the embedded training images is of
            their class.
        change: how far the embedding of a test image moves when it is turned, over how far it lies from that of
            another image: root mean squares.
        n_parameters: trainable numbers.
        cpu_seconds: of training.
    """

    error: float
    variance: float
    accuracy: float
    change: float
    n_parameters: int
    cpu_seconds: float


def turned(images: Images, seed: int) -> Tensor:
    """(n, side, side) each image at an angle of its own."""
    angles = torch.from_numpy(np.random.default_rng(seed).uniform(0.0, 2 * np.pi, len(images)).astype(np.float32))
    return rotate(torch.from_numpy(images.pixels), angles)


def train(model: ImageAutoencoder, images: Images, *, steps: int, seed: int, learning_rate: float = 2e-3) -> float:
    """Train on images that are turned at random in every step; Adam, cosine to zero.

    Returns:
        CPU seconds.
    """
    began = time.process_time()
    optimiser = torch.optim.Adam(model.parameters(), lr=learning_rate)
    rng = np.random.default_rng(seed)
    pixels = torch.from_numpy(images.pixels)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * learning_rate_factor(step, steps, _WARM_UP)
        chosen = torch.from_numpy(rng.integers(len(images), size=_BATCH))
        angles = torch.from_numpy(rng.uniform(0.0, 2 * np.pi, _BATCH).astype(np.float32))
        optimiser.zero_grad()
        loss = model.loss(rotate(pixels[chosen], angles))
        loss.backward()
        optimiser.step()
    return time.process_time() - began


@torch.no_grad()
def evaluate(model: ImageAutoencoder, train_images: Images, test_images: Images, *, seed: int) -> Comparison:
    """Figures of a trained model; training and test images are embedded in random orientations.

    Raises:
        SpecError: if labels are missing.
    """
    if train_images.labels is None or test_images.labels is None:
        raise SpecError("the nearest neighbours of images without labels cannot be judged; expected labels")
    known, shown, again = (
        turned(images, seed + k) for k, images in enumerate((train_images, test_images, test_images))
    )
    made = torch.cat([model(part) for part in shown.split(_CHUNK)])
    memory, query, other = (
        torch.cat([model.encode(part)[0] for part in images.split(_CHUNK)]) for images in (known, shown, again)
    )
    nearest = torch.cdist(query, memory).argmin(1).numpy()
    apart = (query - query.mean(0)).square().sum(1).mean() * 2
    return Comparison(
        error=float((made - shown).square().mean()),
        variance=float((shown - shown.mean(0)).square().mean()),
        accuracy=float(np.mean(train_images.labels[nearest] == test_images.labels)),
        change=float(((query - other).square().sum(1).mean() / apart).sqrt()),
        n_parameters=model.n_parameters,
        cpu_seconds=0.0,
    )


def split(images: Images, n_train: int, seed: int) -> tuple[Images, Images]:
    """Training and test images, drawn with a seed."""
    order: NDArray[np.int64] = np.random.default_rng(seed).permutation(len(images))
    return images.taken(order[:n_train]), images.taken(order[n_train:])


def compare(
    images: Images, *, n_train: int, steps: int, seed: int, side: int, size: int, embedding: int = 16
) -> Mapping[str, Comparison]:
    """Both autoencoders, with the same number of parameters up to a percent or two, on the same images.

    Args:
        images: with labels.
        n_train: how many are trained on; the others are the test.
        steps: of training.
        seed: of split, weights, orientations.
        side, size: see :func:`qcsurrogate.images.rotation.on_canvas`.
        embedding: numbers of an embedding.
    """
    train_images, test_images = split(on_canvas(images, side, size), n_train, seed)
    torch.manual_seed(seed)
    own: ImageAutoencoder = RotationAutoencoder(side, embedding)
    found = {}
    for name, model in (("rotation", own), ("plain", plain_like(own, side, embedding))):
        seconds = train(model, train_images, steps=steps, seed=seed)
        found[name] = replace(evaluate(model, train_images, test_images, seed=seed), cpu_seconds=seconds)
    return found
