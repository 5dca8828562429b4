"""What a model was trained on, and what of a molecule lies outside of it.

A neural network answers anything; this says, from geometry alone and before anything is
computed, whether the answer is an interpolation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Final

import numpy as np
from ase.data import chemical_symbols, covalent_radii
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from qcsurrogate.errors import StructureError
from qcsurrogate.structures import Structure
from qcsurrogate.units import ANGSTROM_PER_BOHR, BOHR_PER_ANGSTROM

PAIR_CUTOFF_BOHR: Final = 12.0
"""Distances beyond are not told apart; of more than 500 atoms, pairs further apart are not looked at."""
NEIGHBOUR_CUTOFF_BOHR: Final = 5.0
"""Atoms nearer than this are counted as neighbours."""
BIN_BOHR: Final = 0.25
"""Width of a distance bin; a distance is inside if its bin or one beside it was seen."""
BOND_FACTOR: Final = 1.3
"""Two atoms are bonded below this times the sum of their covalent radii; a hydrogen bond (1.6 Angstrom) is none."""

_FAR: Final = round(PAIR_CUTOFF_BOHR / BIN_BOHR)
"""The bin of all distances beyond the cutoff."""
_RADII_BOHR: Final = covalent_radii * BOHR_PER_ANGSTROM
_SHOWN_ATOMS: Final = 3
_MANY: Final = {"pair": "pair", "distance": "pair", "neighbours": "atom"}
"""Kinds of which a structure may have many findings, and what each is about."""

AtomicNumber = Annotated[int, Field(ge=1, lt=len(chemical_symbols))]
Bin = Annotated[int, Field(ge=0, le=_FAR)]
Count = Annotated[int, Field(ge=0, le=2**31)]
Small = Annotated[int, Field(ge=-(2**15), le=2**15)]


PairKind = tuple[tuple[int, int], bool]
"""Two elements, ascending, and whether their atoms belong to different molecules."""


class OutsideTrainingDomain(UserWarning):
    """A prediction for something that the model was not trained on, or that nobody can tell."""


@dataclass(frozen=True)
class Finding:
    """One thing that lies outside of the training data.

    Attributes:
        kind: ``size``, ``state``, ``element``, ``pair``, ``distance``, ``neighbours`` or ``unit``.
        atoms: indices of the atoms concerned: none, those of an element, one, or the two of a pair.
        text: what is outside, and what was seen in training.
    """

    kind: str
    atoms: tuple[int, ...]
    text: str


@dataclass(frozen=True)
class DomainVerdict:
    """How a molecule stands to the training data.

    Attributes:
        known: whether the model file says what it was trained on.
        findings: what lies outside; nothing is known without ``known``.
    """

    known: bool
    findings: tuple[Finding, ...] = ()

    @property
    def inside(self) -> bool:
        """Whether the domain is known and nothing lies outside of it."""
        return self.known and not self.findings

    @property
    def summary(self) -> str:
        """The verdict in one line, which holds each kind of finding once."""
        if not self.known:
            return "domain unknown: the model file does not say what it was trained on"
        if not self.findings:
            return "inside the training data"
        groups: dict[str, list[str]] = {}
        for finding in self.findings:
            groups.setdefault(finding.kind if finding.kind in _MANY else finding.text, []).append(finding.text)
        shown = [
            texts[0] + (f", and {_counted(len(texts) - 1, f'more {_MANY[kind]}')}" if texts[1:] else "")
            for kind, texts in groups.items()
        ]
        return f"outside the training data: {'; '.join(shown)}"


UNKNOWN: Final = DomainVerdict(known=False)

_WRONG_UNITS: Final = {
    ANGSTROM_PER_BOHR: "bohr that were taken for Angstrom",
    BOHR_PER_ANGSTROM: "Angstrom that were taken for bohr",
}


class PairDomain(BaseModel):
    """Distances (bohr) of one pair of elements, ascending, and the distance bins that occurred.

    Those within molecules and those ``between`` molecules, which are what bonds hold together
    (see ``BOND_FACTOR``), are two kinds of pairs.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    elements: tuple[AtomicNumber, AtomicNumber]
    between: bool = False
    shortest: float = Field(ge=0.0, le=PAIR_CUTOFF_BOHR)
    longest: float = Field(ge=0.0, le=PAIR_CUTOFF_BOHR)
    bins: tuple[Bin, ...] = Field(min_length=1)

    @property
    def kind(self) -> PairKind:
        """What tells it from other pairs."""
        return self.elements, self.between


