"""What a model was trained on, and what of a molecule lies outside of it.

A neural network answers anything; this says, from geometry alone and before anything is
computed, whether the answer is an interpolation.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Final

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from qcsurrogate.structures import Structure
from qcsurrogate.units import ANGSTROM_PER_BOHR

PAIR_CUTOFF_BOHR: Final = 12.0
"""Pairs further apart are not looked at."""
NEIGHBOUR_CUTOFF_BOHR: Final = 5.0
"""Atoms nearer than this are counted as neighbours."""
BIN_BOHR: Final = 0.25
"""Width of a distance bin; a distance is inside if its bin or one beside it was seen."""

_N_BINS: Final = round(PAIR_CUTOFF_BOHR / BIN_BOHR)
_SHOWN: Final = 3

AtomicNumber = Annotated[int, Field(ge=1, lt=len(chemical_symbols))]
Bin = Annotated[int, Field(ge=0, lt=_N_BINS)]
Count = Annotated[int, Field(ge=0, le=2**31)]
Small = Annotated[int, Field(ge=-(2**15), le=2**15)]


class OutsideTrainingDomain(UserWarning):
    """A prediction for something that the model was not trained on, or that nobody can tell."""


@dataclass(frozen=True)
class Finding:
    """One thing that lies outside of the training data.

    Attributes:
        kind: ``size``, ``state``, ``element``, ``pair``, ``distance`` or ``neighbours``.
        atoms: indices of the atoms concerned: none, one, or the two of a pair.
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
        """The verdict in one line."""
        if not self.known:
            return "domain unknown: the model file does not say what it was trained on"
        if not self.findings:
            return "inside the training data"
        shown = "; ".join(finding.text for finding in self.findings[:_SHOWN])
        more = len(self.findings) - _SHOWN
        return f"outside the training data: {shown}" + (f"; and {more} more" if more > 0 else "")


UNKNOWN: Final = DomainVerdict(known=False)


