"""``init``: from an xyz file to a spec that loads, says what it is and generates; and what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from qcsurrogate import cli
from qcsurrogate.files.yaml_model import parse_yaml
from qcsurrogate.store.card import data_card
from qcsurrogate.store.spec import DataSpec, load_spec, name_of, parse_spec
from qcsurrogate.store.store import Store

TWO = """3
water
O 0 0 0.1173
H 0 0.7572 -0.4692
H 0 -0.7572 -0.4692
4
name=hydronium charge=1
O 0 0 0.09
H 0 0.93 -0.19
H 0.81 -0.47 -0.19
H -0.81 -0.47 -0.19
"""
OXYGEN = "2\nname=oxygen spin=2\nO 0 0 0\nO 0 0 1.21\n"
TINY = {
    "basis": "sto-3g",
    "grid_level": 0,
    "auxiliary_basis": "{even_tempered_beta: 2.5}",
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, with a file of two molecules."""
    monkeypatch.chdir(tmp_path)
    Path("two.xyz").write_text(TWO)
    return tmp_path


@pytest.fixture
def init(here, capsys):
    """Run ``init``; gives exit code, standard output and standard error."""

    def run(*arguments):
        code = cli.main(["init", *map(str, arguments)])
        return (code, *capsys.readouterr())

    return run


def uncommented(text: str, key: str = r"\w+") -> str:
    """A written spec with what stands in its comments; prose begins with a capital letter."""
    return re.sub(rf"^( *)# ( *{key}:)", r"\1\2", text, flags=re.MULTILINE)


def test_from_an_xyz_file_to_a_store(init, here, capsys):
    settings = [part for key, value in TINY.items() for part in ("--set", f"method.{key}={value}")]
    code, out, err = init("two.xyz", *settings)
    assert (code, out) == (0, "qcsurrogate generate two.yaml --out two\n")
    assert "2 structures of H, O: 3 to 4 atoms, 7 to 8 orbitals (read 2)." in err
    assert "Charge: 0 (1), 1 (1). Unpaired electrons: 0." in err
    assert "Split: train 1, validation 1, test 0." in err
    assert "Rough cost: 1.0 s of one core, guessed from sizes before anything was measured" in err

    assert cli.main([*out.split()[1:], "--workers", "1"]) == 0
    out, err = capsys.readouterr()
    assert "two: 2 complete" in out
    assert "split: train 1, validation 1, test 0" in err
    store = Store.open("two")
    assert sorted(record.structure.charge for record in store.read_many(store.keys())) == [0, 1]
    written = parse_yaml(Path("two/spec.yaml").read_text(), "spec.yaml")
    assert written == json.loads(store.spec.model_dump_json())
    assert set(written) == set(DataSpec.model_fields)
    assert store.spec == load_spec("two.yaml")
    card = data_card("two")
    assert "Licence of the structures: not stated." in card
    assert "CC0" not in card
    assert cli.main(["inspect", "two"]) == 0
    assert "licence: not stated" in capsys.readouterr().out


def test_five_lines_are_said_and_the_comments_tell_the_truth(init):
    assert init("two.xyz", "--quiet")[1:] == ("qcsurrogate generate two.yaml --out two\n", "")
    text = Path("two.yaml").read_text()
    assert parse_yaml(text, "two.yaml") == {
        "name": "two",
        "structures": {"kind": "file", "path": "two.xyz"},
        "method": {"xc": "pbe", "basis": "def2-svp"},
    }
    minimal = "structures: {kind: file, path: two.xyz}\nmethod: {xc: pbe, basis: def2-svp}\n"
    Path("minimal.yaml").write_text(minimal)
    assert load_spec("two.yaml") == load_spec("minimal.yaml", {"name": "two"})

    with_defaults = uncommented(text, "(?!limit|subset|deduplicate|split: {kind: by_molecule)[a-z_]+")
    data = parse_yaml(with_defaults, "with defaults")
    assert set(data) == set(DataSpec.model_fields) - {"spec_version", "shard_size"}
    assert len(data["method"]) > 8
    assert parse_spec(with_defaults, "text") == parse_spec(text, "text")
    for line in re.findall(r"# (split: {kind: by_molecule.*)", text):
        parse_spec(f"{minimal}{line}", "text")
    examples = parse_spec(uncommented(text, "(limit|subset|deduplicate)"), "text").structures
    assert examples.limit == 1000
    assert examples.subset.max_atoms == 20
    assert examples.deduplicate.tolerance_angstrom == 0.05


def test_the_estimate_is_that_of_the_cost_model(init):
    from qcsurrogate.generation.batches import CostModel, size_measures
    from qcsurrogate.store.plan import make_plan

    code, out, err = init("two.xyz", "--json")
    data = json.loads(out)
    assert (code, err) == (0, "")
    plan = make_plan(load_spec(data["spec"]))[0]
    seconds = CostModel().seconds(size_measures(plan.structures.n_atoms, plan.n_ao)).sum()
    assert data["estimated_core_seconds"] == pytest.approx(seconds)
    assert data["orbitals"] == [24, 29]
    assert data["charges"] == {"0": 1, "1": 1}
    assert data["next"] == "qcsurrogate generate two.yaml --out two"


