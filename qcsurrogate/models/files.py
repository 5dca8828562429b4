"""Model files: safetensors with JSON metadata, written atomically, distrusted when read.

A model file holds the tensors of ``model.state_dict()`` and, under one metadata key, a
JSON text with everything that is needed to build the network again and to use it: kind,
description, method, free atoms, provenance, metrics.  Nothing in it is ever executed and
there is no pickle fallback: safetensors checks the file, and its tensors must be those
of the network that it describes, which may not grow beyond the file while it is built.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
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
from qcsurrogate.reference.calibration import EnergyCalibration
from qcsurrogate.reference.settings import Method
from qcsurrogate.registry import find_quantity

if TYPE_CHECKING:
    from qcsurrogate.models.base import SurrogateModel

METADATA_KEY: Final = "qcsurrogate"
FORMAT: Final = "qcsurrogate-model"
FORMAT_VERSION: Final = 1

MAXIMUM_FILE_BYTES: Final = 8 * 2**30
MAXIMUM_INTEGER: Final = 2**20
"""No width, count or index in a description is larger."""
_CONSTANTS_BYTES: Final = 256 * 2**20
"""What a network may hold beside the tensors of its file (Clebsch-Gordan tables and the like)."""

Builder = Callable[[str, Mapping[str, Any]], "SurrogateModel"]
"""From a kind and a description to an untrained network."""


class ModelMetadata(BaseModel):
    """What a model file says beside its tensors.

    Attributes:
        kind: name of the quantity.
        description: from which ``build_model(kind, description)`` makes the network.
        method: Kohn-Sham calculation of the labels; None where they are of another program, or there are none.
        level: level of theory of the labels in words; empty where it is not known.
        atoms: free atoms by symbol, as ``free_atoms_to_dict`` gives them; none without a method.
        spec: the data spec of the store, or the table, that the model was trained on.
        dataset_hash: identity of its content.
        elements: atomic numbers that the model was trained on, ascending.
        units: unit of every predicted quantity, by name.
        training: provenance: configuration, steps, times, seed.
        metrics: figures of the saved weights, such as ``validation_hamiltonian_mae``.
        versions: of this package and of what it ran on.
        domain: what the training structures hold; None in files older than it.
        energy_calibration: of what one Fock build says of the energy; None until somebody calibrates the model.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    description: dict[str, Any]
    method: Method | None
    atoms: dict[str, Any]
    spec: dict[str, Any]
    dataset_hash: str
    elements: tuple[int, ...]
    units: dict[str, str]
    training: dict[str, Any]
    metrics: dict[str, float]
    versions: dict[str, str]
    level: str = ""
    domain: Domain | None = None
    energy_calibration: EnergyCalibration | None = None

    @property
    def dataset_hashes(self) -> list[str]:
        """Identities of all data that it has learned from: the last first, then those of the model it began with."""
        hashes, origin = [self.dataset_hash], self.training.get("origin")
        while isinstance(origin, dict):
            hashes.append(str(origin.get("dataset_hash")))
            origin = origin.get("origin")
        return hashes

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
    with _opened(Path(path)) as file:
        return _parse_metadata(Path(path), file.metadata())


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
    with _opened(path) as file:
        metadata = _parse_metadata(path, file.metadata())
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    _check_integers(path, metadata.description)
    model = _build(path, metadata, build, budget=path.stat().st_size)
    if {t.dtype for t in tensors.values() if t.is_floating_point()} == {torch.float64}:
        model.double()
    _check_tensors(path, tensors, model.state_dict())
    if tuple(model.elements) != metadata.elements:
        _refuse(path, f"a network for the elements {metadata.elements}", f"a description for {model.elements}")
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


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The file, of which safetensors has checked that its tensors fill it without gap or overlap."""
    if path.is_dir():
        raise ModelFileError(f"'{path}' is a folder; expected a model file, such as '{path / 'model.safetensors'}'")
    if not path.is_file():
        raise ModelFileError(f"cannot find the model file '{path}'; expected the model.safetensors of a training run")
    try:
        if path.stat().st_size > MAXIMUM_FILE_BYTES:
            _refuse(path, f"at most {MAXIMUM_FILE_BYTES} bytes", "a larger file")
        with safetensors.safe_open(path, "pt") as file:
            yield file
    except OSError as error:
        raise ModelFileError(f"cannot read the model file '{path}' ({error.strerror or error})") from error
    except safetensors.SafetensorError as error:
        if path.read_bytes()[:2] in (b"PK", b"\x80\x02", b"\x80\x04"):
            _refuse(
                path, "a safetensors file", "a pickle (torch.save), which could run code and is never loaded", error
            )
        _refuse(path, "a safetensors file", str(error), error)


def _parse_json(path: Path, text: str) -> Any:
    def no_constants(name: str) -> NoReturn:
        raise ValueError(f"'{name}' is not a finite number")

    try:
        return json.loads(text, parse_constant=no_constants)
    except (ValueError, RecursionError) as error:
        _refuse(path, "metadata in JSON", f"{type(error).__name__}: {error}", error)


def _parse_metadata(path: Path, texts: Mapping[str, str] | None) -> ModelMetadata:
    if texts is None or METADATA_KEY not in texts:
        _refuse(path, f"metadata '{METADATA_KEY}'", "a safetensors file of another program")
    data = _parse_json(path, texts[METADATA_KEY])
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


def _check_tensors(path: Path, found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    missing = [name for name in expected if name not in found]
    if missing:
        _refuse(path, f"{len(expected)} tensors", f"none for {', '.join(missing[:3])} ({len(missing)} are missing)")
    extra = [name for name in found if name not in expected]
    if extra:
        _refuse(path, f"{len(expected)} tensors", f"also {', '.join(extra[:3])} ({len(extra)} too many)")
    for name, tensor in expected.items():
        wanted, got = (f"{t.dtype} {tuple(t.shape)}" for t in (tensor, found[name]))
        if wanted != got:
            _refuse(path, f"tensor '{name}' as {wanted}", got)


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
