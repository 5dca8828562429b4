"""Numbers and durations for people."""

from __future__ import annotations

import math

_TIMES = " \u00d7 "
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float, digits: int = 3) -> str:
    """A number with so many significant digits: ``0.0123``, ``1,230``, ``4.5e-7`` as a power of ten."""
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    if exponent < -4 or exponent > 6:
        mantissa = round(value / 10.0**exponent, digits - 1)
        if abs(mantissa) >= 10:
            mantissa, exponent = mantissa / 10, exponent + 1
        return f"{mantissa:.{digits - 1}f}{_TIMES}10{str(exponent).translate(_SUPERSCRIPTS)}"
    decimals = digits - 1 - exponent
    return f"{round(value, decimals):,.{max(decimals, 0)}f}"


def duration(seconds: float) -> str:
    """``45 s``, ``3 min 20 s``, ``2 h 5 min``."""
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s" if seconds >= 10 else f"{seconds:.1f} s"
    large, small, names = (
        (*divmod(whole, 60), ("min", "s")) if whole < 7200 else (*divmod(whole // 60, 60), ("h", "min"))
    )
    return f"{large} {names[0]} {small} {names[1]}" if small else f"{large} {names[0]}"
