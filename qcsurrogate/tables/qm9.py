"""QM9: its 19 targets, their units, the atoms that they are counted from, and the layouts they are published in.

R. Ramakrishnan, P. O. Dral, M. Rupp, O. A. von Lilienfeld, Sci. Data 2014, 1, 140022
(doi:10.6084/m9.figshare.c.978904), CC0. B3LYP/6-31G(2df,p); G at 298.15 K and 1 atm, U, H and Cv at 298.15 K.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from qcsurrogate.errors import StructureError
from qcsurrogate.tables.sets import Target
from qcsurrogate.units import DEBYE_PER_ATOMIC_UNIT, KCAL_PER_MOL_PER_HARTREE

Array = NDArray[np.float64]

LEVEL: Final = "B3LYP/6-31G(2df,p)"
LICENCE: Final = "CC0-1.0"
CITATION: Final = (
    "R. Ramakrishnan, P. O. Dral, M. Rupp, O. A. von Lilienfeld, Sci. Data 2014, 1, 140022, "
    "doi:10.6084/m9.figshare.c.978904"
)
N_MOLECULES: Final = 133_885
UNCHARACTERISED_NAME: Final = "uncharacterized.txt"
N_UNCHARACTERISED: Final = 3_054

_ATOMS: Final[Mapping[str, tuple[float, ...]]] = {
    "U0": (-0.500273, -37.846772, -54.583861, -75.064579, -99.718730),
    "U": (-0.498857, -37.845355, -54.582445, -75.063163, -99.717314),
    "H": (-0.497912, -37.844411, -54.581501, -75.062219, -99.716370),
    "G": (-0.510927, -37.861317, -54.598897, -75.079532, -99.733544),
    "Cv": (2.981,) * 5,
}
"""H, C, N, O and F as published (atomref.txt): Hartree; Cv cal/mol/K."""
_ELEMENTS: Final = (1, 6, 7, 8, 9)


def _target(name: str, unit: str, description: str, *, extensive: bool = False, shown: str = "") -> Target:
    references = dict(zip(_ELEMENTS, _ATOMS[name], strict=True)) if name in _ATOMS else None
    return Target(name, unit, description, extensive=extensive, atom_references=references, shown=shown)


TARGETS: Final[Mapping[str, Target]] = {
    t.name: t
    for t in (
        Target("mu", "e bohr", "norm of the dipole moment", rank="vector", norm_only=True),
        _target("alpha", "bohr^3", "isotropic polarisability", extensive=True),
        _target("homo", "hartree", "energy of the highest occupied orbital", shown="eV"),
        _target("lumo", "hartree", "energy of the lowest unoccupied orbital", shown="eV"),
        _target("gap", "hartree", "lumo - homo", shown="eV"),
        _target("r2", "bohr^2", "electronic spatial extent <R^2>", extensive=True),
        _target("zpve", "hartree", "zero-point vibrational energy", extensive=True, shown="eV"),
        _target("U0", "hartree", "internal energy at 0 K", extensive=True, shown="eV"),
        _target("U", "hartree", "internal energy at 298.15 K", extensive=True, shown="eV"),
        _target("H", "hartree", "enthalpy at 298.15 K", extensive=True, shown="eV"),
        _target("G", "hartree", "free energy at 298.15 K", extensive=True, shown="eV"),
        _target("Cv", "cal/mol/K", "heat capacity at 298.15 K", extensive=True),
        _target("U0_atom", "hartree", "U0 less that of the free atoms", extensive=True, shown="eV"),
        _target("U_atom", "hartree", "U less that of the free atoms", extensive=True, shown="eV"),
        _target("H_atom", "hartree", "H less that of the free atoms", extensive=True, shown="eV"),
        _target("G_atom", "hartree", "G less that of the free atoms", extensive=True, shown="eV"),
        _target("A", "GHz", "largest rotational constant"),
        _target("B", "GHz", "middle rotational constant"),
        _target("C", "GHz", "smallest rotational constant"),
    )
}
"""In the order of PyTorch Geometric's QM9."""

