"""Model files: exact round trip, and every kind of damaged or hostile file refused by name."""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from qcsurrogate.errors import ModelFileError
from qcsurrogate.models.files import METADATA_KEY, ModelMetadata, read_metadata, read_model, write_model
from tests.training.tiny import TinyModel, build_tiny, tiny_metadata


@pytest.fixture
def model() -> TinyModel:
    torch.manual_seed(0)
    return TinyModel()


@pytest.fixture
def path(tmp_path: Path, model: TinyModel) -> Path:
    path = tmp_path / "model.safetensors"
    write_model(path, model, tiny_metadata(model, {"validation_hamiltonian_mae": 1e-6}))
    return path


def read(path: Path) -> tuple[TinyModel, ModelMetadata]:
    return read_model(path, build=build_tiny)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_round_trip_is_exact(tmp_path: Path, model: TinyModel, dtype: torch.dtype) -> None:
    model.to(dtype)
    metadata = tiny_metadata(model, {"validation_hamiltonian_mae": 0.1 + 0.2})
    write_model(tmp_path / "m.safetensors", model, metadata)
    again, again_metadata = read(tmp_path / "m.safetensors")
    assert again_metadata == metadata
    assert read_metadata(tmp_path / "m.safetensors") == metadata
    assert not again.training
    for name, tensor in model.state_dict().items():
        assert again.state_dict()[name].dtype == dtype
        assert torch.equal(again.state_dict()[name], tensor)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.safetensors"]


def test_a_file_without_a_domain_stays_readable(path: Path) -> None:
    path.write_bytes(_edit_metadata(lambda m: m.pop("domain", None))(path.read_bytes()))
    assert read(path)[1].domain is None


def test_the_guard_around_the_builder_ends_with_it(path: Path) -> None:
    read(path)
    assert torch.empty(2**28).numel() == 2**28


def test_non_finite_weights_are_not_written(path: Path, model: TinyModel) -> None:
    before = path.read_bytes()
    with torch.no_grad():
        model.mix[0, 0, 0] = float("nan")
    with pytest.raises(ModelFileError, match="tensor 'mix' holds NaN or infinity"):
        write_model(path, model, tiny_metadata(model))
    assert path.read_bytes() == before


def test_non_finite_metrics_are_not_written(tmp_path: Path, model: TinyModel) -> None:
    with pytest.raises(ModelFileError, match="cannot be written as JSON"):
        write_model(tmp_path / "m.safetensors", model, tiny_metadata(model, {"mae": float("inf")}))


def test_kind_must_fit(tmp_path: Path, model: TinyModel) -> None:
    metadata = tiny_metadata(model).model_copy(update={"kind": "density"})
    with pytest.raises(ModelFileError, match="'density' model were given with a 'hamiltonian'"):
        write_model(tmp_path / "m.safetensors", model, metadata)


def test_full_disk_keeps_the_old_file(path: Path, model: TinyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ModelFileError, match="No space left on device; free some space"):
        write_model(path, model, tiny_metadata(model))
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_unwritable_folder_is_named(tmp_path: Path, model: TinyModel) -> None:
    with pytest.raises(ModelFileError, match=r"cannot write .*absent/m\.safetensors"):
        write_model(tmp_path / "absent" / "m.safetensors", model, tiny_metadata(model))


