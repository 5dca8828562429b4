"""What ``predict`` accepts, turned into structures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ase import Atoms
from pyscf.gto import MoleBase

from qcsurrogate.basis import BasisSet, basis_of_mol
from qcsurrogate.errors import StructureError
from qcsurrogate.sources.readers import read_structures
from qcsurrogate.structures import Structure


@dataclass(frozen=True)
class Request:
    """Structures asked for, and how they were given.

    Attributes:
        structures: in the order given.
        bases: the basis of each structure that came as a PySCF ``Mole``, else None.
        single: whether one molecule was given by itself, so that one result is due.
    """

    structures: tuple[Structure, ...]
    bases: tuple[BasisSet | None, ...]
    single: bool


def read_request(x: object, charge: int = 0, spin: int = 0) -> Request:
    """Structures from anything that ``predict`` accepts.

    Args:
        x: an ASE ``Atoms``, a built PySCF ``Mole``, a :class:`Structure`, the path of an
            xyz, extxyz, SDF, npz or ASE ``.db`` file, of a tar archive or a folder of these,
            or a list.
        charge, spin: of files and ``Atoms`` that say nothing about them.

    Raises:
        StructureError: on anything else, or on a geometry that cannot be used.
        BasisError: if a ``Mole`` has Cartesian functions.
    """
    if isinstance(x, (list, tuple)):
        return _read_list(x, charge, spin)
    if isinstance(x, (str, Path)):
        structures = tuple(read_structures(x, charge, spin))
        return Request(structures, (None,) * len(structures), single=len(structures) == 1)
    structure, basis = _read_one(x, charge, spin)
    return Request((structure,), (basis,), single=True)


def _read_list(items: Sequence[object], charge: int, spin: int) -> Request:
    structures, bases = [], []
    for i, item in enumerate(items):
        if isinstance(item, (str, Path)):
            frames = read_structures(item, charge, spin)
            if len(frames) != 1:
                raise StructureError(
                    f"'{item}' (item {i} of the list) holds {len(frames)} structures; expected one, so that the "
                    "results match the list: give the path by itself, or a list of its structures"
                )
            structure, basis = frames[0], None
        else:
            structure, basis = _read_one(item, charge, spin, f" (item {i} of the list)")
        structures.append(structure)
        bases.append(basis)
    return Request(tuple(structures), tuple(bases), single=False)


def _read_one(x: object, charge: int, spin: int, where: str = "") -> tuple[Structure, BasisSet | None]:
    if isinstance(x, Structure):
        return x, None
    if isinstance(x, Atoms):
        return Structure.from_ase(x, charge, spin), None
    if isinstance(x, MoleBase):
        if not x._built:
            raise StructureError(f"the PySCF Mole{where} is not built; call mol.build() first")
        return Structure.from_pyscf(x), basis_of_mol(x)
    raise StructureError(
        f"cannot predict for a {type(x).__name__}{where}; expected an ASE Atoms, a PySCF Mole, a Structure, "
        "the path of a file of structures (xyz, extxyz, sdf, npz, db, tar), or a list of these"
    )
