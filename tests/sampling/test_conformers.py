"""Conformers: different, seeded, with the molecule's charge and spin."""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import rdDistGeom, rdForceFieldHelpers

from qcsurrogate.errors import SpecError, StructureError
from qcsurrogate.sources.bonds import bonded, connectivity
from qcsurrogate.sources.samplers.conformers import sample_conformers
from qcsurrogate.sources.selection.superposition import superposition_rmsd
from qcsurrogate.units import ANGSTROM_PER_BOHR


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_different_conformers_of_one_molecule(seed: int) -> None:
    found = sample_conformers("CCCCO", 10, seed)
    assert len(found) == 10
    assert len({connectivity(s) for s in found}) == 1
    assert len({s.key for s in found}) == 10
    assert [s.key for s in found] == [s.key for s in sample_conformers("CCCCO", 10, seed)]
    assert found[3].name == "C4H10O_3"
    shape = [superposition_rmsd(found[0], s) for s in found[1:]]
    assert max(shape) * ANGSTROM_PER_BOHR > 0.5


def test_butane_has_one_anti_and_two_gauche() -> None:
    found = sample_conformers("CCCC", 20, 0, optimise=True, rmsd_angstrom=0.2)
    angles = sorted(s.to_ase().get_dihedral(0, 1, 2, 3) for s in found)
    np.testing.assert_allclose(angles, [65, 180, 295], atol=2)  # MMFF94's own minima


def test_optimised_ones_are_minima_of_the_force_field() -> None:
    (structure,) = sample_conformers("CCO", 1, 5, optimise=True)
    molecule = Chem.AddHs(Chem.MolFromSmiles("CCO"))
    rdDistGeom.EmbedMolecule(molecule, randomSeed=9)
    conformer = molecule.GetConformer()
    for atom, position in enumerate(structure.positions * ANGSTROM_PER_BOHR):
        conformer.SetAtomPosition(atom, position.tolist())
    properties = rdForceFieldHelpers.MMFFGetMoleculeProperties(molecule)
    field = rdForceFieldHelpers.MMFFGetMoleculeForceField(molecule, properties)
    assert np.abs(field.CalcGrad()).max() < 0.05  # kcal/mol/Angstrom


@pytest.mark.parametrize(
    ("smiles", "charge", "spin"),
    [("O", 0, 0), ("[NH4+]", 1, 0), ("CC(=O)[O-]", -1, 0), ("[CH3]", 0, 1), ("[O][O]", 0, 2), ("C[N+](=O)[O-]", 0, 0)],
)
def test_charge_and_spin_are_the_smiles_own(smiles: str, charge: int, spin: int) -> None:
    (structure,) = sample_conformers(smiles, 1, 0)
    assert (structure.charge, structure.spin) == (charge, spin)
    assert bonded(structure).any()


def test_what_cannot_be_made_is_said() -> None:
    with pytest.raises(StructureError, match=r"cannot read the SMILES 'C\(C'; expected a molecule such as 'CCO'"):
        sample_conformers("C(C", 1, 0)
    with pytest.raises(StructureError, match=r"MMFF94 has no parameters for the SMILES '\[BH2\]\[BH2\]'"):
        sample_conformers("[BH2][BH2]", 1, 0, optimise=True)


def test_without_rdkit_the_command_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name.split(".")[0] == "rdkit":
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        SpecError, match=r"conformers need RDKit; install it with: pip install 'qcsurrogate\[conformers\]'"
    ):
        sample_conformers("CCO", 1, 0)
