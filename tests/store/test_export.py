"""Exports come back as they were, through the readers of others where there are some."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ase.io
import numpy as np
import pytest
import scipy.linalg
from pyscf import gto

from qcsurrogate import cli
from qcsurrogate.errors import OutputError, SpecError, StoreError
from qcsurrogate.reference.compute import compute_reference
from qcsurrogate.reference.settings import Method, Targets
from qcsurrogate.sources.kinds import DisplacementSource
from qcsurrogate.sources.readers import read_structures
from qcsurrogate.store.export.extxyz import export_extxyz
from qcsurrogate.store.export.qcschema import atomic_result, export_qcschema
from qcsurrogate.store.export.qh9 import export_qh9, row
from qcsurrogate.store.plan import PlannedStructures
from qcsurrogate.store.spec import DataSpec, RandomSplit
from qcsurrogate.store.store import Store
from qcsurrogate.structures import Structure
from tests.store import fakes
from tests.store.stores import make_store

EV_PER_HARTREE, BOHR = 27.21138602, 0.52917721092
MAGNETIC = {"": 0, "x": 1, "y": -1, "z": 0, "xy": -2, "yz": -1, "z^2": 0, "xz": 1, "x2-y2": 2}
"""m of PySCF's labels of s, p and d functions."""


@pytest.fixture(scope="module")
def waters(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Three water molecules with d functions, forces and core Hamiltonian, by PySCF."""
    spec = DataSpec(
        name="waters",
        structures=DisplacementSource(
            kind="displacement", equilibrium=fakes.WATER, sigma_angstrom=0.05, count=3, seed=1
        ),
        method=Method(
            xc="lda",
            basis="def2-svp",
            auxiliary_basis="def2-universal-jfit",
            grid_level=0,
            conv_tol=1e-8,
            conv_tol_grad=1e-4,
        ),
        targets=Targets(forces=True, core_hamiltonian=True),
        split=RandomSplit(kind="random", train=1, validation=1, test=1),
        licence="CC0-1.0",
    )
    return Store.open(make_store(tmp_path_factory.mktemp("waters") / "store", spec, compute_reference).path)


def rebuilt(data: dict[str, Any]) -> gto.Mole:
    """A PySCF molecule from nothing but the JSON of one result."""
    basis = data["wavefunction"]["basis"]
    shells = {
        symbol: [
            [shell["angular_momentum"][0], *np.transpose([shell["exponents"], *shell["coefficients"]]).tolist()]
            for shell in center["electron_shells"]
        ]
        for symbol, center in basis["center_data"].items()
    }
    molecule = data["molecule"]
    positions = np.reshape(molecule["geometry"], (-1, 3))
    atoms = list(zip(basis["atom_map"], positions.tolist(), strict=True))
    return gto.M(atom=atoms, unit="Bohr", basis=shells, charge=int(molecule["molecular_charge"]), verbose=0)


def cca_order(mol: gto.Mole) -> np.ndarray:
    """PySCF's functions sorted by atom, shell, m, from their labels alone."""
    shell_of = np.concatenate(
        [
            np.repeat(shell * 1000 + np.arange(mol.bas_nctr(shell)), 2 * mol.bas_angular(shell) + 1)
            for shell in range(mol.nbas)
        ]
    )
    m = [MAGNETIC[label] for _, _, _, label in mol.ao_labels(fmt=None)]
    return np.lexsort((m, shell_of))


def square(data: list[float]) -> np.ndarray:
    n = int(np.sqrt(len(data)))
    return np.reshape(data, (n, n))


def test_qcschema_comes_back(waters: Store, tmp_path: Path) -> None:
    (path,) = export_qcschema(waters, tmp_path / "waters.jsonl", quiet=True)
    lines = path.read_text().splitlines()
    assert len(lines) == 3
    for key, line in zip(waters.keys(), lines, strict=True):
        data, record = json.loads(line), waters.read(key)
        wavefunction, extras = data["wavefunction"], data["extras"]["qcsurrogate"]
        mol = rebuilt(data)
        order = cca_order(mol)
        assert sorted(order) == list(range(record.n_ao))
        assert not np.array_equal(order, np.arange(record.n_ao))
        overlap = mol.intor_symmetric("int1e_ovlp")[np.ix_(order, order)]
        np.testing.assert_allclose(square(extras["overlap"]), overlap, atol=1e-12)
        fock, density = square(wavefunction["scf_fock_a"]), square(wavefunction["scf_density_a"])
        core = square(wavefunction["h_core_a"])
        kinetic = (mol.intor_symmetric("int1e_kin") + mol.intor_symmetric("int1e_nuc"))[np.ix_(order, order)]
        np.testing.assert_allclose(core, kinetic, atol=1e-10)
        np.testing.assert_allclose(
            scipy.linalg.eigh(fock, overlap, eigvals_only=True),
            scipy.linalg.eigh(record.hamiltonian, record.overlap, eigvals_only=True),
            atol=1e-10,
        )
        back = np.argsort(order)
        np.testing.assert_allclose(fock[np.ix_(back, back)], record.hamiltonian, atol=1e-12)
        np.testing.assert_allclose(2 * density[np.ix_(back, back)], record.density_matrix, atol=1e-12)
        assert np.einsum("ij,ji->", density, overlap) == pytest.approx(5, abs=1e-8)
        assert data["properties"]["calcinfo_nalpha"] == data["properties"]["calcinfo_nbeta"] == 5
        assert wavefunction["scf_occupations_a"] == [1.0] * 5 + [0.0] * 19
        assert data["return_result"] == data["properties"]["scf_total_energy"] == record.energy
        assert data["properties"]["nuclear_repulsion_energy"] == pytest.approx(mol.energy_nuc(), abs=1e-10)
        gradient = np.reshape(data["properties"]["return_gradient"], (-1, 3))
        np.testing.assert_array_equal(gradient, -record.forces)
        assert extras["split"] == waters.split_of(key)
        assert extras["licence"] == "CC0-1.0"
        assert "citation" not in extras  # none is stated
        assert extras["units"]["density_coefficients"] == "e bohr^-1.5"


FIELDS = {
    "": "driver error extras id keywords model molecule properties protocols provenance return_result schema_name "
    "schema_version success wavefunction",
    "molecule": "fix_com fix_orientation geometry molecular_charge molecular_multiplicity name provenance schema_name "
    "schema_version symbols",
    "properties": "calcinfo_nalpha calcinfo_natom calcinfo_nbasis calcinfo_nbeta calcinfo_nmo nuclear_repulsion_energy "
    "return_energy return_gradient scf_dipole_moment scf_iterations scf_total_energy scf_total_gradient",
    "wavefunction": "basis density_a eigenvalues_a fock_a h_core_a occupations_a restricted scf_density_a "
    "scf_eigenvalues_a scf_fock_a scf_occupations_a",
}
"""Fields of QCSchema that we use, as QCElemental 0.51 takes them (it refuses others)."""


def test_qcschema_has_the_fields_of_the_schema_and_no_others(waters: Store) -> None:
    key = waters.keys()[0]
    basis = waters.spec.method.orbital_basis(waters.plan.elements)
    data = atomic_result(waters, key, waters.read(key), basis)
    for part, names in FIELDS.items():
        assert sorted(data[part] if part else data) == names.split(), part
    assert (data["schema_name"], data["schema_version"]) == ("qcschema_output", 1)
    assert sorted(data["molecule"]["provenance"]) == ["creator", "routine", "version"]


def test_qcschema_of_open_shells_has_both_spins(waters: Store) -> None:
    record = waters.read(waters.keys()[0])
    generator = np.random.default_rng(0)
    spin = [m + m.T for m in generator.normal(size=(2, 24, 24))]
    opened = replace(
        record,
        structure=replace(record.structure, spin=2),
        spin_hamiltonian=spin[0],
        spin_density_matrix=spin[1],
        mo_energy_beta=record.mo_energy + 0.1,
        mo_occ=np.array([1.0] * 6 + [0.0] * 18),
        mo_occ_beta=np.array([1.0] * 4 + [0.0] * 20),
        spin_square=2.01,
    )
    basis = waters.spec.method.orbital_basis(waters.plan.elements)
    data = atomic_result(waters, waters.keys()[0], opened, basis)
    wavefunction = data["wavefunction"]
    assert wavefunction["restricted"] is False
    assert data["molecule"]["molecular_multiplicity"] == 3
    assert (data["properties"]["calcinfo_nalpha"], data["properties"]["calcinfo_nbeta"]) == (6, 4)
    assert (sum(wavefunction["scf_occupations_a"]), sum(wavefunction["scf_occupations_b"])) == (6, 4)
    back = np.argsort(cca_order(rebuilt(data)))
    fock_a, fock_b = (square(wavefunction[f"scf_fock_{s}"])[np.ix_(back, back)] for s in "ab")
    np.testing.assert_allclose(fock_a - fock_b, 2 * spin[0], atol=1e-12)
    density_a, density_b = (square(wavefunction[f"scf_density_{s}"])[np.ix_(back, back)] for s in "ab")
    np.testing.assert_allclose(density_a + density_b, record.density_matrix, atol=1e-12)
    np.testing.assert_allclose(density_a - density_b, spin[1], atol=1e-12)
    with pytest.raises(SpecError, match="is unrestricted: use qcschema"):
        row(0, opened)


def test_qcschema_one_file_per_record(waters: Store, tmp_path: Path) -> None:
    written = export_qcschema(waters, tmp_path / "folder", "test", quiet=True)
    (key,) = waters.keys("test")
    assert written == [tmp_path / "folder" / f"{key}.json"]
    assert json.loads(written[0].read_text())["id"] == key


def test_extxyz_as_ase_reads_it(waters: Store, tmp_path: Path) -> None:
    (path,) = export_extxyz(waters, tmp_path / "waters.extxyz", quiet=True)
    frames = ase.io.read(path, ":")
    assert len(frames) == 3
    for key, atoms in zip(waters.keys(), frames, strict=True):
        record = waters.read(key)
        assert atoms.numbers.tolist() == record.structure.atomic_numbers.tolist()
        np.testing.assert_allclose(
            atoms.positions, record.structure.positions * BOHR, atol=1e-8
        )  # digits of the format
        assert atoms.get_potential_energy() == pytest.approx(record.energy * EV_PER_HARTREE, rel=1e-12)
        np.testing.assert_allclose(atoms.get_dipole_moment(), record.dipole * BOHR, atol=1e-12)
        np.testing.assert_allclose(atoms.get_forces(), record.forces * EV_PER_HARTREE / BOHR, atol=1e-8)
        info = {name: atoms.info[name] for name in ("charge", "spin", "name", "key", "split")}
        assert info == {
            "charge": 0,
            "spin": 0,
            "name": record.structure.name,
            "key": key,
            "split": waters.split_of(key),
        }
        assert not atoms.pbc.any()
        method = waters.spec.method
        assert (atoms.info["multiplicity"], atoms.info["xc"], atoms.info["basis"]) == (1, method.xc, method.basis)
    back = [(s.charge, s.spin, s.name) for s in read_structures(path)]
    assert back == [(0, 0, s.name) for s in map(waters.structure, waters.keys())]


def test_qh9_as_its_readers_read_it(waters: Store, tmp_path: Path) -> None:
    path, splits = export_qh9(waters, tmp_path / "QH9Stable.db", quiet=True)
    with closing(sqlite3.connect(path)) as database:
        rows = database.execute("select * from data").fetchall()
        columns = [entry[1:3] for entry in database.execute("pragma table_info(data)")]
    assert columns == [("id", "INTEGER"), ("N", "INTEGER"), ("Z", "BLOB"), ("pos", "BLOB"), ("Ham", "BLOB")]
    assert [entry[0] for entry in rows] == [0, 1, 2]
    for key, (_, n, numbers, positions, hamiltonian) in zip(waters.keys(), rows, strict=True):
        record = waters.read(key)
        atoms = np.frombuffer(numbers, np.int32)
        assert atoms.tolist() == [8, 1, 1]
        where = np.frombuffer(positions, np.float64).reshape(n, 3)
        n_ao = sum(5 if z <= 2 else 14 for z in atoms)  # how a reader knows the size
        matrix = np.frombuffer(hamiltonian, np.float64).reshape(n_ao, n_ao)
        np.testing.assert_array_equal(matrix, record.hamiltonian)
        # a reader's overlap is PySCF's, in Angstrom, by its own name of the basis
        mol = gto.M(atom=list(zip(atoms.tolist(), where.tolist(), strict=True)), basis="def2svp", unit="ang", verbose=0)
        energies = scipy.linalg.eigh(matrix, mol.intor("int1e_ovlp"), eigvals_only=True)
        np.testing.assert_allclose(energies, record.mo_energy, atol=1e-8)
        # and its conversion takes p from (x, y, z) to (y, z, x) without a sign: l >= 2 stays
        labels = mol.ao_labels(fmt=None)
        shells = "sssppd" + "ssp" * 2
        starts = np.cumsum([0, *({"s": 1, "p": 3, "d": 5}[s] for s in shells)])
        converted = [
            int(start) + k
            for start, s in zip(starts, shells, strict=False)
            for k in {"s": [0], "p": [1, 2, 0], "d": [0, 1, 2, 3, 4]}[s]
        ]
        assert [MAGNETIC[labels[i][3]] for i in converted[3:9]] == [-1, 0, 1] * 2
        assert np.array_equal(converted, cca_order(mol))
    assert {name: len(ids) for name, ids in json.loads(splits.read_text()).items()} == {
        "train": 1,
        "validation": 1,
        "test": 1,
    }


def test_what_qh9_cannot_hold_is_refused(tmp_path: Path) -> None:
    store = Store.open(make_store(tmp_path / "store", fakes.spec(5)).path)
    with pytest.raises(SpecError, match=r"QH9's readers know the basis def2-SVP; .* has 'sto-3g'"):
        export_qh9(store, tmp_path / "a.db")
    assert not (tmp_path / "a.db").exists()


def test_qh9_refuses_charges_that_its_readers_would_take_for_zero() -> None:
    structures = [Structure(np.array([8, 1]), np.array([[0, 0, 0], [0, 0, 1.8]]), -1, 0, "hydroxide")]
    plan = SimpleNamespace(elements=(1, 8), structures=PlannedStructures.of(structures))
    store: Any = SimpleNamespace(spec=fakes.spec(method=Method(xc="b3lyp", basis="def2-svp")), plan=plan, path="ions")
    words = r"has no place for charges.*'ions' holds 1 charged ones, the first 'hydroxide' with -1: use qcschema"
    with pytest.raises(SpecError, match=words):
        export_qh9(store, "a.db")


def test_nothing_and_half_of_it_is_not_written(tmp_path: Path) -> None:
    path = make_store(tmp_path / "store", fakes.spec(10, shard_size=2), rows=range(4)).path
    store = Store.open(path)
    empty = next(split for split in ("train", "validation", "test") if not store.keys(split))
    with pytest.raises(OutputError, match=f"holds no complete record in the split '{empty}'"):
        export_extxyz(store, tmp_path / "a.extxyz", empty)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        export_qcschema(store, tmp_path / "file" / "a.jsonl", quiet=True)
    shard = sorted((path / "shards").glob("*.h5"))[1]
    shard.write_bytes(shard.read_bytes()[:-1])
    for export, name in ((export_extxyz, "a.extxyz"), (export_qcschema, "a.jsonl")):
        (tmp_path / name).write_text("before")
        with pytest.raises(StoreError, match=shard.name):
            export(store, tmp_path / name, quiet=True)
        assert (tmp_path / name).read_text() == "before"
    assert not list(tmp_path.glob("*.tmp"))


def test_the_command(waters: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kind, name in (("qcschema", "a.jsonl"), ("extxyz", "a.extxyz"), ("qh9", "a.db")):
        out = str(tmp_path / name)
        assert cli.main(["export", str(waters.path), "--format", kind, "--out", out, "--split", "train"]) == 0
        assert f"1 records as {kind}: {out}" in capsys.readouterr().out
    assert cli.main(["export", str(waters.path), "--format", "qh9", "--out", out, "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)["records"] == 3
