"""The spellings of metadata, in keys and in free text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from typing import Final

LENGTHS: Final = {"pos", "geometry"} | {
    f"{stem}{s}" for stem in ("length", "distance", "position", "coordinate", "coord") for s in ("", "s")
}
_SPELLINGS: Final = {
    "charge": "charge total_charge net_charge tot_charge overall_charge molecular_charge molecule_charge mol_charge "
    "system_charge formal_charge charge_state chg chrg q qtot pubchem_total_charge m_chg",
    "charges": "charges initial_charge initial_charges atomic_charges partial_charges formal_charges mulliken_charges",
    "spin": "spin 2s unpaired unpaired_electrons n_unpaired num_unpaired num_unpaired_electrons nelec_diff uhf m_rad",
    "total_spin": "total_spin tot_spin",
    "multiplicity": "multiplicity spin_multiplicity total_multiplicity molecular_multiplicity mult multip spin_mult "
    "spin_state 2s+1",
    "moments": "magmom magmoms initial_magmom initial_magmoms initial_magnetic_moments magnetic_moment "
    "magnetic_moments total_magmom total_magnetization tot_magnetization spins",
    "unit": "unit units",
    "length unit": " ".join(f"{length}_unit {length}_units" for length in LENGTHS) + " unit_of_length",
    "periodicity": "pbc periodic is_periodic periodicity periodic_boundary_conditions",
    "cell": "cell lattice lattice_vectors unit_cell cell_vectors box box_vectors",
    "dimension": "dimension dimensionality dim",
    "ghost": "ghost ghosts ghost_atoms is_ghost",
    "tags": "tags",
    "text": "comment comments info metadata title description remark remarks note notes",
}
_WORDED: Final = frozenset({"charge", "spin", "total_spin", "multiplicity"})
MULTIPLICITIES: Final = {
    f"{stem}et": m for m, stem in enumerate(("singl", "doubl", "tripl", "quart", "quint", "sext", "sept"), 1)
}
_LONGEST_KEY: Final = 64

_PAIR: Final = re.compile(
    r"""(?<![\w-])([A-Za-z_][\w-]*)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)'|\{([^{}]*)\}|\(([^()]*)\)"""
    r"""|\[((?:[^\[\]]|\[[^\[\]]*+\])*+)\]|((?:(?![,;|]\s*[A-Za-z_][\w-]*\s*=)\S)*))"""
)
_QUOTED: Final = (2, 3)
_STATE: Final = re.compile(r"([+-]?\d{1,3})[\s,]{1,9}(\d{1,3})")
"""Charge and multiplicity, as input files of quantum-chemistry programs begin."""
_NAME: Final = r"\b(charge|spin mult\w*|mult\w*|spin)"
_BOTH: Final = re.compile(rf"{_NAME}\W{{1,3}}(?:and\W)?{_NAME}\W{{1,6}}?([+-]?\d+)\W{{1,3}}?([+-]?\d+)", re.IGNORECASE)
_PHRASES: Final = tuple(
    (key, re.compile(pattern, re.IGNORECASE))
    for key, pattern in (
        (
            "units",
            r"(?:\b(?:coord|geom|position|distance|length|xyz|unit)\w*\W{1,5}(?:(?:is|are|given|in)\W{1,2}){0,3}"
            r"|^\W?(?:in )?(?=[\w.]+(?: units?)?\W?$))"
            r"((?-i:au|AU|a\.u\.|nm|pm)(?!\w)|bohrs?\b|atomic units?|(?:nano|pico)met\w*)",
        ),
        ("units", r"(?<![\w*/^.-])(?<![\d~] )(?<!\w[(\[])(bohrs?)(?![\w*/^-])"),
        ("pbc", r"\b(?:pbc|periodic)\W{1,5}(t|true|yes|on|[1-9]\d*)\b"),
        ("cell", r"\b(?:cell|lattice|box)\W{1,5}(\d[\d.]*\W{1,2}\d[\d.]*\W{1,2}\d[\d.]*)"),
        ("dimension", r"\b(2D) (?:structure|coordinates|geometry|drawing)"),
        ("dimension", r"\bdimension\w*\W{1,3}(2D?)\b"),
        ("multiplicity", r"\b2S ?\+ ?1\W{1,3}(\d+)\b"),
        ("spin", r"\b2S ?[:=] ?(\d+)\b"),
        ("charge", r"\b(?-i:q) ?: ?([+-]?\d+)\b"),
    )
)
_WORD: Final = re.compile(r"[^\W\d_]+|(?:[+-] ?)?\d(?:[^\s,;|()\[\]{}\"'/]|/\d)*|[,;|~]")
_SOME_NUMBER: Final = re.compile(r"[+-]? ?\d+(?:\.\d*)?(?:/\d+)?[+-]?")
_SIGNS: Final = {"plus": "+", "minus": "-"}
_IN_WORDS: Final = re.compile("charge|chr?g|mult|spin|unpaired")
_HINTS: Final = (
    *("charge", "chg", "chrg", "mult", "spin", "unpair", "let", "tet", "2s", "q:", "q :"),
    *("bohr", "au", "a.u", "atomic", "nm", "pm", "met", "pbc", "periodic", "cell", "lattice", "box", "2d"),
)
"""Text without any of these says nothing."""
_GHOST: Final = re.compile(
    r"@.+|.+:|(gh|ghost)([\W_]?[a-z]{1,2}\W?)?\d*|bq([\W_]?[a-z]{1,2})?\d*|x{1,2}\d*|x-[a-z]{1,2}\d*"
    r"|[a-z]{1,2}[_-](bq|gh|ghost)\d*|q|du|lp|\*|0",
    re.IGNORECASE,
)


