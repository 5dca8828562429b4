"""``load(path).predict(x)``: a trained network where a Kohn-Sham calculation stood."""

from __future__ import annotations

import hashlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

import torch
from ase.data import chemical_symbols

from qcsurrogate.basis import BasisSet, same_functions
from qcsurrogate.domain import UNKNOWN, DomainVerdict, OutsideTrainingDomain
from qcsurrogate.errors import BasisError, DomainError, ModelFileError, SpecError
from qcsurrogate.models.files import ModelMetadata, read_model
from qcsurrogate.prediction.inputs import read_request
from qcsurrogate.prediction.results import Prediction
from qcsurrogate.prediction.source import Source
from qcsurrogate.reference.atoms import FreeAtoms, free_atoms_from_dict
from qcsurrogate.reference.settings import Method
from qcsurrogate.registry import find_quantity
from qcsurrogate.structures import Structure

if TYPE_CHECKING:
    from ase import Atoms
    from pyscf.gto import Mole

    from qcsurrogate.models.base import SurrogateModel

MODEL_FILE_NAME = "model.safetensors"
"""The file that a training run leaves in its folder."""

DEFAULT_BATCH_SIZE = 32

P = TypeVar("P", bound=Prediction)


def load(path: str | Path, device: str = "cpu") -> Surrogate[Any]:
    """Open a trained model.

    Args:
        path: a model file, or the folder of a training run that holds ``model.safetensors``.
        device: where the network runs, such as ``cpu`` or ``cuda``; results are always NumPy arrays.

    Raises:
        ModelFileError: if the file is missing, damaged, hostile, or of an unknown kind.
        SpecError: if there is no such device.
    """
    path = Path(path)
    if path.is_dir():
        folder, path = path, path / MODEL_FILE_NAME
        if not path.exists():
            raise ModelFileError(
                f"the folder '{folder}' holds no {MODEL_FILE_NAME}; expected the folder of a training run that has "
                "validated at least once, or the path of a model file"
            )
    written = path.stat().st_mtime_ns if path.is_file() else None
    model, metadata = read_model(path, _device(device))
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if path.stat().st_mtime_ns != written:
        raise ModelFileError(f"the model file '{path}' was replaced while it was read: load it again")
    surrogate = find_quantity(metadata.kind).surrogate(model, metadata)
    surrogate.source = replace(surrogate.source, file=path.name, sha256=digest)
    return surrogate


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SpecError(
            f"cannot use the device '{name}' ({reason}); expected 'cpu', or a GPU that torch sees"
        ) from error
    return device


