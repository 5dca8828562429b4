"""A soft limit on the wall time of one calculation."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from qcsurrogate.errors import TimeLimitError


@dataclass(frozen=True)
class Deadline:
    """Asked between the parts of a calculation that cannot be interrupted (a Fock build, a fit).

    Attributes:
        label: the molecule, for the message.
        seconds: wall time allowed from now on; None for no limit.
    """

    label: str
    seconds: float | None = None
    start: float = field(default_factory=time.perf_counter)

    def check(self, where: str) -> None:
        """Stop here if the time is over.

        Args:
            where: what was just finished or is about to start.

        Raises:
            TimeLimitError: naming molecule, limit and place.
        """
        elapsed = time.perf_counter() - self.start
        if self.seconds is not None and elapsed > self.seconds:
            raise TimeLimitError(
                f"{self.label}: stopped after {elapsed:.1f} s in {where}; expected at most {self.seconds:g} s; "
                "allow more time or more threads, choose a smaller basis or method.search: first, "
                "or leave the structure out"
            )
