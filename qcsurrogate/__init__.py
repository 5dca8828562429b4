"""Neural surrogates of Kohn-Sham density functional theory.

``qcsurrogate.load(path).predict(x)`` stands where DFT stood; what else a user needs is
named in ``__all__``.  Names are found when they are first asked for, so that importing a
part of the package costs only that part.  PySCF's configuration files are shut out here,
before any part can import PySCF: :mod:`qcsurrogate.pyscf_settings`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from qcsurrogate.errors import (
    BasisError,
    ClusterError,
    ConvergenceError,
    DomainError,
    ModelFileError,
    OutputError,
    QCSurrogateError,
    RecordError,
    SpecError,
    StoreError,
    StructureError,
    TimeLimitError,
    TrainingError,
)
from qcsurrogate.pyscf_settings import shut_out as _shut_out
from qcsurrogate.registry import Quantity, register

if TYPE_CHECKING:
    from qcsurrogate.comparison.run import compare
    from qcsurrogate.curves.run import learning_curve
    from qcsurrogate.generation import generate
    from qcsurrogate.pipeline import train_surrogate
    from qcsurrogate.prediction.files import save_predictions
    from qcsurrogate.prediction.pyscf import accelerate, surrogate_ks
    from qcsurrogate.prediction.reading import load_predictions
    from qcsurrogate.prediction.surrogate import load
    from qcsurrogate.store.spec import load_spec
    from qcsurrogate.store.store import Store
    from qcsurrogate.structures import Structure

__all__ = [
    "BasisError",
    "ClusterError",
    "ConvergenceError",
    "DomainError",
    "ModelFileError",
    "OutputError",
    "QCSurrogateError",
    "Quantity",
    "RecordError",
    "SpecError",
    "Store",
    "StoreError",
    "Structure",
    "StructureError",
    "TimeLimitError",
    "TrainingError",
    "__version__",
    "accelerate",
    "compare",
    "generate",
    "learning_curve",
    "load",
    "load_predictions",
    "load_spec",
    "register",
    "save_predictions",
    "surrogate_ks",
    "train_surrogate",
]

_PLACES = {
    "Store": "store.store",
    "Structure": "structures",
    "accelerate": "prediction.pyscf",
    "compare": "comparison.run",
    "generate": "generation",
    "learning_curve": "curves.run",
    "load": "prediction.surrogate",
    "load_predictions": "prediction.reading",
    "load_spec": "store.spec",
    "save_predictions": "prediction.files",
    "surrogate_ks": "prediction.pyscf",
    "train_surrogate": "pipeline",
}
"""Where the names that cost an import are defined."""

_shut_out()


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(f"qcsurrogate.{_PLACES[name]}"), name)
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("qcsurrogate")
        except PackageNotFoundError:
            return "0+unknown"
    raise AttributeError(f"module 'qcsurrogate' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
