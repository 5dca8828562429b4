"""Structures: what is refused and in which words, and exact ways in and out."""

from __future__ import annotations

from pathlib import Path

import ase
import ase.io
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyscf import gto

from qcsurrogate.basis import orbital_basis
from qcsurrogate.errors import StructureError
from qcsurrogate.sources.readers import read_structures
from qcsurrogate.structures import Structure
from qcsurrogate.units import ANGSTROM_PER_BOHR, BOHR_PER_ANGSTROM
from tests.molecules import FLUOROSULFONAMIDE, WATER


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([8, 1], [[0, 0, 0], [0, 0, np.nan]]), r"position of atom 1 \(H\) is \[0.0, 0.0, nan\]; expected finite"),
        (([8, 1], [[0, 0, 0], [0, np.inf, 0]]), r"position of atom 1 \(H\)"),
        (([8, 8], [[0, 0, 0], [0, 0, 0.1]]), r"atoms 0 \(O\) and 1 \(O\) are 0.0529 Angstrom apart; expected at least"),
        (([8, 8], [[1, 1, 1], [1, 1, 1]]), "0.0000 Angstrom apart"),
        (([1], [[0, 0, 0]]), r"1 electrons \(charge 0\) cannot have spin 0"),
        (([8], [[0, 0, 0]], 0, 1), r"8 electrons \(charge 0\) cannot have spin 1"),
        (([1], [[0, 0, 0]], 1, 2), "0 electrons .* cannot have spin 2"),
        (([1], [[0, 0, 0]], 3), "cannot have spin"),
        (([0], [[0, 0, 0]]), "0 is no atomic number but a ghost or dummy atom; expected 1 to 118"),
        (([119], [[0, 0, 0]], 1), "119 is not an atomic number"),
        (([], np.zeros((0, 3))), r"expected \(n_atoms,\) atomic numbers"),
        (([1, 1], [[0, 0, 0]]), r"got \(2,\) and \(1, 3\)"),
        (([2], [0, 0, 0]), r"got \(1,\) and \(3,\)"),
    ],
)
def test_bad_geometries(arguments: tuple, words: str) -> None:
    with pytest.raises(StructureError, match=words):
        Structure(*(np.asarray(a) if i < 2 else a for i, a in enumerate(arguments)))


def test_messages_name_the_structure() -> None:
    with pytest.raises(StructureError, match="structure 'gdb_814': 9 electrons"):
        Structure(np.array([9]), np.zeros((1, 3)), name="gdb_814")


def test_charge_mends_the_electron_count() -> None:
    assert Structure(np.array([8, 1]), np.array([[0, 0, 0], [0, 0, 1.8]]), charge=-1).n_electrons == 10
    assert Structure(np.array([7]), np.zeros((1, 3)), spin=3).n_electrons == 7


def test_structures_are_frozen() -> None:
    positions = np.array([[0.0, 0.0, 0.0]])
    helium = Structure(np.array([2]), positions)
    positions[0, 0] = 5.0
    assert helium.positions[0, 0] == 0.0
    with pytest.raises(ValueError, match="read-only"):
        helium.positions[0, 0] = 1.0
    with pytest.raises(AttributeError):
        helium.charge = 1  # type: ignore[misc]


def test_descriptions() -> None:
    assert (WATER.formula, WATER.symbols, WATER.n_electrons, len(WATER)) == ("H2O", ["O", "H", "H"], 10, 3)
    assert WATER.label == "structure 'water'"
    assert FLUOROSULFONAMIDE.formula == "CH4FNOS"


