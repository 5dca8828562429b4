"""Model files: safetensors with JSON metadata, written atomically, distrusted when read.

A model file holds the tensors of ``model.state_dict()`` and, under one metadata key, a
JSON text with everything that is needed to build the network again and to use it: kind,
description, method, free atoms, provenance, metrics.  Nothing in it is ever executed and
there is no pickle fallback: a file is read as bytes, its header is checked against what
the described network expects, and only then are tensors loaded.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import safetensors
import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import nn
from torch.nn.modules.module import register_module_buffer_registration_hook as on_buffer
from torch.nn.modules.module import register_module_parameter_registration_hook as on_parameter
from torch.overrides import TorchFunctionMode

from qcsurrogate.domain import Domain
from qcsurrogate.errors import ModelFileError, QCSurrogateError, StoreError
from qcsurrogate.files.atomic import write_atomically
from qcsurrogate.reference.settings import Method
from qcsurrogate.registry import find_quantity

if TYPE_CHECKING:
    from qcsurrogate.models.base import SurrogateModel

METADATA_KEY: Final = "qcsurrogate"
FORMAT: Final = "qcsurrogate-model"
FORMAT_VERSION: Final = 1

MAXIMUM_FILE_BYTES: Final = 8 * 2**30
MAXIMUM_HEADER_BYTES: Final = 32 * 2**20
MAXIMUM_INTEGER: Final = 2**20
"""No width, count or index in a description is larger."""
_CONSTANTS_BYTES: Final = 256 * 2**20
"""What a network may hold beside the tensors of its file (Clebsch-Gordan tables and the like)."""

_DTYPES: Final = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}

Builder = Callable[[str, Mapping[str, Any]], "SurrogateModel"]
"""From a kind and a description to an untrained network."""


class ModelMetadata(BaseModel):
    """What a model file says beside its tensors.

    Attributes:
        kind: ``hamiltonian`` or ``density``.
        description: from which ``build_model(kind, description)`` makes the network.
        method: level of theory of the labels; its ``baseline`` is what the network corrects.
        atoms: free atoms by symbol, as ``free_atoms_to_dict`` gives them.
        spec: the data spec of the store that the model was trained on.
        dataset_hash: identity of that store's records.
        elements: atomic numbers that the model was trained on, ascending.
        units: unit of every predicted quantity, by name.
        training: provenance: configuration, steps, times, seed.
        metrics: figures of the saved weights, such as ``validation_hamiltonian_mae``.
        versions: of this package and of what it ran on.
        domain: what the training structures hold; None in files older than it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    description: dict[str, Any]
    method: Method
    atoms: dict[str, Any]
    spec: dict[str, Any]
    dataset_hash: str
    elements: tuple[int, ...]
    units: dict[str, str]
    training: dict[str, Any]
    metrics: dict[str, float]
    versions: dict[str, str]
    domain: Domain | None = None

    def to_json(self) -> str:
        """The text that a model file holds.

        Raises:
            ModelFileError: if a value is not plain JSON data, or not finite.
        """
        content = {"format": FORMAT, "format_version": FORMAT_VERSION, **self.model_dump()}
        try:
            return json.dumps(content, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ModelFileError(
                f"the metadata of a {self.kind} model cannot be written as JSON ({error}); "
                "expected finite numbers, texts, lists and mappings"
            ) from error


def write_model(path: str | Path, model: SurrogateModel, metadata: ModelMetadata) -> None:
    """Write a model file; an older file stays as it is until the new one is complete.

    Args:
        path: where to; the folder must exist.
        model: its ``state_dict()`` is written, in the dtype it has.
        metadata: what the file says about it.

    Raises:
        ModelFileError: if a weight is not finite, if the metadata do not fit the model,
            or if the file cannot be written.
    """
    path = Path(path)
    if metadata.kind != model.kind:
        raise ModelFileError(f"metadata for a '{metadata.kind}' model were given with a '{model.kind}' model")
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in model.state_dict().items()}
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ModelFileError(
                f"cannot write '{path}': tensor '{name}' holds NaN or infinity, expected finite weights; "
                "train again with a smaller learning rate or from an earlier checkpoint"
            )
    content = safetensors.torch.save(tensors, {METADATA_KEY: metadata.to_json()})
    try:
        write_atomically(path, content)
    except StoreError as error:
        raise ModelFileError(f"the model file was not written: {error}") from error


def read_metadata(path: str | Path) -> ModelMetadata:
    """What a model file says about itself, without building the network.

    Raises:
        ModelFileError: as :func:`read_model`.
    """
    path = Path(path)
    return _parse_metadata(path, _parse_header(path, _read_bytes(path)))