class NeighbourDomain(BaseModel):
    """Least and greatest number of neighbours that an element had."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    element: AtomicNumber
    least: Count
    most: Count


class Domain(BaseModel):
    """What the training structures hold.

    Attributes:
        states: pairs of charge and spin.
        atoms, electrons: least and greatest number in a structure.
        pairs: distances by pair of elements, within and between molecules.
        neighbours: by element, within ``NEIGHBOUR_CUTOFF_BOHR``; these are the elements seen.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    states: tuple[tuple[Small, Small], ...] = Field(min_length=1)
    atoms: tuple[Count, Count]
    electrons: tuple[Count, Count]
    pairs: tuple[PairDomain, ...]
    neighbours: tuple[NeighbourDomain, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _ordered(self) -> Domain:
        ranges = [self.atoms, self.electrons, *((n.least, n.most) for n in self.neighbours)]
        lengths = [(p.shortest, p.longest) for p in self.pairs]
        if any(low > high for low, high in (*ranges, *lengths)):
            raise ValueError("a range whose lower end is above its upper end")
        kinds = [p.kind for p in self.pairs]
        elements = [n.element for n in self.neighbours]
        if len(set(kinds)) < len(kinds) or len(set(elements)) < len(elements) or any(a > b for (a, b), _ in kinds):
            raise ValueError("pairs or elements that occur twice, or are not ascending")
        return self

    @classmethod
    def fit(cls, structures: Iterable[Structure]) -> Domain:
        """The domain of these structures.

        Raises:
            ValueError: without any structure.
        """
        seen = _Seen()
        for structure in structures:
            seen.states.add((structure.charge, structure.spin))
            seen.atoms.append(len(structure))
            seen.electrons.append(structure.n_electrons)
            geometry = _Geometry(structure)
            for kind, chosen in geometry.kinds():
                lengths = np.minimum(geometry.lengths[chosen], PAIR_CUTOFF_BOHR)
                seen.add_pairs(kind, float(lengths.min()), float(lengths.max()), _bins(lengths))
            for z, n in zip(structure.atomic_numbers.tolist(), geometry.neighbours.tolist(), strict=True):
                seen.add_neighbours(z, n, n)
        if not seen.atoms:
            raise ValueError("a domain needs at least one structure")
        return seen.domain()

    def joined(self, other: Domain) -> Domain:
        """The domain of the structures of both."""
        seen = _Seen()
        for domain in (self, other):
            seen.states.update(domain.states)
            seen.atoms += domain.atoms
            seen.electrons += domain.electrons
            for p in domain.pairs:
                seen.add_pairs(p.kind, p.shortest, p.longest, list(p.bins))
            for n in domain.neighbours:
                seen.add_neighbours(n.element, n.least, n.most)
        return seen.domain()

    def assess(self, structure: Structure) -> DomainVerdict:
        """What of a molecule lies outside, the worst kinds first; no calculation is needed."""
        findings = list(self._findings(structure))
        if any(finding.kind in {"pair", "distance"} for finding in findings):
            findings += [
                Finding("unit", (), f"inside it if the positions were {said}: are the units right?")
                for factor, said in _WRONG_UNITS.items()
                if self._holds_scaled(structure, factor)
            ]
        return DomainVerdict(known=True, findings=tuple(findings))

    def _holds_scaled(self, structure: Structure, factor: float) -> bool:
        try:
            scaled = structure.moved(structure.positions * factor)
        except StructureError:  # atoms too close to each other
            return False
        return not any(True for _ in self._findings(scaled))

    def _findings(self, structure: Structure) -> Iterable[Finding]:
        symbols = structure.symbols
        if (structure.charge, structure.spin) not in self.states:
            seen = ", ".join(f"{charge} and {spin}" for charge, spin in self.states)
            text = f"charge {structure.charge} and spin {structure.spin} (training: {seen})"
            yield Finding("state", (), text)
        counts = {n.element: (n.least, n.most) for n in self.neighbours}
        numbers = structure.atomic_numbers.tolist()
        for z in sorted(set(numbers) - counts.keys()):
            atoms = tuple(i for i, other in enumerate(numbers) if other == z)
            shown = ", ".join(map(str, atoms[:_SHOWN_ATOMS]))
            more = f" and {len(atoms) - _SHOWN_ATOMS} more" if len(atoms) > _SHOWN_ATOMS else ""
            which = f"{'atoms' if len(atoms) > 1 else 'atom'} {shown}{more}"
            yield Finding("element", atoms, f"element {chemical_symbols[z]} of {which} was not seen")
        for what, value, (low, high) in (
            ("atom", len(structure), self.atoms),
            ("electron", structure.n_electrons, self.electrons),
        ):
            if not low <= value <= high:
                yield Finding("size", (), f"{_counted(value, what)} (training: {low} to {high})")
        geometry = _Geometry(structure)
        known = {p.kind: p for p in self.pairs}
        found = [
            finding
            for kind, chosen in geometry.kinds()
            if counts.keys() >= set(kind[0])  # what is not was said above
            for finding in _pair_findings(geometry, chosen, symbols, kind, known)
        ]
        found.sort(key=lambda entry: entry[:2])  # unseen pairs from the nearest, distances from the furthest outside
        yield from (Finding(name, atoms, text) for _, _, name, atoms, text in found)
        for i, (z, n) in enumerate(zip(numbers, geometry.neighbours.tolist(), strict=True)):
            least, most = counts.get(z, (n, n))
            if not least <= n <= most:
                yield Finding(
                    "neighbours",
                    (i,),
                    f"atom {i} ({symbols[i]}) has {_counted(n, 'neighbour')} (training: {least} to {most})",
                )


class _Seen:
    """What was seen so far, on the way to a domain."""

    def __init__(self) -> None:
        self.states: set[tuple[int, int]] = set()
        self.atoms: list[int] = []
        self.electrons: list[int] = []
        self._pairs: dict[PairKind, tuple[float, float, NDArray[np.bool_]]] = {}
        self._neighbours: dict[int, tuple[int, int]] = {}

    def add_pairs(self, kind: PairKind, shortest: float, longest: float, bins: NDArray[np.intp] | list[int]) -> None:
        low, high, seen = self._pairs.get(kind, (np.inf, 0.0, np.zeros(_FAR + 1, dtype=np.bool_)))
        seen[bins] = True
        self._pairs[kind] = (min(low, shortest), max(high, longest), seen)

    def add_neighbours(self, element: int, least: int, most: int) -> None:
        low, high = self._neighbours.get(element, (least, most))
        self._neighbours[element] = (min(low, least), max(high, most))

    def domain(self) -> Domain:
        return Domain(
            states=tuple(sorted(self.states)),
            atoms=(min(self.atoms), max(self.atoms)),
            electrons=(min(self.electrons), max(self.electrons)),
            pairs=tuple(
                PairDomain(
                    elements=elements,
                    between=between,
                    shortest=low,
                    longest=high,
                    bins=tuple(np.flatnonzero(seen).tolist()),
                )
                for (elements, between), (low, high, seen) in sorted(self._pairs.items())
            ),
            neighbours=tuple(
                NeighbourDomain(element=z, least=low, most=high) for z, (low, high) in sorted(self._neighbours.items())
            ),
        )


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _pair_findings(
    geometry: _Geometry,
    chosen: NDArray[np.intp],
    symbols: list[str],
    kind: PairKind,
    known: Mapping[PairKind, PairDomain],
) -> Iterator[tuple[bool, float, str, tuple[int, int], str]]:
    """What is outside of the pairs of one kind: two keys of their order, and what makes a finding."""
    pair = known.get(kind)
    nearest = pair or known.get((kind[0], False))
    low, high = (nearest.shortest, nearest.longest) if nearest else (0.0, 0.0)
    seen = f"({low * ANGSTROM_PER_BOHR:.2f} to {high * ANGSTROM_PER_BOHR:.2f})"
    unseen = f"seen within molecules only {seen}" if nearest else "this pair of elements was not seen"
    where = " between molecules" if kind[1] else ""
    away = _bins_away(geometry.lengths[chosen], pair)
    outside = chosen[away > 1]
    columns = (geometry.first[outside], geometry.second[outside], geometry.lengths[outside], away[away > 1])
    for i, j, length, bins in zip(*(column.tolist() for column in columns), strict=True):
        text = f"{symbols[i]}{i}-{symbols[j]}{j} at {length * ANGSTROM_PER_BOHR:.2f} Angstrom{where}: "
        if pair is None:
            yield False, length, "pair", (i, j), text + unseen
        else:
            word = "below" if length < low else "above" if length > high else "in a gap of"
            yield True, -bins, "distance", (i, j), f"{text}{word} the training distances {seen}"


class _Geometry:
    """Pairs of atoms, within and between molecules, and the number of near neighbours of each atom."""

    def __init__(self, structure: Structure) -> None:
        numbers, positions = structure.atomic_numbers, structure.positions
        self.first, self.second, self.lengths = _close_pairs(positions)
        near = self.lengths < NEIGHBOUR_CUTOFF_BOHR
        ends = np.concatenate([self.first[near], self.second[near]])
        self.neighbours = np.bincount(ends, minlength=len(numbers))
        a, b = numbers[self.first], numbers[self.second]
        bonded = self.lengths < BOND_FACTOR * (_RADII_BOHR[a] + _RADII_BOHR[b])
        molecule = _connected(len(numbers), self.first[bonded], self.second[bonded])
        self._between = molecule[self.first] != molecule[self.second]
        self._code = np.minimum(a, b) * 256 + np.maximum(a, b)

    def kinds(self) -> Iterable[tuple[PairKind, NDArray[np.intp]]]:
        for code in np.unique(self._code).tolist():
            for between in (False, True):
                chosen = np.flatnonzero((self._code == code) & (self._between == between))
                if len(chosen):
                    yield (divmod(code, 256), between), chosen


def _close_pairs(positions: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    if len(positions) > 500:  # all pairs would take more memory than time is worth
        from scipy.spatial import cKDTree

        found = cKDTree(positions).query_pairs(PAIR_CUTOFF_BOHR, output_type="ndarray")
        first, second = found[:, 0], found[:, 1]
    else:
        first, second = np.triu_indices(len(positions), k=1)
    return first, second, np.linalg.norm(positions[first] - positions[second], axis=1)


def _connected(n_atoms: int, first: NDArray[np.intp], second: NDArray[np.intp]) -> NDArray[np.intp]:
    """The least atom that each atom (n_atoms,) is connected with."""
    label = np.arange(n_atoms)
    while True:  # each atom takes the least label of its neighbours
        before = label.copy()
        np.minimum.at(label, first, label[second])
        np.minimum.at(label, second, label[first])
        label = label[label]
        if (label == before).all():
            return label


def _bins(lengths: NDArray[np.float64]) -> NDArray[np.intp]:
    return np.minimum((lengths / BIN_BOHR).astype(np.intp), _FAR)


def _bins_away(lengths: NDArray[np.float64], pair: PairDomain | None) -> NDArray[np.intp]:
    """Bins between a distance and the nearest that was seen; beyond the cutoff, how far it is beyond."""
    bins = (lengths / BIN_BOHR).astype(np.intp)
    if pair is None:
        return np.full(len(bins), _FAR)
    if _FAR in pair.bins:
        bins = np.minimum(bins, _FAR)
    return np.abs(bins[:, None] - np.array(pair.bins)[None, :]).min(axis=1)