def kind_of(key: str) -> str | None:
    """What a key is about, or None for what is none of our business."""
    return _kind_of(key) if len(key) <= _LONGEST_KEY else None


def comment_entries(comment: str) -> list[tuple[str, str]]:
    """What a comment says: its ``key=value`` pairs, then charge, spin and unit in its words."""
    entries: list[tuple[str, str]] = []

    def both(match: re.Match[str]) -> str:
        entries.extend(((match[1], match[3]), (match[2], match[4])))
        return ","

    def pair(match: re.Match[str]) -> str:
        key, value, start = match[1], match[match.lastindex or 1], match.start()
        if match.lastindex in _QUOTED and "\\" in value:
            value = re.sub(r"\\(.)", r"\1", value)
        if match.string[start - 1 : start].isspace():
            before = re.search(r"[A-Za-z]+ $", match.string[max(0, start - 20) : start])
            key = before[0] + key if before and kind_of(before[0] + key) else key
        entries.append((key, value.rstrip(",;|")))
        if key.lower() in LENGTHS:
            return f"{key} {value}"  # a unit, perhaps
        return "~" if value[:1].isdigit() or value[1:2].isdigit() else ","

    comment = ascii_signs(comment)
    words = " ".join(_PAIR.sub(pair, _BOTH.sub(both, comment) if _may_say(comment) else comment).split())
    if re.search(r"[^\W\d_]{2}", words):  # a title, where Q is anything
        entries = [(key, value) for key, value in entries if key != "Q"]
    return [*entries, *_said_in_words(words)] if _may_say(words) else entries


def is_ghost(symbol: str) -> bool:
    """Whether something that is no element is a ghost or dummy atom of some program."""
    return _GHOST.fullmatch(symbol) is not None


def _said_in_words(text: str) -> Iterator[tuple[str, str]]:
    """Statements of free text, whose pairs were replaced by ``~`` (numbers) and ``,``."""
    if state := _STATE.fullmatch(text):
        yield from (("charge", state[1]), ("multiplicity", state[2]))
        return
    for key, pattern in _PHRASES:
        yield from ((key, said) for said in pattern.findall(text))
    words: list[str] = []
    number = ""
    end = 0
    for match in _WORD.finditer(text):
        word = match[0].lower()
        value = word.rstrip(".:e")
        if _SOME_NUMBER.fullmatch(value):
            if words and match.start() == end and value[0] in "+-":
                value = words[-1] + value  # is it a hyphen or a sign?
            if words and words[-1] in _SIGNS:
                value = _SIGNS[words.pop()] + value
            names = (" ".join(words[start:]) for start in range(len(words)))
            known = (name for name in names if _IN_WORDS.search(name) and kind_of(name) in _WORDED)
            yield from ((name, value) for name in islice(known, 1))  # the longest
            words, number = [], value
        elif word.isalpha():
            if word in MULTIPLICITIES:
                yield "multiplicity", word
            elif word == "unpaired" and number:
                yield word, number
            elif word in {"charge", "charged"} and number and not number.isdecimal():
                yield "charge", number
            if word not in {"of", "is", "equals", "e"}:
                words = [*words[-2:], word]
            number = ""
        else:
            words, number = [], ""
        end = match.end()


def _may_say(text: str) -> bool:
    lower = text.lower()
    return any(hint in lower for hint in _HINTS) or _STATE.fullmatch(text) is not None


def plain(key: str) -> str:
    return re.sub(r"[\W_]+", "", key).lower()


@lru_cache(maxsize=4096)
def _kind_of(key: str) -> str | None:
    return _KINDS.get(plain(key).removeprefix("ref"))


_KINDS: Final = {plain(name): kind for kind, names in _SPELLINGS.items() for name in names.split()}


def ascii_signs(text: str) -> str:
    return unicodedata.normalize("NFKC", text).replace("\N{MINUS SIGN}", "-").replace("\N{EN DASH}", "-")
