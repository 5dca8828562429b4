"""From a data set to a model file: data, network, training and provenance put together."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from ase.data import chemical_symbols

from qcsurrogate.domain import Domain
from qcsurrogate.errors import StoreError, TrainingError
from qcsurrogate.models.base import SurrogateModel
from qcsurrogate.models.files import ModelMetadata, read_metadata
from qcsurrogate.reference.atoms import FreeAtoms, free_atoms, free_atoms_to_dict
from qcsurrogate.registry import Quantity, find_quantity
from qcsurrogate.store.spec import SplitName
from qcsurrogate.store.store import Store
from qcsurrogate.tables.opening import open_set
from qcsurrogate.tables.sets import StructureSet
from qcsurrogate.tables.table import Table
from qcsurrogate.training.config import RunConfig, load_run_config
from qcsurrogate.training.loop import TrainingData, train
from qcsurrogate.training.origin import ORIGIN_NAME, Beginning
from qcsurrogate.training.outputs import CONFIG_NAME, MODEL_NAME, TrainingResult
from qcsurrogate.versions import installed_versions

_PACKAGES = ("qcsurrogate", "torch", "e3nn", "numpy", "pyscf")


def train_surrogate(
    kind: str,
    store: str | Path,
    out: str | Path,
    *,
    config: str | Path | None = None,
    overrides: Sequence[str] = (),
    preset: str | None = None,
    origin: str | Path | None = None,
    training_keys: Sequence[str] | None = None,
    quiet: bool = False,
) -> TrainingResult:
    """Train a model on a store or a table, or go on where an earlier start in ``out`` stopped.

    With ``origin`` a model is fine-tuned. Its weights, its network, the statistics of its
    labels and its H0 stay. The data must have its basis and no element that it does not know. The new
    model's domain is that of both training sets, or, where the data are of another level of
    theory, that of these alone.

    Args:
        kind: name of a quantity, such as ``hamiltonian``, ``density`` or ``property``.
        store: folder of the store; for quantities that need no references also a file or folder of structures,
            with labels or without, the YAML file of a table, or the name of one that comes with the package.
        out: folder of the run; it will hold ``model.safetensors``, ``metrics.csv``, a checkpoint.
        config: YAML file with the sections ``model`` and ``training``; without one the run's own
            ``config.yaml`` if ``out`` holds a run, else defaults.
        overrides: texts ``section.key=value`` that win over the file.
        preset: name of one of the quantity's presets, such as ``base``: what neither file nor overrides set.
        origin: model file, or folder of a run, to begin with instead of random weights; the run
            keeps a copy of it, and need not be told again.
        training_keys: train on these molecules of the training split alone, as if it held no others.
        quiet: say nothing.

    Raises:
        SpecError: for an unknown kind, preset or key, or an impossible value.
        StoreError: if the data cannot be read, or lack what this kind is trained on.
        StructureError: if a table is damaged.
        TrainingError: if the run cannot start, resume or go on.
    """
    quantity, out = find_quantity(kind), Path(out)
    own = out / CONFIG_NAME
    source = own if config is None and own.is_file() else config
    if (out / MODEL_NAME).is_file() and (found := read_metadata(out / MODEL_NAME).kind) != kind:
        raise TrainingError(f"'{out}' holds a run of a {found} model; expected another folder for a {kind} model")
    beginning = None if origin is None else Beginning.read(origin, quantity)
    settings = None if beginning is None else beginning.settings
    run = load_run_config(quantity.settings, source, overrides, model=settings, presets=quantity.presets, preset=preset)
    run, beginning = _begun(run, beginning, out, quantity)
    whole = open_data(quantity, store)
    opened = whole if training_keys is None else whole.training_on(training_keys)
    model, train_data, validation_data = _model_and_data(
        quantity, run, opened, beginning, progress=not quiet and sys.stderr.isatty()
    )
    notes = list(whole.notes) if isinstance(whole, Table) else []
    if beginning is not None:
        notes += beginning.adopt(model, opened.path)
        if changes := beginning.level_changes(opened.spec):
            notes.append(
                f"another level of theory ({'; '.join(changes)}): the model will stand for that of the store, and its "
                "domain is that of the store alone"
            )
        model = beginning.model.to(torch.float64 if run.training.precision == 64 else torch.float32)
        beginning.copy_to(out)
    domain = Domain.fit(opened.structure(key) for key in opened.keys("train"))
    return train(
        model,
        train_data,
        validation_data,
        run,
        out,
        on_metadata=partial(_metadata, model, whole, domain, beginning, _atoms(opened, model)),
        dataset_hash=opened.dataset_hash(),
        notes=notes,
        quiet=quiet,
    )


def open_data(quantity: Quantity, source: str | Path) -> Store | Table:
    """The data that a quantity is to be trained or measured on.

    Raises:
        StoreError: if there are none, or the quantity needs a store and this is a table.
        SpecError, StructureError: if a table cannot be read.
    """
    found = open_set(source)
    if quantity.needs_store and not isinstance(found, Store):
        raise StoreError(
            f"'{source}' is a table of structures; expected a store: {quantity.name} models learn from the "
            "Kohn-Sham references that `qcsurrogate generate` makes"
        )
    return found


def _atoms(data: StructureSet, model: SurrogateModel) -> FreeAtoms:
    """Free atoms of the model's elements; none where the labels are of no method of ours."""
    if data.spec.method is None:
        return {}
    unknown = free_atoms(set(model.elements) - set(data.atoms), data.spec.method)  # known to the origin alone
    return {z: (unknown | dict(data.atoms))[z] for z in model.elements}


