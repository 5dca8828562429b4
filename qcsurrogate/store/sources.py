"""Where structures come from: the sources that a spec may name."""

from __future__ import annotations

from typing import Annotated, Literal

from ase.data import atomic_numbers as number_of_symbol
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from qcsurrogate.errors import suggestion
from qcsurrogate.sampling import Statistics
from qcsurrogate.structures import Structure
from qcsurrogate.units import BOHR_PER_ANGSTROM


def _no_boolean(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError(f"expected a number, got {value}")
    return value


Number = BeforeValidator(_no_boolean)  # pydantic reads true as 1

Seed = Annotated[int, Number, Field(ge=0, lt=2**32, description="Seed of the random numbers.")]
Count = Annotated[int, Number, Field(ge=1, le=10_000_000)]

FROZEN = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Equilibrium(BaseModel):
    """A molecule written into the spec; charge and spin come from the method."""

    model_config = FROZEN

    name: Annotated[str, Field(min_length=1, max_length=60)]
    symbols: Annotated[tuple[str, ...], Field(min_length=1, max_length=1000)]
    positions_angstrom: Annotated[
        tuple[tuple[float, float, float], ...], Field(description="x, y, z of every atom, Angstrom.")
    ]

    @field_validator("symbols")
    @classmethod
    def _known_elements(cls, symbols: tuple[str, ...]) -> tuple[str, ...]:
        for symbol in symbols:
            if number_of_symbol.get(symbol, 0) < 1:
                raise ValueError(f"expected chemical symbols, got '{symbol}'{suggestion(symbol, number_of_symbol)}")
        return symbols

    @model_validator(mode="after")
    def _as_many_positions(self) -> Equilibrium:
        if len(self.positions_angstrom) != len(self.symbols):
            raise ValueError(
                f"expected one position for each of {len(self.symbols)} symbols, got {len(self.positions_angstrom)}"
            )
        return self

    def structure(self, charge: int, spin: int) -> Structure:
        """As a structure."""
        numbers = [number_of_symbol[symbol] for symbol in self.symbols]
        positions = [[x * BOHR_PER_ANGSTROM for x in row] for row in self.positions_angstrom]
        return Structure(numbers, positions, charge, spin, self.name)  # type: ignore[arg-type]


WATER = Equilibrium(
    name="water",
    symbols=("O", "H", "H"),
    positions_angstrom=((0.0, 0.0, 0.1173), (0.0, 0.7572, -0.4692), (0.0, -0.7572, -0.4692)),
)


class FileSource(BaseModel):
    """Structures of a file; first ``stride``, then ``limit``."""

    model_config = FROZEN

    kind: Literal["file"]
    path: Annotated[str, Field(min_length=1, description="xyz, extxyz or npz; relative to the spec's folder.")]
    stride: Annotated[int, Field(ge=1, description="Take every n-th structure.")] = 1
    limit: Annotated[Count | None, Field(description="Take at most so many.")] = None
    seed: Annotated[
        Seed | None, Field(description="Draw the `limit` structures at random with this seed; without it, the first.")
    ] = None


class PackagedSource(BaseModel):
    """Geometries that come with the package."""

    model_config = FROZEN

    kind: Literal["packaged"]
    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+$", description="For example qm9_small.")]
    limit: Annotated[Count | None, Field(description="Take at most so many.")] = None
    seed: Annotated[
        Seed | None, Field(description="Draw the `limit` structures at random with this seed; without it, the first.")
    ] = None


class ThermalSource(BaseModel):
    """Harmonic vibrations of a molecule, which is first relaxed with the spec's method."""

    model_config = FROZEN

    kind: Literal["thermal"]
    equilibrium: Equilibrium
    temperature_kelvin: Annotated[float, Field(ge=0, le=1e5)]
    statistics: Annotated[Statistics, Field(description="quantum includes the zero-point motion.")] = "classical"
    count: Count
    seed: Seed = 0


class DisplacementSource(BaseModel):
    """Every coordinate of a molecule moved by an independent normal deviate."""

    model_config = FROZEN

    kind: Literal["displacement"]
    equilibrium: Equilibrium
    sigma_angstrom: Annotated[float, Field(ge=0, le=1, description="Standard deviation of each coordinate.")]
    count: Count
    seed: Seed = 0


Source = FileSource | PackagedSource | ThermalSource | DisplacementSource
