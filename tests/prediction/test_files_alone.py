"""A file of predictions alone is enough: for PySCF without this package, and for this package without the model."""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

import qcsurrogate
from qcsurrogate.domain import OutsideTrainingDomain
from qcsurrogate.errors import OutputError, SpecError
from tests.molecules import superposed
from tests.prediction.exact import HYDROGEN, STRETCHED, WATER

MOLECULES = [WATER, HYDROGEN, STRETCHED]
POINTS = np.concatenate([WATER.positions, np.random.default_rng(3).normal(scale=2.0, size=(40, 3))])


@pytest.fixture(scope="module", params=["density", "hamiltonian"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def surrogate(kind, tiny_runs):
    return qcsurrogate.load(tiny_runs[kind])


@pytest.fixture(scope="module")
def predictions(surrogate):
    with pytest.warns(OutsideTrainingDomain):
        return surrogate.predict(MOLECULES)


@pytest.fixture(params=[".npz", ".h5"])
def path(request, predictions, tmp_path) -> Path:
    found = tmp_path / f"out{request.param}"
    qcsurrogate.save_predictions(predictions, found)
    return found


def test_pyscf_alone_rebuilds_what_was_predicted(kind, predictions, surrogate, path, tmp_path):
    np.save(tmp_path / "points.npy", POINTS)
    script = Path(__file__).with_name("outside.py")
    arguments = [sys.executable, str(script), str(path), str(tmp_path / "points.npy"), str(tmp_path / "results.npz")]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(arguments, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "results.npz") as results:
        for i, prediction in enumerate(predictions):
            if kind == "density":
                np.testing.assert_allclose(results[f"{i}/density"], prediction.density(POINTS), atol=1e-10, rtol=0)
                assert results[f"{i}/electron_count"] == pytest.approx(prediction.electron_count, abs=1e-10)
                free = superposed(prediction.structure, surrogate.atoms, POINTS)
                np.testing.assert_allclose(results[f"{i}/free_atoms"], free, atol=1e-10, rtol=0)
            else:
                np.testing.assert_allclose(results[f"{i}/overlap"], prediction.overlap, atol=1e-12)
                np.testing.assert_allclose(results[f"{i}/mo_energy"], prediction.mo_energy, atol=1e-10)


def header_of(path: Path) -> dict:
    with np.load(path, allow_pickle=False) if path.suffix == ".npz" else h5py.File(path) as file:
        return json.loads(file["header"][()])


def test_header_says_where_everything_comes_from(kind, surrogate, tiny_runs, path):
    header = header_of(path)
    content = (tiny_runs[kind] / "model.safetensors").read_bytes()
    assert header["model"]["sha256"] == hashlib.sha256(content).hexdigest()
    assert (header["model"]["kind"], header["model"]["file"]) == (kind, "model.safetensors")
    assert header["model"]["training_data"]["licence"] == "CC0-1.0"
    assert header["method"] == surrogate.method.model_dump(mode="json")
    assert header["versions"].keys() >= {"qcsurrogate", "pyscf", "python"}
    assert (header["format"], header["format_version"]) == ("qcsurrogate-predictions", 1)
    hydrogen = header["structures"][1]
    assert (hydrogen["name"], hydrogen["formula"], hydrogen["charge"], hydrogen["spin"]) == ("hydrogen", "H2", 0, 0)
    assert hydrogen["domain"]["inside"] is False
    assert hydrogen["domain"]["findings"][0]["kind"] == "size"
    assert any("as x, y, z" in text for text in header["conventions"])


def test_read_back(kind, predictions, path):
    again = qcsurrogate.load_predictions(path)
    assert len(again) == len(predictions)
    for one, other in zip(again, predictions, strict=True):
        assert (type(one), one.structure.name, one.domain) == (type(other), other.structure.name, other.domain)
        assert (one.source, one.source.sha256) == (other.source, other.source.sha256)
        np.testing.assert_array_equal(one.structure.positions, other.structure.positions)
        for name in one.units:
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        np.testing.assert_array_equal(one.density(POINTS), other.density(POINTS))
    if kind == "hamiltonian":
        assert again[0].check().energy == pytest.approx(predictions[0].check().energy, abs=1e-9)
    with pytest.raises(ValueError, match="read-only"):
        again[0].dipole[...] = 0.0


def test_a_file_read_back_is_written_again_the_same(predictions, path, tmp_path):
    copy = tmp_path / f"copy{path.suffix}"
    qcsurrogate.save_predictions([*qcsurrogate.load_predictions(path), *predictions[:1]], copy)
    first, second = header_of(path), header_of(copy)
    assert second["structures"] == [*first["structures"], first["structures"][0]]
    rest = {"structures": None, "content_sha256": None}
    assert first | rest == second | rest


def test_bases_are_written_once(predictions, tmp_path):
    sizes = []
    for n in (1, 101):
        qcsurrogate.save_predictions([predictions[0]] * n, tmp_path / "out.npz")
        sizes.append((tmp_path / "out.npz").stat().st_size)
    with np.load(tmp_path / "out.npz") as file:
        assert len(json.dumps(header_of(tmp_path / "out.npz"))) < 1_500 * 101
        arrays = sum(file[key].nbytes for key in file.files if key.startswith("000000/"))
    assert (sizes[1] - sizes[0]) / 100 < arrays + 5_000  # npz headers, names, and the entry in the header


def test_predictions_of_two_models_are_not_mixed(tiny_runs, tmp_path):
    with pytest.warns(OutsideTrainingDomain):
        both = [qcsurrogate.load(tiny_runs[kind]).predict(HYDROGEN) for kind in ("density", "hamiltonian")]
    with pytest.raises(SpecError, match=r"these predictions are not of one model; .*save them apart"):
        qcsurrogate.save_predictions(both, tmp_path / "out.npz")
    with pytest.raises(SpecError, match="these predictions are not of one kind"):
        qcsurrogate.save_predictions([replace(p, source=None) for p in both], tmp_path / "out.npz")
    assert list(tmp_path.iterdir()) == []


def test_nothing_predicted_is_a_file_too(tmp_path):
    for name in ("empty.npz", "empty.h5"):
        qcsurrogate.save_predictions([], tmp_path / name)
        assert qcsurrogate.load_predictions(tmp_path / name) == []


def altered(path: Path, header: dict | bytes | None = None, **arrays) -> Path:
    """The same file, some entries replaced; None leaves them out."""
    with np.load(path, allow_pickle=False) if path.suffix == ".npz" else h5py.File(path) as file:
        if header is not None:
            content = header if isinstance(header, bytes) else json.dumps(header_of(path) | header).encode()
            arrays["header"] = np.bytes_(content)
        if path.suffix == ".npz":
            kept = {name: file[name] for name in file.files} | arrays
            buffer = io.BytesIO()
            np.savez(buffer, **{name: array for name, array in kept.items() if array is not None})
    if path.suffix == ".npz":
        path.write_bytes(buffer.getvalue())
        return path
    with h5py.File(path, "r+") as file:
        for name, array in arrays.items():
            del file[name]
            if array is not None:
                file[name] = array
    return path


POSITIONS = "000001/positions"


def test_what_was_changed_afterwards_is_refused(kind, predictions, path):
    """One bit of an array that still makes sense, or one digit of a basis."""
    name = {"density": "density_coefficients", "hamiltonian": "hamiltonian"}[kind]
    array = getattr(predictions[1], name).copy()
    array[-1] *= 1.0 + 1e-15
    header = header_of(path)
    header["orbital_basis"]["elements"]["H"][0][1][0] *= 1.0 + 1e-15
    before = path.read_bytes()
    for changes in ({f"000001/{name}": array}, {"header": header}, {POSITIONS: HYDROGEN.positions + 1e-9}):
        path.write_bytes(before)
        with pytest.raises(OutputError, match=r"its content_sha256 is not that of its content"):
            qcsurrogate.load_predictions(altered(path, **changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"header": b"{"}, "JSONDecodeError"),
        ({"header": b"[" * 100_000}, "RecursionError"),
        ({"header": {"format": "another"}}, "does not say the format 'qcsurrogate-predictions'"),
        ({"header": {"format_version": 2}}, "it has the format version 2, expected 1"),
        ({"header": {"model": None}}, "does not say what kind of model"),
        ({"header": {"method": {"xc": "pbe", "colour": 1}}}, "ValidationError"),
        ({"header": {"orbital_basis": {"name": "x", "elements": {"H": [[99, [1.0, 1.0]]]}}}}, "angular momentum"),
        ({"header": {"free_atoms": {"H": {"atomic_number": 8}}}}, "a free atom is"),
        ({"header": {"structures": [{"name": "x"}]}}, "KeyError: 'domain'"),
        ({POSITIONS: np.zeros((2, 2))}, "expected .n_atoms,. atomic numbers and .n_atoms, 3. positions"),
        ({POSITIONS: np.full((2, 3), np.nan)}, "'000001/positions' is float64 of shape .2, 3., or not finite"),
        ({POSITIONS: np.zeros((2, 3), np.float32)}, "expected finite float64"),
        ({POSITIONS: None}, "000001/positions"),
        ({"000000/charge": np.array(0.5)}, "charge or spin of 000000 are no integers"),
        ({"000000/charge": np.array(1)}, "9 electrons .* cannot have spin"),
    ],
)
def test_damaged_files_are_refused(path, changes, words):
    with pytest.raises(OutputError, match=f"cannot use the predictions '.*out.*{words}") as caught:
        qcsurrogate.load_predictions(altered(path, **changes))
    assert "expected a file as save_predictions wrote it" in str(caught.value)


