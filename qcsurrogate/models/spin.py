"""What happens to labels of both spins when alpha and beta are swapped.

A mean or a sum of spins stays, a difference changes its sign.  A network that sees the
difference in its inputs is asked twice, as they are and swapped: what it puts out then has
the right symmetry exactly, and where the spins are equal the difference is exactly zero.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from qcsurrogate.errors import DomainError
from qcsurrogate.structures import Structure


def with_spins_swapped(rows: Tensor, odd: Tensor) -> Tensor:
    """(n, n_rows) with alpha for beta: the ``odd`` rows (n_rows,) change their sign."""
    return torch.where(odd.to(rows.device), -rows, rows)


def of_right_symmetry(rows: Tensor, swapped: Tensor, odd: Tensor) -> Tensor:
    """What of (n, n_rows) stays when the spins are swapped, and of the ``odd`` ones (n_rows,) what changes its sign."""
    return 0.5 * (rows + with_spins_swapped(swapped, odd))


def require_closed_shells(structures: Iterable[Structure]) -> None:
    """Refuse what a model of restricted Kohn-Sham does not describe.

    Raises:
        DomainError: naming the first structure with unpaired electrons.
    """
    for structure in structures:
        if structure.spin:
            raise DomainError(
                f"{structure.label} has spin {structure.spin} (unpaired electrons); this model was trained on "
                "restricted Kohn-Sham, closed shells only: train one on a store generated with "
                "method.spin_treatment: unrestricted"
            )
