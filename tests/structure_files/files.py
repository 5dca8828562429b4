"""Files of structures as others write them."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

METHANE = """5
gdb 1\t157.7118\t157.70997\t157.70699\t0.\t13.21\t-0.3877\t0.1171\t0.5048\t35.3641\t0.044749\t-40.47893\t-40.476062\t\
-40.475117\t-40.498597\t6.469\t
C\t-0.0126981359\t 1.0858041578\t 0.0080009958\t-0.535689
H\t 0.002150416\t-0.0060313176\t 1.9761204*^-3\t 0.133921
H\t 1.0117308433\t 1.4637511618\t 2.765748*^-4\t 0.133922
H\t-0.540815069\t 1.4475266138\t-0.8766437152\t 0.133923
H\t-0.5238136345\t 1.4379326443\t 0.9063972942\t 0.133923
1341.307\t1341.3284\t1341.365\t1562.6731\t1562.7453\t3038.3205\t3151.6034\t3151.6788\t3151.7078
C\tC\t
InChI=1S/CH4/h1H4\tInChI=1S/CH4/h1H4
"""
"""The first molecule of QM9 in its authors' format."""


def qm9_text(index: int, shift: float = 0.0) -> str:
    """Methane under another index, moved along x."""
    text = METHANE.replace("gdb 1\t", f"gdb {index}\t")
    return text.replace("C\t-0.0126981359\t", f"C\t{-0.0126981359 + shift:.10f}\t")


def write_tar(path: Path, members: dict[str, bytes], mode: str = "w:bz2") -> Path:
    """An archive of regular files."""
    with tarfile.open(path, mode, format=tarfile.USTAR_FORMAT) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path
