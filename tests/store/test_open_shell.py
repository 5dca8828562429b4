"""Unrestricted records in a store, and keys that new settings leave alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qcsurrogate.errors import RecordError
from qcsurrogate.reference.atoms import free_atoms
from qcsurrogate.reference.compute import check_record, compute_reference
from qcsurrogate.reference.record import FIELD, FIELDS, OPEN_SHELL_FIELDS
from qcsurrogate.reference.settings import EvenTempered, Method, Targets
from qcsurrogate.sources.kinds import DisplacementSource, Equilibrium
from qcsurrogate.store.plan import make_plan
from qcsurrogate.store.shards import read_records, stored_fields, write_records
from qcsurrogate.store.spec import DataSpec, RandomSplit
from qcsurrogate.structures import Structure
from tests.store import fakes

OPEN_SHELL = fakes.CHEAP.model_copy(update={"spin_treatment": "unrestricted", "spin": 1})
HYDROXYL = Equilibrium(name="hydroxyl", symbols=("O", "H"), positions_angstrom=((0.0, 0.0, 0.0), (0.2, 0.3, 0.9)))


def open_shell_spec(method: Method = OPEN_SHELL, targets: Targets | None = None) -> DataSpec:
    source = DisplacementSource(kind="displacement", equilibrium=HYDROXYL, sigma_angstrom=0.05, count=3, seed=2)
    split = RandomSplit(kind="random", train=1, validation=1, test=1)
    return fakes.spec(structures=source, method=method, targets=targets or Targets(forces=True), split=split)


def test_unrestricted_records_come_back_as_they_were(tmp_path: Path) -> None:
    spec = open_shell_spec()
    plan = make_plan(spec)[0]
    atoms = free_atoms([1, 8], spec.method)
    keys = tuple(plan.keys)
    records = [
        (key, compute_reference(plan.structures[i], spec.method, spec.targets, atoms)) for i, key in enumerate(keys)
    ]
    digest = write_records(tmp_path / "records.h5", records, plan, spec)
    file = read_records(tmp_path / "records.h5", keys, plan, spec, digest)
    names = {field.name for field in stored_fields(spec)}
    assert {*OPEN_SHELL_FIELDS, "spin_density_coefficients", "stability"} < names
    for key, expected in records:
        found = file.record(key)
        check_record(found)
        assert found.structure.spin == 1
        assert found.unrestricted
        for name in sorted(names):
            value, reference = np.asarray(found.value(name)), np.asarray(expected.value(name))
            np.testing.assert_allclose(value, reference, rtol=0, atol=1e-14, err_msg=name)


def test_singlets_and_radicals_share_an_unrestricted_store() -> None:
    """A plan takes any charge and spin, a restricted one closed shells only (see the tests of generation)."""
    method = fakes.CHEAP.model_copy(update={"spin_treatment": "unrestricted", "charge": 1, "spin": 1})
    assert {s.spin for s in make_plan(fakes.spec(method=method))[0].structures} == {1}


def test_a_restricted_record_does_not_fit_an_unrestricted_store(tmp_path: Path) -> None:
    spec = fakes.spec(3, split=RandomSplit(kind="random", train=1, validation=1, test=1))
    plan = make_plan(spec)[0]
    key = plan.keys[0]
    record = compute_reference(plan.structures[0], spec.method, spec.targets, free_atoms([1], spec.method))
    unrestricted = spec.model_copy(update={"method": spec.method.model_copy(update={"spin_treatment": "unrestricted"})})
    with pytest.raises(RecordError, match="the record has no spin_hamiltonian"):
        write_records(tmp_path / "records.h5", [(key, record)], plan, unrestricted)


def test_a_restricted_store_holds_what_it_always_held() -> None:
    """The fields of the first version: anything more would make old stores unreadable."""
    later = {*OPEN_SHELL_FIELDS, "spin_density_coefficients", "spin_density_coefficients_unprojected"}
    everything = Targets(density_coefficients=True, core_hamiltonian=True, forces=True)
    names = {field.name for field in stored_fields(fakes.spec(targets=everything))}
    assert names == set(FIELD) - later - {"stability", "on_gpu"}
    assert [f.name for f in stored_fields(fakes.spec())] == [
        f.name for f in FIELDS if f.name in names - {"core_hamiltonian", "forces"}
    ]


@pytest.mark.parametrize(
    ("changes", "field"),
    [({"stability": True}, "stability"), ({"search": "lowest"}, "stability"), ({"backend": "gpu4pyscf"}, "on_gpu")],
)
def test_what_was_examined_and_where_is_stored_where_it_can_differ(changes: dict[str, object], field: str) -> None:
    method = fakes.CHEAP.model_copy(update=changes)
    assert field in {f.name for f in stored_fields(fakes.spec(method=method))}


def test_keys_know_what_is_computed_not_where() -> None:
    structure = Structure([1, 1], [[0, 0, 0], [0, 0, 1.4]])

    def key(**changes: object) -> str:
        return fakes.spec(method=fakes.CHEAP.model_copy(update=changes)).record_key(structure)

    same = [key(), key(backend="gpu4pyscf"), key(allow_cpu_fallback=True), key(search="auto", density_fit=False)]
    assert len(set(same)) == 1
    different = [
        key(spin_treatment="unrestricted"),
        key(density_fit=True),
        key(density_fit="weigend"),
        key(search="lowest"),
        key(search="first"),
        key(stability=True),
        key(conv_tol=1e-9),
        key(auxiliary_basis=EvenTempered(even_tempered_beta=1.8)),
        key(auxiliary_basis=EvenTempered(even_tempered_beta=1.8, diffuse=1)),
        key(auxiliary_basis=EvenTempered(even_tempered_beta=1.8, higher_l=1)),
    ]
    assert len({*same, *different}) == 1 + len(different)


def test_an_auxiliary_basis_to_which_nothing_is_added_is_written_as_it_was() -> None:
    plain = Method(auxiliary_basis=EvenTempered(even_tempered_beta=1.8, diffuse=0))
    assert plain.key_content()["auxiliary_basis"] == {"even_tempered_beta": 1.8}
    added = Method(auxiliary_basis=EvenTempered(even_tempered_beta=1.6, diffuse=2, higher_l=1))
    written = {"even_tempered_beta": 1.6, "diffuse": 2, "higher_l": 1}
    assert added.key_content()["auxiliary_basis"] == added.model_dump(mode="json")["auxiliary_basis"] == written
    assert Method.model_validate_json(added.model_dump_json()) == added


def test_every_setting_has_its_place_in_the_key() -> None:
    """One that was added later enters only where it differs from its default; those of the first version always do."""
    added = {"spin_treatment", "density_fit", "search", "stability", "backend", "allow_cpu_fallback"}
    assert set(Method.model_fields) - set(Method().key_content()) == added
