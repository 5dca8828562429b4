"""Learn from references what a model's estimates of remaining energies are worth, and write it into the model file."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
from tqdm import tqdm

from qcsurrogate.domain import OutsideTrainingDomain
from qcsurrogate.errors import DomainError, SpecError, StoreError
from qcsurrogate.models.files import read_model, write_model
from qcsurrogate.prediction.results import PredictionWithOrbitals
from qcsurrogate.prediction.surrogate import MODEL_FILE_NAME, load
from qcsurrogate.reference.calibration import EnergyCalibration
from qcsurrogate.reference.evaluation import evaluate_once
from qcsurrogate.registry import find_quantity
from qcsurrogate.store.spec import SplitName
from qcsurrogate.store.store import Store
from qcsurrogate.training.origin import level_changes

FEWEST = 9
"""Of fewer molecules no bound of 90 % follows."""


def calibrate(
    model: str | Path,
    store: str | Path,
    *,
    split: SplitName = "validation",
    molecules: int = 40,
    seed: int = 0,
    threads: int = 1,
    quiet: bool = False,
) -> EnergyCalibration:
    """Compare estimates of the remaining energy with true errors, and add the outcome to a model file.

    Each molecule costs a prediction and one Fock build.  From then on ``prediction.check()`` can bound the error
    of its energy: :meth:`qcsurrogate.reference.evaluation.OneShot.energy_bound`.

    Args:
        model: model file of a Hamiltonian model, or the folder of a training run; it is rewritten.
        store: references at the model's level of theory that the model has not learned from.
        split: which of them; those that chose the best step (validation) are nearly as good as new ones (test).
        molecules: at most so many, drawn at random.
        seed: of the draw.
        threads: of PySCF.
        quiet: no progress bar.

    Raises:
        SpecError: for a model without orbitals, or the training split of its own data.
        DomainError: if the store is of another level of theory, or no molecule of it can be predicted.
        StoreError: if there are fewer than nine molecules.
        ModelFileError: if the file cannot be read or written.
    """
    path = Path(model)
    path = path / MODEL_FILE_NAME if path.is_dir() else path
    surrogate, opened = load(path), Store.open(store)
    if not issubclass(find_quantity(surrogate.kind).prediction, PredictionWithOrbitals):
        raise SpecError(
            f"'{path}' is a {surrogate.kind} model, which predicts no orbitals and so no energy; expected "
            "a hamiltonian model"
        )
    data = opened.dataset_hash()
    if split == "train" and data in surrogate.metadata.dataset_hashes:
        raise SpecError(
            f"'{path}' has learned from the training split of '{store}', so its errors there say nothing of other "
            "molecules; expected split validation or test"
        )
    if changes := level_changes(surrogate.metadata, opened.spec):
        raise DomainError(
            f"the store '{store}' is of another level of theory than the model '{path}' ({'; '.join(changes)}); "
            "expected the same"
        )
    keys = opened.keys(split)
    if len(keys) < FEWEST:
        raise StoreError(
            f"the {split} split of '{store}' has {len(keys)} complete records; expected {FEWEST} or more, of which a "
            "bound of 90 % can be learned: generate more, or take another split"
        )
    rng = np.random.default_rng(seed)
    chosen = [keys[i] for i in sorted(rng.permutation(len(keys))[:molecules])]
    errors, estimates = [], []
    records = tqdm(
        opened.read_many(chosen),
        total=len(chosen),
        desc="calibrating",
        unit="molecule",
        disable=quiet or not sys.stderr.isatty(),
    )
    for record in records:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OutsideTrainingDomain)
            prediction = surrogate.predict(record.structure)
        once = evaluate_once(record.structure, opened.spec.method, prediction.density_matrix, threads=threads)
        if not np.isfinite(once.remaining_energy):
            raise DomainError(
                f"{record.structure.label} of '{store}': an empty predicted orbital lies below an occupied one, "
                "so that its error cannot be estimated; the model is too far off to be calibrated: train it longer"
            )
        errors.append(once.energy - record.energy)
        estimates.append(max(once.remaining_energy, np.finfo(float).tiny))
    found = EnergyCalibration.of(errors, estimates, data)
    network, metadata = read_model(path)
    write_model(path, network, metadata.model_copy(update={"energy_calibration": found}))
    return found
