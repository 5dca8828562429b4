"""Specs that cost nothing, and calculators that only pretend."""

from __future__ import annotations

import errno
import os
import time
from typing import Any

import numpy as np

from qcsurrogate.errors import ConvergenceError
from qcsurrogate.reference.atoms import FreeAtoms
from qcsurrogate.reference.record import ReferenceRecord
from qcsurrogate.reference.settings import Method, Targets
from qcsurrogate.store.sources import DisplacementSource, Equilibrium
from qcsurrogate.store.spec import DataSpec, RandomSplit
from qcsurrogate.structures import Structure

HYDROGEN = Equilibrium(name="hydrogen", symbols=("H", "H"), positions_angstrom=((0.0, 0.0, 0.0), (0.0, 0.0, 0.74)))
CHEAP = Method(
    xc="lda",
    basis="sto-3g",
    auxiliary_basis="def2-universal-jfit",
    grid_level=0,
    conv_tol=1e-8,
    baseline_grid_level=0,
)


def spec(count: int = 10, **changes: Any) -> DataSpec:
    """Displaced hydrogen molecules in the smallest basis; half of them train."""
    values: dict[str, Any] = {
        "name": "hydrogens",
        "structures": DisplacementSource(
            kind="displacement", equilibrium=HYDROGEN, sigma_angstrom=0.02, count=count, seed=1
        ),
        "method": CHEAP,
        "split": RandomSplit(kind="random", train=0.5, validation=0.2, test=0.3),
        "shard_size": 4,
    }
    return DataSpec(**(values | changes))


def pretend(
    structure: Structure,
    method: Method,
    targets: Targets,
    atoms: FreeAtoms,
    *,
    threads: int = 1,
    max_memory_mb: int = 4000,
    seconds: float | None = None,
) -> ReferenceRecord:
    """A record of the right shapes whose numbers depend on the geometry alone."""
    generator = np.random.default_rng(int(structure.key, 16))
    n_ao = method.orbital_basis(structure.atomic_numbers).n_functions(structure.atomic_numbers)
    n_aux = method.density_basis(structure.atomic_numbers).n_functions(structure.atomic_numbers)

    def symmetric() -> np.ndarray:
        matrix = generator.standard_normal((n_ao, n_ao))
        return matrix + matrix.T

    return ReferenceRecord(
        structure=structure,
        overlap=symmetric(),
        hamiltonian=symmetric(),
        density_matrix=symmetric(),
        energy=float(generator.standard_normal()),
        mo_energy=generator.standard_normal(n_ao),
        mo_occ=generator.standard_normal(n_ao),
        dipole=generator.standard_normal(3),
        converged=True,
        cycles=7,
        ladder_step=2,
        wall_time=0.25,
        baseline=symmetric(),
        core_hamiltonian=symmetric(),
        density_coefficients=generator.standard_normal(n_aux),
        density_coefficients_unprojected=generator.standard_normal(n_aux),
        forces=generator.standard_normal((len(structure), 3)),
    )


def slow(structure: Structure, *arguments: Any, **options: Any) -> ReferenceRecord:
    """The same, after a while."""
    time.sleep(0.05)
    return pretend(structure, *arguments, **options)


def unconverged_third(structure: Structure, *arguments: Any, **options: Any) -> ReferenceRecord:
    """Fails for one structure, as an SCF does."""
    if structure.name.endswith("_3"):
        raise ConvergenceError(f"SCF for {structure.label} did not converge")
    return pretend(structure, *arguments, **options)


def deadly_third(structure: Structure, *arguments: Any, **options: Any) -> ReferenceRecord:
    """Takes its process down with it for one structure."""
    if structure.name.endswith("_3"):
        os._exit(1)
    return pretend(structure, *arguments, **options)


def not_finite(structure: Structure, *arguments: Any, **options: Any) -> ReferenceRecord:
    """A record with a hole in it."""
    record = pretend(structure, *arguments, **options)
    record.hamiltonian[0, 0] = np.nan
    return record


def full_scratch(structure: Structure, *arguments: Any, **options: Any) -> ReferenceRecord:
    """A calculation that finds no room for its temporary files."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/scratch/tmp0")