class TestKey:
    def test_does_not_see_the_name(self) -> None:
        assert WATER.moved(WATER.positions, name="other").key == WATER.key
        assert len(WATER.key) == 32

    @pytest.mark.parametrize("change", ["charge", "spin", "order", "frame", "element"])
    def test_sees_what_a_calculation_sees(self, change: str) -> None:
        numbers, positions = WATER.atomic_numbers.copy(), WATER.positions.copy()
        charge = spin = 0
        if change == "charge":
            charge = 2
        elif change == "spin":
            spin = 2
        elif change == "order":
            numbers, positions = numbers[::-1], positions[::-1]
        elif change == "frame":
            positions = positions + 1e-6
        else:
            numbers[0] = 16
        assert Structure(numbers, positions, charge, spin).key != WATER.key

    def test_forgives_rounding_and_negative_zeros(self) -> None:
        first = Structure(np.array([2]), np.array([[0.0, 1.0, 2.0]]))
        second = Structure(np.array([2]), np.array([[-0.0, 1.0 + 1e-12, 2.0]]))
        assert first.key == second.key

    def test_never_changes(self) -> None:
        """Stores are addressed by it: a new value makes every store start again."""
        assert WATER.key == "8017980cd6791b3801e46e30cdf6a6fc"


def test_ase_round_trip_is_exact() -> None:
    """Angstrom and back may cost the last bit; ASE's own positions survive exactly."""
    structure = FLUOROSULFONAMIDE
    again = Structure.from_ase(structure.to_ase())
    np.testing.assert_allclose(again.positions, structure.positions, rtol=3e-16, atol=0)
    assert (again.name, again.charge, again.spin) == (structure.name, structure.charge, structure.spin)
    np.testing.assert_array_equal(again.atomic_numbers, structure.atomic_numbers)
    assert again.key == structure.key


def test_ase_charge_and_spin() -> None:
    atoms = ase.Atoms("OH", [[0, 0, 0], [0, 0, 0.97]])
    assert Structure.from_ase(atoms, charge=-1).charge == -1
    assert Structure.from_ase(atoms, spin=1).spin == 1
    atoms.info["charge"] = 1
    assert Structure.from_ase(atoms, charge=-1).charge == 1  # what the atoms say wins
    with pytest.raises(StructureError, match=r"is periodic.*set pbc to False"):
        Structure.from_ase(ase.Atoms("He", pbc=True, cell=[5, 5, 5]))


def test_pyscf_round_trip_is_exact() -> None:
    for structure in (WATER, FLUOROSULFONAMIDE):
        mol = orbital_basis("sto-3g", structure.atomic_numbers).build_mol(structure)
        again = Structure.from_pyscf(mol, name=structure.name)
        np.testing.assert_array_equal(again.positions, structure.positions)
        np.testing.assert_array_equal(again.atomic_numbers, structure.atomic_numbers)
        assert again.key == structure.key


def test_pyscf_units_charge_labels_and_ghosts() -> None:
    mol = gto.M(atom="O1 0 0 0; H2 0 0 0.97", charge=-1, basis="sto-3g", verbose=0)
    structure = Structure.from_pyscf(mol)
    assert (structure.symbols, structure.charge) == (["O", "H"], -1)
    assert structure.positions[1, 2] == pytest.approx(0.97 / ANGSTROM_PER_BOHR, rel=1e-15)
    ghost = gto.M(atom="He 0 0 0; GHOST-He 0 0 1", basis={"He": "sto-3g", "GHOST-He": "sto-3g"}, verbose=0)
    with pytest.raises(StructureError, match="expected real atoms, no ghosts"):
        Structure.from_pyscf(ghost)


@given(st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=3))
def test_moving_keeps_the_rest(shift: list[float]) -> None:
    ion = Structure(np.array([8, 1]), np.array([[0, 0, 0], [0, 0, 1.8]]), charge=-1, name="hydroxide")
    moved = ion.moved(ion.positions + shift)
    assert (moved.charge, moved.spin, moved.name) == (-1, 0, "hydroxide")


