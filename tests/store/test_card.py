"""The data card says what is in a store, and says it the same way twice."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from qcsurrogate import cli
from qcsurrogate.store.card import data_card, histogram
from qcsurrogate.store.consolidate import consolidate
from qcsurrogate.store.store import Store
from tests.store import fakes
from tests.store.stores import make_store


@pytest.fixture(scope="module")
def partial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 of 10 records; one structure failed."""
    folder = make_store(tmp_path_factory.mktemp("card") / "store", fakes.spec(citation="A | B"), rows=range(8))
    key = folder.read_header().plan.keys[8]
    folder.write_failure(key, "not_converged", "SCF for structure 'hydrogen_8' stopped after 60 cycles")
    return folder.path


def tables(card: str) -> list[list[list[str]]]:
    """Rows of cells of every table; fails if a table is not rectangular."""
    found = []
    for block in re.findall(r"(?:^\|.*\|\n?)+", card, re.MULTILINE):
        rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in block.strip().splitlines()]
        assert len({len(row) for row in rows}) == 1
        assert len({len(line) for line in block.strip().splitlines()}) == 1  # aligned for people too
        found.append([[cell.strip() for cell in row] for row in rows if not set("".join(row)) <= set("-:")])
    return found


def test_numbers_are_those_of_the_store(partial: Path) -> None:
    card = data_card(partial)
    store = Store.open(partial)
    assert card.startswith("# hydrogens\n\n8 converged Kohn-Sham calculations (lda/sto-3g) of molecules made of H:")
    contents = tables(card)
    assert contents[0][1:] == [["waiting", "1"], ["complete", "8"], ["error", "1"]]
    assert contents[1][1:] == [[s, str(len(store.keys(s)))] for s in ("train", "validation", "test")]
    assert contents[2][1:] == [["H", "16", "8", "100.0 %"]]
    settings = dict(row for table in contents for row in table if len(row) == 2)
    for name, value in store.spec.method.model_dump(mode="json").items():
        if value is not None and not isinstance(value, (bool, dict, list)):
            assert settings[f"`{name}`"] in (str(value), f"{value:g}" if isinstance(value, float) else str(value))
    assert settings["`targets.forces`"] == "no"
    assert settings["level shift"] == "8"
    assert settings["SCF cycles per record: mean, largest"] == "7.0, 7"
    assert settings["per record: mean, largest"] == "0.25 s, 0.25 s"
    assert settings["not_converged"] == "1"
    assert settings["`sigma_angstrom`"] == "0.02"
    assert "1 structures have no record" in card
    assert "Licence of the structures: not stated." in card
    assert f"`{store.dataset_hash()}`" in card
    for name in ("hamiltonian", "density_coefficients", "energy"):
        assert f"| `{name}`" in card
    assert "core_hamiltonian` |" not in card.split("## Computation")[0].split("## Each record")[1]


def test_the_same_store_gives_the_same_card(partial: Path, tmp_path: Path) -> None:
    card = data_card(partial)
    assert data_card(partial) == card
    consolidate(partial, tmp_path / "large", quiet=True)
    assert data_card(tmp_path / "large") == card
    assert str(tmp_path) not in card
    assert str(partial) not in card


def test_a_card_of_a_store_that_has_only_begun(tmp_path: Path) -> None:
    card = data_card(make_store(tmp_path / "store", fakes.spec(5), rows=[]).path)
    assert card.startswith("# hydrogens\n\n0 converged")
    assert "## Composition" not in card
    assert "None: every structure that was tried is complete." in card


def test_histogram_bars_are_in_proportion(partial: Path) -> None:
    text = histogram(np.array([3] * 40 + [4] * 10 + [6] * 1), "atoms")
    lines = text.splitlines()
    assert lines[0] == "```text"
    assert [line.count("█") for line in lines[1:-1]] == [40, 10, 0, 1]
    assert [line.split()[0] for line in lines[1:-1]] == ["3", "4", "5", "6"]
    assert [line.split()[-1] for line in lines[1:-1]] == ["40", "10", "0", "1"]
    wide = histogram(np.arange(1, 1001), "orbitals").splitlines()[1:-1]
    assert len(wide) <= 24
    assert wide[0].split()[:2] == ["1-42", "orbitals"]
    assert sum(int(line.split()[-1]) for line in wide) == 1000


def test_the_command(partial: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["card", str(partial)]) == 0
    assert capsys.readouterr().out == data_card(partial)
    assert cli.main(["card", str(partial), "--out", str(tmp_path / "README.md")]) == 0
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == data_card(partial)
