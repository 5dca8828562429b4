"""How far what one Fock build says of the remaining energy can be trusted: learned from molecules with references.

Split conformal prediction (V. Vovk, A. Gammerman, G. Shafer, Algorithmic Learning in a Random World, Springer
2005; A. N. Angelopoulos, S. Bates, Found. Trends Mach. Learn. 2023, 16, 494): of n molecules that the network did
not learn from, the ratios true error / estimate are kept.  The ceil((n + 1) p)-th of them, times the estimate of a
new molecule of the same kind, bounds its error with probability p or more, whatever the distribution is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, Final

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from qcsurrogate.errors import SpecError

LEVEL: Final = 0.9
"""Probability of the bounds that are shown."""


class EnergyCalibration(BaseModel):
    """Ratios of true to estimated remaining energies.

    Attributes:
        ratios: |E[D] - E_converged| / estimate of each molecule, ascending.
        data: hash of the store that they are of.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    ratios: Annotated[tuple[Annotated[float, Field(ge=0.0, allow_inf_nan=False)], ...], Field(min_length=1)]
    data: str

    @classmethod
    def of(cls, errors: Iterable[float], estimates: Iterable[float], data: str) -> EnergyCalibration:
        """From errors and finite estimates above zero of the same molecules, Hartree."""
        return cls(ratios=tuple(sorted(abs(e) / x for e, x in zip(errors, estimates, strict=True))), data=data)

    @property
    def typical(self) -> float:
        """Median of the ratios."""
        return float(np.median(self.ratios))

    def factor(self, level: float = LEVEL) -> float:
        """What an estimate is multiplied by to bound the error with this probability; infinite with too few molecules.

        Raises:
            SpecError: if the level is no probability.
        """
        if not 0.0 < level < 1.0:
            raise SpecError(f"level = {level}; expected a probability between 0 and 1")
        rank = math.ceil((len(self.ratios) + 1) * level)
        return self.ratios[rank - 1] if rank <= len(self.ratios) else math.inf
