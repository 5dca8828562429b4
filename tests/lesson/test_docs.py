"""The page docs/symmetry.md: its snippets run, its numbers are those of the package."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from qcsurrogate.lesson.run import TABLE_NAME
from qcsurrogate.quantities.property.networks import NETWORKS, TargetSpec
from qcsurrogate.tables.table import open_table

PAGE = Path(__file__).parents[2] / "docs" / "symmetry.md"
TEXT = PAGE.read_text(encoding="utf-8")


def test_snippets_run(capsys: pytest.CaptureFixture[str]) -> None:
    snippets = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    assert len(snippets) >= 5
    exec(compile("\n".join(snippets), PAGE.name, "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "14.0 14.0"
    assert printed[-1] == str({name: network.group for name, network in NETWORKS.items()})


def test_pictures_lie_where_the_page_looks_for_them() -> None:
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", TEXT)
    assert len(pictures) == 4
    for picture in pictures:
        assert (PAGE.parent / picture).read_bytes().startswith(b"\x89PNG")


def test_every_network_has_a_row_with_its_group() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", TEXT, flags=re.MULTILINE))
    assert rows == {name: network.group for name, network in NETWORKS.items()}


def test_what_elements_and_places_leave_of_r2() -> None:
    table = open_table(TABLE_NAME)
    keys = table.keys("train")
    structures, labels = [table.structure(key) for key in keys], np.array(table.labels(["r2"], keys)["r2"])
    left = {r: TargetSpec.fitted("r2", "scalar", r, labels.tolist(), structures).spread for r in ("r2", "sum")}
    assert {name: float(f"{spread:.2g}") for name, spread in left.items()} == {"r2": 2.8, "sum": 200.0}
    assert "leaves\n2.8 a0^2" in TEXT
    assert "counting elements leaves 200" in TEXT
