"""Specs: the shipped ones, the words of every refusal, keys."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from qcsurrogate.errors import SpecError
from qcsurrogate.files.yaml_model import dump_yaml, parse_yaml
from qcsurrogate.reference.settings import Method, Targets
from qcsurrogate.sources.collect import collect
from qcsurrogate.sources.kinds import FileSource
from qcsurrogate.store.spec import (
    SHIPPED,
    AutoSplit,
    DataSpec,
    MoleculeSplit,
    differences,
    load_spec,
    parse_spec,
    spec_schema,
)
from qcsurrogate.structures import Structure
from tests.store import fakes

MINIMAL = "structures: {kind: file, path: a.xyz}\nmethod: {xc: pbe, basis: sto-3g}\n"


@pytest.fixture(scope="module")
def water_text() -> str:
    path = Path(__file__).parents[2] / "data_specs" / "water_thermal.yaml"
    return path.read_text()


def test_every_shipped_spec_loads_and_says_where_it_comes_from() -> None:
    assert SHIPPED.names() == [
        "butane_torsion",
        "conformers_shaken",
        "qm9_diverse",
        "qm9_small",
        "rmd17_ethanol",
        "water_demo",
        "water_thermal",
    ]
    for name in SHIPPED.names():
        spec = load_spec(name)
        assert spec.name == name
        assert spec.licence == "CC0-1.0"
    assert "Ramakrishnan" in load_spec("qm9_small").citation
    assert "Christensen" in load_spec("rmd17_ethanol").citation


def test_structures_and_method_are_enough(tmp_path: Path) -> None:
    path = tmp_path / "my molecules (2).yaml"
    path.write_text(MINIMAL)
    spec = load_spec(path)
    assert spec.name == "my_molecules_2_"
    assert spec.split == AutoSplit(kind="auto")
    assert (spec.licence, spec.citation, spec.shard_size, spec.targets) == ("", "", 200, Targets())
    assert spec.method == Method(xc="pbe", basis="sto-3g")
    assert spec.structures == FileSource(kind="file", path=str(tmp_path / "a.xyz"))
    assert load_spec(path, {"name": "mine"}).name == "mine"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("method: {xc: pbe}", r"^a\.yaml: structures: missing; expected where they come from, such as \{kind: file,"),
        ("structures: {kind: file, path: a.xyz}", r"^a\.yaml: method: missing; expected the level of theory, such as"),
        ("{}", r"^a\.yaml: structures: missing"),
        ("structures: {kind: file, path: a.xyz}\nmethd: {xc: pbe}", r"^a\.yaml: methd: unknown key 'methd'; did you"),
        (
            MINIMAL + "split: {kind: auto, train: 3}",
            r"split\.train: unknown key 'train'; expected one of \['kind', 'seed'\]",
        ),
    ],
)
def test_what_a_spec_has_to_say(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse_spec(text, "a.yaml")


def test_demo_is_the_beginning_of_the_full_water_spec() -> None:
    full, demo = load_spec("water_thermal"), load_spec("water_demo")
    changed = {line.split(":")[0] for line in differences(full, demo)}
    assert changed == {"name", "structures.count", "split.train", "split.validation", "split.test"}


def test_qm9_small_is_all_chno_molecules_with_up_to_six_heavy_atoms() -> None:
    collected = collect(load_spec("qm9_small"))
    structures = collected.structures
    assert collected.groups is None
    assert collected.report == {"read": 759}
    assert len(structures) == 759
    assert {int(z) for s in structures for z in s.atomic_numbers} == {1, 6, 7, 8}
    assert max(int((s.atomic_numbers > 1).sum()) for s in structures) == 6
    names = [s.name for s in structures]
    assert len(set(names)) == 759
    assert {"gdb_1", "gdb_2", "gdb_3"} <= set(names)
    methane = structures[names.index("gdb_1")]
    lengths = np.linalg.norm(methane.positions[1:] - methane.positions[0], axis=1)
    np.testing.assert_allclose(lengths * 0.52917721092, 1.0919, atol=2e-4)


def test_round_trip_through_yaml() -> None:
    for spec in (load_spec("water_thermal"), load_spec("qm9_small"), fakes.spec(), parse_spec(MINIMAL, "text")):
        assert parse_spec(dump_yaml(spec.model_dump(mode="json")), "text") == spec


def test_schema_is_json_and_knows_every_key() -> None:
    schema = json.loads(json.dumps(spec_schema()))
    assert set(schema["properties"]) == set(DataSpec.model_fields)
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["structures", "method"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("xc: pbe", "xcc: pbe", r"water\.yaml: method\.xcc: unknown key 'xcc'; did you mean 'xc'\?$"),
        ("xc: pbe", "xc: 5", r"method\.xc: expected a valid string, got 5"),
        ("xc: pbe", "xc: pbe\n  xc: b3lyp", r"the key 'xc' occurs twice; expected it once"),
        ("xc: pbe", "xc: &name pbe", "anchors and aliases are not supported"),
        ("xc: pbe", "\txc: pbe", r"cannot read 'water\.yaml' as YAML"),
        ("1.0e-10", "1", r"method\.conv_tol: expected less than or equal to 0\.00001, got 1"),
        ("1.0e-10", "tight", r"method\.conv_tol: expected a valid number.*got 'tight'"),
        (
            "kind: thermal",
            "kind: termal",
            r"structures\.kind: expected one of \[.*'thermal'.*\], got 'termal'; did you",
        ),
        ("kind: thermal", "", r"structures\.kind: missing; expected one of \['file', 'packaged', 'thermal'"),
        ("kind: random", "kind: randm", r"split\.kind: expected one of .* did you mean 'random'"),
        (
            "temperature_kelvin",
            "temperature_kelvn",
            r": structures\.temperature_kelvn: unknown .* 'temperature_kelvin'\?$",
        ),
        (
            "temperature_kelvin: 500.0",
            "temperature_kelvin: .nan",
            r"temperature_kelvin: expected a finite number, got nan",
        ),
        (
            "temperature_kelvin: 500.0",
            "temperature_kelvin: -1",
            r"temperature_kelvin: expected greater than or equal to 0",
        ),
        (
            "beta: 1.8",
            "beta: 9",
            r": method\.auxiliary_basis\.even_tempered_beta: expected less than or equal to 4, got 9$",
        ),
        (
            "beta: 1.8",
            "beta: 1.8, diffuse: -1",
            r": method\.auxiliary_basis\.diffuse: expected greater than or equal to 0, got -1$",
        ),
        (
            "beta: 1.8",
            "bta: 1.8",
            r": method\.auxiliary_basis\.even_tempered_bta: unknown key .* 'even_tempered_beta'\?$",
        ),
        ("[O, H, H]", "[O, H, Hx]", r"equilibrium\.symbols: expected chemical symbols, got 'Hx'; did you mean 'H"),
        ("[O, H, H]", "[O, H]", r"structures\.equilibrium: expected one position for each of 2 symbols, got 3"),
        ("[0.0, 0.0, 0.1173]", "[0.0, 0.0]", r"positions_angstrom\.0\.2: missing"),
        (
            "train: 500",
            "train: 0.7",
            r"split: train, validation, test = 0\.7, 100, 400; expected three counts, or three",
        ),
        ("train: 500", "train: true", r"split\.train: expected a number, got True"),
        ("count: 1000", "count: 1e30", r"structures\.count: expected an integer"),
        ("count: 1000", "count: 0", r"structures\.count: expected greater than or equal to 1, got 0"),
        ("shard_size: 200", "shard_size: 1e9", r"shard_size: expected less than or equal to 10000"),
        (
            "xc: pbe",
            "xc: pbe\n  baseline: free_atoms",
            r"method: .*baseline: H0 belongs to the models",
        ),
        ("forces: false", "forces: maybe", r"targets\.forces: expected a valid boolean.*got 'maybe'"),
        ("spec_version: 1", "spec_version: 2", r"spec_version: expected 1, got 2"),
        ("name: water_thermal", "nme: water_thermal", r": nme: unknown key 'nme'; did you mean 'name'\?"),
        ("name: water_thermal", "name: ../../etc", r"name: expected .*got '\.\./\.\./etc'"),
        ("licence: CC0-1.0", "licens: CC0-1.0", r": licens: unknown key 'licens'; did you mean 'licence'\?$"),
        ("method:", "metod:", r": metod: unknown key 'metod'; did you mean 'method'\?$"),
        ("licence: CC0-1.0", "licence: CC0-1.0\nflavour: sweet", r"flavour: unknown key 'flavour'; expected one of \["),
    ],
)
def test_mistakes_are_named(water_text: str, old: str, new: str, message: str) -> None:
    assert old in water_text
    with pytest.raises(SpecError, match=message):
        parse_spec(water_text.replace(old, new, 1), "water.yaml")


def test_several_mistakes_are_listed_together(water_text: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec(water_text.replace("seed: 0", "seed: -1"), "water.yaml")
    assert str(caught.value).splitlines()[1:] == [
        "  structures.seed: expected greater than or equal to 0, got -1",
        "  split.seed: expected greater than or equal to 0, got -1",
    ]


def test_numbers_and_elements_as_people_write_them(water_text: str) -> None:
    spec = parse_spec(water_text.replace("1.0e-10", "1e-10").replace("count: 1000", "count: 1e3"), "water.yaml")
    assert spec == parse_spec(water_text, "water.yaml")
    assert parse_yaml("symbols: [N, O, No, Y]\nx: 1e-6", "text") == {"symbols": ["N", "O", "No", "Y"], "x": 1e-6}


def test_a_file_of_structures_is_no_spec(tmp_path: Path) -> None:
    (tmp_path / "my.xyz").write_text("1\n\nHe 0 0 0\n")
    with pytest.raises(SpecError, match=r"my\.xyz' holds structures, no spec: `qcsurrogate init .*my\.xyz` writes one"):
        load_spec(tmp_path / "my.xyz")
    (tmp_path / "my.yaml").write_text("structures: my.xyz\nmethod: pbe/sto-3g\n")
    with pytest.raises(SpecError, match=r"structures: expected a mapping, got 'my\.xyz'\n  method: expected a mapping"):
        load_spec(tmp_path / "my.yaml")


@pytest.mark.parametrize("text", ["", "- a\n- b", "just words", "3"])
def test_only_a_mapping_is_a_spec(text: str) -> None:
    with pytest.raises(SpecError, match="expected a mapping"):
        parse_spec(text, "file.yaml")


@pytest.mark.parametrize(
    "text", ["a: !!python/object/apply:os.system [ls]", "a: [" * 3000, "a: {b: [1, 2}", "? [a]\n: 1\n? {b: 1}\n: 2"]
)
def test_hostile_yaml_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match=r"cannot read 'file\.yaml' as YAML|unknown key"):
        parse_spec(text, "file.yaml")


def test_files_that_cannot_be_specs(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"cannot find the spec '.*nothing\.yaml'; expected a YAML file or one of"):
        load_spec(tmp_path / "nothing.yaml")
    with pytest.raises(SpecError, match=r"cannot find the spec 'water_termal'.*did you mean 'water_thermal'"):
        load_spec("water_termal")
    (tmp_path / "large.yaml").write_text("#" * 2_000_000)
    with pytest.raises(SpecError, match="has 2000000 bytes; expected at most 1048576"):
        load_spec(tmp_path / "large.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00name")
    with pytest.raises(SpecError, match="cannot read"):
        load_spec(tmp_path / "binary.yaml")


def test_paths_are_relative_to_the_spec_and_overrides_to_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = fakes.spec().model_dump(mode="json") | {"structures": {"kind": "file", "path": "a.xyz"}}
    (tmp_path / "spec.yaml").write_text(dump_yaml(data))
    spec = load_spec(tmp_path / "spec.yaml")
    assert isinstance(spec.structures, FileSource)
    assert spec.structures.path == str(tmp_path / "a.xyz")

    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    moved = load_spec(tmp_path / "spec.yaml", {"structures.path": "b.xyz", "method.xc": "pbe"})
    assert isinstance(moved.structures, FileSource)
    assert moved.structures.path == str(here / "b.xyz")
    assert moved.method.xc == "pbe"
    shipped = load_spec("rmd17_ethanol")
    assert isinstance(shipped.structures, FileSource)
    assert shipped.structures.path == str(here / "rmd17_ethanol.npz")
    with pytest.raises(SpecError, match=r"method\.xcc: unknown key"):
        load_spec("water_thermal", {"method.xcc": "pbe"})
    with pytest.raises(SpecError, match="'name' is no mapping"):
        load_spec("water_thermal", {"name.xc": "pbe"})


def test_key_depends_on_what_is_computed_and_on_nothing_else() -> None:
    structure = Structure([1, 1], [[0, 0, 0], [0, 0, 1.4]], name="a")
    spec = fakes.spec()
    key = spec.record_key(structure)
    assert len(key) == 32
    same = fakes.spec(name="other", split=MoleculeSplit(kind="by_molecule", train=0.8, validation=0.1, test=0.1))
    assert same.record_key(Structure([1, 1], [[0, 0, 0], [0, 0, 1.4]], name="b")) == key
    assert spec.record_key(structure.moved([[0, 0, 0], [0, 0, 1.41]])) != key
    method = spec.method.model_copy(update={"conv_tol": 1e-9})
    targets = spec.targets.model_copy(update={"forces": True})
    assert len({key, *(fakes.spec(**c).record_key(structure) for c in ({"method": method}, {"targets": targets}))}) == 3


def test_forces_with_the_response_of_the_grid_have_a_key_of_their_own() -> None:
    targets = Targets(forces=True)
    assert targets.key_content()["forces"] == "with grid response"
    assert Targets().key_content() == Targets().model_dump(mode="json")


def test_default_key_never_changes() -> None:
    structure = Structure([1, 1], [[0, 0, 0], [0, 0, 1.4]])
    assert load_spec("water_thermal").record_key(structure) == "e2d8bd4fea96cfd750797a554e39a3d7", (
        "records of existing stores would not be found again; if method or targets changed meaning, raise spec_version"
    )
