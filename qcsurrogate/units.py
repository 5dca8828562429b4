"""Conversion factors, each once and named by its direction.

Inside the package everything is in atomic units (Hartree, bohr, electron charge,
electron mass); other units appear only where ASE, xyz files or a printed table fix
them.  The bohr is PySCF's own value (``pyscf.data.nist.BOHR``, CODATA 2010), so that a
geometry that passes through PySCF and back through us does not move; a test holds the
two together.
"""

from __future__ import annotations

from typing import Final

ANGSTROM_PER_BOHR: Final = 0.52917721092
BOHR_PER_ANGSTROM: Final = 1.0 / ANGSTROM_PER_BOHR

EV_PER_HARTREE: Final = 27.21138602
HARTREE_PER_EV: Final = 1.0 / EV_PER_HARTREE

MICROHARTREE_PER_HARTREE: Final = 1e6
MILLIELECTRONVOLT_PER_HARTREE: Final = 1e3 * EV_PER_HARTREE

KCAL_PER_MOL_PER_HARTREE: Final = 627.509474
"""Energy of a mole, thermochemical calories."""

DEBYE_PER_ATOMIC_UNIT: Final = 2.541746473
"""Electric dipole: one electron charge times one bohr, in debye."""

HARTREE_PER_KELVIN: Final = 3.166811563e-6
"""Boltzmann's constant."""

ELECTRON_MASS_PER_DALTON: Final = 1822.888486209

ATOMIC_TIME_PER_FEMTOSECOND: Final = 41.341373336


def duration(seconds: float) -> str:
    """``45 s``, ``3 min 20 s``, ``2 h 5 min``, ``3 days 4 h``."""
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s" if seconds >= 10 else f"{seconds:.1f} s"
    size, part, large, small = 86400, 3600, "days", "h"
    if whole < 7200:
        size, part, large, small = 60, 1, "min", "s"
    elif whole < 2 * size:
        size, part, large, small = 3600, 60, "h", "min"
    count, rest = divmod(whole, size)
    return f"{count} {large} {rest // part} {small}" if rest // part else f"{count} {large}"
