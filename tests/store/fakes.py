"""Specs that cost nothing, and calculators that only pretend."""

from __future__ import annotations

import builtins
import errno
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qcsurrogate import errors
from qcsurrogate.errors import ConvergenceError
from qcsurrogate.reference.atoms import FreeAtoms
from qcsurrogate.reference.record import ReferenceRecord
from qcsurrogate.reference.settings import Method, Targets
from qcsurrogate.sources.kinds import DisplacementSource, Equilibrium
from qcsurrogate.store.spec import DataSpec, RandomSplit
from qcsurrogate.structures import Structure

HYDROGEN = Equilibrium(name="hydrogen", symbols=("H", "H"), positions_angstrom=((0.0, 0.0, 0.0), (0.0, 0.0, 0.74)))
WATER = Equilibrium(
    name="water",
    symbols=("O", "H", "H"),
    positions_angstrom=((0.0, 0.0, 0.1173), (0.0, 0.7572, -0.4692), (0.0, -0.7572, -0.4692)),
)
CHEAP = Method(
    xc="lda",
    basis="sto-3g",
    auxiliary_basis="def2-universal-jfit",
    grid_level=0,
    conv_tol=1e-8,
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


def hungry_third(structure: Structure, *arguments: Any, **options: Any) -> ReferenceRecord:
    """Takes more and more memory for one structure."""
    if structure.name.endswith("_3"):
        taken = [np.ones(2**22)]
        while len(taken) < 200:
            taken.append(np.ones(2**22))
            time.sleep(0.05)
    return pretend(structure, *arguments, **options)


def endless_third(structure: Structure, *arguments: Any, **options: Any) -> ReferenceRecord:
    """Does not come back for one structure, and does not look at its time limit."""
    if structure.name.endswith("_3"):
        time.sleep(1000)
    return pretend(structure, *arguments, **options)


def not_finite(structure: Structure, *arguments: Any, **options: Any) -> ReferenceRecord:
    """A record with a hole in it."""
    record = pretend(structure, *arguments, **options)
    record.hamiltonian[0, 0] = np.nan
    return record


def full_scratch(structure: Structure, *arguments: Any, **options: Any) -> ReferenceRecord:
    """A calculation that finds no room for its temporary files."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/scratch/tmp0")


@dataclass(frozen=True)
class Failing:
    """A calculator that fails for one structure, and writes each time into a log that it did.

    Attributes:
        kind: name of the exception.
        name: of the structure.
        log: path of a file.
        times: how often it fails; afterwards it succeeds.
        say: ``name`` logs the name alone, ``memory`` what memory it was given too.
    """

    kind: str
    name: str
    log: str
    times: int = 1000
    say: str = "name"

    def __call__(self, structure: Structure, *arguments: Any, **options: Any) -> ReferenceRecord:
        if structure.name == self.name:
            log = Path(self.log)
            lines = log.read_text().splitlines() if log.exists() else []
            if len(lines) < self.times:
                lines.append(self.name if self.say == "name" else f"{self.name} {options['max_memory_mb']}")
                log.write_text("\n".join(lines) + "\n")
                kind = getattr(errors, self.kind, None) or getattr(builtins, self.kind)
                raise kind(f"structure '{self.name}' failed on purpose")
        return pretend(structure, *arguments, **options)