def test_arrays_that_do_not_fit_the_basis_are_refused(kind, path):
    name = {"density": "density_coefficients", "hamiltonian": "hamiltonian"}[kind]
    with pytest.raises(OutputError, match=r"has the shape \(3,\)|coefficients of the shape \(3,\)"):
        qcsurrogate.load_predictions(altered(path, **{f"000000/{name}": np.zeros(3)}))


def test_foreign_files_are_refused(path, tmp_path):
    with pytest.raises(OutputError, match=r"cannot find the predictions .*nowhere\.npz"):
        qcsurrogate.load_predictions(tmp_path / "nowhere.npz")
    with pytest.raises(SpecError, match=r"expected the ending .npz or .h5, got '.pkl'"):
        qcsurrogate.load_predictions(tmp_path / "out.pkl")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(OutputError, match="cannot use the predictions"):
        qcsurrogate.load_predictions(path)
    path.write_text("hello")
    with pytest.raises(OutputError, match="cannot use the predictions"):
        qcsurrogate.load_predictions(path)


def test_pickled_objects_are_refused(predictions, tmp_path):
    path = tmp_path / "out.npz"
    qcsurrogate.save_predictions(predictions, path)
    with pytest.raises(OutputError, match="holds Python objects"):
        qcsurrogate.load_predictions(altered(path, **{POSITIONS: np.array([{}], dtype=object)}))


