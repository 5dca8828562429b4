"""From a store to a model file: data, network, training and provenance put together."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from ase.data import chemical_symbols

from qcsurrogate.data.datasets import DensityDataset, GraphSettings, HamiltonianDataset
from qcsurrogate.errors import SpecError, TrainingError, suggestion
from qcsurrogate.models.base import SurrogateModel
from qcsurrogate.models.build import SETTINGS, graph_reach, new_density_model, new_hamiltonian_model
from qcsurrogate.models.files import ModelMetadata
from qcsurrogate.models.settings import DensitySettings, HamiltonianSettings
from qcsurrogate.reference.atoms import free_atoms_to_dict
from qcsurrogate.store.store import Store
from qcsurrogate.training.config import RunConfig, load_run_config
from qcsurrogate.training.loop import TrainingResult, train
from qcsurrogate.versions import installed_versions

UNITS: Mapping[str, Mapping[str, str]] = {
    "hamiltonian": {"hamiltonian": "hartree"},
    "density": {"density_coefficients": "e bohr^-1.5", "density": "e bohr^-3"},
}
"""Unit of what each kind of model predicts; PySCF's order."""

_PACKAGES = ("qcsurrogate", "torch", "e3nn", "numpy", "pyscf")


def train_surrogate(
    kind: str,
    store: str | Path,
    out: str | Path,
    *,
    config: str | Path | None = None,
    overrides: Sequence[str] = (),
    quiet: bool = False,
) -> TrainingResult:
    """Train a model on a store, or go on where an earlier start in ``out`` stopped.

    Args:
        kind: ``hamiltonian`` or ``density``.
        store: folder of the store.
        out: folder of the run; it will hold ``model.safetensors``, ``metrics.csv``, a checkpoint.
        config: YAML file with the sections ``model`` and ``training``; defaults without one.
        overrides: texts ``section.key=value`` that win over the file.
        quiet: say nothing.

    Raises:
        SpecError: for an unknown kind or key, or an impossible value.
        StoreError: if the store cannot be read, or lacks what this kind is trained on.
        TrainingError: if the run cannot start, resume or go on.
    """
    run = load_run_config(_settings_type(kind), config, overrides)
    opened = Store.open(store)
    model, train_data, validation_data = _model_and_data(kind, run, opened, progress=not quiet and sys.stderr.isatty())
    return train(
        model,
        train_data,
        validation_data,
        run,
        out,
        on_metadata=partial(_metadata, model, opened),
        dataset_hash=opened.dataset_hash(),
        quiet=quiet,
    )


def config_schema(kind: str) -> dict[str, Any]:
    """JSON schema of the training configuration of a kind of model."""
    schema = RunConfig[_settings_type(kind)].model_json_schema()  # type: ignore[misc]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _settings_type(kind: str) -> type[HamiltonianSettings] | type[DensitySettings]:
    try:
        return SETTINGS[kind]
    except KeyError:
        kinds = " or ".join(SETTINGS)
        raise SpecError(f"unknown kind of model '{kind}'; expected {kinds}{suggestion(kind, SETTINGS)}") from None


Data = HamiltonianDataset | DensityDataset


def _model_and_data(
    kind: str, run: RunConfig[Any], store: Store, *, progress: bool
) -> tuple[SurrogateModel, Data, Data]:
    """An untrained model with the statistics of its training set, the training and the validation data."""
    method, elements, seed = store.spec.method, sorted(store.atoms), run.training.seed
    orbital = method.orbital_basis(elements)
    density = method.density_basis(elements) if kind == "density" else None
    graphs = GraphSettings(*graph_reach(kind, run.model, orbital, density))
    dtype = torch.float64 if run.training.precision == 64 else torch.float32
    model: SurrogateModel
    train_data: Data
    validation_data: Data
    if kind == "hamiltonian":
        corrects = method.baseline != "none"
        read_matrices = partial(
            HamiltonianDataset.from_store, store, settings=graphs, baseline=corrects, dtype=dtype, progress=progress
        )
        train_data, validation_data = read_matrices("train"), read_matrices("validation")
        model = new_hamiltonian_model(run.model, train_data, baseline=corrects, seed=seed)
    else:
        read_densities = partial(DensityDataset.from_store, store, settings=graphs, dtype=dtype, progress=progress)
        train_data, validation_data = read_densities("train"), read_densities("validation")
        functions = {z: (f.transform, f.charges) for z, f in train_data.functions.items()}
        model = new_density_model(run.model, train_data, functions, seed=seed)
    unseen = sorted(set(validation_data.elements) - set(train_data.elements))
    if unseen:
        symbols = ", ".join(chemical_symbols[z] for z in unseen)
        raise TrainingError(
            f"the validation set of '{store.path}' holds {symbols}, which the training set lacks; expected no new "
            "element there: change the split of the spec"
        )
    return model, train_data, validation_data


def _metadata(
    model: SurrogateModel, store: Store, metrics: Mapping[str, float], provenance: Mapping[str, Any]
) -> ModelMetadata:
    """What a model file says about itself and where it comes from."""
    atoms = {z: store.atoms[z] for z in model.elements}
    return ModelMetadata(
        kind=model.kind,
        description=model.description(),
        method=store.spec.method,
        atoms=free_atoms_to_dict(atoms),
        spec=store.spec.identity(),
        dataset_hash=store.dataset_hash(),
        elements=model.elements,
        units=dict(UNITS[model.kind]),
        training=dict(provenance),
        metrics=dict(metrics),
        versions=installed_versions(_PACKAGES),
    )
