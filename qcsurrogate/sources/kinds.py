"""Where structures come from: the sources that a spec may name."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from ase.data import atomic_numbers as number_of_symbol
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from qcsurrogate.errors import SpecError, suggestion
from qcsurrogate.sources.readers import folder_files
from qcsurrogate.sources.samplers.vibrations import Statistics
from qcsurrogate.structures import Structure
from qcsurrogate.units import BOHR_PER_ANGSTROM


def _no_boolean(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError(f"expected a number, got {value}")
    return value


Number = BeforeValidator(_no_boolean)  # pydantic reads true as 1

Seed = Annotated[int, Number, Field(ge=0, lt=2**32, description="Seed of the random numbers.")]
Count = Annotated[int, Number, Field(ge=1, le=10_000_000)]


def _known_elements(symbols: tuple[str, ...]) -> tuple[str, ...]:
    for symbol in symbols:
        if number_of_symbol.get(symbol, 0) < 1:
            raise ValueError(f"expected chemical symbols, got '{symbol}'{suggestion(symbol, number_of_symbol)}")
    return symbols


Symbols = Annotated[tuple[str, ...], AfterValidator(_known_elements)]
Size = Annotated[int, Number, Field(ge=0)]

FROZEN = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Equilibrium(BaseModel):
    """A molecule written into the spec; charge and spin come from the method."""

    model_config = FROZEN

    name: Annotated[str, Field(min_length=1, max_length=60)]
    symbols: Annotated[Symbols, Field(min_length=1, max_length=1000)]
    positions_angstrom: Annotated[
        tuple[tuple[float, float, float], ...], Field(description="x, y, z of every atom, Angstrom.")
    ]

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


class Subset(BaseModel):
    """Which structures to keep; every condition given has to hold."""

    model_config = FROZEN

    min_atoms: Size | None = None
    max_atoms: Size | None = None
    min_heavy_atoms: Annotated[Size | None, Field(description="Non-hydrogen atoms, at least.")] = None
    max_heavy_atoms: Annotated[Size | None, Field(description="Non-hydrogen atoms, at most.")] = None
    elements: Annotated[Symbols | None, Field(description="Elements allowed; others are left out.")] = None
    required_elements: Annotated[Symbols, Field(description="Elements that have to be there.")] = ()
    charges: Annotated[tuple[int, ...] | None, Field(description="Total charges allowed.")] = None
    spins: Annotated[tuple[Size, ...] | None, Field(description="Numbers of unpaired electrons allowed.")] = None
    diverse: Annotated[
        Count | None,
        Field(
            description="Of what is left so many, as far apart as can be: farthest point, Coulomb spectra or embedding."
        ),
    ] = None
    embedding: Annotated[
        str | None,
        Field(
            min_length=1,
            description="Autoencoder (a model file, or the folder of a run) by whose embeddings diverse ones are told "
            "apart, instead of by Coulomb spectra; relative to the spec's folder.",
        ),
    ] = None
    seed: Annotated[Seed, Field(description="Draws the first of the diverse ones.")] = 0

    @model_validator(mode="after")
    def _embedding_of_the_diverse(self) -> Subset:
        if self.embedding is not None and self.diverse is None:
            raise ValueError("subset.embedding is for choosing diverse structures; expected subset.diverse beside it")
        return self


class Deduplicate(BaseModel):
    """Leave out structures that repeat another, up to motion, reflection and order of atoms."""

    model_config = FROZEN

    tolerance_angstrom: Annotated[
        float, Field(gt=0, le=1, description="Root-mean-square distance of the atoms after superposition, at most.")
    ] = 0.05


class _Chosen(BaseModel):
    """What every source can be told: which of its structures to keep."""

    model_config = FROZEN

    subset: Subset | None = None
    deduplicate: Deduplicate | None = None


class _Read(_Chosen):
    skip_bad: Annotated[bool, Field(description="Leave out and count bad geometries; otherwise one is an error.")] = (
        False
    )
    limit: Annotated[Count | None, Field(description="Take at most so many.")] = None
    seed: Annotated[
        Seed | None, Field(description="Draw the `limit` structures at random with this seed; without it, the first.")
    ] = None


_Path = Annotated[str, Field(min_length=1)]


class FileSource(_Read):
    """Structures of files: ``stride``, then ``subset``, ``deduplicate``, ``limit``, and last ``subset.diverse``."""

    kind: Literal["file"]
    path: Annotated[
        _Path | Annotated[tuple[_Path, ...], Field(min_length=1)],
        Field(
            description="xyz, extxyz, sdf, npz, ASE db, tar (plain, gz, bz2, xz) or a folder; one, a pattern with *, "
            "or a list; relative to the spec's folder."
        ),
    ]
    leave_out: Annotated[
        _Path | None,
        Field(description="Text file of names to leave out, first word of each line; a number n means gdb_n."),
    ] = None
    stride: Annotated[int, Field(ge=1, description="Take every n-th structure.")] = 1

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths and patterns."""
        return (self.path,) if isinstance(self.path, str) else self.path