def read_model(
    path: str | Path,
    device: str | torch.device = "cpu",
    *,
    build: Builder | None = None,
) -> tuple[SurrogateModel, ModelMetadata]:
    """Read a model file.

    Args:
        path: a file that :func:`write_model` wrote, or anything that claims to be one.
        device: where the network is put.
        build: makes an untrained network; that of the quantity
            (:mod:`qcsurrogate.registry`) unless given.

    Returns:
        The network, in evaluation mode and in the precision of the file, and its metadata.

    Raises:
        ModelFileError: if the file is missing, truncated, no safetensors file, of another
            format or version, or if its tensors are not those that the network it
            describes has.
    """
    path = Path(path)
    content = _read_bytes(path)
    header = _parse_header(path, content)
    metadata = _parse_metadata(path, header)
    entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    found = {name: _tensor_type(path, name, entry) for name, entry in entries.items()}
    _check_integers(path, metadata.description)
    model = _build(path, metadata, build, budget=len(content))
    expected = model.state_dict()
    floats = {found[n][1] for n, t in expected.items() if t.dtype == torch.float32 and n in found}
    if floats == {torch.float64}:
        model.double()
    _check_tensors(path, found, {name: (tuple(t.shape), t.dtype) for name, t in model.state_dict().items()})
    if tuple(model.elements) != metadata.elements:
        _refuse(path, f"a network for the elements {metadata.elements}", f"a description for {model.elements}")
    try:
        tensors = safetensors.torch.load(content)
    except safetensors.SafetensorError as error:
        _refuse(path, "tensors that fill the file without gap or overlap", str(error), error)
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            _refuse(path, "finite weights", f"NaN or infinity in tensor '{name}'")
    model.load_state_dict(tensors)
    return model.to(device).eval(), metadata


def _refuse(path: Path, expected: str, got: str, cause: BaseException | None = None) -> NoReturn:
    raise ModelFileError(
        f"cannot use the model file '{path}': expected {expected}, got {got}; "
        "copy the file again from where it was trained, or train the model again"
    ) from cause


def _read_bytes(path: Path) -> bytes:
    if path.is_dir():
        raise ModelFileError(f"'{path}' is a folder; expected a model file, such as '{path / 'model.safetensors'}'")
    if not path.is_file():
        raise ModelFileError(f"cannot find the model file '{path}'; expected the model.safetensors of a training run")
    try:
        with path.open("rb") as file:
            content = file.read(MAXIMUM_FILE_BYTES + 1)
    except OSError as error:
        raise ModelFileError(f"cannot read the model file '{path}' ({error.strerror or error})") from error
    if len(content) > MAXIMUM_FILE_BYTES:
        _refuse(path, f"at most {MAXIMUM_FILE_BYTES} bytes", "a larger file")
    return content


def _parse_header(path: Path, content: bytes) -> dict[str, Any]:
    """The JSON header of a safetensors file; tensor entries are not yet checked."""
    is_pickle = content[:2] == b"PK" or content[:1] == b"\x80"
    if is_pickle and content[8:9] != b"{":  # the first bytes of a safetensors file are a length: any value
        _refuse(path, "a safetensors file", "a pickle (torch.save) file, which could run code and is never loaded")
    if len(content) < 8:
        _refuse(path, "a safetensors file", f"{len(content)} bytes")
    (length,) = struct.unpack("<Q", content[:8])
    if length > min(MAXIMUM_HEADER_BYTES, len(content) - 8):
        _refuse(path, "a safetensors header inside the file", f"a header of {length} bytes in {len(content)} bytes")
    header = _parse_json(path, "the safetensors header", content[8 : 8 + length])
    if not isinstance(header, dict):
        _refuse(path, "a safetensors header that is a mapping", type(header).__name__)
    return header


