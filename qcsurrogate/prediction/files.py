"""Predictions as files that say everything: npz or HDF5 arrays, their meaning in JSON; and a JSON summary."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
from numpy.typing import NDArray

from qcsurrogate.basis import BasisSet
from qcsurrogate.domain import DomainVerdict
from qcsurrogate.errors import SpecError
from qcsurrogate.files.atomic import write_output
from qcsurrogate.prediction.results import Prediction
from qcsurrogate.versions import installed_versions

SUFFIXES: Final = (".npz", ".h5")
FORMAT: Final = "qcsurrogate-predictions"
FORMAT_VERSION: Final = 1
SEAL: Final = "content_sha256"
BLOCK_ERRORS: Final = "expected_block_errors"
STRUCTURE_UNITS: Final = {"atomic_numbers": "1", "positions": "bohr", "charge": "e", "spin": "1"}

_PACKAGES: Final = ("qcsurrogate", "pyscf", "numpy", "scipy", "torch", "e3nn")
_CONVENTIONS: Final = (
    "Structure number i, counted from zero, has its arrays under i in six digits: '000000/positions'.",
    "Atomic units; 'units' names the unit of every array. 'spin' is the number of unpaired electrons.",
    "A basis holds the shells of each element as PySCF takes them: [l, [exponent, coefficient, ...], ...]. Functions "
    "are spherical and normalised by PySCF. They stand atom by atom, shells of each atom by l, and m = -l to l, but p "
    "as x, y, z: the order of pyscf.gto.M(atom=..., unit='Bohr', basis=basis['elements'], charge=..., spin=...).",
    "'expected_block_errors' are absolute errors expected of what the network puts out: (n_atoms, n_atoms) of blocks "
    "between two atoms, or (n_atoms,) of each atom. 'expected_errors' are those of whole molecules, with what the "
    "errors of 50, 80 and 95 % of such molecules stay within.",
    "'free_atoms' are sums of coefficient * exp(-exponent r^2), in electrons / bohr^3.",
)


def save_predictions(predictions: Prediction | Sequence[Prediction], path: str | Path) -> None:
    """Write predictions of one model as ``.npz`` (read it without pickle) or ``.h5``.

    The file can be used without this package.  ``header`` is a JSON text: versions, model (its
    SHA-256 too), method, bases and free atoms, units, conventions in words, and for every
    structure its name, charge, spin, what of it lies outside of the training data, and the
    figures of the JSON summary.  Structure number i, counted from zero, has its arrays under
    ``000000/quantity``, ``000001/quantity`` and so on: npz keys, or HDF5 groups whose datasets
    have ``units`` as an attribute.  Matrices are in PySCF's order.

    Raises:
        SpecError: on another ending of the file's name, or predictions of several models.
        OutputError: if the file cannot be written.
    """
    path = check_suffix(path)
    chosen = [predictions] if isinstance(predictions, Prediction) else list(predictions)
    header = _header(chosen)
    buffer = io.BytesIO()
    if path.suffix == ".npz":
        arrays = {f"{i:06d}/{name}": array for i, p in enumerate(chosen) for name, array in _arrays(p).items()}
        np.savez(buffer, allow_pickle=False, header=np.bytes_(json.dumps(header)), **arrays)
    else:
        _save_hdf5(chosen, header, buffer)
    write_output(path, buffer.getvalue(), "the predictions")


def check_suffix(path: str | Path) -> Path:
    """The path of a file that :func:`save_predictions` can write, and ``load_predictions`` read.

    Raises:
        SpecError: if its name ends otherwise.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise SpecError(f"'{path}' is no file of predictions: expected the ending .npz or .h5, got '{path.suffix}'")
    return path


