"""PySCF's configuration files and environment variables: neither executed nor obeyed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pyscf import __config__

import qcsurrogate
from qcsurrogate.basis import orbital_basis
from qcsurrogate.errors import SpecError
from qcsurrogate.store.store import Store
from tests.molecules import WATER

ROOT = Path(qcsurrogate.__file__).parent.parent
TRAP = "B3LYP_WITH_VWN5 = True\nUNIT = 'bohr'\nopen('executed', 'w').close()\n"

B3LYP = """
from ase import Atoms
from qcsurrogate.reference.kohn_sham import run_kohn_sham
from qcsurrogate.reference.settings import Method
from qcsurrogate.structures import Structure
from pyscf import __config__
water = Structure.from_ase(Atoms("OHH", [[0, 0, 0.1173], [0, 0.7572, -0.4692], [0, -0.7572, -0.4692]]))
method = Method(xc="b3lyp", basis="{basis}", grid_level={grid_level})
print(repr(run_kohn_sham(water, method).energy), __config__.UNIT, hasattr(__config__, "B3LYP_WITH_VWN5"))
"""


def python(code: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(folder), "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, env=variables)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A stranger's folder, with a file that PySCF would execute."""
    (tmp_path / ".pyscf_conf.py").write_text(TRAP)
    return tmp_path


def test_a_strangers_file_is_not_executed_and_said(folder: Path) -> None:
    done = python("import qcsurrogate\nfrom pyscf import __config__, dft\nprint(dft.libxc.parse_xc('b3lyp'))", folder)
    assert done.returncode == 0, done.stderr
    assert "(8, 0.19)" not in done.stdout  # VWN_RPA, which is 8 in libxc, and VWN5 is 7
    assert f"PySCF's configuration file '{folder / '.pyscf_conf.py'}' is not read" in done.stderr
    assert not (folder / "executed").exists()


def test_the_command_line_says_it_in_a_line(folder: Path) -> None:
    (folder / "h.xyz").write_text("2\n\nH 0 0 0\nH 0 0 0.74\n")
    done = python("from qcsurrogate.cli import main\nmain(['init', 'h.xyz', '--out', 'i.yaml'])", folder)
    said = [line for line in done.stderr.splitlines() if "pyscf_conf" in line or "Warning" in line]
    file = folder / ".pyscf_conf.py"
    assert said == [
        f"warning: PySCF's configuration file '{file}' is not read: results of qcsurrogate depend on its spec alone"
    ]


def test_neither_file_nor_environment_changes_an_energy(folder: Path, tmp_path: Path) -> None:
    code = B3LYP.format(basis="sto-3g", grid_level=0)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    plain = python(code, elsewhere)
    assert plain.returncode == 0, plain.stderr
    assert "angstrom False" in plain.stdout
    assert not plain.stderr
    (elsewhere / "trap.py").write_text(TRAP)
    hidden = {"PYSCF_CONFIG_FILE": str(elsewhere / "trap.py"), "PYSCF_MAX_MEMORY": "1", "PYSCF_ARGPARSE": "1"}
    assert python(code, elsewhere, **hidden).stdout == plain.stdout
    assert python(code, folder).stdout == plain.stdout
    assert not list(tmp_path.rglob("executed"))


def test_a_pyscf_that_was_configured_before_is_refused(folder: Path) -> None:
    done = python("import pyscf\nimport qcsurrogate", folder)
    assert done.returncode == 1
    words = done.stderr.strip().splitlines()[-1]
    assert f"SpecError: PySCF was configured by the file '{folder / '.pyscf_conf.py'}'" in words
    assert "B3LYP_WITH_VWN5 = True" in words
    assert "UNIT = 'bohr'" in words
    assert "import qcsurrogate before pyscf" in words


def test_a_pyscf_imported_before_without_settings_is_welcome(tmp_path: Path) -> None:
    done = python("import pyscf.dft\nimport qcsurrogate", tmp_path, PYSCF_MAX_MEMORY="1000")
    assert done.returncode == 0, done.stderr


def test_settings_made_by_hand_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    basis = orbital_basis("sto-3g", [1, 8])
    basis.build_mol(WATER)
    monkeypatch.setattr(__config__, "scf_hf_SCF_conv_tol", 1e-3, raising=False)
    with pytest.raises(SpecError, match=r"by hand \(scf_hf_SCF_conv_tol = 0\.001\)") as caught:
        basis.build_mol(WATER)
    assert caught.value.exit_code == 2


@pytest.mark.slow
def test_the_energy_of_the_case(folder: Path) -> None:
    done = python(B3LYP.format(basis="def2-svp", grid_level=3), folder)
    assert float(done.stdout.split()[0]) == pytest.approx(-76.35814, abs=1e-5)


@pytest.mark.slow
def test_workers_neither_execute_nor_obey_a_file(folder: Path) -> None:
    """The command of the case, in a folder with such a file and with one in the environment."""
    (folder / "water.xyz").write_text("3\n\nO 0 0 0.1173\nH 0 0.7572 -0.4692\nH 0 -0.7572 -0.4692\n")
    (folder / "trap.py").write_text(TRAP)
    (folder / "water.yaml").write_text(
        "name: t\nstructures: {kind: file, path: water.xyz}\nmethod: {xc: b3lyp, basis: def2-svp}\n"
        "split: {kind: random, train: 1, validation: 0, test: 0}\nlicence: ''\ncitation: ''\n"
    )
    command = (
        "import sys\nfrom qcsurrogate.cli import main\nsys.exit(main(['generate', 'water.yaml', '--out', 'store']))"
    )
    done = python(command, folder, PYSCF_CONFIG_FILE="trap.py")
    assert done.returncode == 0, done.stderr
    store = Store.open(folder / "store")
    (record,) = store.read_many(store.keys())
    assert record.energy == pytest.approx(-76.35814, abs=1e-5)
    assert store.header.versions["libxc"]
    assert not (folder / "executed").exists()
