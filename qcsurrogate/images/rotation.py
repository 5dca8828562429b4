"""Turning images: by any angle with interpolated pixels, and images on circles about their centre."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from qcsurrogate.images.reading import Images


def rotate(images: Tensor, angles: Tensor) -> Tensor:
    """Images turned counter-clockwise (x to the right, y up) about their centre, bilinear between pixels, black around.

    Differentiable in images and angles.  By multiples of 90 degrees every pixel falls on another, up to
    rounding.

    Args:
        images: (n, side, side).
        angles: (n,) radians.
    """
    c, s = torch.cos(angles), torch.sin(angles)
    zero = torch.zeros_like(c)
    # rows run downwards: a point of the result is looked up where the inverse turn takes it
    matrix = torch.stack([torch.stack([c, -s, zero], dim=1), torch.stack([s, c, zero], dim=1)], dim=1)
    size = [len(images), 1, *images.shape[1:]]
    grid = nn.functional.affine_grid(matrix, size, align_corners=True)
    return nn.functional.grid_sample(images.unsqueeze(1), grid, align_corners=True).squeeze(1)


def on_canvas(images: Images, side: int, size: int) -> Images:
    """Images scaled to ``size`` pixels (cubic between pixels) in the middle of a black square of ``side``.

    A square that is 1.42 times as wide as what it holds keeps it whole under every turn.
    """
    scaled: NDArray[np.float32] = images.pixels
    if scaled.shape[1:] != (size, size):
        tensor = torch.from_numpy(np.ascontiguousarray(scaled)).unsqueeze(1)
        made = nn.functional.interpolate(tensor, (size, size), mode="bicubic", align_corners=False, antialias=True)
        scaled = made.squeeze(1).clamp(0.0, 1.0).numpy()
    before = (side - size) // 2
    after = side - size - before
    return Images(np.pad(scaled, ((0, 0), (before, after), (before, after))), images.labels)


class CircularHarmonics(nn.Module):
    """Fourier coefficients of an image on circles about its centre.

    An image turned by phi has the coefficients ``exp(-i m phi)`` times those of the image: exactly for
    multiples of 90 degrees and otherwise up to what bilinear interpolation between pixels changes.

    Args:
        side: pixels of a side.
        highest: of the orders m.
    """

    grid: Tensor

    def __init__(self, side: int, highest: int) -> None:
        super().__init__()
        self.highest, self.radii = highest, max(1, side // 2)
        n_angles = 4 * math.ceil((2 * highest + 2) / 2)  # a multiple of four: quarter turns shift the angles
        quarter = 2 * math.pi * torch.arange(n_angles // 4, dtype=torch.float64) / n_angles
        c, s = torch.cos(quarter), torch.sin(quarter)
        x, y = torch.cat([c, -s, -c, s]), torch.cat([s, c, -s, -c])
        radius = (torch.arange(self.radii, dtype=torch.float64) + 0.5) / self.radii
        places = torch.stack([radius[:, None] * x, -radius[:, None] * y], dim=2)
        self.register_buffer("grid", places, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(n, side, side) -> complex (n, radii, highest + 1)."""
        grid = self.grid.to(images).expand(len(images), *self.grid.shape)
        circles = nn.functional.grid_sample(images.unsqueeze(1), grid, align_corners=True).squeeze(1)
        return torch.fft.rfft(circles, dim=2)[..., : self.highest + 1] / self.grid.shape[1]
