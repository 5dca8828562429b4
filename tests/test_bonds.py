"""Bonds and connectivity, against SciPy's graphs, RDKit's bonds and a slow version of the hash."""

from __future__ import annotations

import hashlib
from collections import defaultdict

import numpy as np
import pytest
from ase.data import covalent_radii
from rdkit import Chem
from rdkit.Chem import rdDistGeom
from scipy.sparse.csgraph import connected_components, shortest_path

from qcsurrogate.sources.bonds import bonded, bonds_between, connectivities, connectivities_and_pieces, connectivity
from qcsurrogate.sources.collect import collect
from qcsurrogate.sources.samplers.vibrations import sample_displacements
from qcsurrogate.store.spec import load_spec
from qcsurrogate.structures import Structure
from qcsurrogate.units import BOHR_PER_ANGSTROM

QM9 = list(collect(load_spec("qm9_small")).structures)


def slow_connectivity(structure: Structure) -> str:
    """Labels refined one atom after the other, and SHA-256 instead of sums."""
    radii = covalent_radii[structure.atomic_numbers] * BOHR_PER_ANGSTROM
    distances = np.linalg.norm(structure.positions[:, None] - structure.positions[None], axis=-1)
    between = shortest_path(distances < 1.25 * (radii[:, None] + radii[None]), unweighted=True)
    labels = [str(z) for z in structure.atomic_numbers]
    for _ in range(len(structure)):
        labels = [
            hashlib.sha256(f"{own} {sorted(zip(row.tolist(), labels, strict=True))}".encode()).hexdigest()
            for own, row in zip(labels, between, strict=True)
        ]
    return f"{structure.charge} {sorted(labels)}"


def random_clusters(count: int) -> list[Structure]:
    """Small random heaps of carbon and oxygen: rings, pieces, symmetric ones, many of them alike."""
    rng = np.random.default_rng(5)
    found = []
    while len(found) < count:
        n = int(rng.integers(1, 7))
        sites = rng.choice(27, n, replace=False)
        grid = np.stack(np.unravel_index(sites, (3, 3, 3)), axis=1) * 2.7
        found.append(Structure(rng.choice([6, 8], n), grid, charge=2 * int(rng.integers(0, 2))))
    return found


def test_classes_are_those_of_the_slow_hash() -> None:
    structures = QM9[:250] + [s for m in QM9[100:150] for s in sample_displacements(m, 0.03, 2, seed=1)]
    structures += random_clusters(400)
    fast, slow = connectivities(structures), [slow_connectivity(s) for s in structures]
    pairs = set(zip(fast, slow, strict=True))
    assert len(pairs) == len(set(fast)) == len(set(slow))
    assert 250 < len(pairs) < 600


def test_a_hash_does_not_depend_on_the_company() -> None:
    chosen = QM9[::7]
    assert connectivities(chosen) == [connectivity(s) for s in chosen]
    assert connectivities([]) == []


def test_every_molecule_of_the_packaged_set_is_different() -> None:
    """What splits by molecule divide: a change here moves molecules between parts."""
    hashes = connectivities(QM9)
    assert len(set(hashes)) == len(QM9) == 759


@pytest.mark.parametrize("smiles", ["CCO", "c1ccccc1", "CC(=O)NC", "C1CC1C#N", "OC=O", "FC(F)F", "[NH4+]"])
def test_bonds_are_rdkits(smiles: str) -> None:
    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    rdDistGeom.EmbedMolecule(molecule, randomSeed=1)
    numbers = [atom.GetAtomicNum() for atom in molecule.GetAtoms()]
    structure = Structure(
        np.array(numbers), molecule.GetConformer().GetPositions() * BOHR_PER_ANGSTROM, Chem.GetFormalCharge(molecule)
    )
    expected = np.zeros((len(structure), len(structure)), dtype=bool)
    for bond in molecule.GetBonds():
        i, j = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        expected[i, j] = expected[j, i] = True
    np.testing.assert_array_equal(bonded(structure), expected)


def test_shortest_ways_are_scipys_and_pieces_stay_apart() -> None:
    rng = np.random.default_rng(2)
    graphs = rng.random((20, 15, 15)) < 0.1
    graphs |= graphs.transpose(0, 2, 1)
    found = bonds_between(graphs)
    reached = defaultdict(int)
    for graph, between in zip(graphs, found, strict=True):
        expected = shortest_path(graph, unweighted=True)
        np.testing.assert_array_equal(between[np.isfinite(expected)], expected[np.isfinite(expected)])
        assert (between[np.isinf(expected)] == 2**13).all()
        reached[bool(np.isinf(expected).any())] += 1
    assert reached[True] > 3


def test_pieces_are_scipys() -> None:
    structures = [*QM9[:50], *random_clusters(200)]
    found = connectivities_and_pieces(structures)[1]
    np.testing.assert_array_equal(found, [connected_components(bonded(s))[0] for s in structures])
    assert found.max() > 2