def _split(content: bytes) -> tuple[dict[str, Any], bytes]:
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def _join(header: Any, data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def _edit_header(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    def edit(content: bytes) -> bytes:
        header, data = _split(content)
        change(header)
        return _join(header, data)

    return edit


def _edit_metadata(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    def edit(header: dict[str, Any]) -> None:
        metadata = json.loads(header["__metadata__"][METADATA_KEY])
        change(metadata)
        header["__metadata__"][METADATA_KEY] = json.dumps(metadata)

    return _edit_header(edit)


def _description(**values: Any) -> Callable[[bytes], bytes]:
    return _edit_metadata(lambda m: m["description"].update(values))


def _overlapping(header: dict[str, Any]) -> None:
    header["first.bias"]["data_offsets"] = header["last.bias"]["data_offsets"]


def _rewritten(**changes: torch.Tensor | None) -> Callable[[bytes], bytes]:
    """The same file with tensors replaced, added or (None) left out."""

    def edit(content: bytes) -> bytes:
        header, _ = _split(content)
        tensors = safetensors.torch.load(content) | {k.replace("__", "."): v for k, v in changes.items()}
        return safetensors.torch.save({k: v for k, v in tensors.items() if v is not None}, header["__metadata__"])

    return edit


HOSTILE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda c: b"", "a safetensors file, got .*header too small"),
    "three bytes": (lambda c: c[:3], "a safetensors file, got .*header too small"),
    "header cut": (lambda c: c[:100], "invalid header length"),
    "data cut": (lambda c: c[:-40], "file not fully covered"),
    "data appended": (lambda c: c + b"\0" * 64, "file not fully covered"),
    "huge header length": (lambda c: struct.pack("<Q", 2**63) + c[8:], "header too large"),
    "pickle": (lambda c: pickle.dumps({"a": 1}), "never loaded"),
    "zip": (lambda c: b"PK\x03\x04" + c, "never loaded"),
    "not JSON": (lambda c: _join(b"{nonsense", c), "invalid JSON in header"),
    "not UTF-8": (lambda c: _join(b'{"\xff\xfe": 1}', c), "invalid UTF-8 in header"),
    "deep JSON": (lambda c: _join(b"[" * 500_000, c), "invalid JSON in header"),
    "list as header": (lambda c: _join([1], b""), "invalid JSON in header"),
    "key twice": (lambda c: _join(b'{"a": 1, "a": 2}', c), "invalid JSON in header"),
    "no metadata": (_edit_header(lambda h: h.pop("__metadata__")), "of another program"),
    "other metadata": (_edit_header(lambda h: h["__metadata__"].pop(METADATA_KEY)), "of another program"),
    "NaN in metadata": (_edit_metadata(lambda m: m["metrics"].update(x=float("nan"))), "'NaN' is not a finite"),
    "other format": (_edit_metadata(lambda m: m.update(format="x")), "the format 'qcsurrogate-model'"),
    "later version": (_edit_metadata(lambda m: m.update(format_version=99)), "format version 99, expected 1"),
    "unknown metadata": (_edit_metadata(lambda m: m.update(extra=1)), "valid metadata 'extra'"),
    "method of nonsense": (_edit_metadata(lambda m: m["method"].update(grid_level=77)), "'method.grid_level'"),
    "domain of nonsense": (_edit_metadata(lambda m: m.update(domain={"states": "all"})), "valid metadata 'domain"),
    "other kind": (_edit_metadata(lambda m: m.update(kind="poetry")), "unknown kind 'poetry'"),
    "unknown setting": (_description(colour="red"), "the description of a 'hamiltonian' model"),
    "setting of nonsense": (_description(width="wide"), "the description of a 'hamiltonian' model"),
    "gigantic integer": (_description(width=10**12), "description.width of at most"),
    "gigantic network": (_description(width=400_000), "fits .* bytes of weights"),
    "larger network": (_description(width=2_000), "fits .* bytes of weights"),
    "other width": (_description(width=7), r"tensor 'mix' as torch.float32 \(3, 7, 7\)"),
    "other elements": (_edit_metadata(lambda m: m.update(elements=[1, 6])), r"the elements \(1, 6\)"),
    "wrong dtype": (_rewritten(mix=torch.zeros(3, 8, 8, dtype=torch.float16)), "tensor 'mix' as torch.float32"),
    "mixed precision": (_rewritten(mix=torch.zeros(3, 8, 8, dtype=torch.float64)), "got torch.float64"),
    "unknown dtype": (_edit_header(lambda h: h["mix"].update(dtype="F7")), "unknown variant `F7`"),
    "shape of nonsense": (_edit_header(lambda h: h["mix"].update(shape=[-3, 8, 8])), "invalid value: integer `-3`"),
    "entry of nonsense": (_edit_header(lambda h: h.update(mix=3)), "invalid type: integer `3`"),
    "missing tensor": (_rewritten(mix=None), r"none for mix \(1 are missing\)"),
    "extra tensor": (_rewritten(virus=torch.zeros(2)), r"also virus \(1 too many\)"),
    "overlapping offsets": (_edit_header(_overlapping), "invalid offset for tensor"),
    "NaN weights": (_rewritten(mix=torch.full((3, 8, 8), float("nan"))), "finite weights, got NaN"),
}


@pytest.mark.parametrize("case", HOSTILE, ids=lambda c: c.replace(" ", "_"))
def test_hostile_files_are_refused(path: Path, case: str) -> None:
    damage, words = HOSTILE[case]
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ModelFileError, match=words) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == 6


def test_every_truncation_is_refused(path: Path) -> None:
    content = path.read_bytes()
    for length in range(0, len(content), 97):
        path.write_bytes(content[:length])
        with pytest.raises(ModelFileError):
            read(path)


def test_pickle_disguised_as_safetensors_does_not_run(path: Path, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "exploded"),)

    torch.save({"model": Bomb()}, path)
    with pytest.raises(ModelFileError, match="could run code and is never loaded"):
        read(path)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("start", [b"PK", b"\x80\x02"])
def test_header_length_that_looks_like_a_pickle_is_fine(path: Path, start: bytes) -> None:
    header, data = _split(path.read_bytes())
    length = int.from_bytes(start, "little") + (1 << 16)
    path.write_bytes(_join(json.dumps(header).encode().ljust(length), data))
    assert path.read_bytes().startswith(start)
    assert read(path)[1].kind == "hamiltonian"


def test_missing_file_and_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="cannot find the model file"):
        read(tmp_path / "absent.safetensors")
    with pytest.raises(ModelFileError, match=r"is a folder; expected a model file, such as .*model\.safetensors"):
        read(tmp_path)
