"""From a store to a model file: data, network, training and provenance put together."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from ase.data import chemical_symbols

from qcsurrogate.domain import Domain
from qcsurrogate.errors import TrainingError
from qcsurrogate.models.base import SurrogateModel
from qcsurrogate.models.files import ModelMetadata
from qcsurrogate.reference.atoms import free_atoms_to_dict
from qcsurrogate.registry import Quantity, find_quantity
from qcsurrogate.store.spec import SplitName
from qcsurrogate.store.store import Store
from qcsurrogate.training.config import RunConfig, load_run_config
from qcsurrogate.training.loop import CONFIG_NAME, TrainingData, TrainingResult, train
from qcsurrogate.versions import installed_versions

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
        kind: name of a quantity, such as ``hamiltonian`` or ``density``.
        store: folder of the store.
        out: folder of the run; it will hold ``model.safetensors``, ``metrics.csv``, a checkpoint.
        config: YAML file with the sections ``model`` and ``training``; without one the run's own
            ``config.yaml`` if ``out`` holds a run, else defaults.
        overrides: texts ``section.key=value`` that win over the file.
        quiet: say nothing.

    Raises:
        SpecError: for an unknown kind or key, or an impossible value.
        StoreError: if the store cannot be read, or lacks what this kind is trained on.
        TrainingError: if the run cannot start, resume or go on.
    """
    quantity = find_quantity(kind)
    own = Path(out) / CONFIG_NAME
    source = own if config is None and own.is_file() else config
    run = load_run_config(quantity.settings, source, overrides)
    opened = Store.open(store)
    model, train_data, validation_data = _model_and_data(
        quantity, run, opened, progress=not quiet and sys.stderr.isatty()
    )
    domain = Domain.fit(opened.structure(key) for key in opened.keys("train"))
    return train(
        model,
        train_data,
        validation_data,
        run,
        out,
        on_metadata=partial(_metadata, model, opened, domain),
        dataset_hash=opened.dataset_hash(),
        quiet=quiet,
    )


def config_schema(kind: str) -> dict[str, Any]:
    """JSON schema of the training configuration of a kind of model."""
    schema = RunConfig[find_quantity(kind).settings].model_json_schema()  # type: ignore[misc]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _model_and_data(
    quantity: Quantity, run: RunConfig[Any], store: Store, *, progress: bool
) -> tuple[SurrogateModel, TrainingData, TrainingData]:
    """An untrained model with the statistics of its training set, the training and the validation data."""
    elements = _elements(store, "train")
    if unseen := sorted(_elements(store, "validation") - elements):
        symbols = ", ".join(chemical_symbols[z] for z in unseen)
        raise TrainingError(
            f"the validation set of '{store.path}' holds {symbols}, which the training set lacks; expected no new "
            "element there: change the split of the spec"
        )
    read = partial(
        quantity.read_labels,
        store,
        settings=run.model,
        elements=sorted(elements),
        dtype=torch.float64 if run.training.precision == 64 else torch.float32,
        progress=progress,
    )
    train_data, validation_data = read("train"), read("validation")
    return quantity.new_model(run.model, train_data, seed=run.training.seed), train_data, validation_data


def _elements(store: Store, split: SplitName) -> set[int]:
    """Atomic numbers of the complete records of a split; of all that was planned where there is none."""
    structures = [store.structure(key) for key in store.keys(split)]
    return {int(z) for s in structures for z in s.atomic_numbers} or set(store.atoms)


def _metadata(
    model: SurrogateModel, store: Store, domain: Domain, metrics: Mapping[str, float], provenance: Mapping[str, Any]
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
        units=dict(find_quantity(model.kind).units),
        training=dict(provenance),
        metrics=dict(metrics),
        versions=installed_versions(_PACKAGES),
        domain=domain,
    )
