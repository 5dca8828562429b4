"""Every format against the programs that write it."""

from __future__ import annotations

from pathlib import Path

import ase
import ase.db
import ase.io
import numpy as np
import pytest
from ase.build import molecule as ase_molecule
from rdkit import Chem
from rdkit.Chem import rdDistGeom

from qcsurrogate.errors import StructureError
from qcsurrogate.sources.readers import read_geometries, read_structures
from qcsurrogate.structures import Structure
from qcsurrogate.units import ANGSTROM_PER_BOHR
from tests.molecules import FLUOROSULFONAMIDE, WATER
from tests.structure_files.files import METHANE, qm9_text, write_tar

NAMES = ["H2O", "C6H6", "CH3CH2OH", "HCOOH", "SiH4"]


def same(found: Structure, atoms: ase.Atoms, tolerance: float = 1e-8) -> None:
    assert found.symbols == atoms.get_chemical_symbols()
    np.testing.assert_allclose(found.positions * ANGSTROM_PER_BOHR, atoms.positions, rtol=0, atol=tolerance)


@pytest.mark.parametrize(("ending", "style"), [("xyz", "xyz"), ("extxyz", "extxyz"), ("xyz", "extxyz")])
def test_xyz_as_ase_writes_and_reads_it(tmp_path: Path, ending: str, style: str) -> None:
    path = tmp_path / f"all.{ending}"
    written = [ase_molecule(name) for name in NAMES]
    written[0].new_array("forces", np.ones((3, 3)))
    written[0].info = {"comment": "a=b 'c' \"d\"", "energy": -76.0}
    ase.io.write(path, written, format=style)
    found = read_structures(path)
    assert [s.name for s in found] == [f"all_{i}" for i in range(len(NAMES))]
    for structure, atoms in zip(found, ase.io.read(path, ":", format=style), strict=True):
        same(structure, atoms)


def test_extended_xyz_says_charge_spin_name_and_group(tmp_path: Path) -> None:
    path = tmp_path / "ions.xyz"
    nitric = ase.Atoms("NO", [[0, 0, 0], [0, 0, 1.15]], info={"spin": 1, "name": "nitric oxide", "group": "NO"})
    hydroxide = ase.Atoms("OH", [[0, 0, 0], [0, 0, 0.97]], info={"charge": -1, "name": 'a "b"', "group": 7})
    radical = ase.Atoms("OH", [[0, 0, 0], [0, 0, 0.97]], info={"multiplicity": 2, "name": "oh", "group": "x"})
    ase.io.write(path, [nitric, hydroxide, radical], format="extxyz")
    geometries = read_geometries(path)
    found, _ = geometries.structures()
    assert [(s.charge, s.spin, s.name) for s in found] == [(0, 1, "nitric oxide"), (-1, 0, 'a "b"'), (0, 1, "oh")]
    assert geometries.groups == ("NO", "7", "x")


def test_columns_of_extended_xyz_may_stand_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "odd.xyz"
    path.write_text(
        "2\nProperties=id:I:1:pos:R:3:species:S:1 charge=-1.0\n7 0 0 0 O\n8 0 0 0.97 H\n"
        '2\nProperties=Z:I:1:forces:R:3:pos:R:3 pbc="F F F" Lattice="9 0 0 0 9 0 0 0 9"\n'
        "1 5 5 5 0 0 0\n1 5 5 5 0 0 .74\n"
    )
    first, second = read_structures(path)
    assert (first.symbols, first.charge) == (["O", "H"], -1)
    assert second.positions[1, 2] * ANGSTROM_PER_BOHR == pytest.approx(0.74)


