"""QCSchema: one ``AtomicResult`` (``qcschema_output``, version 1) per record, as JSON.

The field names are those of MolSSI's QCSchema as QCElemental defines them; everything is
in atomic units.  Matrices are in the order of the Common Component Architecture that
QCSchema's wavefunctions use: inside a shell m = -l..l, p shells included, which is this
package's internal order.  ``scf_density_a`` and ``scf_fock_a`` are those of one spin: in
a restricted record half the density matrix, and the Fock matrix.  What QCSchema has no
field for is under ``extras["qcsurrogate"]``, matrices there in the same order.

PySCF takes contraction coefficients for normalised primitives, as QCSchema does.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from qcsurrogate.basis import BasisSet
from qcsurrogate.reference.record import FIELD, ReferenceRecord
from qcsurrogate.store.export import exported_keys, text_in_place_of
from qcsurrogate.store.progress import counted
from qcsurrogate.store.spec import SplitName
from qcsurrogate.store.store import Store

_EXTRA_MATRICES = ("overlap",)
_EXTRA_VALUES = (
    "density_coefficients",
    "density_coefficients_unprojected",
    "spin_density_coefficients",
    "spin_density_coefficients_unprojected",
    "spin_square",
    "ladder_step",
    "stability",
    "wall_time",
)


def export_qcschema(
    store: Store, path: str | Path, split: SplitName | None = None, *, quiet: bool = False
) -> list[Path]:
    """Write records as QCSchema; returns the files.

    A path that ends in ``.jsonl`` is one file with a line per record, any other is a
    folder with ``<key>.json`` for each. Every file appears complete or not at all.

    Raises:
        OutputError: if there is nothing to write, or it cannot be written.
        StoreError: if a record is damaged.
    """
    path = Path(path)
    keys = exported_keys(store, split)
    basis = store.spec.method.orbital_basis(store.plan.elements)
    records = counted(zip(keys, store.read_many(keys), strict=True), len(keys), "exporting", quiet)
    lines = ((key, _line(atomic_result(store, key, record, basis))) for key, record in records)
    if path.suffix == ".jsonl":
        with text_in_place_of(path) as file:
            file.writelines(line for _, line in lines)
        return [path]
    written = []
    for key, line in lines:
        written.append(path / f"{key}.json")
        with text_in_place_of(written[-1]) as file:
            file.write(line)
    return written


def _line(data: dict[str, Any]) -> str:
    return json.dumps(data, allow_nan=False, separators=(",", ":")) + "\n"


def atomic_result(store: Store, key: str, record: ReferenceRecord, basis: BasisSet) -> dict[str, Any]:
    """One record as QCSchema's ``AtomicResult``."""
    structure, method = record.structure, store.spec.method
    order = basis.internal_order(structure.atomic_numbers)
    provenance = {
        "creator": "PySCF",
        "version": store.header.versions.get("pyscf", ""),
        "routine": f"qcsurrogate {store.header.versions.get('qcsurrogate', '')}".strip(),
    }
    n_beta = (structure.n_electrons - structure.spin) // 2
    properties: dict[str, Any] = {
        "calcinfo_nbasis": record.n_ao,
        "calcinfo_nmo": len(record.mo_energy),
        "calcinfo_nalpha": n_beta + structure.spin,
        "calcinfo_nbeta": n_beta,
        "calcinfo_natom": len(structure),
        "nuclear_repulsion_energy": _nuclear_repulsion(record),
        "return_energy": record.energy,
        "scf_total_energy": record.energy,
        "scf_dipole_moment": record.dipole.tolist(),
        "scf_iterations": record.cycles,
    }
    if record.forces is not None:
        gradient = (-record.forces).reshape(-1).tolist()
        properties |= {"return_gradient": gradient, "scf_total_gradient": gradient}
    return {
        "schema_name": "qcschema_output",
        "schema_version": 1,
        "id": key,
        "molecule": {
            "schema_name": "qcschema_molecule",
            "schema_version": 2,
            "name": structure.name or structure.formula,
            "symbols": structure.symbols,
            "geometry": structure.positions.reshape(-1).tolist(),
            "molecular_charge": float(structure.charge),
            "molecular_multiplicity": structure.spin + 1,
            "fix_com": True,
            "fix_orientation": True,
            "provenance": provenance,
        },
        "driver": "energy",
        "model": {"method": method.xc, "basis": method.basis},
        "keywords": method.model_dump(mode="json"),
        "protocols": {"wavefunction": "all"},
        "properties": properties,
        "wavefunction": _wavefunction(record, basis, order),
        "return_result": record.energy,
        "success": True,
        "error": None,
        "provenance": provenance,
        "extras": {"qcsurrogate": _extras(store, key, record, order)},
    }


def _nuclear_repulsion(record: ReferenceRecord) -> float:
    numbers, positions = record.structure.atomic_numbers, record.structure.positions
    i, j = np.triu_indices(len(numbers), 1)
    return float((numbers[i] * numbers[j] / np.linalg.norm(positions[i] - positions[j], axis=-1)).sum())


def _wavefunction(record: ReferenceRecord, basis: BasisSet, order: NDArray[np.int64]) -> dict[str, Any]:
    share = 1.0 if record.unrestricted else 0.5  # of the electrons of an orbital that is occupied twice
    wavefunction: dict[str, Any] = {
        "basis": qcschema_basis(basis, record.structure.atomic_numbers),
        "restricted": not record.unrestricted,
    }
    spins = [("a", record.hamiltonian_alpha, record.density_matrix_alpha, record.mo_energy, share * record.mo_occ)]
    if record.mo_energy_beta is not None and record.mo_occ_beta is not None:
        beta = record.hamiltonian_beta, record.density_matrix_beta, record.mo_energy_beta, record.mo_occ_beta
        spins.append(("b", *beta))
    for spin, fock, density, energies, occupations in spins:
        wavefunction |= {
            f"scf_fock_{spin}": _flat(fock, order),
            f"scf_density_{spin}": _flat(density, order),
            f"scf_eigenvalues_{spin}": energies.tolist(),
            f"scf_occupations_{spin}": occupations.tolist(),
            **{f"{name}_{spin}": f"scf_{name}_{spin}" for name in ("fock", "density", "eigenvalues", "occupations")},
        }
        if record.core_hamiltonian is not None:
            wavefunction[f"h_core_{spin}"] = _flat(record.core_hamiltonian, order)
    return wavefunction


def _flat(matrix: NDArray[np.float64], order: NDArray[np.int64]) -> list[float]:
    """A symmetric matrix in CCA order, flat; rows or columns first is the same."""
    flat: list[float] = matrix[np.ix_(order, order)].reshape(-1).tolist()
    return flat


def qcschema_basis(basis: BasisSet, atomic_numbers: Sequence[int] | NDArray[np.int64]) -> dict[str, Any]:
    """A basis as QCSchema's ``BasisSet``, shells in the order of the matrices."""
    centers = {}
    for z in sorted({int(z) for z in atomic_numbers}):
        shells = []
        for group in basis[z].groups:
            columns = np.array(group.primitives).T
            shells += [
                {
                    "angular_momentum": [group.l],
                    "harmonic_type": "spherical",
                    "exponents": columns[0].tolist(),
                    "coefficients": [column.tolist()],
                }
                for column in columns[1:]
            ]
        centers[chemical_symbols[z]] = {"electron_shells": shells}
    return {
        "schema_name": "qcschema_basis",
        "schema_version": 1,
        "name": basis.name,
        "center_data": centers,
        "atom_map": [chemical_symbols[int(z)] for z in atomic_numbers],
        "nbf": basis.n_functions(atomic_numbers),
    }


def _extras(store: Store, key: str, record: ReferenceRecord, order: NDArray[np.int64]) -> dict[str, Any]:
    extras: dict[str, Any] = {
        "split": store.split_of(key),
        "dataset": store.spec.name,
        **{key: said for key in ("licence", "citation") if (said := getattr(store.spec, key))},
        "ao_order": "CCA: m = -l..l in every shell",
    }
    for name in _EXTRA_MATRICES:
        matrix = record.value(name)
        if matrix is not None:
            extras[name] = _flat(np.asarray(matrix), order)
    for name in _EXTRA_VALUES:
        value = record.value(name)
        if value is not None:
            extras[name] = np.asarray(value).tolist()
    extras["units"] = {name: FIELD[name].units for name in extras if name in FIELD}
    return extras