def test_an_array_header_that_ends_within_its_brackets_is_refused(predictions, tmp_path):
    path = tmp_path / "out.npz"
    qcsurrogate.save_predictions(predictions, path)
    altered(path, **{POSITIONS: None})
    with zipfile.ZipFile(path, "a") as members:
        header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (2, 3 "
        members.writestr(f"{POSITIONS}.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
    with pytest.raises(OutputError, match=r"cannot use the predictions .* TokenError"):
        qcsurrogate.load_predictions(path)


def chunked(file: h5py.File) -> None:
    file.create_dataset(POSITIONS, data=np.zeros((2, 3)), chunks=(1, 3))


def elsewhere(file: h5py.File) -> None:
    file.create_dataset(POSITIONS, shape=(2, 3), dtype="f8", external=[("/etc/hostname", 0, 48)])


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((2, 3), "f8")
    layout[...] = h5py.VirtualSource("other.h5", "x", (2, 3))
    file.create_virtual_dataset(POSITIONS, layout)


def external_link(file: h5py.File) -> None:
    file[POSITIONS] = h5py.ExternalLink("other.h5", "/x")


def soft_link(file: h5py.File) -> None:
    file[POSITIONS] = h5py.SoftLink("/000000/positions")


def much_from_nothing(file: h5py.File) -> None:
    file.create_dataset(POSITIONS, shape=(10**9, 3), dtype="f8")


def group(file: h5py.File) -> None:
    file.create_group(POSITIONS)


@pytest.mark.parametrize(
    "trick", [chunked, elsewhere, virtual, external_link, soft_link, much_from_nothing, group], ids=lambda f: f.__name__
)
def test_hdf5_tricks_are_refused(predictions, tmp_path, trick):
    path = tmp_path / "out.h5"
    qcsurrogate.save_predictions(predictions, path)
    with h5py.File(path, "r+") as file:
        del file[POSITIONS]
        trick(file)
    with pytest.raises(OutputError, match=f"'{POSITIONS}' is "):
        qcsurrogate.load_predictions(path)