def summary(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Model, method, and scalars and moments of every structure as JSON data, with their units."""
    source = _one([p.source for p in predictions], "of one model")
    return {
        "versions": installed_versions(_PACKAGES),
        **({"model": None, "method": None} if source is None else source.to_dict()),
        "units": {name: unit for p in predictions for name, unit in p.figure_units.items()},
        "structures": [_summary_of(prediction) for prediction in predictions],
    }


def _header(predictions: Sequence[Prediction]) -> dict[str, Any]:
    content = summary(predictions)
    _one([type(prediction) for prediction in predictions], "of one kind")
    source = predictions[0].source if predictions else None
    parts = [prediction.shared for prediction in predictions]
    shared = {name: _one([p[name] for p in parts], f"in one {name}") for name in (parts[0] if parts else ())}
    content["units"] |= STRUCTURE_UNITS | {name: unit for p in predictions for name, unit in p.array_units.items()}
    for entry, prediction in zip(content["structures"], predictions, strict=True):
        entry["domain"] |= {
            "known": prediction.domain.known,
            "findings": [vars(finding) for finding in prediction.domain.findings],
        }
    told = [prediction.uncertainty for prediction in predictions]
    calibration = _one(
        [None if t is None else {name: list(row) for name, row in t.calibration.items()} for t in told],
        "of one calibration",
    )
    if (unit := _one([None if t is None else t.unit for t in told], "of one unit of expected errors")) is not None:
        content["units"][BLOCK_ERRORS] = unit
    header = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "conventions": [*_CONVENTIONS, *dict.fromkeys(text for p in predictions for text in p.conventions)],
        **content,
        **({} if source is None else source.basis_to_dict()),
        **{name: part.to_dict() if isinstance(part, BasisSet) else part for name, part in shared.items()},
        "calibration": calibration,
    }
    return header | {SEAL: content_digest(header, predictions)}


def content_digest(header: Mapping[str, Any], predictions: Iterable[Prediction]) -> str:
    """SHA-256 of a header and of the arrays from which its predictions are made again."""
    digest = hashlib.sha256(json.dumps(header).encode())
    for prediction in predictions:
        for name in STRUCTURE_UNITS:
            digest.update(np.ascontiguousarray(getattr(prediction.structure, name)).data)
        for name in prediction.stored:
            digest.update(np.ascontiguousarray(prediction.value(name)).data)
        if prediction.uncertainty is not None:
            digest.update(np.ascontiguousarray(prediction.uncertainty.blocks).data)
    return digest.hexdigest()


def _one(values: Sequence[Any], what: str) -> Any:
    """The value that all have; None of nothing."""
    if any(value is not values[0] and value != values[0] for value in values):
        raise SpecError(f"these predictions are not {what}; expected those of one model in one file: save them apart")
    return values[0] if values else None


def _summary_of(prediction: Prediction) -> dict[str, Any]:
    structure = prediction.structure
    values = {name: _json_number(prediction.value(name)) for name in prediction.figure_units}
    return {
        "name": structure.name,
        "formula": structure.formula,
        "charge": structure.charge,
        "spin": structure.spin,
        "domain": _summary_of_domain(prediction.domain),
        "expected_errors": _summary_of_errors(prediction),
        **values,
    }


def _summary_of_domain(domain: DomainVerdict) -> dict[str, Any]:
    return {"inside": domain.inside if domain.known else None, "summary": domain.summary}


def _summary_of_errors(prediction: Prediction) -> dict[str, Any] | None:
    """By figure the expected error, its unit, and what 50, 80 and 95 % stay within; null of a silent model."""
    if prediction.uncertainty is None:
        return None
    keys = ("value", "within_50", "within_80", "within_95")
    return {
        name: {"unit": e.unit} | {key: float(f"{x:.4g}") for key, x in zip(keys, (e.value, *e.within), strict=True)}
        for name, e in prediction.expected_errors.items()
    }


def _json_number(value: float | NDArray[np.float64]) -> Any:
    """Plain numbers; what does not exist (the gap of a full basis) is null."""
    array = np.asarray(value, dtype=np.float64)
    if array.ndim:
        return [_json_number(entry) for entry in array]
    return float(array) if np.isfinite(array) else None


def _arrays(prediction: Prediction) -> dict[str, NDArray[Any]]:
    told = {} if prediction.uncertainty is None else {BLOCK_ERRORS: prediction.uncertainty.blocks}
    return {
        **{name: np.asarray(getattr(prediction.structure, name)) for name in STRUCTURE_UNITS},
        **{name: prediction.value(name) for name in prediction.array_units},
        **told,
    }


def _save_hdf5(predictions: Sequence[Prediction], header: dict[str, Any], file: io.BytesIO) -> None:
    with h5py.File(file, "w") as root:
        root.create_dataset("header", data=np.bytes_(json.dumps(header)))
        for i, prediction in enumerate(predictions):
            group = root.create_group(f"{i:06d}")
            group.attrs["name"] = prediction.structure.name
            group.attrs["formula"] = prediction.structure.formula
            for name, array in _arrays(prediction).items():
                group.create_dataset(name, data=array).attrs["units"] = header["units"][name]