class PackagedSource(_Read):
    """Geometries that come with the package."""

    kind: Literal["packaged"]
    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+$", description="For example qm9_small.")]


class ConformerSource(_Chosen):
    """Conformers of molecules by RDKit (extra ``conformers``); charge and spin are the SMILES's own."""

    kind: Literal["conformers"]
    smiles: Annotated[
        _Path | Annotated[tuple[_Path, ...], Field(min_length=1, max_length=1_000_000)],
        Field(description="One SMILES, or a list."),
    ]
    count: Annotated[Count, Field(le=10_000, description="Conformers to try for each molecule.")]
    optimise: Annotated[bool, Field(description="Relax with the MMFF94 force field.")] = False
    rmsd_angstrom: Annotated[
        float, Field(ge=0, le=10, description="Leave out conformers nearer than this to another; 0 keeps all.")
    ] = 0.1
    seed: Seed = 0


Molecules = Annotated[FileSource | PackagedSource | ConformerSource, Field(discriminator="kind")]


class _Sampler(_Chosen):
    """Geometries made from one molecule in the spec, or from every molecule of another source."""

    equilibrium: Equilibrium | None = None
    molecules: Annotated[
        Molecules | None, Field(description="Instead of `equilibrium`: a file, packaged or conformers source.")
    ] = None

    @model_validator(mode="after")
    def _one_start(self) -> _Sampler:
        if (self.equilibrium is None) == (self.molecules is None):
            found = "none" if self.equilibrium is None else "both"
            raise ValueError(f"expected either equilibrium (a molecule) or molecules (a source), got {found}")
        return self


class ThermalSource(_Sampler):
    """Harmonic vibrations of a molecule, which is first relaxed with the spec's method."""

    kind: Literal["thermal"]
    temperature_kelvin: Annotated[float, Field(ge=0, le=1e5)]
    statistics: Annotated[Statistics, Field(description="quantum includes the zero-point motion.")] = "classical"
    count: Annotated[Count, Field(description="Geometries of each molecule.")]
    seed: Seed = 0


class DisplacementSource(_Sampler):
    """Every coordinate of a molecule moved by an independent normal deviate."""

    kind: Literal["displacement"]
    sigma_angstrom: Annotated[float, Field(ge=0, le=1, description="Standard deviation of each coordinate.")]
    count: Annotated[Count, Field(description="Geometries of each molecule.")]
    seed: Seed = 0


_Atom = Annotated[int, Number, Field(ge=0)]


class TorsionSource(_Sampler):
    """Parts of a molecule turned rigidly about its bonds; geometries with clashes are left out."""

    kind: Literal["torsion"]
    dihedrals: Annotated[
        Literal["all"] | Annotated[tuple[tuple[_Atom, _Atom, _Atom, _Atom], ...], Field(min_length=1)],
        Field(description="Four atoms in a row each, counted from 0; or all rotatable bonds."),
    ] = "all"
    steps: Annotated[int, Number, Field(ge=2, le=3600, description="Angles of each dihedral: 360/steps degrees apart.")]
    grid: Annotated[bool, Field(description="All combinations, instead of one dihedral after the other.")] = False


CalculatorName = Literal["method", "gfn1-xtb", "gfn2-xtb", "emt"]


