"""The one rule: what is recognised has to agree."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np

from qcsurrogate.errors import StructureError
from qcsurrogate.metadata.words import LENGTHS, MULTIPLICITIES, ascii_signs, comment_entries, kind_of, plain

_SUMS: Final = frozenset({"charges", "moments"})
_BY_ATOM: Final = _SUMS | {"charge", "spin"}
_TRUE: Final = frozenset({"t", "true", "1", "yes", "y", "on"})
_FALSE: Final = frozenset({"f", "false", "0", "no", "n", "off", "none", "molecule"})
_ANGSTROM: Final = frozenset({"angstrom", "angstroms", "angstroem", "ang", "angs", "a"})
_OTHER_LENGTHS: Final = frozenset(
    {"bohr", "bohrs", "au", "a0", "atomic", "nm", "pm"}
    | {f"{p}met{e}" for p in ("nano", "pico") for e in ("er", "ers")}
) | {"nanometre", "nanometres", "picometre", "picometres"}
_GHOST_TAG: Final = 71
"""How ASE marks a ghost for ORCA."""
_SUM_TOLERANCE: Final = 0.05


def molecular_state(
    entries: Iterable[tuple[str, object]], where: str, n_atoms: int = 1
) -> tuple[int | None, int | None]:
    """Charge and number of unpaired electrons that the metadata of a structure name.

    Args:
        entries: all that stands beside a geometry given in Angstrom; a key may come twice.
        where: file and line, or what the geometry is, for errors.
        n_atoms: of the geometry: so many values are one for each atom.

    Returns:
        (charge, unpaired electrons), None for what is not said.

    Raises:
        StructureError: for what is recognised and not understood, entries that contradict each
            other, another unit of length, a periodic structure, a drawing, or ghosts.
    """
    said = _Said(where, n_atoms)
    for key, value in entries:
        said.take(key, value)
    return said.agreed()


def whole_number(value: object, key: str, where: str) -> int:
    """A number without a fraction, or a text of one, such as ``2``, ``+1`` and ``1-``.

    Raises:
        StructureError: for anything else, True and None among it.
    """
    number = _number(value)
    if not abs(number) <= 1e6 or number != int(number):
        raise StructureError(f"{where}: {key}={_shown(value)}; expected an integer: correct it or remove it")
    return int(number)


class _Said:
    """What was said so far."""

    def __init__(self, where: str, n_atoms: int) -> None:
        self.where, self.n_atoms = where, n_atoms
        self.charges: dict[str, int] = {}
        self.spins: dict[str, int] = {}
        self.total_spin: float | None = None
        self.cell: str | None = None
        self.isolated = False

    def take(self, key: str, value: object, *, nested: bool = False) -> None:
        match kind_of(key):
            case "charge" | "charges" as kind:
                self._total(self.charges, kind, key, value)
            case "spin" | "moments" | "multiplicity" as kind:
                self._total(self.spins, kind, key, value)
            case "total_spin":
                parts = _parts(value)
                self.total_spin = _number(parts[0]) if len(parts) == 1 else math.nan
            case "unit" | "length unit" as kind:
                self._unit(key, value, length=kind == "length unit")
            case "periodicity":
                if any(self._flags(key, value)):
                    raise self._periodic(f"{key}={_shown(value)}")
                self.isolated = True
            case "cell" if any(_number(part) for part in _parts(value)):
                self.cell = key
            case "dimension" if any(_number(str(part).upper().removesuffix("D")) in (1, 2) for part in _parts(value)):
                raise self._problem(f"{key}={_shown(value)}, a drawing", "a geometry in three dimensions")
            case "ghost" if any(self._flags(key, value)):
                raise self._problem(f"{key}={_shown(value)} marks ghost atoms", "atoms only: remove the ghosts")
            case "tags" if _GHOST_TAG in _parts(value) or str(_GHOST_TAG) in _parts(value):
                raise self._problem(f"tag {_GHOST_TAG} marks a ghost atom", "atoms only: remove the ghosts")
            case "text" if isinstance(value, (str, Mapping)) and not nested:
                for inner, words in comment_entries(value) if isinstance(value, str) else value.items():
                    self.take(str(inner), words, nested=True)

    def agreed(self) -> tuple[int | None, int | None]:
        if self.cell is not None and not self.isolated:
            raise self._periodic(f"it has a {self.cell} and no pbc")
        spin = self._one(self.spins, "number of unpaired electrons")
        if self.total_spin is not None:
            if spin is None and self.total_spin:
                raise self._problem(
                    f"total_spin={self.total_spin:g} may mean S, 2S or 2S+1",
                    "spin (unpaired electrons) or multiplicity",
                )
            spin = spin or 0
            if self.total_spin not in (spin / 2, spin, spin + 1):
                raise self._problem(f"total_spin={self.total_spin:g} contradicts {spin} unpaired electrons", "one spin")
        return self._one(self.charges, "charge"), spin

    def _total(self, said: dict[str, int], kind: str, key: str, value: object) -> None:
        """Note a number, or the sum of the atoms' numbers."""
        parts = _parts(value)
        word = str(parts[0]).lower() if len(parts) == 1 else ""
        if said is self.spins and word in MULTIPLICITIES:
            kind, parts = "multiplicity", [MULTIPLICITIES[word]]
        elif said is self.charges and word == "neutral":
            parts = [0]
        if len(parts) == 1 and kind not in _SUMS:
            number = whole_number(parts[0], key, self.where)
            label = f"{key}={_shown(value)}"
        else:
            if len(parts) not in ({1, self.n_atoms} if kind in _BY_ATOM else {1}):
                expected = "an integer" + (
                    f", or one number for each of {self.n_atoms} atoms" if kind in _BY_ATOM else ""
                )
                raise self._problem(f"{key}={_shown(value)}", expected)
            total = sum(map(_number, parts))
            if not any(map(_number, parts)):
                return
            if not abs(total) <= 1e6 or abs(total - round(total)) > _SUM_TOLERANCE:
                raise self._problem(
                    f"{key} add up to {total:g}", f"an integer within {_SUM_TOLERANCE:g}: correct or remove them"
                )
            number = round(total)
            label = f"the sum {number} of {key}"
        if said is self.spins:
            if kind == "moments" or len(parts) > 1:
                number = abs(number)
            least = 1 if kind == "multiplicity" else 0
            if number < least:
                raise self._problem(f"{key}={number}", f"{least} or more")
            number -= least
        said[label] = number

    def _unit(self, key: str, value: object, *, length: bool) -> None:
        if isinstance(value, Mapping) and not length:
            for name, unit in value.items():
                if plain(str(name)) in LENGTHS:
                    self._unit(f"{key} of {name}", unit, length=True)
            return
        words = {word for part in _parts(value) if isinstance(part, str) for word in _unit_words(part)}
        if words & _OTHER_LENGTHS or not words or (length and not words & _ANGSTROM):
            raise self._problem(f"{key}={_shown(value)}", "Angstrom: convert the positions")

    def _flags(self, key: str, value: object) -> list[bool]:
        words = [str(part).lower() for part in _parts(value) if part is not None]
        flags = [word in _TRUE or (word not in _FALSE and _number(word) > 0) for word in words]
        if not words or any(word not in _FALSE and not flag for word, flag in zip(words, flags, strict=True)):
            raise self._problem(f"{key}={_shown(value)}", "F or T (one, or three)")
        return flags

    def _one(self, said: Mapping[str, int], what: str) -> int | None:
        if len(set(said.values())) > 1:
            raise self._problem(f"{' and '.join(said)} contradict each other", f"one {what}: correct or remove one")
        return next(iter(said.values()), None)

    def _periodic(self, sign: str) -> StructureError:
        return self._problem(f"the structure is periodic ({sign})", "a molecule: set pbc to False (F F F)")

    def _problem(self, what: str, expected: str) -> StructureError:
        return StructureError(f"{self.where}: {what}; expected {expected}")


