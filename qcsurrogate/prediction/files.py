"""Predictions as files: npz or HDF5 arrays with units, and a JSON summary."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from qcsurrogate.errors import SpecError
from qcsurrogate.files.output import write_output
from qcsurrogate.prediction.results import Prediction

SUFFIXES = (".npz", ".h5")


def save(predictions: Prediction | Sequence[Prediction], path: str | Path) -> None:
    """Write predictions as ``.npz`` (read it without pickle) or ``.h5``.

    Structure number i, counted from zero, has its arrays under ``000000/quantity``,
    ``000001/quantity`` and so on: npz keys, or HDF5 groups with the structure's name and
    formula as attributes.  Units are HDF5 attributes of every dataset; an npz lists them
    in ``units``, as texts ``quantity=unit``, and the names in ``names``.  Matrices are
    in PySCF's order.

    Raises:
        SpecError: on another ending of the file's name.
        OutputError: if the file cannot be written.
    """
    path = check_suffix(path)
    chosen = [predictions] if isinstance(predictions, Prediction) else list(predictions)
    buffer = io.BytesIO()
    if path.suffix == ".npz":
        _save_npz(chosen, buffer)
    else:
        _save_hdf5(chosen, buffer)
    write_output(path, buffer.getvalue(), "the predictions")


def check_suffix(path: str | Path) -> Path:
    """The path of a file that :func:`save` can write.

    Raises:
        SpecError: if its name ends otherwise.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise SpecError(f"cannot write predictions to '{path}': expected the ending .npz or .h5, got '{path.suffix}'")
    return path


def summary(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Scalars and moments of every structure as JSON data, with their units."""
    units = {name: unit for prediction in predictions for name, unit in prediction.summary_units.items()}
    return {"units": units, "structures": [_summary_of(prediction) for prediction in predictions]}


def _summary_of(prediction: Prediction) -> dict[str, Any]:
    structure, domain = prediction.structure, prediction.domain
    values = {name: _json_number(getattr(prediction, name)) for name in prediction.summary_units}
    return {
        "name": structure.name,
        "formula": structure.formula,
        "charge": structure.charge,
        "spin": structure.spin,
        "domain": {"inside": domain.inside if domain.known else None, "summary": domain.summary},
        **values,
    }


def _json_number(value: float | NDArray[np.float64]) -> Any:
    """Plain numbers; what does not exist (the gap of a full basis) is null."""
    array = np.asarray(value, dtype=np.float64)
    if array.ndim:
        return [_json_number(entry) for entry in array]
    return float(array) if np.isfinite(array) else None


def _arrays(prediction: Prediction) -> dict[str, NDArray[Any]]:
    structure = prediction.structure
    arrays: dict[str, NDArray[Any]] = {
        "atomic_numbers": structure.atomic_numbers,
        "positions": structure.positions,
        "charge": np.asarray(structure.charge),
        "spin": np.asarray(structure.spin),
    }
    return arrays | {name: np.asarray(getattr(prediction, name)) for name in prediction.units}


_STRUCTURE_UNITS = {"atomic_numbers": "1", "positions": "bohr", "charge": "e", "spin": "1"}


def _save_npz(predictions: Sequence[Prediction], file: io.BytesIO) -> None:
    units = dict(_STRUCTURE_UNITS)
    arrays: dict[str, NDArray[Any]] = {}
    for i, prediction in enumerate(predictions):
        units |= prediction.units
        arrays |= {f"{i:06d}/{name}": array for name, array in _arrays(prediction).items()}
    arrays["names"] = np.array([p.structure.name for p in predictions], dtype=np.str_)
    arrays["units"] = np.array([f"{name}={unit}" for name, unit in units.items()], dtype=np.str_)
    np.savez(file, allow_pickle=False, **arrays)


def _save_hdf5(predictions: Sequence[Prediction], file: io.BytesIO) -> None:
    with h5py.File(file, "w") as root:
        for i, prediction in enumerate(predictions):
            group = root.create_group(f"{i:06d}")
            group.attrs["name"] = prediction.structure.name
            group.attrs["formula"] = prediction.structure.formula
            units = {**_STRUCTURE_UNITS, **prediction.units}
            for name, array in _arrays(prediction).items():
                group.create_dataset(name, data=array).attrs["units"] = units[name]
