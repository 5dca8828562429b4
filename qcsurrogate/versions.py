"""Versions of what a result depends on."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of Python and of these packages; ``not installed`` where there is none.

    ``libxc`` is the library that PySCF loaded.
    """
    return {"python": platform.python_version()} | {name: _version(name) for name in packages}


def _version(package: str) -> str:
    if package == "libxc":  # inside PySCF, or what PySCF was built with
        from pyscf.dft import libxc

        return str(libxc.__version__)
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
