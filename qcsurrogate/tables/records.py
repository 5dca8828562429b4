"""The labels that a store's references hold beside matrices and densities."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from qcsurrogate.density.densities import OrbitalDensity
from qcsurrogate.density.moments import Moments, charge_moments
from qcsurrogate.reference.atoms import FreeAtoms
from qcsurrogate.reference.kohn_sham import build_molecule
from qcsurrogate.reference.record import ReferenceRecord
from qcsurrogate.reference.settings import Method
from qcsurrogate.store.spec import DataSpec, SplitName
from qcsurrogate.store.store import Store
from qcsurrogate.structures import Structure
from qcsurrogate.tables.sets import Array, LabelledSet, Target
from qcsurrogate.tables.table import Table


@dataclass(frozen=True)
class RecordTarget:
    """A target, and how it follows from a record.

    Attributes:
        of: from a record and the method of its store to an array as of
            :meth:`qcsurrogate.tables.sets.LabelledSet.labels`.
        stored: whether it is stored as it is, once for every record.
    """

    target: Target
    of: Callable[[ReferenceRecord, Method], Array]
    stored: bool = False


def _orbital(record: ReferenceRecord, *, occupied: bool) -> float:
    """The highest occupied or lowest unoccupied orbital energy of either spin."""
    spins = [(record.mo_energy, record.mo_occ)]
    if record.mo_energy_beta is not None and record.mo_occ_beta is not None:
        spins.append((record.mo_energy_beta, record.mo_occ_beta))
    energies = np.concatenate([energy[(occupations > 0) == occupied] for energy, occupations in spins])
    if not len(energies):
        return float("nan")
    return float(energies.max() if occupied else energies.min())


def _gap(record: ReferenceRecord, method: Method) -> Array:
    return np.array(_orbital(record, occupied=False) - _orbital(record, occupied=True))


def _moments(record: ReferenceRecord, method: Method) -> Moments:
    return OrbitalDensity(build_molecule(record.structure, method), record.density_matrix).moments()


def _extent(record: ReferenceRecord, method: Method) -> Array:
    """<r^2> of the electrons about the centre of nuclear charge, which is Gaussian's origin and so QM9's."""
    moments, structure = _moments(record, method), record.structure
    centre = np.average(structure.positions, axis=0, weights=structure.atomic_numbers)
    about = np.trace(moments.second) - 2.0 * centre @ moments.first + moments.count * centre @ centre
    return np.array(about)


def _mulliken(record: ReferenceRecord, method: Method) -> Array:
    """Z_A less the sum over its functions of (D S)_mm (Mulliken, J. Chem. Phys. 1955, 23, 1833)."""
    populations = np.einsum("ij,ji->i", record.density_matrix, record.overlap)
    structure = record.structure
    basis = method.orbital_basis({int(z) for z in structure.atomic_numbers})
    starts = basis.offsets(structure.atomic_numbers)[:-1]
    return np.asarray(structure.atomic_numbers - np.add.reduceat(populations, starts))


def _forces(record: ReferenceRecord, method: Method) -> Array:
    return np.asarray(record.forces, dtype=np.float64)


RECORD_TARGETS: Final[Mapping[str, RecordTarget]] = {
    entry.target.name: entry
    for entry in (
        RecordTarget(
            Target("energy", "hartree", "total Kohn-Sham energy", extensive=True, shown="eV"),
            lambda record, method: np.array(record.energy),
            stored=True,
        ),
        RecordTarget(
            Target("homo", "hartree", "energy of the highest occupied orbital", shown="eV"),
            lambda record, method: np.array(_orbital(record, occupied=True)),
        ),
        RecordTarget(
            Target("lumo", "hartree", "energy of the lowest unoccupied orbital", shown="eV"),
            lambda record, method: np.array(_orbital(record, occupied=False)),
        ),
        RecordTarget(Target("gap", "hartree", "lumo - homo", shown="eV"), _gap),
        RecordTarget(
            Target("dipole", "e bohr", "dipole moment about (0, 0, 0), from minus to plus", rank="vector"),
            lambda record, method: record.dipole,
            stored=True,
        ),
        RecordTarget(
            Target("mu", "e bohr", "norm of the dipole moment", rank="vector", norm_only=True),
            lambda record, method: np.array(np.linalg.norm(record.dipole)),
        ),
        RecordTarget(
            Target(
                "quadrupole", "e bohr^2", "traceless quadrupole (Buckingham), centre of nuclear charge", rank="tensor"
            ),
            lambda record, method: charge_moments(record.structure, _moments(record, method)).quadrupole,
        ),
        RecordTarget(
            Target("r2", "bohr^2", "<r^2> of the electrons about the centre of nuclear charge", extensive=True),
            _extent,
        ),
        RecordTarget(Target("mulliken_charges", "e", "Mulliken charges of the atoms", per_atom=True), _mulliken),
        RecordTarget(
            Target("forces", "hartree/bohr", "minus the energy gradient", rank="vector", per_atom=True), _forces
        ),
    )
}
"""By name."""


@dataclass(frozen=True, eq=False)
class StoreLabels:
    """A store as a :class:`qcsurrogate.tables.sets.LabelledSet`."""

    store: Store

    @property
    def path(self) -> Path:
        """Its folder."""
        return self.store.path

    @property
    def spec(self) -> DataSpec:
        """The spec it was generated from."""
        return self.store.spec

    @property
    def atoms(self) -> FreeAtoms:
        """Free atoms of all its elements."""
        return self.store.atoms

    def keys(self, split: SplitName | None = None) -> list[str]:
        """Keys of the complete records."""
        return self.store.keys(split)

    def structure(self, key: str) -> Structure:
        """The structure of a key."""
        return self.store.structure(key)

    def training_on(self, keys: Iterable[str]) -> StoreLabels:
        """The same as if of its training split only these records were complete."""
        return StoreLabels(self.store.training_on(keys))

    def dataset_hash(self) -> str:
        """That of the store."""
        return self.store.dataset_hash()

    def has_been(self, dataset_hash: str) -> bool:
        """Whether the store has this hash, or had it before it grew."""
        return self.store.has_been(dataset_hash)

    def size_before(self, dataset_hash: str) -> int | None:
        """How many structures the store had when it had this hash."""
        return self.store.size_before(dataset_hash)

    @property
    def targets(self) -> dict[str, Target]:
        """What its records hold."""
        known = {name: entry.target for name, entry in RECORD_TARGETS.items()}
        return known if self.store.spec.targets.forces else {n: t for n, t in known.items() if n != "forces"}

    def labels(self, names: Sequence[str], keys: Sequence[str]) -> dict[str, list[Array]]:
        """See :class:`qcsurrogate.tables.sets.LabelledSet`."""
        entries = [RECORD_TARGETS[name] for name in names]
        if all(entry.stored for entry in entries):
            rows = {key: row for row, key in enumerate(self.store.keys())}
            columns = self.store.scalars(names)
            return {name: [np.asarray(columns[name][rows[key]], dtype=np.float64) for key in keys] for name in names}
        found: dict[str, list[Array]] = {name: [] for name in names}
        for record in self.store.read_many(keys):
            for entry in entries:
                found[entry.target.name].append(entry.of(record, self.store.spec.method))
        return found


def labelled(data: Store | Table) -> LabelledSet:
    """The labels of a store or a table behind one interface."""
    return StoreLabels(data) if isinstance(data, Store) else data
