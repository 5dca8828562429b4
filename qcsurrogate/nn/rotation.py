"""Features into bond frames and back."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qcsurrogate.nn.layout import FeatureLayout


class BondRotation(nn.Module):
    """Builds the matrices that take features to bond frames, rows sorted by |m|.

    Natural and pseudo irreps of one l share their Wigner matrix: frames are proper.
    """

    source: Tensor
    destination: Tensor
    sign: Tensor

    def __init__(self, layout: FeatureLayout) -> None:
        super().__init__()
        self.n_rows = layout.n_rows
        source, destination, sign = [], [], []
        order = layout.bond_order
        place = {int(row): k for k, row in enumerate(order.index)}
        for (l, _), part in zip(layout.degrees, layout.slices, strict=True):
            first = sum((2 * k + 1) ** 2 for k in range(l))
            for a in range(2 * l + 1):
                k = place[part.start + a]
                for b in range(2 * l + 1):
                    source.append(first + a * (2 * l + 1) + b)
                    destination.append(k * self.n_rows + part.start + b)
                    sign.append(float(order.sign[k]))
        self.register_buffer("source", torch.tensor(source), persistent=False)
        self.register_buffer("destination", torch.tensor(destination), persistent=False)
        self.register_buffer("sign", torch.tensor(sign, dtype=torch.float64), persistent=False)

    def forward(self, wigner: Tensor) -> Tensor:
        """(n_edges, ...) flat Wigner matrices -> (n_edges, n_rows, n_rows); left rows in bond order."""
        matrix = wigner.new_zeros(len(wigner), self.n_rows * self.n_rows)
        matrix[:, self.destination] = wigner[:, self.source] * self.sign.to(wigner)
        return matrix.view(-1, self.n_rows, self.n_rows)