def test_plain_xyz_forgives_case_numbers_and_further_columns(tmp_path: Path) -> None:
    path = tmp_path / "plain.xyz"
    path.write_text("3\n\n8 0 0 0 0.1 word\nh 0 0.76 0.59\nH 0 -7.6e-1 0.59\n\n\n1\n\nHE 0 0 0\n\n")
    water, helium = read_structures(path)
    assert (water.symbols, helium.symbols) == (["O", "H", "H"], ["He"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("3\n\nO 0 0 0\nH 0 0 1\n", r"bad\.xyz', line 5: it ends within a structure of 3 atoms"),
        ("1\n\nHe 0 0 0\n2\n\nH 0 0 0\nQq 0 0 1\n", r"line 7: 'Qq' is no chemical symbol"),
        ("2\n\nD 0 0 0\nH 0 0 1\n", r"line 3: 'D' is no chemical symbol: write H, isotopes have the same electrons;"),
        ("2\n\nO 0 0 0\nH 0 y 1\n", r"line 4: expected three coordinates, got 'H 0 y 1'"),
        ("2\n\nO 0 0 0\nH 0 0\n", r"line 4: expected three coordinates"),
        ("two\n\nO 0 0 0\n", r"line 1: found 'two' where a number of atoms stands; expected, per structure"),
        ("1\ncharge=half\nHe 0 0 0\n", r"charge=half; expected an integer"),
        ("1\ncharge=nan\nHe 0 0 0\n", r"charge=nan; expected an integer"),
        ("1\nspin=0.5\nHe 0 0 0\n", r"spin=0\.5; expected an integer"),
        ("1\nProperties=species:S:1\nHe 0 0 0\n", r"expected species:S:1 and pos:R:3"),
        (
            '1\nLattice="9 0 0 0 9 0 0 0 9"\nHe 0 0 0\n',
            r"line 2: the structure is periodic \(it has a Lattice and no pbc\)",
        ),
        ("1000001\n\n", r"found '1000001' where a number of atoms stands"),
        ("1\n" + "x" * 2**21 + "\nHe 0 0 0\n", r"line 1: a line has more than 1048576 characters"),
        ("1", "it ends after the number of atoms"),
    ],
)
def test_mistakes_in_xyz_are_found_by_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "bad.xyz"
    path.write_text(text)
    with pytest.raises(StructureError, match=words):
        read_structures(path)


def test_bad_geometries_are_named_counted_and_can_be_left_out(tmp_path: Path) -> None:
    path = tmp_path / "some.xyz"
    path.write_text("2\n\nH 0 0 0\nH 0 0 .74\n2\nname=squashed\nH 0 0 0\nH 0 0 .1\n1\n\nH 0 0 0\n1\n\nHe 0 0 0\n")
    geometries = read_geometries(path)
    with pytest.raises(
        StructureError,
        match=r"some\.xyz': structure 'squashed': atoms 0 \(H\) and 1 \(H\) are 0\.1000 .*; 1 more are bad "
        r"\(number 2 of 4; a spec's `skip_bad: true`",
    ):
        geometries.structures()
    found, indices = geometries.structures(skip_bad=True)
    assert [s.name for s in found] == ["some_0", "some_3"]
    assert indices.tolist() == [0, 3]


def test_checks_made_together_are_those_made_one_by_one(tmp_path: Path) -> None:
    """Every kind of bad structure, between good ones, deserves the same words."""
    rng = np.random.default_rng(0)
    pieces = []
    for i in range(200):
        numbers = rng.integers(0, 120, 3) if i % 7 == 0 else np.array([8, 1, 1])
        positions = rng.normal(size=(3, 3)) * (0.4 if i % 5 == 0 else 3.0)
        if i % 11 == 0:
            positions[1, 2] = np.nan
        pieces.append((numbers, positions, int(rng.integers(-1, 2)), int(rng.integers(0, 2))))
    numbers, positions, charges, spins = zip(*pieces, strict=True)
    path = tmp_path / "a.npz"
    np.savez(
        path,
        positions_angstrom=np.concatenate(positions) * ANGSTROM_PER_BOHR,
        atomic_numbers=np.concatenate(numbers),
        num_atoms=np.full(200, 3),
        charge=np.array(charges),
        spin=np.array(spins),
    )
    found, indices = read_geometries(path).structures(skip_bad=True)
    together = dict(zip(indices.tolist(), found, strict=True))
    n_good = 0
    for i, piece in enumerate(pieces):
        try:
            alone = Structure(*piece)
        except StructureError:
            assert i not in together
            continue
        n_good += 1
        assert together[i].key == alone.key
        assert not together[i].positions.flags.writeable
    assert 20 < n_good < 180


