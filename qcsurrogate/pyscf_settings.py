"""PySCF as it is shipped: no configuration of a user's, a folder's or a machine's enters a result.

When PySCF is imported it executes the first of ``$PYSCF_CONFIG_FILE``, ``./.pyscf_conf.py``
and ``~/.pyscf_conf.py``; what that sets (B3LYP's correlation, thresholds, grids) would enter
labels, predictions and even sampled geometries without a trace.  ``import qcsurrogate``
calls :func:`shut_out`, so that no part of the package can import PySCF before it.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
import warnings
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from qcsurrogate.errors import SpecError

_CONFIGURATION: Final = "pyscf.__config__"
_MEMORY_MB: Final = 4000

_PHYSICS: Final = {"DEBUG": False, "ARGPARSE": False, "UNIT": "angstrom"}
_RESOURCES: Final = frozenset({"MAX_MEMORY", "TMPDIR", "VERBOSE", "conf_file"})
"""What may differ: where temporary files go and how much is printed; the memory of a Mole of ours is set on its own."""


class _AsShipped:
    """Finds ``pyscf.__config__`` before Python does, and fills it without executing a file."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> Any:
        return importlib.util.spec_from_loader(name, self) if name == _CONFIGURATION else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        memory = os.environ.get("PYSCF_MAX_MEMORY", "")
        vars(module).update(
            _PHYSICS,
            MAX_MEMORY=int(memory) if memory.isdecimal() else _MEMORY_MB,
            TMPDIR=os.environ.get("PYSCF_TMPDIR") or tempfile.gettempdir(),
            VERBOSE=3,
            conf_file=None,
        )
        ignored = _configuration_file()
        if ignored is not None:
            warnings.warn(
                f"PySCF's configuration file '{ignored}' is not read: results of qcsurrogate depend on its spec alone",
                RuntimeWarning,
                stacklevel=2,
            )


def shut_out() -> None:
    """Let PySCF be imported as it is shipped from here on; to be called before anything imports it.

    Raises:
        SpecError: if PySCF was imported before, with settings that may change results.
    """
    if not any(isinstance(finder, _AsShipped) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AsShipped())
    require_as_shipped()


def require_as_shipped() -> None:
    """Refuse a PySCF that was configured, by a file before this package was imported or by hand since.

    Raises:
        SpecError: naming the file and the settings.
    """
    configuration = sys.modules.get(_CONFIGURATION)
    if configuration is None:
        return
    found = {n: v for n, v in vars(configuration).items() if not n.startswith("__") and n not in _RESOURCES}
    changed = sorted(name for name, value in found.items() if name not in _PHYSICS or value != _PHYSICS[name])
    if changed:
        file = getattr(configuration, "conf_file", None)
        where = f"by the file '{file}'" if file else "by its environment or by hand"
        shown = ", ".join(f"{name} = {found[name]!r}"[:80] for name in changed[:5])
        raise SpecError(
            f"PySCF was configured {where} ({shown}{', ...' if len(changed) > 5 else ''}), and may compute something "
            "else than a spec says; expected PySCF's own settings: import qcsurrogate before pyscf, which shuts such "
            "files out, or remove the settings"
        )


def _configuration_file() -> Path | None:
    """The file that PySCF would have executed."""
    named = os.environ.get("PYSCF_CONFIG_FILE")
    candidates = [Path(named)] if named else []
    candidates += [Path(".pyscf_conf.py").absolute(), Path(os.environ.get("HOME", ".")) / ".pyscf_conf.py"]
    return next((path for path in candidates if path.is_file()), None)
