"""Charge, spin and unit of length as people write them: one rule for every reader.

A key is compared without regard to case, blanks, ``-`` and ``_``.  What is recognised is
either understood or refused; what is not recognised is none of our business.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

from qcsurrogate.errors import StructureError

_CHARGE: Final = frozenset({"charge", "totalcharge", "netcharge", "totcharge", "molecularcharge", "chg"})
_SPIN: Final = frozenset({"spin", "unpaired", "unpairedelectrons", "nunpaired", "nelecdiff"})
_MULTIPLICITY: Final = frozenset({"multiplicity", "spinmultiplicity", "totalmultiplicity", "mult"})
_UNIT: Final = frozenset(
    {"unit", "units", "lengthunit", "lengthunits", "positionunit", "positionunits", "coordinateunits", "posunit"}
)
_OTHER_LENGTHS: Final = frozenset({"bohr", "bohrs", "au", "a.u.", "a0", "atomic", "nm", "nanometer", "pm", "picometer"})


def molecular_state(
    entries: Mapping[str, object],
    where: str,
    *,
    initial_charges: Sequence[float] = (),
    initial_magmoms: Sequence[float] = (),
) -> tuple[int | None, int | None]:
    """Charge and number of unpaired electrons that the metadata of a structure name.

    Args:
        entries: what stands beside a geometry given in Angstrom.
        where: file and line, or what the geometry is, for errors.
        initial_charges, initial_magmoms: of the atoms, as ASE keeps them; their sums count as
            entries, unless all are zero.

    Returns:
        (charge, unpaired electrons), None for what is not said.

    Raises:
        StructureError: for a value that is no whole number, entries that contradict each
            other, a multiplicity below one, or another unit of length.
    """
    charges: dict[str, int] = {}
    spins: dict[str, int] = {}
    for key, value in entries.items():
        plain = key.lower().replace("_", "").replace("-", "").replace(" ", "")
        if plain in _CHARGE:
            charges[f"{key}={value}"] = whole_number(value, key, where)
        elif plain in _SPIN:
            spins[f"{key}={value}"] = _at_least(whole_number(value, key, where), 0, key, where)
        elif plain in _MULTIPLICITY:
            spins[f"{key}={value}"] = _at_least(whole_number(value, key, where), 1, key, where) - 1
        elif plain in _UNIT and str(value).strip().lower() in _OTHER_LENGTHS:
            raise StructureError(f"{where}: {key}={value}; expected Angstrom: convert the positions")
    if any(initial_charges):
        charges["the sum of initial_charges"] = _whole_sum(initial_charges, "initial_charges", where)
    if any(initial_magmoms):
        spins["the sum of initial_magmoms"] = abs(_whole_sum(initial_magmoms, "initial_magmoms", where))
    return _agreed(charges, "charge", where), _agreed(spins, "number of unpaired electrons", where)


def whole_number(value: object, key: str, where: str) -> int:
    """A number without a fraction, or a text of one.

    Raises:
        StructureError: for anything else, True and None among it.
    """
    try:
        number = math.nan if isinstance(value, bool) or value is None else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if not abs(number) <= 1e6 or number != int(number):
        raise StructureError(f"{where}: {key}={value}; expected an integer")
    return int(number)


def _whole_sum(values: Sequence[float], what: str, where: str) -> int:
    total = math.fsum(values) if all(map(math.isfinite, values)) else math.nan
    if not abs(total) <= 1e6 or abs(total - round(total)) > 1e-3:
        raise StructureError(f"{where}: {what} add up to {total:g}; expected an integer")
    return round(total)


def _at_least(number: int, least: int, key: str, where: str) -> int:
    if number < least:
        raise StructureError(f"{where}: {key}={number}; expected {least} or more")
    return number


def _agreed(said: Mapping[str, int], what: str, where: str) -> int | None:
    if len(set(said.values())) > 1:
        raise StructureError(f"{where}: {' and '.join(said)} contradict each other; expected one {what}")
    return next(iter(said.values()), None)
