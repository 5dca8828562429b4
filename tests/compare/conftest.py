from __future__ import annotations

import pytest

from qcsurrogate.comparison.run import compare_subjects
from qcsurrogate.comparison.schema import Comparison, Settings
from qcsurrogate.comparison.showcase import Showcase
from qcsurrogate.reference.atoms import free_atoms
from qcsurrogate.reference.compute import compute_reference
from qcsurrogate.reference.settings import Method
from qcsurrogate.sources.kinds import DisplacementSource, Equilibrium
from qcsurrogate.store.folder import StoreFolder
from qcsurrogate.store.plan import make_plan
from qcsurrogate.store.shards import write_records
from qcsurrogate.store.spec import DataSpec, RandomSplit
from qcsurrogate.store.store import Store
from tests.compare.known import HOSTILE_NAME, coefficient_noise, known_density, known_hamiltonian, symmetric_noise

METHOD = Method(
    xc="pbe", basis="sto-3g", auxiliary_basis="def2-universal-jfit", grid_level=1, conv_tol=1e-10, conv_tol_grad=1e-6
)

SPEC = DataSpec(
    name="distorted_water",
    structures=DisplacementSource(
        kind="displacement",
        equilibrium=Equilibrium(
            name=HOSTILE_NAME,
            symbols=("O", "H", "H"),
            positions_angstrom=((0.0, 0.0, 0.0), (0.0, 0.76, 0.59), (0.0, -0.76, 0.59)),
        ),
        sigma_angstrom=0.06,
        count=8,
    ),
    method=METHOD,
    split=RandomSplit(kind="random", train=2, validation=1, test=5),
)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Eight distorted water molecules, five of them in the test split, with a name that no one should trust."""
    folder = StoreFolder(tmp_path_factory.mktemp("store"))
    folder.prepare()
    plan, atoms = make_plan(SPEC)[0], free_atoms([1, 8], METHOD)
    folder.write_header(SPEC, plan, atoms)
    for key, structure in zip(plan.keys, plan.structures, strict=True):
        record = compute_reference(structure, METHOD, SPEC.targets, atoms)
        write_records(folder.pending_file(key), [(key, record)], plan, SPEC)
    return Store.open(folder.path)


def settings(**changes: object) -> Settings:
    defaults = {
        "split": "test",
        "limit": None,
        "scf_molecules": 3,
        "density_molecules": 4,
        "seed": 0,
        "threads": 1,
        "density_grid_level": 3,
    }
    return Settings.model_validate(defaults | changes)


@pytest.fixture(scope="session")
def compared(store: Store) -> tuple[Comparison, Showcase]:
    """Both kinds of models, each with a small error."""
    subjects = [known_hamiltonian(store, symmetric_noise(2e-5)), known_density(store, coefficient_noise(5e-3))]
    return compare_subjects(subjects, store, settings(), quiet=True)


@pytest.fixture(scope="session")
def perfect(store: Store) -> tuple[Comparison, Showcase]:
    """The records as their own prediction."""
    return compare_subjects([known_hamiltonian(store), known_density(store)], store, settings(), quiet=True)