MALFORMED = {
    "empty": "",
    "blank": "\n\n\n",
    "no count": "O 0 0 0\nH 0 0 1\nH 0 1 0\n",
    "count too large": "4\n\nO 0 0 0\nH 0 0 1\nH 0 1 0\n",
    "count too small": "2\n\nO 0 0 0\nH 0 0 1\nH 0 1 0\n",
    "count zero": "0\n\n",
    "count negative": "-3\n\nO 0 0 0\nH 0 0 1\nH 0 1 0\n",
    "count is text": "three\n\nO 0 0 0\nH 0 0 1\nH 0 1 0\n",
    "coordinate missing": "3\n\nO 0 0 0\nH 0 0\nH 0 1 0\n",
    "coordinate is text": "3\n\nO 0 0 0\nH 0 0 x\nH 0 1 0\n",
    "coordinate is NaN": "3\n\nO 0 0 0\nH 0 0 nan\nH 0 1 0\n",
    "unknown element": "3\n\nO 0 0 0\nQq 0 0 1\nH 0 1 0\n",
    "second frame cut": "1\n\nHe 0 0 0\n3\n\nO 0 0 0\nH 0 0 1\n",
    "binary": "\x00\x01\x02\x03",
    "atoms on top": "2\n\nO 0 0 0\nO 0 0 0.001\n",
    "odd electrons": "2\n\nO 0 0 0\nH 0 0 1\n",
    "periodic": '1\nLattice="5 0 0 0 5 0 0 0 5" pbc="T T T" Properties=species:S:1:pos:R:3\nHe 0 0 0\n',
}


