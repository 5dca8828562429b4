"""Basis sets: what PySCF knows, as data, and what is refused."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
from ase.data import chemical_symbols
from pyscf import df, gto

from qcsurrogate.basis import (
    BasisSet,
    auxiliary_basis,
    basis_of_mol,
    core_share,
    even_tempered_basis,
    orbital_basis,
    same_functions,
)
from qcsurrogate.errors import BasisError
from qcsurrogate.structures import Structure
from tests.molecules import FLUOROSULFONAMIDE, WATER

BASES = ["sto-3g", "def2-svp", "def2-tzvp", "cc-pvdz"]
ELEMENTS = [1, 6, 7, 8, 9, 16]


@pytest.mark.parametrize("name", BASES)
def test_shells_are_those_of_pyscf(name: str) -> None:
    structure = FLUOROSULFONAMIDE
    basis = orbital_basis(name, structure.atomic_numbers)
    mol = gto.M(
        atom=list(zip(structure.symbols, structure.positions.tolist(), strict=True)),
        unit="Bohr",
        basis=name,
        charge=structure.charge,
        spin=structure.spin,
        verbose=0,
    )
    shells = [(i, l) for i, z in enumerate(structure.atomic_numbers) for l in basis[z].angular_momenta]
    theirs = [(mol.bas_atom(b), mol.bas_angular(b)) for b in range(mol.nbas) for _ in range(mol.bas_nctr(b))]
    assert shells == theirs
    np.testing.assert_array_equal(basis.offsets(structure.atomic_numbers)[:-1], mol.aoslice_by_atom()[:, 2])
    assert basis.n_functions(structure.atomic_numbers) == mol.nao
    np.testing.assert_array_equal(basis.build_mol(structure).intor("int1e_ovlp"), mol.intor("int1e_ovlp"))


def test_shell_slices_tile_the_element() -> None:
    element = orbital_basis("def2-tzvp", [16])[16]
    assert element.shell_slices[0] == slice(0, 1)
    stops = [s.stop for s in element.shell_slices]
    assert [s.start for s in element.shell_slices] == [0, *stops[:-1]]
    assert stops[-1] == element.n_functions
    assert [s.stop - s.start for s in element.shell_slices] == [2 * l + 1 for l in element.angular_momenta]


@pytest.mark.parametrize("name", [*BASES, "def2-universal-jfit"])
def test_json_round_trip_is_exact(name: str) -> None:
    basis = auxiliary_basis(name, ELEMENTS)
    again = BasisSet.from_dict(json.loads(json.dumps(basis.to_dict())))
    assert again == basis
    assert same_functions(again, basis)


def test_even_tempered_round_trip_and_dependence_on_the_element_alone() -> None:
    small = even_tempered_basis(orbital_basis("def2-svp", [1, 8]), 1.8)
    large = even_tempered_basis(orbital_basis("def2-svp", ELEMENTS), 1.8)
    assert same_functions(small, large)
    assert not same_functions(large, small)
    assert BasisSet.from_dict(json.loads(json.dumps(small.to_dict()))) == small
    assert small.name == "even-tempered(beta=1.8) for def2-svp"


@pytest.mark.parametrize("beta", [1.6, 2.0])
def test_even_tempered_exponents(beta: float) -> None:
    """A geometric series of ratio beta for every l, as PySCF makes it for the bare atom."""
    orbital = orbital_basis("def2-svp", [8])
    element = even_tempered_basis(orbital, beta)[8]
    for l in set(element.angular_momenta):
        exponents = np.array([g.primitives[0][0] for g in element.groups if g.l == l])
        if len(exponents) > 1:
            np.testing.assert_allclose(np.abs(np.diff(np.log(exponents))), np.log(beta), rtol=1e-10)
    atom = gto.M(atom="O", basis="def2-svp", spin=2, verbose=0)
    assert element.n_functions == gto.M(atom="O", basis=df.aug_etb(atom, beta), spin=2, verbose=0).nao


def test_what_is_added_to_an_even_tempered_basis() -> None:
    """Each series goes on below with its ratio; each higher l has the exponents of the highest that products have."""
    orbital = orbital_basis("def2-svp", [1, 8])
    plain, added = even_tempered_basis(orbital, 1.8), even_tempered_basis(orbital, 1.8, diffuse=2, higher_l=1)

    def series(basis: BasisSet, z: int) -> dict[int, list[float]]:
        groups = basis[z].groups
        return {l: sorted(g.primitives[0][0] for g in groups if g.l == l) for l in basis[z].angular_momenta}

    for z in (1, 8):
        before, after = series(plain, z), series(added, z)
        highest = max(before)
        assert set(after) == {*before, highest + 1}
        assert after[highest + 1] == after[highest]
        for l, exponents in before.items():
            assert after[l][2:] == exponents
            np.testing.assert_allclose(after[l][:2], [exponents[0] / 1.8**2, exponents[0] / 1.8], rtol=1e-14)
    assert BasisSet.from_dict(json.loads(json.dumps(added.to_dict()))) == added
    assert added.name == "even-tempered(beta=1.8, diffuse=2, higher_l=1) for def2-svp"
    assert even_tempered_basis(orbital, 1.8, diffuse=0, higher_l=0) == plain
    with pytest.raises(BasisError, match=r"diffuse = -1 and higher_l = 0 of an even-tempered basis; expected 0 or"):
        even_tempered_basis(orbital, 1.8, diffuse=-1)


@pytest.mark.parametrize("beta", [1.1, 5.0, -1.0, float("nan")])
def test_even_tempered_beta_out_of_range(beta: float) -> None:
    with pytest.raises(BasisError, match=r"expected 1\.2 to 4"):
        even_tempered_basis(orbital_basis("sto-3g", [1]), beta)


def test_cartesian_bases_are_refused() -> None:
    mol = gto.M(atom="He 0 0 0", basis="cc-pvdz", cart=True, verbose=0)
    with pytest.raises(BasisError, match=r"cart=True\); expected spherical"):
        basis_of_mol(mol)


def test_core_potentials_are_refused() -> None:
    with pytest.raises(BasisError, match=r"for I \(Z=53\) goes with an effective core potential"):
        orbital_basis("def2-svp", [53])
    mol = gto.M(atom="I 0 0 0; H 0 0 1.6", basis="def2-svp", ecp="def2-svp", verbose=0)
    with pytest.raises(BasisError, match="uses an effective core potential"):
        basis_of_mol(mol)


@pytest.mark.parametrize(
    "name",
    ["ccecp-cc-pvdz", "ccecp-aug-cc-pv5z", "bfd-vdz", "bfd-v5z", "gth-dzvp", "gth-qzv3p", "gth-szv-molopt-sr"],
)
@pytest.mark.parametrize("z", [1, 6, 8])
def test_bases_made_for_a_pseudopotential_are_refused_whatever_pyscf_lists(name: str, z: int) -> None:
    """Hydrogen too, which has no core: its family has none."""
    with pytest.raises(BasisError, match=r"made for a pseudopotential \(.* with 0\.\d+ of the exact energy") as caught:
        orbital_basis(name, [z])
    assert f"basis '{name}' for {chemical_symbols[z]} (Z={z})" in str(caught.value)
    assert "expected at least 0.9; effective core potentials are not supported yet" in str(caught.value)


@pytest.mark.parametrize("name", ["def2-svp", "def2-qzvppd", "lanl2dz", "def2-mtzvp", "ma-def2-tzvp", "cc-pvtz-pp"])
def test_no_potential_no_element_beyond_krypton(name: str) -> None:
    """PySCF lists no potential for def2-mtzvp, and they need one all the same."""
    with pytest.raises(BasisError, match=r"for I \(Z=53\).*core potentials are not supported yet; expected an all"):
        orbital_basis(name, [53])


@pytest.mark.parametrize(
    ("name", "z"),
    [
        ("sto-3g", 1),
        ("sto-3g", 2),
        ("3-21g", 3),
        ("6-31g*", 6),
        ("lanl2dz", 8),
        ("cc-pvdz", 17),
        ("def2-svp", 36),
        ("pc-1", 8),
        ("sto-3g", 53),
        ("6-311++g**", 8),
        ("3-21g", 53),
        ("cc-pvtz-dk", 54),
    ],
)
def test_all_electron_bases_are_taken(name: str, z: int) -> None:
    assert 0.9 < core_share(orbital_basis(name, [z])[z]) <= 1.0 + 1e-6


@pytest.mark.slow
def test_every_basis_that_pyscf_knows_falls_on_its_side() -> None:
    """By the core share alone, lithium to krypton; bases for densities are left out."""
    for_densities = re.compile(r"sap|.*fit|.*ri$|weigend|ahlrichs|.*optri|.*etb|demon|dgauss")
    without_core = re.compile(r"ccecp(?!reg)|bfd|gth|crenb|sbkjc|stuttgart|qavgvszps|lanl|cc.*pp(nr)?$|augcc.*pp$")
    pseudo: dict[tuple[str, int], float] = {}
    plain: dict[tuple[str, int], float] = {}
    for name in set(gto.basis.ALIAS) | set(gto.basis.GTH_ALIAS):
        if for_densities.match(name):
            continue
        for z in range(3, 37):
            with contextlib.suppress(BasisError):
                share = core_share(auxiliary_basis(name, [z])[z])
                family = pseudo if without_core.match(name) else plain
                small_core = z < 5 or (name.startswith("lanl") and z < 11)  # nothing is left out
                if not (family is pseudo and small_core):
                    family[name, z] = share
    highest, lowest = max(pseudo, key=pseudo.__getitem__), min(plain, key=plain.__getitem__)
    print(f"{len(pseudo)} pseudo: at most {pseudo[highest]:.3f} {highest}")
    print(f"{len(plain)} all-electron: at least {plain[lowest]:.3f} {lowest}")
    assert len(pseudo) > 800
    assert len(plain) > 3000
    assert pseudo[highest] < 0.85 < 0.95 < plain[lowest]


@pytest.mark.parametrize(
    ("name", "z", "words"),
    [
        ("def2-svq", 8, "PySCF has no basis 'def2-svq' for element H (Z=1); choose another basis"),
        ("cc-pvdz", 79, "no basis 'cc-pvdz' for element Au"),
        ("sto-3g", 118, "for element Og"),
    ],
)
def test_missing_bases_name_basis_and_element(name: str, z: int, words: str) -> None:
    with pytest.raises(BasisError) as caught:
        orbital_basis(name, [1, z])
    assert words in str(caught.value)


def test_a_basis_text_is_no_name_and_is_not_evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PySCF's parser of basis texts and files calls eval; names come from specs and model files of others."""
    bomb = f"BASIS\nH S\n  __import__('os').mkdir('{tmp_path / 'exploded'}') 1.0\nEND\n"
    (tmp_path / "innocent").write_text(bomb)
    monkeypatch.chdir(tmp_path)
    for name in (bomb, "innocent", "./innocent", str(tmp_path / "innocent"), "innocent@2s", "", "a" * 100):
        with pytest.raises(BasisError, match="is not taken for the name of a basis"):
            orbital_basis(name, [1])
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("name", ["6-31g**", "6-311++g(d,p)", "cc-pVTZ", "def2 SVP", "weigend+etb", "cc-pvtz@2s1p"])
def test_names_with_signs_are_names(name: str) -> None:
    assert auxiliary_basis(name, [1])[1].n_functions > 0


