"""What lies outside of the training data is said, warned of, and refused where asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.data.s22 import create_s22_system, get_number_of_dimer_atoms, s22
from pydantic import ValidationError

import qcsurrogate
from qcsurrogate.domain import UNKNOWN, Domain, OutsideTrainingDomain
from qcsurrogate.errors import DomainError
from qcsurrogate.sources.readers import read_structures
from qcsurrogate.structures import Structure
from qcsurrogate.units import BOHR_PER_ANGSTROM
from tests.prediction.exact import HYDROGEN, WATER

ANGSTROM = np.array([[0, 0, 0.1173], [0, 0.7572, -0.4692], [0, -0.7572, -0.4692]])
OHH = np.array([8, 1, 1])


def of(numbers, angstrom, **state) -> Structure:
    return Structure(np.array(numbers), np.asarray(angstrom) * BOHR_PER_ANGSTROM, **state)


@pytest.fixture(scope="module")
def qm9() -> Domain:
    """Of 759 molecules of QM9."""
    return Domain.fit(read_structures(Path(qcsurrogate.__file__).parent / "resources" / "qm9_small.npz"))


def distorted(n: int, seed: int, sigma_angstrom: float = 0.06) -> list[Structure]:
    random = np.random.default_rng(seed)
    return [of(OHH, ANGSTROM + random.normal(0, sigma_angstrom, (3, 3))) for _ in range(n)]


DOMAIN = Domain.fit(distorted(500, seed=1))
PULLED = ANGSTROM + np.array([[0, 0, 0], (ANGSTROM[1] - ANGSTROM[0]) * (2.5 / 0.957 - 1), [0, 0, 0]])
PEROXIDE = molecule("H2O2")

CASES = {
    "water": (of(OHH, ANGSTROM), None),
    "two waters": (
        of([*OHH, *OHH], np.vstack([ANGSTROM, ANGSTROM + np.array([3.0, 0, 0])])),
        "O0-O3 at 3.00 Angstrom between molecules: this pair of elements was not seen",
    ),
    "waters far apart": (
        of([*OHH, *OHH], np.vstack([ANGSTROM, ANGSTROM + np.array([20.0, 0, 0])])),
        "O0-O3 at 20.00 Angstrom between molecules: this pair",
    ),
    "peroxide": (of(PEROXIDE.numbers, PEROXIDE.positions), "this pair of elements was not seen"),
    "oxygen": (of([8, 8], [[0, 0, 0], [0, 0, 1.21]]), "2 atoms (training: 3 to 3)"),
    "hydrogen": (of([1, 1], [[0, 0, 0], [0, 0, 0.74]]), "atom 0 (H) has 1 neighbour (training: 2 to 2)"),
    "dissociating": (
        of(OHH, PULLED),
        "O0-H1 at 2.50 Angstrom between molecules: seen within molecules only (0.65 to 1.26)",
    ),
    "bohr as Angstrom": (
        of(OHH, ANGSTROM * BOHR_PER_ANGSTROM),
        "H1-H2 at 2.86 Angstrom between molecules: seen within",
    ),
    "bohr taken for Angstrom": (
        of(OHH, ANGSTROM * BOHR_PER_ANGSTROM),
        "inside it if the positions were bohr that were taken for Angstrom: are the units right?",
    ),
    "Angstrom taken for bohr": (
        of(OHH, ANGSTROM / BOHR_PER_ANGSTROM),
        "inside it if the positions were Angstrom that were taken for bohr: are the units right?",
    ),
    "cation": (of(OHH, ANGSTROM, charge=2), "charge 2 and spin 0 (training: 0 and 0)"),
    "sulfur": (of([16, 1, 1], ANGSTROM), "element S of atom 0 was not seen"),
    "ethane": (Structure.from_ase(molecule("C2H6")), "element C of atoms 0, 1 was not seen"),
}


@pytest.mark.parametrize("case", CASES)
def test_cases(case: str) -> None:
    structure, words = CASES[case]
    verdict = DOMAIN.assess(structure)
    assert verdict.inside == (words is None)
    if words is None:
        assert verdict.summary == "inside the training data"
    else:
        assert any(words in finding.text for finding in verdict.findings)
        assert verdict.summary.startswith("outside the training data: ")


def test_a_unit_is_only_blamed_where_it_explains_all() -> None:
    for case, (structure, _) in CASES.items():
        kinds = {finding.kind for finding in DOMAIN.assess(structure).findings}
        assert ("unit" in kinds) == ("Angstrom" in case), case


def test_unseen_thermal_waters_are_inside() -> None:
    assert np.mean([DOMAIN.assess(s).inside for s in distorted(200, seed=2)]) > 0.95


def test_a_gap_between_seen_distances_is_outside() -> None:
    near_and_far = Domain.fit([of([2, 2], [[0, 0, 0], [0, 0, r]]) for r in (1.74, 3.5)])
    verdict = near_and_far.assess(of([2, 2], [[0, 0, 0], [0, 0, 2.5]]))
    assert "in a gap of the training distances (1.74 to 3.50)" in verdict.summary
    assert verdict.findings[0].atoms == (0, 1)


def test_distances_beyond_the_cutoff_are_one() -> None:
    """A pair far outside is not inside because it is far; one far pair stands for all."""
    near = Domain.fit([of([2, 2], [[0, 0, 0], [0, 0, r]]) for r in (5.8, 6.3)])
    far = Domain.fit([of([2, 2], [[0, 0, 0], [0, 0, r]]) for r in (6.3, 9.0)])
    for length, inside_near in ((6.3, True), (6.4, True), (7.0, False), (40.0, False)):
        pair = of([2, 2], [[0, 0, 0], [0, 0, length]])
        assert near.assess(pair).inside == inside_near
        assert far.assess(pair).inside
    assert near.joined(far).assess(pair).inside
    words = "He0-He1 at 40.00 Angstrom between molecules: above the training distances (5.80 to 6.30)"
    assert near.assess(pair).summary == f"outside the training data: {words}"


def s22_part(name: str, part: int | None = None) -> Structure:
    """A dimer of S22 (Jurecka et al. 2006), or one of its two molecules."""
    atoms = create_s22_system(name)
    first = get_number_of_dimer_atoms(name)[0]
    chosen = {None: atoms, 0: atoms[:first], 1: atoms[first:]}[part]
    return Structure.from_ase(Atoms(chosen.numbers, chosen.positions))


@pytest.mark.parametrize("name", s22)
def test_dimers_are_outside_of_single_molecules(name: str, qm9: Domain) -> None:
    """Every distance of some dimers occurs within molecules of QM9; none occurs between two molecules."""
    dimer = s22_part(name)
    n_between = len(s22_part(name, 0)) * len(s22_part(name, 1))
    assert sum("between molecules: seen within" in f.text for f in qm9.assess(dimer).findings) == n_between
    assert not DOMAIN.assess(dimer).inside
    for part in (0, 1):
        monomer = s22_part(name, part)
        large = monomer.n_electrons > 50
        expected = f"outside the training data: {monomer.n_electrons} electrons (training: 10 to 50)"
        assert qm9.assess(monomer).summary == (expected if large else "inside the training data")


ONLY = "between molecules: seen within molecules only"


@pytest.mark.parametrize(
    ("name", "of_water", "of_qm9"),
    [
        (
            "Water_dimer",
            f"6 atoms (training: 3 to 3); 20 electrons (training: 10 to 10); H2-O3 at 1.95 Angstrom {ONLY} "
            "(0.65 to 1.26), and 8 more pairs; atom 2 (H) has 5 neighbours (training: 2 to 2), and 3 more "
            "atoms",
            f"H2-O3 at 1.95 Angstrom {ONLY} (0.96 to 6.35), and 8 more pairs",
        ),
        (
            "Formic_acid_dimer",
            "element C of atoms 0, 5 was not seen; 10 atoms (training: 3 to 3); 48 electrons (training: 10 "
            f"to 10); O2-H9 at 1.67 Angstrom {ONLY} (0.65 to 1.26), and 17 more pairs; H3-H4 at 2.83 "
            "Angstrom: above the training distances (1.23 to 1.79), and 7 more pairs; atom 1 (O) has 4 "
            "neighbours",
            f"O2-H9 at 1.67 Angstrom {ONLY} (0.96 to 6.35), and 24 more pairs",
        ),
        (
            "Methane_dimer",
            "element C of atoms 0, 5 was not seen; 10 atoms (training: 3 to 3); 20 electrons (training: 10 "
            f"to 10); H1-H7 at 3.16 Angstrom {ONLY} (1.23 to 1.79), and 15 more pairs",
            f"H1-H7 at 3.16 Angstrom {ONLY} (1.51 to 6.35), and 24 more pairs",
        ),
        (
            "Benzene_dimer_parallel_displaced",
            "element C of atoms 0, 1, 2 and 9 more was not seen; 24 atoms (training: 3 to 3)",
            "24 atoms (training: 3 to 20); 84 electrons (training: 10 to 50); C1-C14 at 3.37 Angstrom "
            f"{ONLY} (1.20 to 6.35), and 143 more pairs",
        ),
    ],
)
def test_words_about_dimers(name: str, of_water: str, of_qm9: str, qm9: Domain) -> None:
    dimer = s22_part(name)
    assert DOMAIN.assess(dimer).summary.startswith(f"outside the training data: {of_water}")
    assert qm9.assess(dimer).summary == f"outside the training data: {of_qm9}"


def test_dimers_of_one_kind_say_nothing_of_others(qm9: Domain) -> None:
    water = create_s22_system("Water_dimer")
    random = np.random.default_rng(3)
    moved = [water.positions + random.normal(0, 0.08, (6, 3)) for _ in range(200)]
    both = qm9.joined(Domain.fit([of(water.numbers, positions) for positions in moved]))
    assert both.assess(s22_part("Water_dimer")).inside
    words = "C0-H8 at 2.83 Angstrom between molecules: seen within molecules only"
    assert words in both.assess(s22_part("Ethene-ethyne_complex")).summary


def test_json_round_trip_and_validation() -> None:
    assert Domain.model_validate_json(DOMAIN.model_dump_json()) == DOMAIN
    for change in ({"atoms": (4, 3)}, {"states": ()}, {"pairs": DOMAIN.pairs * 2}, {"colour": 1}):
        with pytest.raises(ValidationError):
            Domain.model_validate(DOMAIN.model_dump() | change)


def test_predictions_carry_the_verdict(hamiltonian_surrogate) -> None:
    surrogate = hamiltonian_surrogate
    with pytest.warns(OutsideTrainingDomain, match="domain unknown"):
        assert surrogate.predict(WATER).domain == UNKNOWN
    with pytest.raises(DomainError, match=r"strict: structure 'water' .* domain unknown"):
        surrogate.predict(WATER, strict=True)
    surrogate.metadata = surrogate.metadata.model_copy(update={"domain": Domain.fit([WATER])})
    assert surrogate.predict(WATER, strict=True).domain.inside
    with pytest.warns(OutsideTrainingDomain, match=r"'hydrogen' \(H2\): outside the training data: 2 atoms"):
        results = surrogate.predict([WATER, HYDROGEN])
    assert [r.domain.inside for r in results] == [True, False]
    with pytest.raises(DomainError, match="strict: structure 'hydrogen'"):
        surrogate.predict([WATER, HYDROGEN], strict=True)


def test_charges_are_those_of_the_structures(hamiltonian_surrogate) -> None:
    cation = of([8, 1, 1, 1], np.vstack([ANGSTROM, [0.9, 0, 0.4]]), charge=1)
    domain = Domain.fit([cation])
    hamiltonian_surrogate.metadata = hamiltonian_surrogate.metadata.model_copy(update={"domain": domain})
    hamiltonian_surrogate.check_domain(cation)
    with pytest.raises(DomainError, match=r"has charge 0 and spin 0 .* trained on charge 1 and spin 0 only"):
        hamiltonian_surrogate.predict(WATER)


def test_repr_is_one_short_line(density_surrogate) -> None:
    text = repr(density_surrogate.predict(WATER))
    assert text.startswith("<DensityPrediction of H2O: charge 0, spin 0; domain unknown")
    assert "\n" not in text
