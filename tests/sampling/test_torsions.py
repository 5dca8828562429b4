"""Torsion scans against ASE's dihedrals and RDKit's rotatable bonds."""

from __future__ import annotations

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import rdDistGeom, rdMolTransforms

from qcsurrogate.errors import StructureError
from qcsurrogate.sources.samplers.conformers import sample_conformers
from qcsurrogate.sources.samplers.torsions import rotatable_dihedrals, scan_torsions
from qcsurrogate.structures import Structure
from tests.molecules import WATER


def conformer(smiles: str) -> Structure:
    return sample_conformers(smiles, 1, 3, optimise=True)[0]


def internal_coordinates(structure: Structure) -> tuple[np.ndarray, np.ndarray]:
    """Bond lengths and angles, by the bonds of the first geometry."""
    from qcsurrogate.sources.bonds import bonded

    bonds = bonded(structure)
    atoms = structure.to_ase()
    lengths = [atoms.get_distance(int(i), int(j)) for i, j in zip(*np.nonzero(np.triu(bonds)), strict=True)]
    angles = [
        atoms.get_angle(int(i), j, int(k))
        for j in range(len(structure))
        for i in np.flatnonzero(bonds[j])
        for k in np.flatnonzero(bonds[j])
        if i < k
    ]
    return np.array(lengths), np.array(angles)


@pytest.mark.parametrize("dihedral", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 2, 3, 4)])
def test_only_the_dihedral_turns_and_by_equal_steps(dihedral: tuple[int, int, int, int]) -> None:
    butanol = conformer("CCCCO")
    scan = scan_torsions(butanol, [dihedral], 12)
    assert scan.clashes + len(scan.structures) == 12
    assert scan.structures[0].key == butanol.key
    start = butanol.to_ase().get_dihedral(*dihedral)
    for structure, (angle,) in zip(scan.structures, scan.angles, strict=True):
        turned = structure.to_ase().get_dihedral(*dihedral) - start
        assert (turned - angle + 180) % 360 - 180 == pytest.approx(0, abs=1e-6)
        for before, after in zip(internal_coordinates(butanol), internal_coordinates(structure), strict=True):
            np.testing.assert_allclose(after, before, atol=1e-6)
    assert scan.angles[:, 0].tolist() == [30.0 * i for i in range(12)]


def test_turned_as_rdkit_turns() -> None:
    molecule = Chem.AddHs(Chem.MolFromSmiles("CCCO"))
    rdDistGeom.EmbedMolecule(molecule, randomSeed=2)
    numbers = np.array([atom.GetAtomicNum() for atom in molecule.GetAtoms()])
    start = Structure(numbers, molecule.GetConformer().GetPositions())
    propanol = start.moved(start.positions / 0.52917721092)
    scan = scan_torsions(propanol, [(0, 1, 2, 3)], 8)
    own = rdMolTransforms.GetDihedralDeg(molecule.GetConformer(), 0, 1, 2, 3)
    for structure, (angle,) in zip(scan.structures, scan.angles, strict=True):
        rdMolTransforms.SetDihedralDeg(molecule.GetConformer(), 0, 1, 2, 3, own + angle)
        expected = molecule.GetConformer().GetPositions() / 0.52917721092
        np.testing.assert_allclose(
            np.linalg.norm(structure.positions[:, None] - structure.positions[None], axis=2),
            np.linalg.norm(expected[:, None] - expected[None], axis=2),
            atol=1e-6,
        )


def test_the_smaller_side_moves() -> None:
    butanol = conformer("CCCCO")
    scan = scan_torsions(butanol, [(1, 2, 3, 4)], 3)
    moved = np.linalg.norm(scan.structures[1].positions - butanol.positions, axis=1) > 1e-9
    assert moved.sum() < len(butanol) / 2


@pytest.mark.parametrize(
    ("smiles", "central"),
    [
        ("CCO", {("C", "C"), ("C", "O")}),
        ("C=C", set()),
        ("CC=C", {("C", "C")}),
        ("C1CC1", set()),
        ("CC#N", set()),
        ("CC#CC", set()),
        ("O", set()),
        ("c1ccccc1C", {("C", "C")}),
        ("CC(=O)O", {("C", "C"), ("C", "O")}),
        ("NN", {("N", "N")}),
    ],
)
def test_bonds_about_which_molecules_turn(smiles: str, central: set[tuple[str, str]]) -> None:
    structure = conformer(smiles) if smiles != "O" else WATER
    dihedrals = rotatable_dihedrals(structure)
    assert {tuple(sorted((structure.symbols[j], structure.symbols[k]))) for _, j, k, _ in dihedrals} == central
    assert len({(j, k) for _, j, k, _ in dihedrals}) == len(dihedrals)


def test_one_after_the_other_or_all_combinations() -> None:
    butanol = conformer("CCCCO")
    dihedrals = [(0, 1, 2, 3), (1, 2, 3, 4)]
    single = scan_torsions(butanol, dihedrals, 4)
    assert len(single.structures) + single.clashes == 7
    assert (np.isnan(single.angles).sum(axis=1) == 1).all()
    grid = scan_torsions(butanol, dihedrals, 4, grid=True)
    assert len(grid.structures) + grid.clashes == 16
    assert len({s.key for s in grid.structures}) == len(grid.structures)
    with pytest.raises(StructureError, match=r"3600 steps of 2 dihedrals are 12960000 geometries; expected at most"):
        scan_torsions(butanol, dihedrals, 3600, grid=True)


def test_parts_that_run_into_each_other_are_counted() -> None:
    """Pentane with both ends turned inwards: its methyl groups meet."""
    pentane = conformer("CCCCC")
    scan = scan_torsions(pentane, [(0, 1, 2, 3), (1, 2, 3, 4)], 36, grid=True)
    assert scan.clashes > 0
    assert len(scan.structures) + scan.clashes == 36 * 36
    apart = [np.linalg.norm(s.positions[0] - s.positions[4]) * 0.529 for s in scan.structures]
    assert min(apart) > 1.5


@pytest.mark.parametrize(
    ("smiles", "dihedral", "words"),
    [
        ("CCCO", (0, 1, 2, 0), r"expected four different atoms from 0 to 11"),
        ("CCCO", (0, 1, 2, 99), r"expected four different atoms"),
        ("CCCO", (0, 2, 1, 3), r"atoms 0 \(C\) and 2 \(C\) are not bound; expected four atoms in a row"),
        ("C1CCC1", (0, 1, 2, 3), r"the bond 1-2 is part of a ring"),
    ],
)
def test_dihedrals_that_cannot_be(smiles: str, dihedral: tuple[int, int, int, int], words: str) -> None:
    with pytest.raises(StructureError, match=words):
        scan_torsions(conformer(smiles), [dihedral], 6)
