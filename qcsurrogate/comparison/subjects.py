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
from qcsurrogate.errors import DomainError, SpecError, StoreError
from qcsurrogate.prediction.surrogate import MODEL_FILE_NAME, Surrogate, load
from qcsurrogate.reference.atoms import free_atoms_to_dict
from qcsurrogate.reference.settings import Method
from qcsurrogate.registry import find_quantity
from qcsurrogate.store.store import Store
from qcsurrogate.structures import Structure
from qcsurrogate.tables.sets import StructureSet
from qcsurrogate.tables.table import Table

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


def check_domain(subject: Subject, data: Store | Table, structures: Sequence[Structure]) -> None:
    """Refuse a model that stands for another method, or for other elements, than the data hold.

    Raises:
        StoreError: if the model can be compared with the references of a store alone, and this is a table.
        DomainError: if functional, orbital basis, what else the quantity depends on, charge,
            spin or elements do not match.
    """
    surrogate, quantity = subject.surrogate, find_quantity(subject.surrogate.kind)
    if quantity.needs_store and not isinstance(data, Store):
        raise StoreError(
            f"'{data.path}' is a table of structures; expected a store: the {subject.label} model '{subject.path}' is "
            "measured against Kohn-Sham references"
        )
    for structure in structures:
        surrogate.check_domain(structure)
    elements = sorted({int(z) for structure in structures for z in structure.atomic_numbers})
    different = _other_level(surrogate, data, elements)
    different += quantity.judge(surrogate).mismatches(data, elements)
    if different:
        what = "store" if isinstance(data, Store) else "table"
        raise DomainError(
            f"the {subject.label} model '{subject.path}' and the {what} '{data.path}' do not match: "
            f"{'; '.join(different)}; compare on data of the method that the model was trained on"
        )


def _other_level(surrogate: Surrogate[Any], data: StructureSet, elements: Sequence[int]) -> list[str]:
    """Why a model stands for another level of theory than the labels, in words."""
    ours, theirs = surrogate.method, data.spec.method
    if ours is None or theirs is None:
        same = surrogate.level.lower() == data.spec.level.lower()
        words = (surrogate.level or "not known", data.spec.level or "not known")
        return [] if same else [f"level of theory {words[0]} against {words[1]}"]
    different = []
    if ours.xc.lower() != theirs.xc.lower():
        different.append(f"functional {ours.xc} against {theirs.xc}")
    basis = surrogate.orbital_basis or ours.orbital_basis(elements)
    if not same_functions(basis.restricted_to(elements), theirs.orbital_basis(elements)):
        different.append(f"basis {ours.basis} against {theirs.basis}")
    return different


def differences(subject: Subject, data: StructureSet) -> list[str]:
    """What differs between model and data without forbidding the comparison, in plain words."""
    ours, theirs = subject.surrogate.method, data.spec.method
    what = "store" if isinstance(data, Store) else "table"
    notes = []
    if ours is not None and theirs is not None:
        notes = [
            f"{name} of the training data is {spoken(own)}, of this store {spoken(other)}"
            for name in ("grid_level", "conv_tol")
            if (own := getattr(ours, name)) != (other := getattr(theirs, name))
        ]
    shared = {chemical_symbols[z] for z in subject.surrogate.elements}
    free = {s: atom for s, atom in free_atoms_to_dict(data.atoms).items() if s in shared}
    if any(subject.surrogate.metadata.atoms.get(s) != atom for s, atom in free.items()):
        notes.append("the free atoms of model and store differ")
    trained_on = dict.fromkeys(subject.surrogate.metadata.dataset_hashes)
    own = [seen for seen in trained_on if data.has_been(seen)]
    notes += [
        f"trained on this store when it had {size} of its {len(data.plan)} structures, in the same parts"
        for size in filter(None, map(data.size_before, own))
        if isinstance(data, Store)
    ]
    if len(own) < len(trained_on):
        other = f"on this {what} and on other data" if own else f"on other data than this {what}"
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