class TestNpz:
    def test_charge_spin_names_and_groups(self, tmp_path: Path) -> None:
        path = tmp_path / "a.npz"
        np.savez(
            path,
            positions_angstrom=np.array([[[0, 0, 0], [0, 0, 0.97]]] * 2),
            atomic_numbers=np.array([8, 1]),
            charge=np.array([-1, 0], np.int8),
            spin=np.array([0, 1], np.int8),
            names=np.array(["hydroxide", "ë"]),
            groups=np.array([3, 4]),
        )
        geometries = read_geometries(path, charge=5)
        assert [(s.charge, s.spin, s.name) for s in geometries.structures()[0]] == [(-1, 0, "hydroxide"), (0, 1, "ë")]
        assert geometries.groups == ("3", "4")

    def test_flat_and_taken(self, tmp_path: Path) -> None:
        path = tmp_path / "a.npz"
        structures = [WATER, FLUOROSULFONAMIDE, WATER.moved(WATER.positions + 1)]
        np.savez(
            path,
            positions_angstrom=np.concatenate([s.positions for s in structures]) * ANGSTROM_PER_BOHR,
            atomic_numbers=np.concatenate([s.atomic_numbers for s in structures]),
            num_atoms=np.array([len(s) for s in structures]),
        )
        taken = read_geometries(path).taken(np.array([2, 1]))
        assert [s.key for s in taken.structures()[0]] == [structures[2].key, structures[1].key]
        assert tuple(taken.names) == ("a_2", "a_1")


class TestQM9:
    def test_one_file_as_its_authors_write_it(self, tmp_path: Path) -> None:
        path = tmp_path / "dsgdb9nsd_000001.xyz"
        path.write_text(METHANE)
        (methane,) = read_structures(path)
        assert (methane.name, methane.formula) == ("gdb_1", "CH4")
        assert methane.positions[1, 2] * ANGSTROM_PER_BOHR == pytest.approx(0.0019761204)
        lengths = np.linalg.norm(methane.positions[1:] - methane.positions[0], axis=1)
        np.testing.assert_allclose(lengths * ANGSTROM_PER_BOHR, 1.0919, atol=2e-4)

    @pytest.mark.parametrize(
        ("ending", "mode"), [("tar.bz2", "w:bz2"), ("tar.gz", "w:gz"), ("tar.xz", "w:xz"), ("tar", "w")]
    )
    def test_the_archive(self, tmp_path: Path, ending: str, mode: str) -> None:
        members = {f"x/dsgdb9nsd_{i:06d}.xyz": qm9_text(i, 0.001 * i).encode() for i in (1, 814, 3)}
        path = write_tar(tmp_path / f"dsgdb9nsd.xyz.{ending}", members | {"readme.txt": b"no structure"}, mode)
        found = read_structures(path)
        assert [s.name for s in found] == ["gdb_1", "gdb_814", "gdb_3"]
        assert found[1].positions[0, 0] * ANGSTROM_PER_BOHR == pytest.approx(-0.0126981359 + 0.814)

    def test_a_folder_by_name(self, tmp_path: Path) -> None:
        for i in (2, 1):
            (tmp_path / f"dsgdb9nsd_{i:06d}.xyz").write_text(qm9_text(i))
        (tmp_path / "notes.txt").write_text("no structure")
        (tmp_path / "b.xyz").write_text("1\n\nHe 0 0 0\n")
        assert [s.name for s in read_structures(tmp_path)] == ["b", "gdb_1", "gdb_2"]

    def test_files_that_cannot_be_read_can_be_left_out(self, tmp_path: Path) -> None:
        members = {"a.xyz": METHANE.encode(), "b.xyz": b"1\n\nHe 0 0 0\nrubbish\n", "c.xyz": qm9_text(3).encode()}
        path = write_tar(tmp_path / "some.tar.bz2", members)
        with pytest.raises(StructureError, match=r"some\.tar\.bz2/b\.xyz', line 4: found 'rubbish'"):
            read_geometries(path)
        geometries = read_geometries(path, skip_bad=True)
        assert geometries.unreadable == 1
        assert tuple(geometries.names) == ("gdb_1", "gdb_3")
        assert len(geometries.positions) == 10


