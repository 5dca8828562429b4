"""Where an SCF runs: PySCF on the CPU, or GPU4PySCF on a CUDA device.

GPU4PySCF's objects have PySCF's interface, but hold CuPy arrays; :func:`host` and
:func:`on_device` are the places where arrays cross.
"""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcsurrogate.errors import SpecError
from qcsurrogate.reference.settings import Method

_HOW_TO_INSTALL = "pip install gpu4pyscf-cuda12x cutensor-cu12"


def host(values: Any) -> NDArray[np.float64]:
    """A NumPy array from a NumPy or a CuPy array, or from one of each spin."""
    if isinstance(values, (tuple, list)):
        return np.asarray([host(value) for value in values])
    return np.asarray(values.get() if hasattr(values, "get") else values, dtype=np.float64)


def on_device(values: NDArray[np.float64]) -> Any:
    """A CuPy array from a NumPy one."""
    return importlib.import_module("cupy").asarray(values)


def kohn_sham_module(method: Method) -> tuple[Any, bool]:
    """The module with ``RKS`` and ``UKS``, and whether it is GPU4PySCF's.

    Raises:
        SpecError: if GPU4PySCF is asked for, cannot run here, and may not be replaced.
    """
    from pyscf import dft

    if method.backend == "pyscf":
        return dft, False
    problem = _gpu_problem()
    if problem is None:
        return importlib.import_module("gpu4pyscf.dft"), True
    if not method.allow_cpu_fallback:
        raise SpecError(
            f"method.backend is gpu4pyscf, but {problem}; install it ({_HOW_TO_INSTALL}) on a machine with a CUDA "
            "device, set method.backend: pyscf, or set method.allow_cpu_fallback: true"
        )
    warnings.warn(f"the SCF runs on the CPU: {problem} (method.allow_cpu_fallback)", RuntimeWarning, stacklevel=2)
    return dft, False


def _gpu_problem() -> str | None:
    """Why GPU4PySCF cannot run here, or None if it can."""
    try:
        devices = importlib.import_module("cupy").cuda.runtime.getDeviceCount()
        importlib.import_module("gpu4pyscf.dft")
    except ImportError as error:
        return f"it cannot be imported here ({error})"
    except RuntimeError as error:  # what CuPy raises without a driver
        return f"no CUDA device can be used ({error})"
    return None if devices else "no CUDA device was found"
