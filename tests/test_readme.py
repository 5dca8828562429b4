"""The README's snippets run, and its commands exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from qcsurrogate.cli import EXIT_CODES, build_parser
from qcsurrogate.store.spec import parse_spec

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_python_snippets_run(tiny_folder, tiny_runs, water_xyz, monkeypatch, capsys):
    monkeypatch.chdir(tiny_folder)
    namespace: dict[str, object] = {}
    snippets = blocks("python")
    assert len(snippets) >= 5
    for snippet in snippets:
        exec(compile(snippet, "README.md", "exec"), namespace)
    assert (tiny_folder / "water.cube").is_file()
    assert "gap" in capsys.readouterr().out
    (outside,) = (snippet for snippet in snippets if "def molecule_of" in snippet)
    code = f"import sys\nsys.modules['qcsurrogate'] = None\n{outside}"
    assert "electrons / bohr^3" in subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout


@pytest.mark.parametrize(
    "command", [line for block in blocks("bash") for line in block.splitlines() if line.startswith("qcsurrogate ")]
)
def test_commands_parse(command):
    build_parser().parse_args(shlex.split(command, comments=True)[1:])


def test_commands_and_exit_codes_are_listed():
    table = README.split("## Command line")[1]
    parser = build_parser()
    (commands,) = (action.choices for action in parser._subparsers._group_actions)
    assert set(re.findall(r"^\| `([\w-]+)", table, flags=re.MULTILINE)) == set(commands)
    codes = re.findall(r"^  (\d+) ", EXIT_CODES, flags=re.MULTILINE)
    assert re.findall(r"^\| (\d+) \|", table, flags=re.MULTILINE) == codes


def test_the_first_spec_is_all_that_is_needed():
    spec = parse_spec(blocks("yaml")[0], "README.md")
    assert (spec.split.kind, spec.licence) == ("auto", "")
    assert README.index("qcsurrogate init") < README.index("make demo")


def test_make_targets_exist():
    makefile = (Path(__file__).parents[1] / "Makefile").read_text(encoding="utf-8")
    for target in ("demo", "test", "test-slow", "lint", "bench", "clean"):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)
        assert f"`{target}`" in README or f"make {target}" in README