class TestSDF:
    @staticmethod
    def written(path: Path, all_smiles: list[str]) -> list[Chem.Mol]:
        molecules = []
        with Chem.SDWriter(str(path)) as writer:
            for i, smiles in enumerate(all_smiles):
                molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
                rdDistGeom.EmbedMolecule(molecule, randomSeed=7)
                molecule.SetProp("_Name", f"gdb_{i}")
                molecule.SetProp("energy", "-1.5")
                writer.write(molecule)
                molecules.append(molecule)
        return molecules

    def test_against_rdkit(self, tmp_path: Path) -> None:
        all_smiles = ["CCO", "[NH4+]", "CC(=O)[O-]", "[CH3]", "C[N+](=O)[O-]", "F"]
        molecules = self.written(tmp_path / "gdb9.sdf", all_smiles)
        found = read_structures(tmp_path / "gdb9.sdf")
        assert [s.name for s in found] == [f"gdb_{i}" for i in range(6)]
        assert [(s.charge, s.spin) for s in found] == [(0, 0), (1, 0), (-1, 0), (0, 1), (0, 0), (0, 0)]
        for structure, molecule in zip(found, molecules, strict=True):
            assert structure.symbols == [atom.GetSymbol() for atom in molecule.GetAtoms()]
            expected = molecule.GetConformer().GetPositions()
            np.testing.assert_allclose(structure.positions * ANGSTROM_PER_BOHR, expected, atol=6e-5)

    def test_in_an_archive(self, tmp_path: Path) -> None:
        self.written(tmp_path / "gdb9.sdf", ["C", "N"] * 60)
        data = (tmp_path / "gdb9.sdf").read_bytes()
        path = write_tar(tmp_path / "gdb9.tar.gz", {"gdb9.sdf.csv": b"mol_id,A\n", "gdb9.sdf": data}, "w:gz")
        assert [s.key for s in read_structures(path)] == [s.key for s in read_structures(tmp_path / "gdb9.sdf")]

    @pytest.mark.parametrize(
        ("old", "new", "words"),
        [
            ("V2000", "V3000", "where the counts of atoms and bonds stand"),
            (" C  ", " Qq ", "where an atom stands"),
            ("  5  4", " xx  4", "where the counts of atoms and bonds stand"),
            ("  5  4", " 99  4", "where an atom stands"),
        ],
    )
    def test_mistakes(self, tmp_path: Path, old: str, new: str, words: str) -> None:
        path = tmp_path / "a.sdf"
        self.written(path, ["C"])
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
        with pytest.raises(StructureError, match=rf"cannot read '.*a\.sdf', line \d+: found .*{words}; expected mol"):
            read_structures(path)


class TestASEDatabase:
    def test_against_ase(self, tmp_path: Path) -> None:
        path = tmp_path / "some.db"
        database = ase.db.connect(path)
        for name in NAMES:
            database.write(ase_molecule(name), name=name)
        ion = ase.Atoms("OH", [[0, 0, 0], [0, 0, 0.97]])
        ion.set_initial_charges([-1.2, 0.2])
        database.write(ion, group="ions")
        triplet = ase_molecule("O2")
        triplet.set_initial_magnetic_moments([1, 1])
        database.write(triplet)
        database.write(ase.Atoms("OH", [[0, 0, 0], [0, 0, 0.97]]), total_charge=1, spin=2)
        found = read_structures(path)
        assert [s.name for s in found] == [*NAMES, "some_6", "some_7", "some_8"]
        assert [(s.charge, s.spin) for s in found] == [(0, 0)] * 5 + [(-1, 0), (0, 2), (1, 2)]
        for structure, row in zip(found, ase.db.connect(path).select(), strict=True):
            same(structure, row.toatoms())
        assert read_geometries(path).groups is None  # not every row has one

    def test_what_is_no_molecule(self, tmp_path: Path) -> None:
        path = tmp_path / "crystal.db"
        ase.db.connect(path).write(ase.Atoms("He", cell=[3, 3, 3], pbc=True))
        with pytest.raises(
            StructureError, match=r"crystal\.db', row 1: the structure is periodic \(pbc=True\); expected a mol"
        ):
            read_structures(path)
        other = tmp_path / "part.db"
        half = ase.Atoms("OH", [[0, 0, 0], [0, 0, 0.97]])
        half.set_initial_charges([-0.5, 0.0])
        ase.db.connect(other).write(half)
        with pytest.raises(StructureError, match=r"row 1: initial_charges add up to -0\.5; expected an integer"):
            read_structures(other)
