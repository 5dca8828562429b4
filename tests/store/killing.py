"""A process that dies of SIGKILL in front of a chosen change of the file system."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from typing import Any


def die_in_front_of(limit: int, names: Sequence[str]) -> None:
    """From here on, calls of these functions of ``os`` count as changes; number ``limit`` is not survived."""
    changes = 0

    def counted(change: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal changes
            if changes == limit:
                os.kill(os.getpid(), signal.SIGKILL)
            changes += 1
            return change(*arguments, **options)

        return call

    for name in names:
        setattr(os, name, counted(getattr(os, name)))
