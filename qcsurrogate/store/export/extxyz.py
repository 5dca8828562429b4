"""Extended xyz, as ASE reads it: Angstrom, eV, eV/Angstrom, e Angstrom."""

from __future__ import annotations

from pathlib import Path

import ase.io
import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator

from qcsurrogate.reference.record import ReferenceRecord
from qcsurrogate.store.export import exported_keys, text_in_place_of
from qcsurrogate.store.progress import counted
from qcsurrogate.store.spec import SplitName
from qcsurrogate.store.store import Store
from qcsurrogate.units import ANGSTROM_PER_BOHR, EV_PER_HARTREE


def export_extxyz(store: Store, path: str | Path, split: SplitName | None = None, *, quiet: bool = False) -> list[Path]:
    """Write geometries, energies, dipoles and forces; returns the file.

    Each frame has ``energy``, ``dipole`` and, where the store has them, ``forces`` as
    results of a calculator, and ``charge``, ``spin`` (unpaired electrons),
    ``multiplicity`` (``spin`` + 1, which some readers call spin), ``name``, ``key``,
    ``split``, ``xc`` and ``basis`` in ``atoms.info``.

    Raises:
        OutputError: if there is nothing to write, or it cannot be written.
        StoreError: if a record is damaged.
    """
    path = Path(path)
    keys = exported_keys(store, split)
    records = counted(zip(keys, store.read_many(keys), strict=True), len(keys), "exporting", quiet)
    with text_in_place_of(path) as file:
        for key, record in records:
            ase.io.write(file, frame(store, key, record), format="extxyz")
    return [path]


def frame(store: Store, key: str, record: ReferenceRecord) -> ase.Atoms:
    """One record as ASE's ``Atoms`` with the results of a calculator."""
    atoms = record.structure.to_ase()
    method = store.spec.method
    atoms.info |= {"multiplicity": record.structure.spin + 1, "key": key, "split": store.split_of(key)}
    atoms.info |= {"xc": method.xc, "basis": method.basis}
    results = {"energy": record.energy * EV_PER_HARTREE, "dipole": record.dipole * ANGSTROM_PER_BOHR}
    if record.forces is not None:
        results["forces"] = np.asarray(record.forces) * (EV_PER_HARTREE / ANGSTROM_PER_BOHR)
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms
