"""Reads a file of predictions as someone without qcsurrogate would: JSON, NumPy, h5py and PySCF.

``python outside.py FILE POINTS.npy RESULTS.npz``; the package cannot be imported.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.modules["qcsurrogate"] = None

import h5py  # noqa: E402
import numpy as np  # noqa: E402
from pyscf import gto  # noqa: E402
from scipy.linalg import eigh  # noqa: E402

source, points_file, target = map(Path, sys.argv[1:])
points = np.load(points_file)
file = np.load(source) if source.suffix == ".npz" else h5py.File(source)
header = json.loads(file["header"][()])
results = {}
for i, _ in enumerate(header["structures"]):
    key = f"{i:06d}"

    def mol(basis, key=key):
        numbers, positions = file[f"{key}/atomic_numbers"][()].tolist(), file[f"{key}/positions"][()].tolist()
        charge, spin = int(file[f"{key}/charge"][()]), int(file[f"{key}/spin"][()])
        atoms = list(zip(numbers, positions, strict=True))
        return gto.M(atom=atoms, unit="Bohr", basis=header[basis]["elements"], charge=charge, spin=spin, verbose=0)

    if "density_basis" in header:
        functions, coefficients = mol("density_basis"), file[f"{key}/density_coefficients"][()]
        results[f"{i}/density"] = functions.eval_gto("GTOval_sph", points) @ coefficients
        flat = gto.M(atom="He", basis={"He": [[0, [1e-20, 1.0]]]}, verbose=0)  # one everywhere, but for its norm
        integrals = gto.intor_cross("int1e_ovlp", functions, flat)[:, 0] / (2e-20 / np.pi) ** 0.75
        results[f"{i}/electron_count"] = integrals @ coefficients
        results[f"{i}/free_atoms"] = sum(
            np.exp(-np.sum((points - r) ** 2, axis=1)[:, None] * np.array(atom["exponents"])) @ atom["coefficients"]
            for atom_symbol, r in functions._atom
            for atom in [header["free_atoms"][atom_symbol]]
        )
    else:
        orbitals = mol("orbital_basis")
        overlap = orbitals.intor("int1e_ovlp")
        results[f"{i}/overlap"] = overlap
        results[f"{i}/mo_energy"] = eigh(file[f"{key}/hamiltonian"][()], overlap, eigvals_only=True)
np.savez(target, **results)
