"""What is compared: model files, checked against the store they are compared on."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase.data import chemical_symbols

from qcsurrogate.basis import same_functions
from qcsurrogate.comparison.text import spoken
from qcsurrogate.domain import OutsideTrainingDomain
from qcsurrogate.errors import DomainError, SpecError
from qcsurrogate.prediction.surrogate import MODEL_FILE_NAME, Surrogate, load
from qcsurrogate.reference.atoms import free_atoms_to_dict
from qcsurrogate.reference.settings import Method
from qcsurrogate.registry import find_quantity
from qcsurrogate.store.store import Store
from qcsurrogate.structures import Structure

CURVE_FILE_NAME = "metrics.csv"
"""What a training run writes beside its model."""


@dataclass(frozen=True)
class Curve:
    """One column of a training log."""

    name: str
    seconds: tuple[float, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Subject:
    """One model under comparison."""

    label: str
    surrogate: Surrogate[Any]
    path: Path
    sha256: str = ""
    curves: tuple[Curve, ...] = ()

    def predict(self, x: Any) -> Any:
        """What the surrogate predicts; a molecule outside of its training data becomes a note of the report."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OutsideTrainingDomain)
            return self.surrogate.predict(x)


def load_subjects(paths: Sequence[str | Path]) -> list[Subject]:
    """Load model files (or the folders of training runs) and name them."""
    if not paths:
        raise SpecError("no model to compare; expected one or more model files or folders of training runs")
    files = [p / MODEL_FILE_NAME if p.is_dir() else p for p in map(Path, paths)]
    surrogates = [load(path) for path in paths]
    labels = _labels([s.kind for s in surrogates], files)
    return [
        Subject(label, surrogate, file, surrogate.source.sha256, read_curves(file.parent / CURVE_FILE_NAME))
        for label, surrogate, file in zip(labels, surrogates, files, strict=True)
    ]


def _labels(kinds: Sequence[str], files: Sequence[Path]) -> list[str]:
    """The kind, and where several models are of one kind, their folder or a number too."""
    labels: list[str] = []
    for kind, file in zip(kinds, files, strict=True):
        label = kind if kinds.count(kind) == 1 else f"{kind} ({file.resolve().parent.name})"
        number = 2
        unique = label
        while unique in labels:
            unique = f"{label} {number}"
            number += 1
        labels.append(unique)
    return labels


def read_curves(path: Path) -> tuple[Curve, ...]:
    """Training loss and validation columns of a training log; empty where the file is missing or no log."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error):
        return ()
    names = [n for n in (rows[0] if rows else {}) if n and (n == "train_loss" or n.startswith("validation_"))]
    curves = []
    for name in names:
        pairs = [
            (seconds, value)
            for row in rows
            if (seconds := _number(row.get("time_s"))) is not None and (value := _number(row.get(name))) is not None
        ]
        if pairs:
            curves.append(Curve(name, *zip(*pairs, strict=True)))
    return tuple(curves)


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if abs(value) < float("inf") else None


def check_domain(subject: Subject, store: Store, structures: Sequence[Structure]) -> None:
    """Refuse a model that stands for another method, or for other elements, than the store holds.

    Raises:
        DomainError: if functional, orbital basis, what else the quantity depends on, charge,
            spin or elements do not match.
    """
    surrogate, theirs = subject.surrogate, store.spec.method
    ours = surrogate.method
    for structure in structures:
        surrogate.check_domain(structure)
    elements = sorted({int(z) for structure in structures for z in structure.atomic_numbers})
    different = []
    if ours.xc.lower() != theirs.xc.lower():
        different.append(f"functional {ours.xc} against {theirs.xc}")
    if not same_functions(surrogate.orbital_basis.restricted_to(elements), theirs.orbital_basis(elements)):
        different.append(f"basis {ours.basis} against {theirs.basis}")
    different += find_quantity(surrogate.kind).judge(surrogate).mismatches(store, elements)
    if different:
        raise DomainError(
            f"the {subject.label} model '{subject.path}' and the store '{store.path}' do not match: "
            f"{'; '.join(different)}; compare on data of the method that the model was trained on"
        )


def differences(subject: Subject, store: Store) -> list[str]:
    """What differs between model and store without forbidding the comparison, in plain words."""
    ours, theirs = subject.surrogate.method, store.spec.method
    notes = [
        f"{name} of the training data is {spoken(getattr(ours, name))}, of this store {spoken(getattr(theirs, name))}"
        for name in ("grid_level", "conv_tol")
        if getattr(ours, name) != getattr(theirs, name)
    ]
    shared = {chemical_symbols[z] for z in subject.surrogate.elements}
    free = {s: atom for s, atom in free_atoms_to_dict(store.atoms).items() if s in shared}
    if any(subject.surrogate.metadata.atoms.get(s) != atom for s, atom in free.items()):
        notes.append("the free atoms of model and store differ")
    trained_on = dict.fromkeys(subject.surrogate.metadata.dataset_hashes)
    own = [seen for seen in trained_on if store.has_been(seen)]
    notes += [
        f"trained on this store when it had {size} of its {len(store.plan)} structures, in the same parts"
        for size in filter(None, map(store.size_before, own))
    ]
    if len(own) < len(trained_on):
        other = "on this store and on other data" if own else "on other data than this store"
        notes.append(f"trained {other}: whether it has seen these molecules in training is not known")
    return notes


def auxiliary_name(method: Method) -> str:
    """A method's auxiliary basis in words."""
    basis = method.auxiliary_basis
    if isinstance(basis, str):
        return basis
    added = {"diffuse": basis.diffuse, "higher_l": basis.higher_l}
    parts = [f"beta = {basis.even_tempered_beta:g}", *(f"{name} = {n}" for name, n in added.items() if n)]
    return f"even-tempered, {', '.join(parts)}"
