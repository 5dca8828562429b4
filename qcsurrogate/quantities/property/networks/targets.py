"""What is to be predicted of molecules or of their atoms, and how it is made of atoms' features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray

from qcsurrogate.quantities.property.networks.electronic import ElectronicRows
from qcsurrogate.structures import Structure

Rank = Literal["scalar", "vector", "tensor"]
Readout = Literal[
    "sum", "mean", "atoms", "charges", "dipole", "r2", "homo", "lumo", "gap", "polarisability", "quadrupole"
]

READOUTS: Final[Mapping[Rank, tuple[Readout, ...]]] = {
    "scalar": ("sum", "mean", "atoms", "charges", "dipole", "r2", "homo", "lumo", "gap"),
    "vector": ("dipole", "atoms"),
    "tensor": ("polarisability", "quadrupole"),
}
"""How a target of each rank can be read out; a scalar "dipole" is the length of the vector."""

OF_LEVELS: Final[Mapping[Readout, tuple[float, float]]] = {
    "homo": (1.0, 0.0),
    "lumo": (0.0, 1.0),
    "gap": (-1.0, 1.0),
}
"""What these are made of: H0's highest filled and lowest empty level; only with electronic inputs."""

PER_ATOM: Final[tuple[Readout, ...]] = ("atoms", "charges")

SMALLEST_SPREAD: Final = 1e-6

Array = NDArray[np.float64]