def _parse_json(path: Path, what: str, text: str | bytes) -> Any:
    def no_duplicates(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        mapping = dict(pairs)
        if len(mapping) != len(pairs):
            raise ValueError("a key occurs twice")
        return mapping

    def no_constants(name: str) -> NoReturn:
        raise ValueError(f"'{name}' is not a finite number")

    try:
        return json.loads(text, object_pairs_hook=no_duplicates, parse_constant=no_constants)
    except (ValueError, RecursionError) as error:
        _refuse(path, f"{what} in JSON", f"{type(error).__name__}: {error}", error)


def _parse_metadata(path: Path, header: Mapping[str, Any]) -> ModelMetadata:
    texts = header.get("__metadata__")
    if not isinstance(texts, dict) or not isinstance(texts.get(METADATA_KEY), str):
        _refuse(path, f"metadata '{METADATA_KEY}'", "a safetensors file of another program")
    data = _parse_json(path, "the metadata", texts[METADATA_KEY])
    if not isinstance(data, dict) or data.pop("format", None) != FORMAT:
        _refuse(path, f"the format '{FORMAT}'", "another one")
    version = data.pop("format_version", None)
    if version != FORMAT_VERSION:
        raise ModelFileError(
            f"the model file '{path}' has format version {version!r}, expected {FORMAT_VERSION}; "
            "use the version of qcsurrogate that wrote it, or train the model again"
        )
    try:
        return ModelMetadata.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        _refuse(path, f"valid metadata '{where}'", f"{first['msg']}", error)


def _tensor_type(path: Path, name: str, entry: object) -> tuple[tuple[int, ...], torch.dtype]:
    if not isinstance(entry, dict):
        _refuse(path, f"an entry with dtype, shape and offsets for tensor '{name}'", repr(entry)[:80])
    dtype, shape = entry.get("dtype"), entry.get("shape")
    if dtype not in _DTYPES:
        _refuse(path, f"tensor '{name}' as one of {', '.join(_DTYPES)}", repr(dtype)[:80])
    if not isinstance(shape, list) or not all(isinstance(n, int) and n >= 0 for n in shape):
        _refuse(path, f"a shape for tensor '{name}'", repr(shape)[:80])
    return tuple(shape), _DTYPES[dtype]


def _check_tensors(
    path: Path,
    found: Mapping[str, tuple[tuple[int, ...], torch.dtype]],
    expected: Mapping[str, tuple[tuple[int, ...], torch.dtype]],
) -> None:
    missing = [name for name in expected if name not in found]
    if missing:
        _refuse(path, f"{len(expected)} tensors", f"none for {', '.join(missing[:3])} ({len(missing)} are missing)")
    extra = [name for name in found if name not in expected]
    if extra:
        _refuse(path, f"{len(expected)} tensors", f"also {', '.join(extra[:3])} ({len(extra)} too many)")
    for name, (shape, dtype) in expected.items():
        if found[name] != (shape, dtype):
            got_shape, got_dtype = found[name]
            _refuse(path, f"tensor '{name}' as {dtype} {shape}", f"{got_dtype} {got_shape}")


def _check_integers(path: Path, value: object, where: str = "description") -> None:
    """No number in a description may ask for more than a network can be."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _check_integers(path, inner, f"{where}.{key}")
    elif isinstance(value, (list, tuple)):
        for inner in value:
            _check_integers(path, inner, where)
    elif isinstance(value, int) and abs(value) > MAXIMUM_INTEGER:
        _refuse(path, f"{where} of at most {MAXIMUM_INTEGER}", str(value)[:40])


def _build(path: Path, metadata: ModelMetadata, build: Builder | None, budget: int) -> SurrogateModel:
    try:
        builder = build or _build_as_registered
        with _bounded_construction(budget):
            return builder(metadata.kind, metadata.description)
    except _TooLargeError as error:
        _refuse(path, f"a network that fits {budget} bytes of weights", f"a description of a larger one ({error})")
    except (QCSurrogateError, ArithmeticError, AttributeError, LookupError, MemoryError) as error:
        _refuse_description(path, metadata.kind, error)
    except (RecursionError, RuntimeError, TypeError, ValueError) as error:
        _refuse_description(path, metadata.kind, error)


def _build_as_registered(kind: str, description: Mapping[str, Any]) -> SurrogateModel:
    return find_quantity(kind).build_model(description)


def _refuse_description(path: Path, kind: str, error: BaseException) -> NoReturn:
    got = re.sub(r"\s+", " ", f"{type(error).__name__}: {error}")[:300]
    _refuse(path, f"the description of a '{kind}' model", got, error)


class _TooLargeError(Exception):
    """A description asks for more than its file holds."""


class _BoundedFactories(TorchFunctionMode):
    """Refuses to create a tensor of more than ``limit`` elements."""

    _FACTORIES = frozenset((torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.full))

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in self._FACTORIES:
            size = kwargs.get("size", args[:1] if func is torch.full else args)
            flat = [n for part in size for n in (part if isinstance(part, (tuple, list)) else (part,))]
            if math.prod(n for n in flat if isinstance(n, int)) > self.limit:
                raise _TooLargeError(f"a tensor of {' x '.join(map(str, flat))} numbers")
        return func(*args, **kwargs)


@contextmanager
def _bounded_construction(budget: int) -> Iterator[None]:
    """Stop a network from growing beyond ``budget`` bytes of parameters while it is built.

    Every parameter of an honest file lies in that file, so its size bounds the network,
    whatever the description says; tables that are computed have a fixed allowance.
    """
    parameters = buffers = 0

    def count_parameter(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal parameters
        parameters += 0 if parameter is None else parameter.numel() * 4
        if parameters > 2 * budget:
            raise _TooLargeError(f"parameters of more than {parameters} bytes")

    def count_buffer(module: nn.Module, name: str, buffer: torch.Tensor | None) -> None:
        nonlocal buffers
        buffers += 0 if buffer is None else buffer.numel() * buffer.element_size()
        if buffers > _CONSTANTS_BYTES + budget:
            raise _TooLargeError(f"tables of more than {buffers} bytes")

    handles = (on_parameter(count_parameter), on_buffer(count_buffer))
    try:
        with _BoundedFactories(limit=(_CONSTANTS_BYTES + budget) // 4):
            yield
    finally:
        for handle in handles:
            handle.remove()