def test_nothing_is_overwritten(init, here):
    (here / "two.yaml").write_text("mine")
    code, out, err = init("two.xyz")
    assert (code, out) == (2, "")
    assert err == "error: 'two.yaml' is there already and is not overwritten; expected a new name: --out OTHER.yaml\n"
    assert (here / "two.yaml").read_text() == "mine"
    (here / "other").mkdir()
    code, out, _ = init("two.xyz", "--out", "other.yaml")
    assert (code, out) == (0, "qcsurrogate generate other.yaml --out other_store\n")
    assert load_spec("other.yaml").name == "other"


def test_open_shells_are_said_and_computed_without_restriction(init, here):
    (here / "shells.xyz").write_text(TWO + OXYGEN)
    code, _, err = init("shells.xyz")
    assert code == 0
    assert "Unpaired electrons: 0 (2), 2 (1)." in err
    assert "Open shells: the method is unrestricted; models then learn both spins." in err
    assert load_spec("shells.yaml").method.spin_treatment == "unrestricted"
    assert len(parse_yaml(Path("shells.yaml").read_text(), "shells.yaml")["method"]) == 3


def test_repeated_geometries_count_once(init, here):
    (here / "twice.xyz").write_text(TWO + TWO)
    assert (
        "2 structures of H, O: 3 to 4 atoms, 24 to 29 orbitals (read 4, left out: repeated 2)." in init("twice.xyz")[2]
    )


def test_one_structure_is_enough_for_labels(init, here):
    (here / "one.xyz").write_text(OXYGEN)
    err = init("one.xyz")[2]
    assert "1 structure of O: 2 atoms, 28 orbitals (read 1)." in err
    assert "Labels only: training needs at least one structure to train and one to validate on." in err


def test_files_elsewhere_and_several(init, here):
    (here / "specs").mkdir()
    (here / "data").mkdir()
    (here / "data" / "oxygen.xyz").write_text(OXYGEN)
    assert init("two.xyz", "data/oxygen.xyz", "--out", "specs/all molecules.yaml")[0] == 0
    spec = load_spec("specs/all molecules.yaml")
    assert spec.name == "all_molecules"
    assert spec.structures.paths == (str(here / "two.xyz"), str(here / "data" / "oxygen.xyz"))
    assert init("two.xyz", "data/oxygen.xyz", "--set", "structures.limit=2", "--set", "split.kind=auto")[0] == 0
    text = Path("two.yaml").read_text()
    assert parse_yaml(text, "two.yaml")["structures"] == {
        "kind": "file",
        "path": ["two.xyz", "data/oxygen.xyz"],
        "limit": 2,
    }


@pytest.mark.parametrize(
    ("text", "settings", "code", "words"),
    [
        (None, [], 3, "cannot find the structure file"),
        ("3\n\nO 0 0 0\nH 0 0\nH 0 1 0\n", [], 3, "line 4: expected three coordinates, got 'H 0 0'"),
        (
            "2\n\nO 0 0 0\nH 0 0 1\n",
            [],
            3,
            "; in an xyz file: charge=1 or spin=1 in the comment line; for all: --set method.charge=1",
        ),
        (OXYGEN, ["method.spin_treatment=restricted"], 3, "'oxygen' has spin 2; expected 0"),
        ("1\n\nXe 0 0 0\n", [], 3, "basis 'def2-svp' for Xe (Z=54) goes with an effective core potential"),
        ("1\n\nRn 0 0 0\n", ["method.basis=cc-pvdz"], 3, "PySCF has no basis 'cc-pvdz' for element Rn (Z=86)"),
        (TWO, ["method.auxiliary_basis=jkfit"], 3, "PySCF has no basis 'jkfit' for element H (Z=1)"),
        (TWO, ["method.xc=pbee"], 2, "PySCF does not know the functional 'pbee'"),
        (TWO, ["method.bassis=sto-3g"], 2, "method.bassis: unknown key 'bassis'; did you mean 'basis'?"),
        (TWO, ["split={kind: random, train: 5, validation: 1, test: 1}"], 2, "expected at most 2"),
        (TWO, ["structures.subset.elements=[He]"], 2, "nothing is left (read: 2, left out: outside the subset: 2)"),
    ],
)
def test_what_cannot_be_generated_is_said_at_once(init, here, text, settings, code, words):
    if text is not None:
        (here / "a.xyz").write_text(text)
    found, out, err = init("a.xyz", *(part for setting in settings for part in ("--set", setting)))
    assert (found, out) == (code, "")
    assert words in err
    assert len(err.splitlines()) == 1
    assert not (here / "a.yaml").exists()


@pytest.mark.parametrize(
    ("path", "name"), [("a b.xyz", "a_b"), ("wässer.xyz", "w_sser"), ("x" * 100, "x" * 80), (".", "dataset")]
)
def test_names_are_made_to_fit(path, name):
    assert name_of(Path(path)) == name
