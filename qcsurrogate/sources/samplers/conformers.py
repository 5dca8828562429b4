"""Conformers of molecules given as SMILES; needs RDKit (extra ``conformers``)."""

from __future__ import annotations

from typing import Any

import numpy as np

from qcsurrogate.errors import SpecError, StructureError
from qcsurrogate.structures import Structure
from qcsurrogate.units import BOHR_PER_ANGSTROM

_MAXIMUM_MATCHES = 1000
"""Symmetry-equivalent superpositions tried for one pair of conformers."""


def sample_conformers(
    smiles: str, count: int, seed: int, *, optimise: bool = False, rmsd_angstrom: float = 0.0, name: str = ""
) -> list[Structure]:
    """Different conformers of a molecule, by distance geometry.

    ETKDG version 3 (S. Wang et al., J. Chem. Inf. Model. 60, 2044 (2020)). Charge and
    unpaired electrons are the SMILES's own.

    Args:
        smiles: the molecule; hydrogens are added.
        count: conformers to try; fewer come back where they are alike.
        seed: the same seed gives the same conformers (of one version of RDKit).
        optimise: relax each with the MMFF94 force field.
        rmsd_angstrom: a conformer nearer than this to one kept before is left out. The
            root-mean-square distance is over all atoms but hydrogens on carbon, and the
            best over symmetry.
        name: of the molecule; by default its formula.

    Raises:
        SpecError: if RDKit is missing.
        StructureError: if the SMILES cannot be read or embedded, or has no MMFF94
            parameters.
    """
    try:
        from rdkit import Chem, rdBase
        from rdkit.Chem import Descriptors, rdDistGeom
    except ImportError as error:
        raise SpecError("conformers need RDKit; install it with: pip install 'qcsurrogate[conformers]'") from error
    with rdBase.BlockLogs():
        plain = Chem.MolFromSmiles(smiles)
        if plain is None:
            raise StructureError(f"cannot read the SMILES '{smiles}'; expected a molecule such as 'CCO'")
        molecule = Chem.AddHs(plain)
        parameters: Any = rdDistGeom.ETKDGv3()
        parameters.randomSeed = 1 + seed % (2**31 - 1)  # from 0, RDKit makes the same conformer again and again
        parameters.numThreads = 1
        embedded = list(rdDistGeom.EmbedMultipleConfs(molecule, count, parameters))
        if not embedded:
            raise StructureError(f"RDKit finds no geometry for the SMILES '{smiles}'; give a file with one instead")
        if optimise:
            _optimise(molecule, smiles)
    numbers = np.array([atom.GetAtomicNum() for atom in molecule.GetAtoms()], dtype=np.int64)
    charge, spin = Chem.GetFormalCharge(molecule), int(Descriptors.NumRadicalElectrons(molecule))
    kept = _different(molecule, embedded, rmsd_angstrom)
    width = len(str(count - 1))
    found = []
    for conformer in kept:
        positions = np.array(molecule.GetConformer(conformer).GetPositions()) * BOHR_PER_ANGSTROM
        structure = Structure(numbers, positions, charge, spin, smiles)
        found.append(structure.moved(positions, f"{name or structure.formula}_{conformer:0{width}d}"))
    return found


def _optimise(molecule: Any, smiles: str) -> None:
    from rdkit.Chem import rdForceFieldHelpers

    if not rdForceFieldHelpers.MMFFHasAllMoleculeParams(molecule):
        raise StructureError(f"MMFF94 has no parameters for the SMILES '{smiles}'; set optimise: false")
    rdForceFieldHelpers.MMFFOptimizeMoleculeConfs(molecule, numThreads=1, maxIters=5000)


def _different(molecule: Any, conformers: list[int], rmsd_angstrom: float) -> list[int]:
    """Conformers that are not near an earlier one."""
    if rmsd_angstrom <= 0:
        return conformers
    from rdkit import Chem
    from rdkit.Chem import rdMolAlign

    skeleton = Chem.RWMol(molecule)
    for atom in reversed(list(molecule.GetAtoms())):
        if atom.GetAtomicNum() == 1 and any(n.GetAtomicNum() == 6 for n in atom.GetNeighbors()):
            skeleton.RemoveAtom(atom.GetIdx())
    kept: list[int] = []
    for conformer in conformers:
        distances = (
            rdMolAlign.GetBestRMS(skeleton, skeleton, conformer, other, maxMatches=_MAXIMUM_MATCHES) for other in kept
        )
        if all(distance > rmsd_angstrom for distance in distances):
            kept.append(conformer)
    return kept