_PER_RAW_UNIT: Final[Mapping[str, float]] = {
    "mu": 1.0 / DEBYE_PER_ATOMIC_UNIT,
    **dict.fromkeys(("U0_atom", "U_atom", "H_atom", "G_atom"), 1.0 / KCAL_PER_MOL_PER_HARTREE),
}
"""What a raw value (debye, kcal/mol) is multiplied with; all others have their unit."""

_LINE: Final = ("A", "B", "C", "mu", "alpha", "homo", "lumo", "gap", "r2", "zpve", "U0", "U", "H", "G", "Cv")
"""Order of the 15 numbers of a comment line of the archive."""

_CSV: Final = (*_LINE, "U0_atom", "U_atom", "H_atom", "G_atom")
"""Order of the columns of ``gdb9.sdf.csv`` after ``mol_id``."""
_CSV_HEADER: Final = (
    "mol_id,A,B,C,mu,alpha,homo,lumo,gap,r2,zpve,u0,u298,h298,g298,cv,u0_atom,u298_atom,h298_atom,g298_atom"
)

RAW_NAMES: Final[Mapping[str, str]] = dict(zip(_CSV_HEADER.split(",")[1:], _CSV, strict=True)) | {n: n for n in TARGETS}
"""Targets by what columns call them."""


def from_raw(columns: Mapping[str, Array]) -> dict[str, Array]:
    """Columns (n,) in the units of the published files, by target -> the same in the units of :data:`TARGETS`."""
    return {name: columns[name] * _PER_RAW_UNIT.get(name, 1.0) for name in TARGETS if name in columns}


def of_comments(properties: Array, composition: Array, elements: list[int]) -> dict[str, Array]:
    """All 19 targets from comment lines of the archive; the energies of atomisation follow from the published atoms.

    Args:
        properties: (n, 15) raw numbers.
        composition: (n, n_elements) atoms of every element in every molecule.
        elements: atomic numbers of the columns; of H, C, N, O and F.
    """
    columns = from_raw(dict(zip(_LINE, properties.T, strict=True)))
    for name in ("U0", "U", "H", "G"):
        references = TARGETS[name].atom_references or {}
        columns[f"{name}_atom"] = columns[name] - composition @ np.array([references[z] for z in elements])
    return {name: columns[name] for name in TARGETS}


def read_csv(path: Path, names: list[str]) -> dict[str, Array]:
    """The columns of ``gdb9.sdf.csv`` for the molecules of ``gdb9.sdf``, which must be the same in the same order.

    Raises:
        StructureError: if the file is missing, damaged, or of other molecules.
    """
    rows = np.full((len(names), len(_CSV)), np.nan)
    count = 0
    for count, row in enumerate(_csv_rows(path), start=1):
        if count > len(names) or row[0] != names[count - 1]:
            here = f"'{names[count - 1]}'" if count <= len(names) else "the end of the file"
            raise StructureError(
                f"'{path}', line {count + 1}, is about '{row[0][:40]}' where '{path.with_suffix('')}' has {here}; "
                "expected the same molecules in the same order: take both files from one download"
            )
        try:
            rows[count - 1] = [float(text) for text in row[1:]]
        except ValueError as error:
            raise StructureError(
                f"'{path}', line {count + 1} ('{row[0][:40]}'): expected {len(_CSV)} numbers, got "
                f"{','.join(row[1:])[:80]!r}"
            ) from error
    if count < len(names):
        raise StructureError(
            f"'{path}' ends after {count} of {len(names)} molecules of '{path.with_suffix('')}'; is it whole?"
        )
    columns = from_raw(dict(zip(_CSV, rows.T, strict=True)))
    return {name: columns[name] for name in TARGETS}


def _csv_rows(path: Path) -> Iterator[list[str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header = file.readline().strip()
            if header != _CSV_HEADER:
                raise StructureError(f"'{path}' begins with {header[:80]!r}; expected '{_CSV_HEADER}'")
            yield from csv.reader(file)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise StructureError(
            f"cannot read the labels '{path}' of '{path.with_suffix('')}': {error}; expected both files of QM9 as "
            "PyTorch Geometric unpacks it"
        ) from error
