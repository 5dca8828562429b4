"""Functionals by PySCF's name, with the dispersion correction that a name may end in; what cannot run is said early."""

from __future__ import annotations

import re
from functools import lru_cache

from qcsurrogate.errors import SpecError, suggestion

_INSTALL = "pip install pyscf-dispersion"
_COMPOSITE = re.compile(r"-3c$", re.IGNORECASE)
_OWN_DISPERSION = re.compile(
    r"^(?:wb97x|.*_wb97x|b97|.*_b97|otpss|.*_otpss|.*lyp|opbe|.*_opbe)[-_]d[23]?$", re.IGNORECASE
)


@lru_cache(maxsize=64)
def require_functional(xc: str) -> None:
    """Whether PySCF computes this functional, all of it.

    Raises:
        SpecError: in one line, if PySCF does not know it, knows only a part of it, or lacks the package of its
            dispersion correction.
    """
    if _COMPOSITE.search(xc):
        raise SpecError(
            f"the composite method '{xc}' (method.xc) is not supported: it prescribes its own basis and corrections "
            "that PySCF lacks; expected a functional, such as b3lyp or b3lyp-d3bj"
        )
    if _OWN_DISPERSION.search(xc):
        raise SpecError(
            f"'{xc}' (method.xc) has a dispersion correction of its own that PySCF does not compute; expected a "
            "functional with one that it does, such as wb97x-d3bj or b3lyp-d3bj"
        )
    if xc.lower() == "wb97x-d4":
        raise SpecError(
            f"'{xc}' (method.xc) stands for different functionals in different versions of PySCF; expected one that "
            "does not, such as wb97x-d3bj or wb97m-d3bj"
        )
    base, version = _split(xc)
    _require_known(xc, base)
    if version is not None:
        _require_dispersion(xc, base, version)


def _split(xc: str) -> tuple[str, str | None]:
    """``b3lyp-d3bj`` -> ``b3lyp`` and ``d3bj``."""
    match = re.search(r"-(d[34]\w*)$", xc.lower())
    return (xc[: match.start()], match[1]) if match else (xc, None)


def _require_known(xc: str, base: str) -> None:
    from pyscf.dft import libxc

    try:
        parts = libxc.parse_xc(xc)
        if not any(parts[0]) and not parts[1]:
            raise ValueError("it has no part")
        libxc.xc_type(xc)  # knows of numbers that name nothing
    except (AttributeError, IndexError, KeyError, NotImplementedError, ValueError) as error:
        known = {name.lower() for name in (*libxc.XC_ALIAS, *libxc.XC_CODES) if "_" not in name}
        reason = str(error.args[0] if error.args else error).rstrip(".")
        raise SpecError(
            f"PySCF does not know the functional '{xc}' (method.xc): {reason}{suggestion(base.lower(), known)}"
        ) from error


def _require_dispersion(xc: str, base: str, version: str) -> None:
    from pyscf import dft, gto
    from pyscf.scf import dispersion

    if dispersion.dispersion is None:
        raise SpecError(
            f"the dispersion correction {version} of '{xc}' (method.xc) needs a package that is not installed; "
            f"install it ({_INSTALL}), on the workers too, or set method.xc: {base}"
        )
    plain = re.sub(r"(2b|atm)$", "", version)
    if plain not in dispersion.DISP_VERSIONS:
        known = list(dispersion.DISP_VERSIONS)
        raise SpecError(
            f"PySCF does not know the dispersion correction '{version}' of '{xc}' (method.xc); expected one of "
            f"{', '.join(known)}{suggestion(version, known)}"
        )
    helium = gto.M(atom="He", basis="sto-3g", verbose=0, parse_arg=False)
    try:
        dft.RKS(helium, xc=xc).get_dispersion()
    except (RuntimeError, NotImplementedError) as error:
        raise SpecError(f"there are no parameters of {version} for '{base}' (method.xc: {xc}): {error}") from error
