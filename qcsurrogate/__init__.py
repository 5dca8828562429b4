"""Neural surrogates of Kohn-Sham density functional theory.

``qcsurrogate.load(path).predict(x)`` stands where DFT stood; see
:mod:`qcsurrogate.prediction.surrogate`.  Both names below are found lazily, so that
importing a part of the package costs only that part.  PySCF's configuration files are
shut out here, before any part can import PySCF: :mod:`qcsurrogate.pyscf_settings`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qcsurrogate.pyscf_settings import shut_out as _shut_out

if TYPE_CHECKING:
    from qcsurrogate.prediction.surrogate import load as load

__all__ = ["__version__", "load"]

_shut_out()


def __getattr__(name: str) -> Any:
    if name == "load":
        from qcsurrogate.prediction.surrogate import load

        return load
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("qcsurrogate")
        except PackageNotFoundError:
            return "0+unknown"
    raise AttributeError(f"module 'qcsurrogate' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
