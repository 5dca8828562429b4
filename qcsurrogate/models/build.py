"""Builders of models: new ones from data, equal ones from a description."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor

from qcsurrogate.basis import BasisSet
from qcsurrogate.data.graphs import PairKind
from qcsurrogate.errors import BasisError, ModelFileError, SpecError, suggestion
from qcsurrogate.models.base import SurrogateModel
from qcsurrogate.models.density import DensityModel
from qcsurrogate.models.hamiltonian import HamiltonianModel, feature_layout, pair_cutoff
from qcsurrogate.models.settings import DensitySettings, HamiltonianSettings

SETTINGS: dict[str, type[HamiltonianSettings] | type[DensitySettings]] = {
    "hamiltonian": HamiltonianSettings,
    "density": DensitySettings,
}

_Settings = TypeVar("_Settings", HamiltonianSettings, DensitySettings)


class TrainingLabels(Protocol):
    """What a new model takes from its training set."""

    @property
    def orbital_basis(self) -> BasisSet: ...
    @property
    def density_basis(self) -> BasisSet | None: ...
    @property
    def elements(self) -> tuple[int, ...]: ...
    @property
    def average_neighbours(self) -> float: ...
    def rows_of_atoms(self, z: int) -> Tensor: ...
    def rows_of_pairs(self, kind: PairKind) -> Tensor | None: ...


def model_settings(kind: str, values: Mapping[str, Any]) -> HamiltonianSettings | DensitySettings:
    """Settings of a model from plain values.

    Raises:
        SpecError: for an unknown kind or key (with a suggestion) or a bad value.
    """
    if kind not in SETTINGS:
        raise SpecError(f"unknown kind of model '{kind}'; expected {' or '.join(SETTINGS)}{suggestion(kind, SETTINGS)}")
    try:
        return SETTINGS[kind].model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"])
        message = f"model.{path}: {first['msg']}; got {first['input']!r}"
        if first["type"] == "extra_forbidden":
            known = list(SETTINGS[kind].model_fields) + list(
                SETTINGS[kind].model_fields["encoder"].annotation.model_fields  # type: ignore[union-attr]
            )
            message = f"unknown key 'model.{path}'{suggestion(str(first['loc'][-1]), known)}"
        raise SpecError(message) from error


def graph_reach(
    kind: str, settings: HamiltonianSettings | DensitySettings, orbital: BasisSet, density: BasisSet | None
) -> tuple[int, float, float | None]:
    """(l_max, message cutoff, pair cutoff) of the graphs that a model of this kind needs."""
    if isinstance(settings, HamiltonianSettings):
        reach = pair_cutoff(orbital, settings.overlap_threshold)
        return feature_layout(orbital).l_max, settings.encoder.message_cutoff, reach
    if density is None:
        raise SpecError("a density model needs an auxiliary basis; the store has none")
    return max(2, density.l_max), settings.encoder.message_cutoff, None


def new_hamiltonian_model(
    settings: HamiltonianSettings, data: TrainingLabels, *, baseline: bool = True, seed: int = 0
) -> HamiltonianModel:
    """An untrained model with the statistics of its training set."""
    basis = data.orbital_basis.restricted_to(data.elements)
    torch.manual_seed(seed)
    model = HamiltonianModel(basis, _with_neighbours(settings, data), baseline=baseline)
    kinds = [(a, b) for a in model.elements for b in model.elements if a >= b]
    found = {kind: data.rows_of_pairs(kind) for kind in kinds}
    pairs = {kind: rows for kind, rows in found.items() if rows is not None}
    model.fit_statistics(pairs, {z: data.rows_of_atoms(z) for z in model.elements})
    return model


def new_density_model(
    settings: DensitySettings,
    data: TrainingLabels,
    functions: Mapping[int, tuple[NDArray[np.float64], NDArray[np.float64]]],
    *,
    seed: int = 0,
) -> DensityModel:
    """An untrained model with the statistics of its training set and the functions of its basis."""
    if data.density_basis is None:
        raise SpecError("a density model needs data with an auxiliary basis")
    elements = data.elements
    torch.manual_seed(seed)
    model = DensityModel(
        data.orbital_basis.restricted_to(elements),
        data.density_basis.restricted_to(elements),
        _with_neighbours(settings, data),
    )
    model.fit_statistics({z: data.rows_of_atoms(z) for z in elements})
    model.set_functions({z: functions[z] for z in elements})
    return model


def _with_neighbours(settings: _Settings, data: TrainingLabels) -> _Settings:
    if settings.encoder.average_neighbours is not None:
        return settings
    encoder = settings.encoder.model_copy(update={"average_neighbours": round(data.average_neighbours, 6)})
    return settings.model_copy(update={"encoder": encoder})


def build_model(kind: str, description: Mapping[str, Any]) -> SurrogateModel:
    """An untrained model equal in shape to the one that was described.

    Raises:
        ModelFileError: if the description does not fit.
    """
    try:
        basis = BasisSet.from_dict(description["orbital_basis"])
        settings = model_settings(kind, description["settings"])
        if isinstance(settings, HamiltonianSettings):
            return HamiltonianModel(basis, settings, baseline=bool(description["baseline"]))
        return DensityModel(basis, BasisSet.from_dict(description["density_basis"]), settings)
    except (KeyError, TypeError, ValueError, BasisError, SpecError) as error:
        raise ModelFileError(f"the description of a {kind} model cannot be used: {error}") from error
