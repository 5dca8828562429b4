"""How small can a density model's error become: what the fit of exact densities leaves over, for some auxiliary bases.

    python tests/benchmarks/auxiliary_floors.py STORE [BASIS ...] --molecules 5 --grid-level 1

Densities come from the density matrices of a store, so nothing is computed by an SCF.  A BASIS is written as
``method.auxiliary_basis`` in a spec, in YAML: ``def2-universal-jkfit`` or ``'{even_tempered_beta: 1.6, diffuse: 1}'``.
Printed are the density error (NMAE, % of the electrons), mean and worst, of the total density and, of unrestricted
stores, of the spin density; functions of a molecule, CPU seconds of a fit, and the largest condition number of the
Coulomb metric over atom-orthonormal functions, before the fit stabilises it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml
from pyscf import dft, lib

from qcsurrogate import Store
from qcsurrogate.basis import BasisSet
from qcsurrogate.comparison.metrics import nmae
from qcsurrogate.density.densities import GaussianDensity, OrbitalDensity
from qcsurrogate.models.uncertainty import spread_over
from qcsurrogate.reference.density_fit import PENALTY, atom_orthonormal_transform, fit_densities, fit_density
from qcsurrogate.reference.record import ReferenceRecord
from qcsurrogate.reference.settings import Method
from qcsurrogate.structures import Structure

BASES = (
    "def2-universal-jfit",
    "def2-universal-jkfit",
    "{even_tempered_beta: 2.0}",
    "{even_tempered_beta: 1.8}",
    "{even_tempered_beta: 1.6}",
    "{even_tempered_beta: 1.5}",
    "{even_tempered_beta: 1.8, diffuse: 1}",
    "{even_tempered_beta: 1.8, higher_l: 1}",
    "{even_tempered_beta: 1.8, diffuse: 1, higher_l: 1}",
    "{even_tempered_beta: 1.6, diffuse: 1, higher_l: 1}",
    "{even_tempered_beta: 1.6, diffuse: 2, higher_l: 1}",
    "{even_tempered_beta: 1.6, diffuse: 1, higher_l: 2}",
    "{even_tempered_beta: 1.6, diffuse: 2, higher_l: 2}",
)


def condition(structure: Structure, basis: BasisSet) -> float:
    aux = basis.build_mol(structure)
    metric = aux.intor("int2c2e_sph", hermi=1)
    transform = atom_orthonormal_transform(aux, metric)
    values = np.linalg.eigvalsh(transform.T @ metric @ transform)
    return float(values[-1] / max(values[0], np.finfo(float).tiny))


def measured(
    record: ReferenceRecord, method: Method, store: Store, grid_level: int, penalty: float
) -> tuple[list[float], float]:
    """NMAE of the total (and the spin) density of one molecule, and seconds of the fit."""
    structure = record.structure
    mol = method.orbital_basis(structure.atomic_numbers).build_mol(structure)
    basis = method.density_basis(structure.atomic_numbers)
    start = time.process_time()
    if record.spin_density_matrix is None:
        matrices = [record.density_matrix]
        fits = [fit_density(mol, basis, record.density_matrix, store.atoms, penalty=penalty)]
    else:
        matrices = [record.density_matrix, record.spin_density_matrix]
        fits = list(fit_densities(mol, basis, matrices[0], matrices[1], store.atoms, penalty=penalty))
    seconds = time.process_time() - start
    grids = dft.gen_grid.Grids(mol)
    grids.level, grids.verbose = grid_level, 0
    grids.build()
    points, weights = np.asarray(grids.coords), np.asarray(grids.weights)
    found = [GaussianDensity.from_fit(structure, basis, fits[0].coefficients, store.atoms)]
    found += [GaussianDensity(basis.build_mol(structure), fit.coefficients) for fit in fits[1:]]
    return [
        nmae(d.on_points(points), OrbitalDensity(mol, m).on_points(points), weights, structure.n_electrons)
        for d, m in zip(found, matrices, strict=True)
    ], seconds


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("bases", nargs="*", default=BASES)
    parser.add_argument("--molecules", type=int, default=5, help="spread over the training split")
    parser.add_argument("--grid-level", type=int, default=1)
    parser.add_argument("--penalty", type=float, default=PENALTY, help="of the fit")
    parser.add_argument("--skip-condition", action="store_true")
    options = parser.parse_intermixed_args(arguments)
    lib.num_threads(1)
    store = Store.open(options.store)
    keys = store.keys("train")
    records = list(store.read_many([keys[i] for i in spread_over(len(keys), options.molecules)]))
    print(
        f"{len(records)} molecules: {', '.join(r.structure.formula for r in records)}; grid level {options.grid_level}"
    )
    print("| basis | NMAE mean / worst | functions | fit | condition |\n|---|---|---|---|---|")
    for name in options.bases:
        changed = {**store.spec.method.model_dump(), "auxiliary_basis": yaml.safe_load(name)}
        method = Method.model_validate(changed)
        results = [measured(r, method, store, options.grid_level, options.penalty) for r in records]
        errors = np.array([e for e, _ in results])
        bases = [method.density_basis(r.structure.atomic_numbers) for r in records]
        count = np.mean([b.n_functions(r.structure.atomic_numbers) for r, b in zip(records, bases, strict=True)])
        worst = "-"
        if not options.skip_condition:
            pairs = zip(records, bases, strict=True)
            worst = f"{max(condition(r.structure, b) for r, b in pairs):.0e}"
        said = "; spin ".join(f"{column.mean():.3f} / {column.max():.3f} %" for column in errors.T)
        print(f"| {name} | {said} | {count:.0f} | {np.mean([s for _, s in results]):.2f} s | {worst} |", flush=True)


if __name__ == "__main__":
    main()
