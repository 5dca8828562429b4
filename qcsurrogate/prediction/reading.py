"""Prediction files read back: data from elsewhere, checked before it is used."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
from numpy.typing import NDArray

from qcsurrogate.domain import DomainVerdict, Finding
from qcsurrogate.errors import BasisError, OutputError, SpecError, StructureError
from qcsurrogate.prediction.files import (
    BLOCK_ERRORS,
    FORMAT,
    FORMAT_VERSION,
    SEAL,
    check_suffix,
    content_digest,
)
from qcsurrogate.prediction.results import Prediction
from qcsurrogate.prediction.source import Source
from qcsurrogate.prediction.uncertainty import Uncertainty
from qcsurrogate.registry import find_quantity
from qcsurrogate.sources.readers.npz import BROKEN, read_member
from qcsurrogate.structures import Structure

_LAYOUTS: Final = (h5py.h5d.CONTIGUOUS, h5py.h5d.COMPACT)
_UNSOUND: Final = (*BROKEN, BasisError, StructureError, AttributeError, IndexError, RuntimeError, TypeError)

Read = Callable[[str], NDArray[Any]]
"""From ``000000/positions`` to an array."""


def load_predictions(path: str | Path) -> list[Prediction]:
    """Predictions as :func:`qcsurrogate.save_predictions` wrote them, without the model that made them.

    What follows from a prediction (orbitals, moments) is computed again when it is asked for.

    Raises:
        SpecError: on another ending of the file's name, or predictions of a quantity that nobody registered.
        OutputError: if the file is missing, damaged, hostile or of another version.
    """
    path = check_suffix(path)
    if not path.is_file():
        raise OutputError(f"cannot find the predictions '{path}'; expected a file that save_predictions wrote")
    try:
        with _npz(path) if path.suffix == ".npz" else _hdf5(path) as read:
            return _predictions(path, read)
    except SpecError:
        raise
    except _UNSOUND as error:
        raise _refusal(path, f"{type(error).__name__}: {error}") from error


def _refusal(path: Path, what: str) -> OutputError:
    return OutputError(
        f"cannot use the predictions '{path}': {what}; expected a file as save_predictions wrote it: copy it again, or "
        "predict again"
    )


def _predictions(path: Path, read: Read) -> list[Prediction]:
    header = json.loads(bytes(read("header")[()]))
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise _refusal(path, f"its header does not say the format '{FORMAT}'")
    if header["format_version"] != FORMAT_VERSION:
        raise _refusal(path, f"it has the format version {header['format_version']!r}, expected {FORMAT_VERSION}")
    if not header["structures"]:
        return []
    if header["model"] is None:
        raise _refusal(path, "it does not say what kind of model its predictions come from")
    source = Source.from_dict(header)
    kind = find_quantity(source.kind).prediction
    shared = kind.read_shared(header)
    if "orbital_basis" in shared and shared["orbital_basis"] == source.orbital_basis:
        shared["orbital_basis"] = source.orbital_basis
    predictions = [
        kind.restored(
            _structure(read, f"{i:06d}", str(entry["name"])),
            shared,
            partial(_numbers_of, read, f"{i:06d}"),
            domain=_domain(entry["domain"]),
            source=source,
            uncertainty=_uncertainty(read, f"{i:06d}", header),
        )
        for i, entry in enumerate(header["structures"])
    ]
    if header.pop(SEAL) != content_digest(header, predictions):
        raise _refusal(path, f"its {SEAL} is not that of its content")
    return predictions


def _structure(read: Read, group: str, name: str) -> Structure:
    integers = [read(f"{group}/{key}") for key in ("atomic_numbers", "charge", "spin")]
    if any(array.dtype.kind not in "iu" for array in integers):
        raise ValueError(f"atomic numbers, charge or spin of {group} are no integers")
    numbers, charge, spin = integers
    return Structure(numbers, _numbers(read, f"{group}/positions"), int(charge[()]), int(spin[()]), name)


def _uncertainty(read: Read, group: str, header: Mapping[str, Any]) -> Uncertainty | None:
    if header["calibration"] is None:
        return None
    rows = {str(name): tuple(float(number) for number in row) for name, row in header["calibration"].items()}
    return Uncertainty(_numbers(read, f"{group}/{BLOCK_ERRORS}"), str(header["units"][BLOCK_ERRORS]), rows)


def _numbers_of(read: Read, group: str, name: str) -> Any:
    return _numbers(read, f"{group}/{name}")


def _numbers(read: Read, name: str) -> Any:
    """A finite float64 array; a float where there is only one number."""
    array = read(name)
    if array.dtype != np.float64 or not np.isfinite(array).all():
        raise ValueError(f"'{name}' is {array.dtype} of shape {array.shape}, or not finite; expected finite float64")
    return array if array.ndim else float(array)


def _domain(entry: Mapping[str, Any]) -> DomainVerdict:
    findings = (
        Finding(str(f["kind"]), tuple(int(atom) for atom in f["atoms"]), str(f["text"])) for f in entry["findings"]
    )
    return DomainVerdict(bool(entry["known"]), tuple(findings))


@contextmanager
def _npz(path: Path) -> Iterator[Read]:
    with zipfile.ZipFile(path) as members:
        yield lambda name: read_member(members, members.getinfo(f"{name}.npy"))


@contextmanager
def _hdf5(path: Path) -> Iterator[Read]:
    size = path.stat().st_size
    with h5py.File(path, "r", locking=False) as root:
        yield lambda name: _dataset(root, name, size)


def _dataset(root: h5py.File, name: str, file_bytes: int) -> NDArray[Any]:
    """A dataset that lies whole and plain in its own file."""
    found: Any = root
    for part in name.split("/"):
        if not isinstance(found, h5py.Group) or not isinstance(found.get(part, getlink=True), h5py.HardLink):
            raise KeyError(f"'{name}' is missing, or a soft or external link")
        found = found[part]
    if not isinstance(found, h5py.Dataset):
        raise KeyError(f"'{name}' is no dataset")
    properties = found.id.get_create_plist()
    if properties.get_layout() not in _LAYOUTS or properties.get_external_count():
        raise ValueError(f"'{name}' is chunked, virtual or kept in an external file")
    if found.dtype.kind not in "fiuS" or found.size is None or found.size * found.dtype.itemsize > file_bytes:
        raise ValueError(f"'{name}' is {found.dtype} of shape {found.shape}, not numbers or text in {file_bytes} bytes")
    return np.asarray(found[()])
