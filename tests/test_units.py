"""Units against the tables of PySCF and ASE."""

from __future__ import annotations

import ase.units
import pytest
from pyscf.data import nist

from qcsurrogate import units


def test_the_bohr_is_pyscfs_to_the_last_digit() -> None:
    assert units.ANGSTROM_PER_BOHR == nist.BOHR


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (units.EV_PER_HARTREE, nist.HARTREE2EV),
        (units.DEBYE_PER_ATOMIC_UNIT, nist.AU2DEBYE),
        (units.KCAL_PER_MOL_PER_HARTREE, nist.HARTREE2J * nist.AVOGADRO / 4184),
        (units.KCAL_PER_MOL_PER_HARTREE, ase.units.Hartree * ase.units.mol / ase.units.kcal),
        (units.HARTREE_PER_KELVIN, nist.BOLTZMANN / nist.HARTREE2J),
        (units.ELECTRON_MASS_PER_DALTON, nist.ATOMIC_MASS / nist.E_MASS),
        (units.ANGSTROM_PER_BOHR, ase.units.Bohr),
        (units.EV_PER_HARTREE, ase.units.Hartree),
        (units.HARTREE_PER_KELVIN, ase.units.kB / ase.units.Hartree),
        (units.ELECTRON_MASS_PER_DALTON, ase.units._amu / ase.units._me),
        (units.DEBYE_PER_ATOMIC_UNIT, ase.units.Bohr / ase.units.Debye),
    ],
)
def test_agrees_with_pyscf_and_ase(ours: float, theirs: float) -> None:
    assert ours == pytest.approx(theirs, rel=1e-6)  # tables of different years


def test_inverses_and_multiples() -> None:
    products = (units.BOHR_PER_ANGSTROM * units.ANGSTROM_PER_BOHR, units.HARTREE_PER_EV * units.EV_PER_HARTREE)
    assert products == pytest.approx((1.0, 1.0), abs=1e-15)
    assert units.MICROHARTREE_PER_HARTREE == 1e6
    assert units.MILLIELECTRONVOLT_PER_HARTREE == 1e3 * units.EV_PER_HARTREE