class PairDomain(BaseModel):
    """Distances (bohr) of one pair of elements, ascending, and the distance bins that occurred."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    elements: tuple[AtomicNumber, AtomicNumber]
    shortest: float = Field(ge=0.0, le=PAIR_CUTOFF_BOHR)
    longest: float = Field(ge=0.0, le=PAIR_CUTOFF_BOHR)
    bins: tuple[Bin, ...] = Field(min_length=1)


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
        pairs: distances by pair of elements, within ``PAIR_CUTOFF_BOHR``.
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
        kinds = [p.elements for p in self.pairs]
        elements = [n.element for n in self.neighbours]
        if len(set(kinds)) < len(kinds) or len(set(elements)) < len(elements) or any(a > b for a, b in kinds):
            raise ValueError("pairs or elements that occur twice, or are not ascending")
        return self

    @classmethod
    def fit(cls, structures: Iterable[Structure]) -> Domain:
        """The domain of these structures.

        Raises:
            ValueError: without any structure.
        """
        states: set[tuple[int, int]] = set()
        atoms: list[int] = []
        electrons: list[int] = []
        distances: dict[tuple[int, int], tuple[float, float, NDArray[np.bool_]]] = {}
        counts: dict[int, tuple[int, int]] = {}
        for structure in structures:
            states.add((structure.charge, structure.spin))
            atoms.append(len(structure))
            electrons.append(structure.n_electrons)
            geometry = _Geometry(structure)
            for kind, chosen in geometry.kinds():
                lengths = geometry.lengths[chosen]
                low, high, seen = distances.get(kind, (np.inf, 0.0, np.zeros(_N_BINS, dtype=np.bool_)))
                seen[_bins(lengths)] = True
                distances[kind] = (min(low, float(lengths.min())), max(high, float(lengths.max())), seen)
            for z, n in zip(structure.atomic_numbers.tolist(), geometry.neighbours.tolist(), strict=True):
                least, most = counts.get(z, (n, n))
                counts[z] = (min(least, n), max(most, n))
        if not atoms:
            raise ValueError("a domain needs at least one structure")
        return cls(
            states=tuple(sorted(states)),
            atoms=(min(atoms), max(atoms)),
            electrons=(min(electrons), max(electrons)),
            pairs=tuple(
                PairDomain(elements=k, shortest=low, longest=high, bins=tuple(np.flatnonzero(seen).tolist()))
                for k, (low, high, seen) in sorted(distances.items())
            ),
            neighbours=tuple(NeighbourDomain(element=z, least=a, most=b) for z, (a, b) in sorted(counts.items())),
        )

    def joined(self, other: Domain) -> Domain:
        """The domain of the structures of both."""
        pairs = {p.elements: p for p in self.pairs}
        for p in other.pairs:
            own = pairs.get(p.elements, p)
            pairs[p.elements] = PairDomain(
                elements=p.elements,
                shortest=min(own.shortest, p.shortest),
                longest=max(own.longest, p.longest),
                bins=tuple(sorted({*own.bins, *p.bins})),
            )
        neighbours = {n.element: n for n in self.neighbours}
        for n in other.neighbours:
            near = neighbours.get(n.element, n)
            least, most = min(near.least, n.least), max(near.most, n.most)
            neighbours[n.element] = NeighbourDomain(element=n.element, least=least, most=most)
        return Domain(
            states=tuple(sorted({*self.states, *other.states})),
            atoms=(min(self.atoms[0], other.atoms[0]), max(self.atoms[1], other.atoms[1])),
            electrons=(min(self.electrons[0], other.electrons[0]), max(self.electrons[1], other.electrons[1])),
            pairs=tuple(pairs[kind] for kind in sorted(pairs)),
            neighbours=tuple(neighbours[z] for z in sorted(neighbours)),
        )

    def assess(self, structure: Structure) -> DomainVerdict:
        """What of a molecule lies outside, the worst kinds first; no calculation is needed."""
        return DomainVerdict(known=True, findings=tuple(self._findings(structure)))

    def _findings(self, structure: Structure) -> Iterable[Finding]:
        symbols = structure.symbols
        if (structure.charge, structure.spin) not in self.states:
            seen = ", ".join(f"{charge} and {spin}" for charge, spin in self.states)
            text = f"charge {structure.charge} and spin {structure.spin} (training: {seen})"
            yield Finding("state", (), text)
        counts = {n.element: (n.least, n.most) for n in self.neighbours}
        numbers = structure.atomic_numbers.tolist()
        for i, z in enumerate(numbers):
            if z not in counts:
                yield Finding("element", (i,), f"element {symbols[i]} of atom {i} was not seen")
        for what, value, (low, high) in (
            ("atoms", len(structure), self.atoms),
            ("electrons", structure.n_electrons, self.electrons),
        ):
            if not low <= value <= high:
                yield Finding("size", (), f"{value} {what} (training: {low} to {high})")
        geometry = _Geometry(structure)
        known = {p.elements: p for p in self.pairs}
        for kind, chosen in geometry.kinds():
            pair = known.get(kind)
            bins = _bins(geometry.lengths[chosen])
            if pair is None:
                outside = np.ones(len(bins), dtype=np.bool_)
            else:
                outside = (np.abs(bins[:, None] - np.array(pair.bins)[None, :]) > 1).all(axis=1)
            for k in chosen[outside].tolist():
                yield _pair_finding(geometry, k, symbols, pair)
        for i, (z, n) in enumerate(zip(numbers, geometry.neighbours.tolist(), strict=True)):
            least, most = counts.get(z, (n, n))
            if not least <= n <= most:
                yield Finding(
                    "neighbours", (i,), f"atom {i} ({symbols[i]}) has {n} neighbours (training: {least} to {most})"
                )


def _pair_finding(geometry: _Geometry, k: int, symbols: list[str], pair: PairDomain | None) -> Finding:
    i, j, length = int(geometry.first[k]), int(geometry.second[k]), float(geometry.lengths[k])
    where = f"{symbols[i]}{i}-{symbols[j]}{j} at {length * ANGSTROM_PER_BOHR:.2f} Angstrom"
    if pair is None:
        return Finding("pair", (i, j), f"{where}: this pair of elements was not seen")
    low, high = (bound * ANGSTROM_PER_BOHR for bound in (pair.shortest, pair.longest))
    word = "below" if length < pair.shortest else "above" if length > pair.longest else "in a gap of"
    return Finding("distance", (i, j), f"{where}: {word} the training distances ({low:.2f} to {high:.2f})")


class _Geometry:
    """Pairs of atoms within the cutoff, and the number of near neighbours of each atom."""

    def __init__(self, structure: Structure) -> None:
        numbers, positions = structure.atomic_numbers, structure.positions
        self.first, self.second, self.lengths = _close_pairs(positions)
        near = self.lengths < NEIGHBOUR_CUTOFF_BOHR
        ends = np.concatenate([self.first[near], self.second[near]])
        self.neighbours = np.bincount(ends, minlength=len(numbers))
        a, b = numbers[self.first], numbers[self.second]
        self._code = np.minimum(a, b) * 256 + np.maximum(a, b)

    def kinds(self) -> Iterable[tuple[tuple[int, int], NDArray[np.intp]]]:
        for code in np.unique(self._code).tolist():
            yield divmod(code, 256), np.flatnonzero(self._code == code)


def _close_pairs(positions: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    if len(positions) > 500:  # all pairs would take more memory than time is worth
        from scipy.spatial import cKDTree

        found = cKDTree(positions).query_pairs(PAIR_CUTOFF_BOHR, output_type="ndarray")
        first, second = found[:, 0], found[:, 1]
    else:
        first, second = np.triu_indices(len(positions), k=1)
    lengths = np.linalg.norm(positions[first] - positions[second], axis=1)
    close = lengths < PAIR_CUTOFF_BOHR
    return first[close], second[close], lengths[close]


def _bins(lengths: NDArray[np.float64]) -> NDArray[np.intp]:
    return np.minimum((lengths / BIN_BOHR).astype(np.intp), _N_BINS - 1)
