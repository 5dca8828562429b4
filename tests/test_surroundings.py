"""The command line where something around it is missing: packages, permissions, characters, locks."""

from __future__ import annotations

import pytest

from qcsurrogate.cli.arguments import print_tree


def test_long_lists_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    print_tree({"structures": [f"water_{i}" for i in range(190)], "elements": ["H", "O"]})
    assert capsys.readouterr().out.splitlines() == [
        "structures: water_0, water_1, water_2, water_3, water_4, ... (190 in all; --json lists them)",
        "elements: H, O",
    ]
