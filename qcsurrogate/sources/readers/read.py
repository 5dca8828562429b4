"""Read any file of structures, by its ending."""

from __future__ import annotations

import io
from pathlib import Path
from typing import IO, Final

from qcsurrogate.errors import StructureError
from qcsurrogate.metadata import whole_number
from qcsurrogate.sources.readers.archive import ARCHIVE_ENDINGS, Member, tar_members
from qcsurrogate.sources.readers.database import read_ase_database
from qcsurrogate.sources.readers.geometries import Geometries, GeometryList
from qcsurrogate.sources.readers.npz import read_npz
from qcsurrogate.sources.readers.text import read_sdf, read_xyz
from qcsurrogate.structures import Structure

ENDINGS: Final = (".xyz", ".extxyz", ".npz", ".sdf", ".db", *ARCHIVE_ENDINGS)

_TEXT_READERS: Final = {".xyz": read_xyz, ".extxyz": read_xyz, ".sdf": read_sdf}
_MAXIMUM_MEMBER_BYTES: Final = 2**30


def read_structures(path: str | Path, charge: int = 0, spin: int = 0) -> list[Structure]:
    """Every structure of a file (see :func:`read_geometries`), in its order.

    Raises:
        StructureError: if the file is missing, malformed, or holds a bad geometry.
    """
    return read_geometries(path, charge, spin).structures()[0]


def read_geometries(path: str | Path, charge: int = 0, spin: int = 0, *, skip_bad: bool = False) -> Geometries:
    """Every geometry of a file or folder, not yet checked.

    - ``.xyz``, ``.extxyz``: one or many; charge, spin, ``name`` and ``group`` are read from
      the comment line. QM9's own xyz files are recognised by their second line and named
      ``gdb_<index>``.
    - ``.sdf``: V2000, with names, charges and radicals.
    - ``.npz``: see :func:`qcsurrogate.sources.readers.npz.read_npz`.
    - ``.db``: an ASE database (SQLite).
    - ``.tar``, ``.tar.bz2``, ``.tar.gz``, ``.tar.xz``: xyz and SDF files inside, such as
      QM9's ``dsgdb9nsd.xyz.tar.bz2`` and ``gdb9.tar.gz``; read as a stream.
    - a folder: the xyz and SDF files in it, by name.

    What stands beside a geometry about charge, spin, unit and periodicity follows the one
    rule of :mod:`qcsurrogate.metadata`.

    Args:
        path: the file or folder.
        charge, spin: of geometries that say nothing about them.
        skip_bad: leave out files of an archive or folder that cannot be read, and count
            them.

    Raises:
        StructureError: if it is missing, malformed, or of another kind.
    """
    path = Path(path)
    charge, spin = whole_number(charge, "charge", "the arguments"), whole_number(spin, "spin", "the arguments")
    if path.is_dir():
        return _read_folder(path, charge, spin, skip_bad)
    if not path.is_file():
        raise StructureError(
            f"cannot find the structure file '{path}'; expected an xyz, extxyz, npz, sdf, db or tar file, or a folder"
        )
    if path.name.lower().endswith(ARCHIVE_ENDINGS):
        return _read_archive(path, charge, spin, skip_bad)
    match path.suffix.lower():
        case ".npz":
            return read_npz(path, charge, spin)
        case ".db":
            return read_ase_database(path, charge, spin)
        case ending if ending in _TEXT_READERS:
            found = GeometryList(str(path), charge, spin)
            with path.open("rb") as file:
                _read_text(file, path.name, found, str(path))
            return found.finished()
        case ending:
            raise StructureError(
                f"cannot read '{path}': expected the ending {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}, got '{ending}'"
            )


def _read_text(file: IO[bytes], name: str, found: GeometryList, source: str, *, skip_bad: bool = False) -> None:
    """Add the structures of one file; those without a name are called as the file."""
    start = len(found)
    try:
        with io.TextIOWrapper(file, encoding="utf-8") as text:
            _TEXT_READERS[Path(name).suffix.lower()](text, found, source)
        if len(found) == start:
            raise StructureError(f"cannot read '{source}': it holds no structure")
    except OSError as error:
        raise StructureError(f"cannot read '{source}': {error}") from error
    except StructureError:
        if not skip_bad:
            raise
        found.cut(start)
    else:
        found.name_since(start, Path(name).stem)


def folder_files(path: Path) -> list[Path]:
    """The files of a folder that hold structures, by name."""
    return sorted(p for p in path.iterdir() if p.suffix.lower() in _TEXT_READERS and p.is_file())


def _read_folder(path: Path, charge: int, spin: int, skip_bad: bool) -> Geometries:
    files = folder_files(path)
    if not files:
        raise StructureError(f"cannot read the folder '{path}': it holds no xyz, extxyz or sdf file")
    found = GeometryList(str(path), charge, spin)
    for file in files:
        with file.open("rb") as opened:
            _read_text(opened, file.name, found, str(file), skip_bad=skip_bad)
    return found.finished()


def _read_archive(path: Path, charge: int, spin: int, skip_bad: bool) -> Geometries:
    found = GeometryList(str(path), charge, spin)
    for member in tar_members(path):
        name = member.member_name
        if Path(name).suffix.lower() in _TEXT_READERS and not name.startswith("."):
            if member.size > _MAXIMUM_MEMBER_BYTES:
                raise StructureError(
                    f"the archive '{path}' holds '{name}' of {member.size} bytes; expected at most "
                    f"{_MAXIMUM_MEMBER_BYTES}"
                )
            _read_text(_buffered(member), name, found, f"{path}/{name}", skip_bad=skip_bad)
    return found.finished()


def _buffered(member: Member) -> IO[bytes]:
    return io.BytesIO(member.read()) if member.size < 2**20 else io.BufferedReader(member)