class Surrogate(ABC, Generic[P]):
    """What the surrogates of all quantities share; those that need a basis are :class:`KohnShamSurrogate`.

    Attributes:
        metadata: everything the model file says: method, provenance, metrics.
        kind: name of the quantity.
        method: Kohn-Sham calculation that the model stands for; None where its labels are of another program.
        level: level of theory in words; empty where it is not known.
        elements: atomic numbers it was trained on, ascending.
        source: what its predictions say about where they come from.
    """

    def __init__(self, model: SurrogateModel, metadata: ModelMetadata) -> None:
        self.metadata = metadata
        self.kind: str = metadata.kind
        self.method: Method | None = metadata.method
        self.level = metadata.level
        self.elements: tuple[int, ...] = tuple(metadata.elements)
        self.orbital_basis: BasisSet | None = model.orbital_basis
        try:
            self.atoms: FreeAtoms = free_atoms_from_dict(metadata.atoms)
        except BasisError as error:
            raise ModelFileError(
                f"the model file holds unusable free atoms ({error}); train the model again"
            ) from error
        self.source = Source.of(metadata, self.orbital_basis, self.atoms)

    def __repr__(self) -> str:
        symbols = ", ".join(chemical_symbols[z] for z in self.elements)
        return f"<{type(self).__name__} for {symbols}: {self.level or 'level of theory unknown'}>"

    @property
    def default_state(self) -> tuple[int, int]:
        """Charge and spin of a molecule that says nothing about them."""
        if self.method is not None:
            return self.method.charge, self.method.spin
        states = ((0, 0),) if self.metadata.domain is None else self.metadata.domain.states
        return (0, 0) if (0, 0) in states else states[0]

    @overload
    def predict(self, x: list[Any] | tuple[Any, ...], *, batch_size: int = ..., strict: bool = ...) -> list[P]: ...

    @overload
    def predict(self, x: str | Path, *, batch_size: int = ..., strict: bool = ...) -> P | list[P]: ...

    @overload
    def predict(self, x: Atoms | Mole | Structure, *, batch_size: int = ..., strict: bool = ...) -> P: ...

    def predict(self, x: object, *, batch_size: int = DEFAULT_BATCH_SIZE, strict: bool = False) -> P | list[P]:
        """Predict for one molecule or many.

        Args:
            x: an ASE ``Atoms`` (Angstrom), a built PySCF ``Mole``, a ``Structure`` (bohr), the
                path of a file of structures (xyz, extxyz, SDF, npz, an ASE ``.db``, a tar
                archive) or of a folder of them, or a list of these.  Where a file or an
                ``Atoms`` says nothing about charge and spin, it has those of the training data.
            batch_size: how many molecules the network sees at a time; results do not depend on
                it beyond the rounding of the network's precision.
            strict: refuse what lies outside of the training data, or a model that does not say
                what it was trained on, instead of warning (``OutsideTrainingDomain``).

        Returns:
            One prediction for one molecule; a list of them, in order, for a list or for a file
            of several structures.

        Raises:
            StructureError: if ``x`` or a geometry in it cannot be used.
            DomainError: for elements, a charge, a spin or a basis the model was not trained on;
                with ``strict`` for anything else outside of its training data.
        """
        if batch_size < 1:
            raise SpecError(f"batch_size = {batch_size}; expected 1 or more")
        request = read_request(x, *self.default_state)
        for structure, basis in zip(request.structures, request.bases, strict=True):
            self.check_domain(structure, basis)
        verdicts = [self.assess(structure) for structure in request.structures]
        self._report(request.structures, verdicts, strict=strict)
        predictions = self._in_batches(request.structures, batch_size)
        results = [
            replace(p, domain=verdict, source=self.source) for p, verdict in zip(predictions, verdicts, strict=True)
        ]
        return results[0] if request.single else results

    def assess(self, structure: Structure) -> DomainVerdict:
        """What of a molecule lies outside of the training data; nothing is computed."""
        domain = self.metadata.domain
        return UNKNOWN if domain is None else domain.assess(structure)

    def _report(self, structures: Sequence[Structure], verdicts: Sequence[DomainVerdict], *, strict: bool) -> None:
        outside = [(s, v) for s, v in zip(structures, verdicts, strict=True) if not v.inside]
        if not outside:
            return
        structure, verdict = outside[0]
        text = f"{structure.label} ({structure.formula}): {verdict.summary}"
        if len(outside) > 1:
            text += f" (the first of {len(outside)} such of {len(structures)} structures)"
        if strict:
            raise DomainError(f"strict: {text}; leave it out, train on such molecules, or predict without strict")
        warnings.warn(f"training domain: {text}", OutsideTrainingDomain, stacklevel=3)

    def check_domain(self, structure: Structure, basis: BasisSet | None = None) -> None:
        """Refuse what the model was never shown.

        Raises:
            DomainError: for elements, a charge, a spin or a basis the model was not trained on.
        """
        foreign = sorted({int(z) for z in structure.atomic_numbers} - set(self.elements))
        if foreign:
            raise DomainError(
                f"{structure.label} ({structure.formula}) holds {_symbols(foreign)}; this {self.kind} model was "
                f"trained on {_symbols(self.elements)} only: train one on data with {_symbols(foreign)}"
            )
        domain = self.metadata.domain
        states = (self.default_state,) if domain is None else domain.states
        if (structure.charge, structure.spin) not in states:
            trained = " or ".join(f"charge {charge} and spin {spin}" for charge, spin in states)
            raise DomainError(
                f"{structure.label} has charge {structure.charge} and spin {structure.spin} (unpaired electrons); "
                f"this {self.kind} model was trained on {trained} only"
            )
        own = self.orbital_basis
        if basis is not None and own is not None and not same_functions(basis, own):
            raise DomainError(
                f"the PySCF Mole of {structure.formula} has the basis '{basis.name}'; this {self.kind} model was "
                f"trained in '{own.name}': build the Mole with basis='{own.name}', or give the geometry alone"
            )

    def _in_batches(self, structures: Sequence[Structure], batch_size: int) -> Iterator[P]:
        for start in range(0, len(structures), batch_size):
            with torch.inference_mode():
                results = self._predict_batch(structures[start : start + batch_size])
            yield from results

    @abstractmethod
    def _predict_batch(self, structures: Sequence[Structure]) -> list[P]:
        """One prediction per structure; the domain has been checked."""


class KohnShamSurrogate(Surrogate[P]):
    """A surrogate whose predictions are over the functions of a basis.

    Attributes:
        orbital_basis: the orbital basis of its method.
        atoms: free-atom densities by atomic number.
    """

    method: Method
    orbital_basis: BasisSet

    def __init__(self, model: SurrogateModel, metadata: ModelMetadata) -> None:
        super().__init__(model, metadata)
        if metadata.method is None or model.orbital_basis is None:
            raise ModelFileError(
                f"the model file says no method of this {self.kind} model, whose predictions are over its basis; "
                "expected one: train the model again"
            )


def _symbols(atomic_numbers: Sequence[int]) -> str:
    return ", ".join(chemical_symbols[z] for z in atomic_numbers)