@dataclass(frozen=True)
class TargetSpec:
    """One target: label = offset of the molecule + spread * what the network puts out.

    Labels of the readouts "dipole", "r2", "homo", "lumo", "gap", "polarisability" and "quadrupole" are in atomic units.

    Attributes:
        name: what it is called.
        rank: scalar () , vector (3,) or symmetric tensor (3, 3), of a molecule or of each atom.
        readout: how it is made of atoms, see :data:`READOUTS`.
        mean: of the labels less their references; scalars only.
        spread: of the labels less mean and references.
        references: by atomic number, added for every atom (to a tensor as a multiple of the unit matrix).
        populations: by atomic number, of the readout "r2": electrons on every atom, see :class:`..heads.R2Head`.

    Raises:
        ValueError: for a readout that the rank does not have, a spread that is not positive, or a mean or
            references of what turns with the molecule.
    """

    name: str
    rank: Rank
    readout: Readout
    mean: float = 0.0
    spread: float = 1.0
    references: Mapping[int, float] = field(default_factory=dict)
    populations: Mapping[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.readout not in READOUTS.get(self.rank, ()):
            raise ValueError(
                f"target '{self.name}': a {self.rank} has no readout '{self.readout}'; expected one of "
                f"{', '.join(READOUTS.get(self.rank, ()))}"
            )
        numbers = (self.mean, self.spread, *self.references.values(), *self.populations.values())
        if not (np.isfinite(numbers).all() and self.spread > 0):
            raise ValueError(f"target '{self.name}': expected finite numbers and a positive spread, got {numbers}")
        if self.readout in OF_LEVELS and any(self.references.values()):
            raise ValueError(f"target '{self.name}': a {self.readout} has no references")
        centred = self.rank == "vector" or self.readout in ("dipole", "quadrupole")
        if centred and (self.mean or any(self.references.values())):
            raise ValueError(f"target '{self.name}': a {self.readout} has neither mean nor references")
        if self.rank == "tensor" and self.mean:
            raise ValueError(f"target '{self.name}': a tensor has references, no mean")
        if self.populations and self.readout != "r2":
            raise ValueError(f"target '{self.name}': only the readout r2 has populations")

    @property
    def per_atom(self) -> bool:
        """Whether every atom has a label of its own."""
        return self.readout in PER_ATOM

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one label."""
        return {"scalar": (), "vector": (3,), "tensor": (3, 3)}[self.rank]

    @classmethod
    def fitted(
        cls,
        name: str,
        rank: Rank,
        readout: Readout,
        labels: Sequence[Any],
        structures: Sequence[Structure],
        known: Sequence[ElectronicRows] | None = None,
    ) -> Self:
        """Offset and spread from the labels of a training set, by least squares.

        Args:
            name, rank, readout: see the class.
            labels: one for each structure: a number, (3,), (3, 3); of each atom (n_atoms, ...).
            structures: the molecules.
            known: what H0 says of each; needed for the readouts "homo", "lumo" and "gap".
        """
        elements = sorted({int(z) for s in structures for z in s.atomic_numbers})
        values = [np.asarray(label, dtype=np.float64) for label in labels]
        if readout in PER_ATOM:
            flat = np.concatenate(values)
            if rank == "vector":
                return cls(name, rank, readout, spread=_rms(flat))
            numbers = np.concatenate([s.atomic_numbers for s in structures])
            own = {z: float(flat[numbers == z].mean()) for z in elements}
            return cls(
                name, rank, readout, spread=_rms(flat - np.array([own[int(z)] for z in numbers])), references=own
            )
        stacked = np.stack(values)
        if readout in OF_LEVELS:
            if known is None:
                raise ValueError(f"target '{name}': the readout '{readout}' needs electronic inputs")
            levels = np.concatenate([one.levels.numpy() for one in known])
            stacked = stacked - levels @ np.array(OF_LEVELS[readout])
        if rank == "vector" or readout in ("dipole", "quadrupole"):
            return cls(name, rank, readout, spread=_rms(stacked))
        if readout == "mean" or readout in OF_LEVELS:
            return cls(name, rank, readout, float(stacked.mean()), _rms(stacked - stacked.mean()))
        counts = np.array([[(s.atomic_numbers == z).sum() for z in elements] for s in structures], dtype=np.float64)
        if rank == "tensor":
            isotropic = np.trace(stacked, axis1=1, axis2=2) / 3.0
            weights = np.asarray(np.linalg.lstsq(counts, isotropic, rcond=1e-10)[0], dtype=np.float64)
            residual = stacked - (counts @ weights)[:, None, None] * np.eye(3)
            return cls(name, rank, readout, spread=_rms(residual), references=_by_element(elements, weights))
        columns = counts
        if readout == "r2":
            columns = np.concatenate([counts, np.array([_squares(s, elements) for s in structures])], axis=1)
        weights = np.asarray(np.linalg.lstsq(columns, stacked, rcond=1e-10)[0], dtype=np.float64)
        residual = stacked - columns @ weights
        n = len(elements)
        return cls(
            name,
            rank,
            readout,
            float(residual.mean()),
            _rms(residual - residual.mean()),
            _by_element(elements, weights[:n]),
            _by_element(elements, weights[n:]) if readout == "r2" else {},
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "name": self.name,
            "rank": self.rank,
            "readout": self.readout,
            "mean": self.mean,
            "spread": self.spread,
            "references": {str(z): value for z, value in sorted(self.references.items())},
            "populations": {str(z): value for z, value in sorted(self.populations.items())},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """From :meth:`to_dict`.

        Raises:
            ValueError, KeyError, TypeError: if it is something else.
        """
        if set(data) != {"name", "rank", "readout", "mean", "spread", "references", "populations"}:
            raise ValueError(f"expected the parts of a target, got {sorted(data)}")
        by_element = [{int(z): float(value) for z, value in data[key].items()} for key in ("references", "populations")]
        return cls(
            str(data["name"]), data["rank"], data["readout"], float(data["mean"]), float(data["spread"]), *by_element
        )


def centre_of_nuclear_charge(structure: Structure) -> Array:
    """(3,) bohr."""
    return np.asarray(np.average(structure.positions, axis=0, weights=structure.atomic_numbers))


def _squares(structure: Structure, elements: Sequence[int]) -> list[float]:
    """For each element the sum of the squared distances of its atoms from the centre, bohr^2."""
    squares = np.square(structure.positions - centre_of_nuclear_charge(structure)).sum(axis=1)
    return [float(squares[structure.atomic_numbers == z].sum()) for z in elements]


def _by_element(elements: Sequence[int], weights: Array) -> dict[int, float]:
    return dict(zip(elements, weights.tolist(), strict=True))


def _rms(values: Array) -> float:
    return max(SMALLEST_SPREAD, float(np.sqrt(np.mean(np.square(values)))))