def _parts(value: object) -> list[object]:
    """Single values, of a text its words."""
    found: list[object] = []
    pending = [value]
    while pending:
        part = pending.pop()
        if isinstance(part, (np.ndarray, np.generic)):
            part = part.tolist()
        if isinstance(part, bytes):
            part = part.decode("utf-8", "replace")
        if isinstance(part, str):
            found.extend(re.findall(r"[^\s,;()\[\]{}\"']+", part))
        elif isinstance(part, (list, tuple)):
            pending.extend(reversed(part))
        else:
            found.append(part)
    return found


def _number(value: object) -> float:
    """A number, or not-a-number for what is none."""
    try:
        return math.nan if isinstance(value, (bool, np.bool_, np.ndarray)) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        text = ascii_signs(value).strip().lower() if isinstance(value, str) else ""
    if re.fullmatch(r"\d+[+-]", text):  # such as 2+
        text = text[-1] + text[:-1]
    return float(text) if re.fullmatch(r"[+-]?\d+(\.0*)?", text) else math.nan


def _unit_words(text: str) -> set[str]:
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c)).lower()
    return {word.replace(".", "") for word in re.findall(r"[a-z0-9.]+", plain)} - {""}


def _shown(value: object) -> str:
    return " ".join(str(value).split())[:60]
