"""Files of structures with the labels that stand beside them, in one pass."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qcsurrogate.errors import StructureError
from qcsurrogate.sources.readers import read_geometries
from qcsurrogate.sources.readers.geometries import Geometries
from qcsurrogate.sources.readers.npz import BROKEN, read_member
from qcsurrogate.tables import qm9
from qcsurrogate.tables.sets import Array, Target

PYG_STRUCTURES: Final = "gdb9.sdf"
PYG_LABELS: Final = "gdb9.sdf.csv"

TAKEN: Final = ("atomic_numbers", "positions", "charge", "spin")
"""What structures have in files of predictions."""
_NAME: Final = re.compile(rf"(?!(?:{'|'.join(TAKEN)})$)[A-Za-z0-9._+-]{{1,40}}")

_LABELS: Final = ("targets", "target_names", "target_units", "target_extensive", "gdb_index")


@dataclass(frozen=True, eq=False)
class Read:
    """One file.

    Attributes:
        geometries: of its structures, not yet checked.
        targets, columns: what it holds, and (n,) values of each.
        is_qm9: whether these are QM9's own targets.
    """

    geometries: Geometries
    targets: Mapping[str, Target]
    columns: Mapping[str, Array]
    is_qm9: bool


def read_labelled(path: Path, *, skip_bad: bool = False) -> Read:
    """Structures of a file or folder, and their labels where there are any.

    - QM9's archive, or its xyz files by themselves or in a folder: the numbers of the comment lines.
    - ``gdb9.sdf`` (or a folder that holds it): those of ``gdb9.sdf.csv`` beside it.
    - npz: ``targets`` (n, n_targets) and ``target_names``; with ``gdb_index`` the molecules are named
      gdb_<index>. Names of QM9's targets mean QM9's raw units (GHz, debye, Hartree, bohr, cal/mol/K, kcal/mol);
      others need ``target_units`` (n_targets,), and are taken as they are; ``target_extensive`` (n_targets,) says
      which grow with the molecule, all of them without it.
    - any other file of structures: none.

    Raises:
        StructureError: if a file is missing, damaged, or its labels do not fit its structures.
    """
    if path.is_dir() and (path / PYG_STRUCTURES).is_file():
        path = path / PYG_STRUCTURES
    geometries = read_geometries(path, skip_bad=skip_bad)
    if path.name == PYG_STRUCTURES:
        columns = qm9.read_csv(path.with_name(PYG_LABELS), [str(name) for name in geometries.names])
        return Read(geometries, qm9.TARGETS, columns, True)
    if path.suffix.lower() == ".npz":
        return _read_npz(path, geometries)
    if geometries.properties is None:
        return Read(geometries, {}, {}, False)
    elements = sorted(set(geometries.atomic_numbers.tolist()))
    if foreign := sorted(set(elements) - {1, 6, 7, 8, 9}):
        raise StructureError(
            f"'{path}' has comment lines of QM9, and an atom with the atomic number {foreign[0]}; expected H, C, N, O "
            "and F alone"
        )
    return Read(
        geometries,
        qm9.TARGETS,
        qm9.of_comments(geometries.properties, composition(geometries, elements), elements),
        True,
    )


def composition(geometries: Geometries, elements: list[int]) -> Array:
    """(n, n_elements) atoms of every element in every structure."""
    starts = geometries.offsets[:-1]
    present = geometries.atomic_numbers[:, None] == np.array(elements)
    return np.asarray(np.add.reduceat(present.astype(np.float64), starts, axis=0))


def _read_npz(path: Path, geometries: Geometries) -> Read:
    arrays = _label_arrays(path)
    n = len(geometries)
    if "gdb_index" in arrays:
        index = arrays["gdb_index"]
        if index.shape != (n,) or index.dtype.kind not in "iu":
            raise StructureError(f"'{path}': gdb_index is {index.dtype} of shape {index.shape}; expected {n} integers")
        geometries = replace(geometries, names=np.array([f"gdb_{i}" for i in index.tolist()], dtype=object))
    if "targets" not in arrays:
        return Read(geometries, {}, {}, False)
    values, names = arrays["targets"], arrays.get("target_names", np.zeros(0, "U1"))
    if values.dtype.kind not in "fiu" or names.dtype.kind not in "US" or values.shape != (n, len(names)):
        raise StructureError(
            f"'{path}': targets are {values.dtype} of shape {values.shape}, target_names {names.dtype} of shape "
            f"{names.shape}; expected ({n}, n_targets) numbers, a row for each structure, and as many names"
        )
    words = _words(names)
    if bad := [word for word in words if not _NAME.fullmatch(word)]:
        raise StructureError(
            f"'{path}': '{bad[0][:60]}' is no name of a target; expected at most 40 letters, digits and ._+-, and "
            f"none of {', '.join(TAKEN)}"
        )
    if len(set(words)) < len(words):
        raise StructureError(f"'{path}': a name in target_names is there twice; expected each once: {', '.join(words)}")
    columns = dict(zip(words, np.asarray(values, dtype=np.float64).T, strict=True))
    if "target_units" not in arrays:
        if unknown := [word for word in words if word not in qm9.RAW_NAMES]:
            raise StructureError(
                f"'{path}': the unit of the target '{unknown[0]}' is not known; expected target_units, one for each of "
                "target_names, or names of QM9's targets alone"
            )
        converted = qm9.from_raw({qm9.RAW_NAMES[word]: column for word, column in columns.items()})
        return Read(geometries, {name: qm9.TARGETS[name] for name in converted}, converted, True)
    units = arrays["target_units"]
    if units.shape != names.shape or units.dtype.kind not in "US":
        raise StructureError(f"'{path}': target_units have the shape {units.shape}; expected one for each of {words}")
    extensive = arrays.get("target_extensive", np.ones(names.shape, np.bool_))
    if extensive.shape != names.shape or extensive.dtype != np.bool_:
        raise StructureError(
            f"'{path}': target_extensive is {extensive.dtype} of shape {extensive.shape}; expected bool"
        )
    targets = {
        word: Target(word, unit, "", extensive=grows)
        for word, unit, grows in zip(words, _words(units), extensive.tolist(), strict=True)
    }
    return Read(geometries, targets, columns, False)


def _label_arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with zipfile.ZipFile(path) as members:
            present = {info.filename.removesuffix(".npy"): info for info in members.infolist()}
            return {key: read_member(members, present[key]) for key in _LABELS if key in present}
    except BROKEN as error:
        raise StructureError(f"cannot read the labels of '{path}': {error}") from error


def _words(array: NDArray[Any]) -> list[str]:
    return [str(word) for word in (np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array).tolist()]
