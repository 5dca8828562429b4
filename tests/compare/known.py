"""Surrogates with known errors on a small store: the network is replaced by the records themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qcsurrogate.basis import BasisSet
from qcsurrogate.comparison.subjects import Curve, Subject
from qcsurrogate.domain import Domain
from qcsurrogate.models.files import ModelMetadata
from qcsurrogate.prediction.uncertainty import Told, Uncertainty
from qcsurrogate.quantities.density.surrogate import DensitySurrogate
from qcsurrogate.quantities.density.uncertainty import FIGURE
from qcsurrogate.quantities.hamiltonian.surrogate import HamiltonianSurrogate
from qcsurrogate.quantities.hamiltonian.uncertainty import FIGURES
from qcsurrogate.reference.atoms import free_atoms_to_dict
from qcsurrogate.reference.orthogonal import StartingPoint
from qcsurrogate.reference.record import ReferenceRecord
from qcsurrogate.reference.settings import Method
from qcsurrogate.store.store import Store
from qcsurrogate.structures import Structure
from tests.models.test_equivariance import flat_potentials

HOSTILE_NAME = '<script>alert("&x")</script><img src=x> $\\frac{1$'
"""What a file may call a molecule: markup, and broken mathematics for matplotlib."""

Array = NDArray[np.float64]
Change = Callable[[ReferenceRecord], Array]
"""What a known model adds to the right answer."""


def nothing(record: ReferenceRecord) -> Array:
    return np.zeros(1)


class Expecting:
    """Expects the same of every block of the molecules it has predicted last."""

    def expect(self, structures: Sequence[Structure], each: float, unit: str, figures: Sequence[str]) -> None:
        shapes = [(len(s), len(s)) if unit == "hartree" else (len(s),) for s in structures]
        rows = dict.fromkeys(figures, (1.0, 0.8, 1.6, 2.4))
        self.told = [Uncertainty(np.full(shape, each), unit, rows) for shape in shapes]

    @contextmanager
    def expecting(self) -> Iterator[Told]:
        yield lambda: list(self.told)


@dataclass
class KnownHamiltonianModel(Expecting):
    """Gives the correction to H0 of the stored matrix, plus a known error."""

    records: dict[str, ReferenceRecord]
    orbital_basis: BasisSet
    change: Change = nothing

    def starting_points(self, structures: Sequence[Structure]) -> list[StartingPoint]:
        potentials = flat_potentials(self.orbital_basis.elements)
        return [StartingPoint.of(structure, self.orbital_basis, potentials) for structure in structures]

    def corrections(self, structures: Sequence[Structure], starts: Sequence[StartingPoint]) -> list[Array]:
        self.expect(structures, 1e-5, "hartree", FIGURES)
        records = [self.records[s.key] for s in structures]
        return [s.correction(r.hamiltonian + self.change(r)) for r, s in zip(records, starts, strict=True)]


@dataclass
class KnownDensityModel(Expecting):
    """Gives the stored coefficients, plus a known error."""

    records: dict[str, ReferenceRecord]
    orbital_basis: BasisSet
    density_basis: BasisSet
    change: Change = nothing

    def coefficients(self, structures: Sequence[Structure]) -> list[Array]:
        self.expect(structures, 0.01, "hartree^0.5", [FIGURE])
        records = [self.records[s.key] for s in structures]
        return [r.density_coefficients + self.change(r) for r in records]


def metadata(kind: str, store: Store, method: Method | None = None) -> ModelMetadata:
    return ModelMetadata(
        kind=kind,
        description={},
        method=method or store.spec.method,
        atoms=free_atoms_to_dict(store.atoms),
        spec={},
        dataset_hash=store.dataset_hash(),
        elements=tuple(sorted(store.atoms)),
        units={},
        training={"steps": 10, "seed": 0, "config": {"learning_rate": 3e-3}},
        metrics={"validation_error": 1.5e-5},
        versions={},
        domain=Domain.fit(map(store.structure, store.keys())),
    )


def records_of(store: Store) -> dict[str, ReferenceRecord]:
    return {r.structure.key: r for r in store.read_many(store.keys())}


def known_hamiltonian(
    store: Store, change: Change = nothing, label: str = "hamiltonian", method: Method | None = None
) -> Subject:
    basis = (method or store.spec.method).orbital_basis(store.atoms)
    model = KnownHamiltonianModel(records_of(store), basis, change)
    return _subject(label, HamiltonianSurrogate(model, metadata("hamiltonian", store, method)))


def known_density(
    store: Store, change: Change = nothing, label: str = "density", method: Method | None = None
) -> Subject:
    used = method or store.spec.method
    model = KnownDensityModel(
        records_of(store), used.orbital_basis(store.atoms), used.density_basis(store.atoms), change
    )
    return _subject(label, DensitySurrogate(model, metadata("density", store, method)))


def _subject(label: str, surrogate: HamiltonianSurrogate | DensitySurrogate) -> Subject:
    seconds = tuple(np.linspace(6.0, 120.0, 12).tolist())
    falling = tuple((0.1 * np.exp(-np.linspace(0, 3, 12))).tolist())
    curves = (Curve("train_loss", seconds, falling), Curve(f"validation_{label}_mae", seconds, falling))
    return Subject(label, surrogate, Path(f"runs/{label}/model.safetensors"), "0" * 64, curves)


def symmetric_noise(size: float, seed: int = 0) -> Change:
    """A random symmetric matrix per record, elements of about ``size``."""

    def change(record: ReferenceRecord) -> Array:
        rng = np.random.default_rng([seed, int(record.structure.key[:8], 16)])
        noise = rng.normal(scale=size, size=record.hamiltonian.shape)
        return (noise + noise.T) / np.sqrt(2)

    return change


def coefficient_noise(size: float) -> Change:
    """Relative noise on every coefficient."""

    def change(record: ReferenceRecord) -> Array:
        rng = np.random.default_rng(int(record.structure.key[:8], 16))
        return size * rng.normal(size=record.density_coefficients.shape) * np.abs(record.density_coefficients)

    return change
