"""What lies outside of the training data is said, warned of, and refused where asked."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import molecule
from pydantic import ValidationError

from qcsurrogate.domain import UNKNOWN, Domain, OutsideTrainingDomain
from qcsurrogate.errors import DomainError
from qcsurrogate.structures import Structure
from qcsurrogate.units import BOHR_PER_ANGSTROM
from tests.prediction.exact import HYDROGEN, WATER

ANGSTROM = np.array([[0, 0, 0.1173], [0, 0.7572, -0.4692], [0, -0.7572, -0.4692]])
OHH = np.array([8, 1, 1])


def of(numbers, angstrom, **state) -> Structure:
    return Structure(np.array(numbers), np.asarray(angstrom) * BOHR_PER_ANGSTROM, **state)


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
        "O0-O3 at 3.00 Angstrom: this pair",
    ),
    "peroxide": (of(PEROXIDE.numbers, PEROXIDE.positions), "this pair of elements was not seen"),
    "oxygen": (of([8, 8], [[0, 0, 0], [0, 0, 1.21]]), "2 atoms (training: 3 to 3)"),
    "dissociating": (of(OHH, PULLED), "O0-H1 at 2.50 Angstrom: above the training distances"),
    "bohr as Angstrom": (of(OHH, ANGSTROM * BOHR_PER_ANGSTROM), "above the training distances"),
    "cation": (of(OHH, ANGSTROM, charge=2), "charge 2 and spin 0 (training: 0 and 0)"),
    "sulfur": (of([16, 1, 1], ANGSTROM), "element S of atom 0 was not seen"),
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


def test_unseen_thermal_waters_are_inside() -> None:
    assert np.mean([DOMAIN.assess(s).inside for s in distorted(200, seed=2)]) > 0.95


def test_a_gap_between_seen_distances_is_outside() -> None:
    near_and_far = Domain.fit([of([1, 1], [[0, 0, 0], [0, 0, r]]) for r in (0.74, 2.5)])
    verdict = near_and_far.assess(of([1, 1], [[0, 0, 0], [0, 0, 1.5]]))
    assert "in a gap of the training distances (0.74 to 2.50)" in verdict.summary
    assert verdict.findings[0].atoms == (0, 1)


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