class TestFiles:
    def test_xyz(self, tmp_path: Path) -> None:
        path = tmp_path / "water.xyz"
        path.write_text("3\nany comment = here\nO 0 0 0\nH 0 0.76 0.59\nH 0 -0.76 0.59\n")
        (water,) = read_structures(path)
        assert water.symbols == ["O", "H", "H"]
        assert water.name == "water"
        np.testing.assert_allclose(water.positions[1] * ANGSTROM_PER_BOHR, [0, 0.76, 0.59], rtol=1e-15)

    def test_several_frames_are_numbered(self, tmp_path: Path) -> None:
        path = tmp_path / "helium.xyz"
        path.write_text("1\n\nHe 0 0 0\n1\n\nHe 0 0 1\n")
        assert [s.name for s in read_structures(path)] == ["helium_0", "helium_1"]

    def test_extxyz_round_trip(self, tmp_path: Path) -> None:
        ion = Structure(np.array([8, 1]), np.array([[0, 0, 0], [0, 0.1, 1.8]]), charge=-1, name="hydroxide")
        path = tmp_path / "many.extxyz"
        ase.io.write(path, [s.to_ase() for s in (FLUOROSULFONAMIDE, ion)], format="extxyz")
        first, second = read_structures(path)
        assert (second.charge, second.name) == (-1, "hydroxide")
        np.testing.assert_allclose(first.positions, FLUOROSULFONAMIDE.positions, rtol=0, atol=2e-8)

    def test_npz_with_one_composition(self, tmp_path: Path) -> None:
        positions = np.stack([WATER.positions, WATER.positions + 1.0])
        np.savez(
            tmp_path / "w.npz",
            positions_angstrom=positions * ANGSTROM_PER_BOHR,
            atomic_numbers=WATER.atomic_numbers,
        )
        found = read_structures(tmp_path / "w.npz")
        assert [s.name for s in found] == ["w_0", "w_1"]
        assert found[0].key == WATER.key
        np.testing.assert_allclose(found[1].positions, WATER.positions + 1.0, rtol=4e-16)

    def test_npz_with_many_compositions(self, tmp_path: Path) -> None:
        structures = [WATER, FLUOROSULFONAMIDE]
        np.savez(
            tmp_path / "m.npz",
            positions_angstrom=np.concatenate([s.positions for s in structures]) * ANGSTROM_PER_BOHR,
            atomic_numbers=np.concatenate([s.atomic_numbers for s in structures]),
            num_atoms=np.array([len(s) for s in structures]),
            names=np.array([s.name for s in structures]),
        )
        found = read_structures(tmp_path / "m.npz")
        assert [s.name for s in found] == [s.name for s in structures]
        assert [s.key for s in found] == [s.key for s in structures]

    @pytest.mark.parametrize("ending", ["xyz", "extxyz"])
    @pytest.mark.parametrize("case", MALFORMED)
    def test_malformed_xyz(self, tmp_path: Path, case: str, ending: str) -> None:
        path = tmp_path / f"bad.{ending}"
        path.write_text(MALFORMED[case])
        with pytest.raises(StructureError, match="bad"):
            read_structures(path)

    def test_not_text(self, tmp_path: Path) -> None:
        path = tmp_path / "bad.xyz"
        path.write_bytes(b"\xff\xfe\xfa" * 100)
        with pytest.raises(StructureError, match="cannot read"):
            read_structures(path)

    def test_missing_and_unknown_files(self, tmp_path: Path) -> None:
        with pytest.raises(StructureError, match="cannot find the structure file"):
            read_structures(tmp_path / "absent.xyz")
        with pytest.raises(StructureError, match=r"cannot read the folder .* holds no xyz, extxyz or sdf file"):
            read_structures(tmp_path)
        (tmp_path / "a.pdb").write_text("")
        with pytest.raises(StructureError, match=r"expected the ending .xyz, .extxyz, .npz, .*, got '.pdb'"):
            read_structures(tmp_path / "a.pdb")

    def test_revised_md17_as_published(self, tmp_path: Path) -> None:
        path = tmp_path / "rmd17_ethanol.npz"
        frames = np.array([[[0.0, 0, 0], [0, 0, 0.74]], [[0, 0, 0], [0, 0, 0.75]]])
        per_frame = dict.fromkeys(("energies", "old_indices", "old_energies"), np.arange(2.0))
        published = per_frame | {"forces": frames, "old_forces": frames, "coords": frames}
        published["nuclear_charges"] = np.array([1, 1], np.uint8)
        np.savez_compressed(path, **published)
        first, second = read_structures(path)
        assert (first.formula, first.name, second.name) == ("H2", "rmd17_ethanol_0", "rmd17_ethanol_1")
        assert second.positions[1, 2] == pytest.approx(0.75 * BOHR_PER_ANGSTROM)
        for other in ({"units": np.array("bohr")}, {"old_indices": None}):  # it could be anything
            arrays = {k: v for k, v in (published | other).items() if v is not None}
            np.savez(path, **arrays)
            with pytest.raises(StructureError, match=r"lacks \['atomic_numbers', 'positions_angstrom'\]"):
                read_structures(path)

    def test_malformed_npz(self, tmp_path: Path) -> None:
        path = tmp_path / "bad.npz"
        good = {"positions_angstrom": np.zeros((1, 1, 3)), "atomic_numbers": np.array([2])}
        path.write_bytes(b"PK\x03\x04 no zip")
        with pytest.raises(StructureError, match=r"cannot read .*bad\.npz' as npz"):
            read_structures(path)
        path.write_bytes(b"")
        with pytest.raises(StructureError, match="as npz"):
            read_structures(path)
        np.savez(path, positions_angstrom=good["positions_angstrom"])
        with pytest.raises(StructureError, match=r"lacks \['atomic_numbers'\]"):
            read_structures(path)
        np.savez(path, **good | {"atomic_numbers": np.array([2, 2])})
        with pytest.raises(StructureError, match="do not fit"):
            read_structures(path)
        np.savez(
            path, positions_angstrom=np.zeros((3, 3)), atomic_numbers=np.array([2, 2, 2]), num_atoms=np.array([1, 1])
        )
        with pytest.raises(StructureError, match="num_atoms adds up to 2"):
            read_structures(path)
        np.savez(path, **good | {"names": np.array(["a", "b"])})
        with pytest.raises(StructureError, match="names"):
            read_structures(path)
        np.savez(path, **good | {"atomic_numbers": np.array(["He"])})
        with pytest.raises(StructureError, match=r"atomic_numbers is <U2 of shape .* expected integers"):
            read_structures(path)
        np.savez(path, **good | {"num_atoms": np.array([], dtype=int)})
        with pytest.raises(StructureError, match="num_atoms is int64 of shape"):
            read_structures(path)
        np.savez(path, **good | {"atomic_numbers": np.array([2.0])})
        with pytest.raises(StructureError, match="expected integers"):
            read_structures(path)
        with path.open("wb") as file:
            np.savez(file, **good | {"positions_angstrom": np.array([{"a": 1}], dtype=object)})
        with pytest.raises(StructureError, match="as npz"):
            read_structures(path)