def _begun(
    run: RunConfig[Any], beginning: Beginning | None, out: Path, quantity: Quantity
) -> tuple[RunConfig[Any], Beginning | None]:
    """A run's configuration and the model it begins with: the one given now, or that of the run in ``out``."""
    own = out / CONFIG_NAME
    known = load_run_config(quantity.settings, own, presets=quantity.presets) if own.is_file() else run
    recorded = known.origin
    if beginning is None and recorded is not None:
        copy = out / ORIGIN_NAME
        beginning = Beginning.read(copy if copy.is_file() else recorded.path, quantity)
    if beginning is None:
        return run, None
    if recorded is not None and recorded.sha256 != beginning.record.sha256:
        raise TrainingError(
            f"'{out}' began with the model '{recorded.path}', and '{beginning.path}' is another; expected the same to "
            "go on, or another folder"
        )
    if recorded is None and own.is_file():
        raise TrainingError(
            f"'{out}' holds a run that began with random weights, not with '{beginning.path}'; expected another folder"
        )
    beginning.require_settings(run.model.model_dump(mode="json"))
    return run.model_copy(update={"origin": recorded or beginning.record}), beginning


def config_schema(kind: str) -> dict[str, Any]:
    """JSON schema of the training configuration of a kind of model."""
    schema = RunConfig[find_quantity(kind).settings].model_json_schema()  # type: ignore[misc]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _model_and_data(
    quantity: Quantity, run: RunConfig[Any], store: Store | Table, beginning: Beginning | None, *, progress: bool
) -> tuple[SurrogateModel, TrainingData, TrainingData]:
    """An untrained model with the statistics of its training set, the training and the validation data."""
    elements = _elements(store, "train")
    if beginning is not None:
        beginning.require_data(store.path, store.spec, elements | _elements(store, "validation"))
        elements = set(beginning.model.elements)
    if unseen := sorted(_elements(store, "validation") - elements):
        symbols = ", ".join(chemical_symbols[z] for z in unseen)
        raise TrainingError(
            f"the validation set of '{store.path}' holds {symbols}, which the training set lacks; expected no new "
            "element there: change the split of the spec"
        )
    train_data, validation_data = quantity.read_labels(
        store,
        ("train", "validation"),
        run.model,
        elements=sorted(elements),
        dtype=torch.float64 if run.training.precision == 64 else torch.float32,
        progress=progress,
        like=None if beginning is None else beginning.model,
    )
    return quantity.new_model(run.model, train_data, seed=run.training.seed), train_data, validation_data


def _elements(store: StructureSet, split: SplitName) -> set[int]:
    """Atomic numbers of the complete records of a split; of all that was planned where there is none."""
    structures = [store.structure(key) for key in store.keys(split)]
    return {int(z) for s in structures for z in s.atomic_numbers} or set(store.atoms)


def _metadata(
    model: SurrogateModel,
    store: StructureSet,
    domain: Domain,
    beginning: Beginning | None,
    atoms: FreeAtoms,
    metrics: Mapping[str, float],
    provenance: Mapping[str, Any],
) -> ModelMetadata:
    """What a model file says about itself and where it comes from."""
    training = dict(provenance)
    seen: Domain | None = domain
    if beginning is not None:
        seen = beginning.domain(domain, store.spec, provenance["step"])
        training["origin"] = beginning.provenance()
        training["config"] = provenance["config"] | {"origin": None}  # said above, without folders of this machine
    return ModelMetadata(
        kind=model.kind,
        description=model.description(),
        method=store.spec.method,
        level=store.spec.level,
        atoms=free_atoms_to_dict(atoms),
        spec=store.spec.identity(),
        dataset_hash=store.dataset_hash(),
        elements=model.elements,
        units=dict(model.units or find_quantity(model.kind).units),
        training=training,
        metrics=dict(metrics),
        versions=installed_versions(_PACKAGES),
        domain=seen,
    )