@pytest.mark.parametrize("name", BASES)
def test_basis_of_a_mol(name: str) -> None:
    structure = WATER
    ours = orbital_basis(name, structure.atomic_numbers)
    found = basis_of_mol(ours.build_mol(structure))
    assert same_functions(ours, found)
    named = gto.M(atom="O 0 0 0; H 0 0 1; H 0 1 0", basis=name, verbose=0)
    assert same_functions(ours, basis_of_mol(named))
    assert basis_of_mol(named).name == name


def test_basis_of_a_mol_with_two_bases_for_one_element() -> None:
    mol = gto.M(atom="H1 0 0 0; H2 0 0 1", basis={"H1": "sto-3g", "H2": "def2-svp"}, verbose=0)
    with pytest.raises(BasisError, match="atoms of H carry different bases"):
        basis_of_mol(mol)


def test_an_element_that_is_not_there() -> None:
    basis = orbital_basis("sto-3g", [8, 1])
    assert basis.symbols == ["H", "O"]
    assert basis.restricted_to([1]).symbols == ["H"]
    with pytest.raises(BasisError, match="was set up for H, O, not for C"):
        basis[6]
    with pytest.raises(BasisError, match="not for C"):
        basis.restricted_to([6])


BROKEN = {
    "nothing": {},
    "no elements": {"name": "x"},
    "elements of nonsense": {"name": "x", "elements": [1]},
    "unknown element": {"name": "x", "elements": {"Xq": [[0, [1.0, 1.0]]]}},
    "no rows": {"name": "x", "elements": {"H": [[0]]}},
    "no coefficient": {"name": "x", "elements": {"H": [[0, [1.0]]]}},
    "ragged": {"name": "x", "elements": {"H": [[0, [1.0, 1.0], [2.0, 1.0, 1.0]]]}},
    "spinor": {"name": "x", "elements": {"H": [[1, -1, [1.0, 1.0]]]}},
    "words": {"name": "x", "elements": {"H": [[0, ["a", "b"]]]}},
    "negative l": {"name": "x", "elements": {"H": [[-1, [1.0, 1.0]]]}},
    "fractional l": {"name": "x", "elements": {"H": [[0.5, [1.0, 1.0]]]}},
    "gigantic l": {"name": "x", "elements": {"H": [[1000, [1.0, 1.0]]]}},
    "negative exponent": {"name": "x", "elements": {"H": [[0, [-1.0, 1.0]]]}},
    "infinite exponent": {"name": "x", "elements": {"H": [[0, [float("inf"), 1.0]]]}},
    "NaN coefficient": {"name": "x", "elements": {"H": [[0, [1.0, float("nan")]]]}},
    "no shells": {"name": "x", "elements": {"H": []}},
    "too many shells": {"name": "x", "elements": {"H": [[0, [1.0, 1.0]]] * 2001}},
    "code": {"name": "x", "elements": {"H": "__import__('os')"}},
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_data_are_refused(case: str) -> None:
    with pytest.raises(BasisError):
        BasisSet.from_dict(BROKEN[case])


def test_general_contractions_count_once_each() -> None:
    basis = orbital_basis("cc-pvdz", [8])  # its s shells share primitives
    assert basis[8].groups[0].n_contractions > 1
    assert basis[8].angular_momenta == (0, 0, 0, 1, 1, 2)
    assert basis.l_max == 2
    assert basis.build_mol(Structure(np.array([8]), np.zeros((1, 3)), spin=2)).nao == 14
