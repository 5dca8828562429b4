"""From features of an atom to a list of irreps, and back."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from qcsurrogate.nn.layout import FeatureLayout


class DegreeHead(nn.Module):
    """Linear map from features to any list of irreps, in the order of the list.

    Args:
        layout: rows of the features.
        channels: channels of the features.
        outputs: (l, natural) of every irrep wanted; all must occur in the layout.
    """

    order: Tensor

    def __init__(self, layout: FeatureLayout, channels: int, outputs: Sequence[tuple[int, bool]]) -> None:
        super().__init__()
        wanted = [[k for k, out in enumerate(outputs) if out == degree] for degree in layout.degrees]
        missing = sorted({out for out in outputs if out not in layout.degrees})
        if missing:
            raise ValueError(f"the features hold no irrep (l, natural) = {missing[0]}; raise l_max or l_pseudo")
        self.parts = [(part, len(w)) for part, w in zip(layout.slices, wanted, strict=True)]
        self.weights = nn.ParameterList(
            nn.Parameter(torch.randn(channels, len(w)) / math.sqrt(channels)) for w in wanted
        )
        self.bias = nn.Parameter(torch.zeros(len(wanted[0])))
        starts = [0]
        for l, _ in outputs:
            starts.append(starts[-1] + 2 * l + 1)
        place = [
            starts[k] + m
            for (l, _), ks in zip(layout.degrees, wanted, strict=True)
            for m in range(2 * l + 1)
            for k in ks
        ]
        order = torch.empty(len(place), dtype=torch.long)
        order[torch.tensor(place, dtype=torch.long)] = torch.arange(len(place))
        self.register_buffer("order", order, persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """(n, row, channels) -> (n, sum of 2l+1)."""
        values = []
        for (part, count), weight in zip(self.parts, self.weights, strict=True):
            if count:
                value = features[:, part] @ weight
                values.append((value + self.bias if part.start == 0 else value).flatten(1))
        return torch.cat(values, dim=1)[:, self.order]


class DegreeEmbedding(nn.Module):
    """Linear map from a list of irreps to features: the way into a network.

    Args:
        layout: rows of the features.
        channels: channels of the features.
        inputs: (l, natural) of every irrep given; those that the layout lacks are not looked at.
    """

    places: Tensor

    def __init__(self, layout: FeatureLayout, channels: int, inputs: Sequence[tuple[int, bool]]) -> None:
        super().__init__()
        self.sizes = [2 * l + 1 for l, _ in layout.degrees]
        self.channels = channels
        starts = [0]
        for l, _ in inputs:
            starts.append(starts[-1] + 2 * l + 1)
        places: list[int] = []
        weights = []
        for degree in layout.degrees:
            given = [starts[k] for k, found in enumerate(inputs) if found == degree]
            places += [start + m for m in range(2 * degree[0] + 1) for start in given]
            weights.append(nn.Parameter(torch.randn(len(given), channels) / math.sqrt(max(1, len(given)))))
        self.weights = nn.ParameterList(weights)
        self.counts = [size * len(weight) for size, weight in zip(self.sizes, weights, strict=True)]
        self.register_buffer("places", torch.tensor(places, dtype=torch.long), persistent=False)

    def forward(self, rows: Tensor) -> Tensor:
        """(n, sum of 2l+1) -> (n, row, channels)."""
        parts = []
        sorted_rows = rows[:, self.places].split(self.counts, dim=1)
        for size, own, weight in zip(self.sizes, sorted_rows, self.weights, strict=True):
            if len(weight):
                parts.append(own.unflatten(1, (size, -1)) @ weight)
            else:
                parts.append(rows.new_zeros(len(rows), size, self.channels))
        return torch.cat(parts, dim=1)
