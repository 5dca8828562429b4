"""Numbers, units and settings in words that people read."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from qcsurrogate.files.nested import flat
from qcsurrogate.units import ANGSTROM_PER_BOHR, DEBYE_PER_ATOMIC_UNIT, EV_PER_HARTREE

_TINY = 0.0001
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float, digits: int = 3) -> str:
    """A number with so many significant digits: ``0.0123``, ``1,230``, ``4.5e-7`` as a power of ten."""
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    power = int(exponent)
    if not -4 <= power <= 6:
        return f"{mantissa} \u00d7 10{str(power).translate(_SUPERSCRIPTS)}"
    decimals = digits - 1 - power
    return f"{round(value, decimals):,.{max(decimals, 0)}f}"


@dataclass(frozen=True)
class Unit:
    """A unit with its prefix: the page prints ``value * factor`` and ``symbol``."""

    symbol: str
    factor: float = 1.0

    def number(self, value: float, *, digits: int = 3, sign: bool = False) -> str:
        """A stored value as a number of this unit; beside a unit stands no power of ten."""
        shown = value * self.factor
        if self.symbol and 0 < abs(shown) < _TINY:
            return f"< {_TINY}"
        return ("+" if sign and value > 0 else "") + number(shown, digits)

    def text(self, value: float) -> str:
        """A stored value with its unit."""
        return f"{self.number(value)} {self.symbol}".rstrip()

    def label(self, title: str) -> str:
        """What a column or an axis is called."""
        return f"{title} ({self.symbol})" if self.symbol else title


def _prefixed(symbol: str, factor: float = 1.0) -> list[Unit]:
    powers = {"f": 1e15, "p": 1e12, "n": 1e9, "µ": 1e6, "m": 1e3, "": 1.0, "k": 1e-3}
    return [Unit(prefix + symbol, power * factor) for prefix, power in powers.items()]


_UNITS: Final[Mapping[str, list[Unit]]] = {
    "hartree": _prefixed("Eh"),
    "eV": _prefixed("eV", EV_PER_HARTREE),
    "e bohr": _prefixed("D", DEBYE_PER_ATOMIC_UNIT),
    "e bohr^2": _prefixed("D Å", DEBYE_PER_ATOMIC_UNIT * ANGSTROM_PER_BOHR),
    "e bohr^-3": _prefixed("e/bohr³"),
    "e": _prefixed("e"),
    "s": [Unit("µs", 1e6), Unit("ms", 1e3), Unit("s"), Unit("min", 1 / 60), Unit("h", 1 / 3600)],
    "%": [Unit("ppb", 1e7), Unit("ppm", 1e4), Unit("%")],
    "share": [Unit("ppb", 1e9), Unit("ppm", 1e6), Unit("%", 1e2)],
    "1": [Unit("")],
}
"""What a stored value may be read in, small to large; ``eV`` is stored in hartree, ``share`` as a number up to 1."""


def readable(values: Iterable[float], unit: str) -> Unit:
    """One unit for all these values, in which they read from 1 to 1000 (percent from 0.1), or as close to it as can be.

    Args:
        values: of one column, row or axis; zeros do not count.
        unit: what they are stored in; one without a prefix is kept.
    """
    sizes = np.abs(np.fromiter(values, dtype=np.float64))
    logs = np.log10(sizes[np.isfinite(sizes) & (sizes > 1e-30)])
    if not len(logs):
        logs = np.zeros(1)
    power = 10 ** (np.floor(logs) - 2)
    logs = np.log10(np.round(10**logs / power) * power)  # of what three digits show

    def strain(known: Unit) -> float:
        """Decades outside, of each value at most three: one tiny value shall not move the others."""
        decades = np.round(logs + math.log10(known.factor), 9)
        lowest = -1 if known.symbol == "%" else 0
        return float(np.clip(np.maximum(lowest - decades, decades - 3), 0, 3).sum())

    return min(reversed(_UNITS.get(unit, [Unit(unit)])), key=strain)


def spoken(value: object) -> str:
    """A setting in words; no syntax of Python's."""
    if value is None or isinstance(value, bool):
        return {None: "not set", True: "yes", False: "no"}[value]
    if isinstance(value, float):
        return number(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {text}" for name, text in spoken_settings(value)) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(spoken, value)) or "none"
    text = str(value)
    return text if len(text) <= 400 else f"{text[:400]}..."


def spoken_settings(settings: Mapping[str, object]) -> list[tuple[str, str]]:
    """Nested settings as (``model.encoder.layers``, ``2``)."""
    return [(key, spoken(value)) for key, value in flat(settings).items()]
