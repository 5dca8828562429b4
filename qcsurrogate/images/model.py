"""An autoencoder of images that knows SO(2), and one that does not.

R. Winter, M. Bertolini, T. Le, F. Noe and D.-A. Clevert, NeurIPS 2022, as
:mod:`qcsurrogate.quantities.autoencoder.model`: the embedding is invariant, the angle equivariant, and the
decoder draws a canonical image that is turned by the angle.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from qcsurrogate.images.rotation import CircularHarmonics, rotate

_SOFTNESS = 0.02
"""Where the vector that the angle is read off is shorter than this part of what it is summed of, it fades."""
_TINY = 1e-12


class ImageAutoencoder(nn.Module, ABC):
    """Embeds images and draws them again."""

    @abstractmethod
    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(n, side, side) -> embeddings (n, d), angles (n,) in radians."""

    @abstractmethod
    def draw(self, embeddings: Tensor) -> Tensor:
        """(n, d) -> (n, side, side), in canonical orientation."""

    def forward(self, images: Tensor) -> Tensor:
        """Reconstructions."""
        embeddings, angles = self.encode(images)
        return rotate(self.draw(embeddings), angles)

    def loss(self, images: Tensor) -> Tensor:
        """Mean squared error of the pixels."""
        return (self(images) - images).square().mean()

    @property
    def n_parameters(self) -> int:
        """Trainable numbers."""
        return sum(p.numel() for p in self.parameters())


class RotationAutoencoder(ImageAutoencoder):
    """SO(2): an invariant embedding, a predicted angle, and a canonical image.

    The angle is that of a complex number v that turns once with the image: a linear function of the
    coefficients of order 1, and products of order m + 1 with the conjugate of order m.  The embedding sees all
    coefficients turned back by v / sqrt(|v|^2 + e^2), which fades where an image has no direction, and so
    stays continuous; it is left alone by rotations where the resampling of pixels is.

    Args:
        side: pixels of a side.
        embedding: numbers of an embedding.
        width: of the perceptrons.
        highest: highest order m.
    """

    def __init__(self, side: int, embedding: int = 16, width: int = 256, highest: int = 8) -> None:
        super().__init__()
        self.side = side
        self.harmonics = CircularHarmonics(side, highest)
        radii, channels = self.harmonics.radii, 8
        self.first = nn.Parameter(torch.randn(radii) / radii**0.5)
        self.products = nn.Parameter(torch.randn(2, radii, channels) / radii**0.5)
        self.mix = nn.Parameter(torch.randn(highest, channels) / (highest * channels) ** 0.5)
        self.size = nn.Parameter(torch.ones(highest + 1))
        n = radii * (1 + 2 * highest) + 1
        self.into = _perceptron(n, width, embedding)
        self.out = _perceptron(embedding, width, side * side)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        coefficients = self.harmonics(images) * 4
        parts = torch.einsum("nrm,krc->knmc", coefficients, self.products.to(coefficients.dtype))
        made = parts[0][:, 1:] * parts[1][:, :-1].conj() * self.mix
        straight = coefficients[..., 1] * self.first
        vector = made.sum((1, 2)) + straight.sum(1)
        length = made.detach().abs().sum((1, 2)) + straight.detach().abs().sum(1)
        squared = vector.real.square() + vector.imag.square()
        back = vector.conj() * torch.rsqrt(squared + (_SOFTNESS * length).square() + _TINY)
        powers = [torch.ones_like(back)]
        for _ in range(coefficients.shape[2] - 1):
            powers.append(powers[-1] * back)
        turned = coefficients * torch.stack(powers, dim=1).unsqueeze(1) * self.size
        directed = squared / (squared + (_SOFTNESS * length).square() + _TINY)
        known = [turned[..., 0].real, torch.view_as_real(turned[..., 1:]).flatten(1), directed.unsqueeze(1)]
        # an image without direction: no angle is better than another, and atan2(0, 0) has no gradient
        none = squared <= _TINY**2
        angles = -torch.atan2(vector.imag.masked_fill(none, 0.0), vector.real.masked_fill(none, 1.0))
        return self.into(torch.cat(known, dim=1)), angles

    def draw(self, embeddings: Tensor) -> Tensor:
        return self.out(embeddings).unflatten(1, (self.side, self.side))


class PlainAutoencoder(ImageAutoencoder):
    """The same perceptrons on pixels: rotations have to be learned.

    Args:
        side: pixels of a side.
        embedding: numbers of an embedding.
        width: of the perceptrons.
    """

    def __init__(self, side: int, embedding: int = 16, width: int = 256) -> None:
        super().__init__()
        self.side = side
        self.into = _perceptron(side * side, width, embedding)
        self.out = _perceptron(embedding, width, side * side)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.into(images.flatten(1)), images.new_zeros(len(images))

    def draw(self, embeddings: Tensor) -> Tensor:
        return self.out(embeddings).unflatten(1, (self.side, self.side))

    def forward(self, images: Tensor) -> Tensor:
        return self.draw(self.encode(images)[0])


def plain_like(model: ImageAutoencoder, side: int, embedding: int) -> PlainAutoencoder:
    """The plain autoencoder whose number of parameters is nearest to that of another."""
    widths = range(4, 2048)
    counts = [2 * w * (side * side + w + embedding + 2) + embedding + side * side for w in widths]
    width = widths[min(range(len(counts)), key=lambda k: abs(counts[k] - model.n_parameters))]
    return PlainAutoencoder(side, embedding, width)


def _perceptron(n_in: int, width: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(n_in, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, n_out))
