"""Errors that a user can act on.

Every message says what is wrong, what was expected, what was found, in which structure
or file, and what to do.  The command line prints the message without a traceback and
exits with ``exit_code``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class QCSurrogateError(Exception):
    """Base of all errors that this package raises on purpose."""

    exit_code = 1


class SpecError(QCSurrogateError, ValueError):
    """A data spec, a configuration or an option that cannot be used."""

    exit_code = 2


class StructureError(QCSurrogateError, ValueError):
    """A geometry, or a file of geometries, that cannot be used."""

    exit_code = 3


class BasisError(QCSurrogateError, ValueError):
    """A basis set that does not exist, lacks an element or is not spherical."""

    exit_code = 3


class ConvergenceError(QCSurrogateError):
    """An SCF that no step of the ladder converged."""

    exit_code = 4


class TimeLimitError(QCSurrogateError):
    """A calculation that was stopped because it ran longer than it was allowed to."""

    exit_code = 4


class RecordError(QCSurrogateError):
    """A reference record that fails one of its physical checks."""

    exit_code = 4


class StoreError(QCSurrogateError):
    """A store that is damaged, hostile, incomplete or not writable."""

    exit_code = 5


class ModelFileError(QCSurrogateError):
    """A model file that is damaged, hostile or of another kind."""

    exit_code = 6


class DomainError(QCSurrogateError, ValueError):
    """A model asked about elements, charges or spins it was not trained on."""

    exit_code = 7


class TrainingError(QCSurrogateError):
    """A training run that cannot start, resume or go on."""

    exit_code = 8


class OutputError(QCSurrogateError):
    """A result that cannot be written where it was asked for, or read again."""

    exit_code = 9


class ClusterError(QCSurrogateError):
    """Workers that cannot be started, reached or kept up."""

    exit_code = 10


def suggestion(word: str, known: Iterable[str]) -> str:
    """`` did you mean 'xc'?`` for the known word nearest to ``word``, else nothing."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else ""
