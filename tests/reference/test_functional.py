"""Names of functionals: what PySCF computes, all of it, and what is refused in one line."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from qcsurrogate.cli import main
from qcsurrogate.errors import SpecError
from qcsurrogate.reference.atoms import free_atoms
from qcsurrogate.reference.compute import compute_reference
from qcsurrogate.reference.functional import require_functional
from qcsurrogate.reference.kohn_sham import run_kohn_sham
from qcsurrogate.reference.settings import Method, Targets
from qcsurrogate.store.spec import load_spec
from tests.molecules import WATER

HAS_DISPERSION = importlib.util.find_spec("pyscf.dispersion") is not None

REFUSED = [
    ("pbee", "PySCF does not know the functional 'pbee' (method.xc)", "did you mean 'pbe'?"),
    ("b3lypp-d3bj", "PySCF does not know the functional 'b3lypp-d3bj'", "did you mean 'b3lyp'?"),
    ("", "does not know the functional '' (method.xc): it has no part", ""),
    ("9999", "does not know the functional '9999'", "not a valid functional"),
    ("2*", "does not know the functional '2*'", ""),
    ("a,b,c", "does not know the functional 'a,b,c'", ""),
    ("pbe-d5", "does not know the functional 'pbe-d5'", ""),
    ("wb97x-d", "'wb97x-d' (method.xc) has a dispersion correction of its own that PySCF does not", "wb97x-d3bj"),
    ("wb97x-d3", "dispersion correction of its own", "such as wb97x-d3bj"),
    ("HYB_GGA_XC_WB97X_D", "dispersion correction of its own", ""),
    ("b97-d", "dispersion correction of its own", ""),
    ("b97-3c", "the composite method 'b97-3c' (method.xc) is not supported", "such as b3lyp or b3lyp-d3bj"),
    ("r2scan-3c", "the composite method 'r2scan-3c'", ""),
    ("wb97x-3c", "the composite method 'wb97x-3c'", ""),
    ("wb97x-d4", "different functionals in different versions of PySCF", ""),
]


@pytest.mark.parametrize(("xc", "words", "advice"), REFUSED)
def test_refused_in_one_line(xc: str, words: str, advice: str) -> None:
    with pytest.raises(SpecError) as caught:
        require_functional(xc)
    message = str(caught.value)
    assert words in message
    assert advice in message
    assert "\n" not in message
    with pytest.raises(SpecError):
        free_atoms([1], Method(xc=xc, basis="sto-3g"))


@pytest.mark.parametrize(
    "xc", ["pbe", "PBE0", "b3lyp", "0.5*b88+0.5*lda,lyp", "m06-l", "scan", "hf", "wb97m-v", "402", "pbe,"]
)
def test_what_pyscf_computes_is_taken(xc: str) -> None:
    require_functional(xc)


@pytest.mark.parametrize("xc", ["wb97x-d", "b97-3c", "pbee", *([] if HAS_DISPERSION else ["b3lyp-d3bj"])])
def test_the_command_line_says_one_line_and_exits_with_two(
    xc: str, tiny_spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", str(tiny_spec), "--out", str(tmp_path / "s"), "--set", f"method.xc={xc}"]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith(f"error: {tiny_spec}: ")
    assert xc in error
    assert "\n" not in error
    assert not (tmp_path / "s").exists()


def test_dispersion_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyscf.scf.dispersion.dispersion", None)
    require_functional.cache_clear()
    with pytest.raises(SpecError) as caught:
        require_functional("b3lyp-d3bj")
    assert "the dispersion correction d3bj of 'b3lyp-d3bj'" in str(caught.value)
    assert "pip install pyscf-dispersion" in str(caught.value)
    assert "or set method.xc: b3lyp" in str(caught.value)


@pytest.mark.skipif(not HAS_DISPERSION, reason="needs pyscf-dispersion")
def test_dispersion_is_part_of_energy_and_forces(tiny_spec: Path) -> None:
    assert load_spec(tiny_spec, {"method.xc": "pbe-d3bj"}).method.xc == "pbe-d3bj"
    plain, corrected = (Method(xc=xc, basis="sto-3g", grid_level=0) for xc in ("pbe", "pbe-d3bj"))
    difference = run_kohn_sham(WATER, corrected).energy - run_kohn_sham(WATER, plain).energy
    assert difference == pytest.approx(-3.5947e-4, abs=2e-6)
    records = [
        compute_reference(WATER, method, Targets(forces=True), free_atoms([1, 8], method))
        for method in (plain, corrected)
    ]
    np.testing.assert_allclose(records[1].hamiltonian, records[0].hamiltonian, atol=1e-6)
    assert np.abs(records[1].forces - records[0].forces).max() > 1e-6
    for xc, words in [("pbe-d3", "expected one of d3bj"), ("slater-d3bj", "no parameters of d3bj for 'slater'")]:
        with pytest.raises(SpecError, match=words):
            require_functional(xc)