class DynamicsSource(_Sampler):
    """Frames of a Langevin trajectory."""

    kind: Literal["md"]
    calculator: Annotated[
        CalculatorName,
        Field(description="Forces: the spec's own method, xTB (needs tblite), or ASE's emt (for trials only)."),
    ]
    temperature_kelvin: Annotated[float, Field(gt=0, le=1e5)]
    timestep_fs: Annotated[float, Field(gt=0, le=10)] = 0.5
    friction_per_ps: Annotated[float, Field(gt=0, le=1000, description="Coupling to the heat bath.")] = 10.0
    burn_in: Annotated[int, Number, Field(ge=0, le=10_000_000, description="Steps before the first frame.")] = 1000
    every: Annotated[int, Number, Field(ge=1, le=1_000_000, description="Steps from frame to frame.")] = 20
    count: Annotated[Count, Field(description="Frames of each molecule.")]
    seed: Seed = 0


Sampler = ThermalSource | DisplacementSource | TorsionSource | DynamicsSource


def _at_least_one(sources: tuple[Source, ...]) -> tuple[Source, ...]:
    if not sources:
        raise ValueError("expected at least one source, got none")
    return sources


class SeveralSource(_Chosen):
    """One source after the other; of equal geometries the first is kept, as within one source."""

    kind: Literal["several"]
    sources: Annotated[
        tuple[Annotated[Source, Field(discriminator="kind")], ...],
        AfterValidator(_at_least_one),
        Field(description="Sources, each as it would stand alone."),
    ]


Source = (
    FileSource
    | PackagedSource
    | ThermalSource
    | DisplacementSource
    | TorsionSource
    | DynamicsSource
    | ConformerSource
    | SeveralSource
)
SeveralSource.model_rebuild()


def source_files(source: Source) -> list[Path]:
    """The files that a source reads, patterns and folders expanded, in the order they are read."""
    found: list[Path] = []
    if isinstance(source, FileSource):
        found = [file for path in expanded(source) for file in (folder_files(path) if path.is_dir() else [path])]
        found += [Path(source.leave_out)] if source.leave_out else []
    elif isinstance(source, SeveralSource):
        found = [file for inner in source.sources for file in source_files(inner)]
    elif isinstance(source, Sampler) and source.molecules is not None:
        found = source_files(source.molecules)
    if source.subset is not None and source.subset.embedding is not None:
        model = Path(source.subset.embedding)
        found.append(model / "model.safetensors" if model.is_dir() else model)
    return found


def expanded(source: FileSource) -> list[Path]:
    """The paths of a file source, patterns expanded; a folder stays one."""
    found: list[Path] = []
    for text in source.paths:
        matches = sorted(glob.glob(text)) if glob.has_magic(text) and not Path(text).exists() else [text]
        if not matches:
            raise SpecError(f"structures.path: no file fits the pattern '{text}'")
        found.extend(Path(match) for match in matches)
    return found


def anchor(structures: object, folder: Path) -> None:
    """Make the relative paths of a source, given as plain data, absolute: they start at ``folder``."""
    _change_paths(structures, lambda path: str((folder / Path(path).expanduser()).resolve()))


def without_folders(structures: dict[str, Any]) -> dict[str, Any]:
    """A source as plain data with the names of its files only, changed in place."""
    _change_paths(structures, lambda path: Path(path).name)
    return structures


def _change_paths(structures: object, change: Callable[[str], str]) -> None:
    for source in _sources(structures):
        for key in ("path", "leave_out") if source.get("kind") == "file" else ():
            value = source.get(key)
            if isinstance(value, str) and value:
                source[key] = change(value)
            elif isinstance(value, list):
                source[key] = [change(v) if isinstance(v, str) and v else v for v in value]
        subset = source.get("subset")
        if isinstance(subset, dict) and isinstance(subset.get("embedding"), str) and subset["embedding"]:
            subset["embedding"] = change(subset["embedding"])


def _sources(structures: object) -> Iterator[dict[str, Any]]:
    """A source and those within it, as plain data."""
    if isinstance(structures, dict):
        yield structures
        several = structures.get("sources")
        for inner in (structures.get("molecules"), *(several if isinstance(several, list) else [])):
            yield from _sources(inner)
