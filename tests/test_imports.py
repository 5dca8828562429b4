"""Imports point only left, networks know neither PySCF nor h5py, and a leaf stays cheap."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import qcsurrogate

ROOT = Path(qcsurrogate.__file__).parent

ORDER = [
    ("errors", "interrupts", "units", "versions"),
    ("registry",),
    ("conventions", "pyscf_settings"),
    ("basis", "metadata"),
    ("structures",),
    ("domain", "files"),
    ("reference", "resources"),
    ("density",),
    ("sources",),
    ("store",),
    ("tables",),
    ("clusters",),
    ("generation", "data"),
    ("nn",),
    ("models",),
    ("training",),
    ("prediction",),
    ("comparison", "inspection"),
    ("quantities", "images"),
    ("pipeline",),
    ("curves", "demo"),
    ("testing",),
    ("lesson",),
    ("cli",),
    ("__main__",),
]
"""Parts of the package; one may import what stands left (above) of it, and itself."""

RANK = {part: rank for rank, parts in enumerate(ORDER) for part in parts}

LEARNING = ("nn", "models", "training")

MODULES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def part_of(module: str) -> str:
    """``qcsurrogate.nn.gates`` -> ``nn``."""
    return module.split(".")[1]


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imported(path: Path, *, types: bool = True) -> Iterator[str]:
    """Every module that a file imports, anywhere in it; without ``types`` not those for annotations only."""
    package = name_of(path) if path.name == "__init__.py" else name_of(path).rpartition(".")[0]
    pending: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while pending:
        node = pending.pop()
        if not types and is_type_checking(node):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) + 1 - node.level]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names if module == "qcsurrogate")
        pending.extend(ast.iter_child_nodes(node))


def test_every_part_has_its_place() -> None:
    assert {part_of(name_of(path)) for path in MODULES} <= RANK.keys()


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_left(path: Path) -> None:
    own = part_of(name_of(path))
    for module in imported(path):
        if not module.startswith("qcsurrogate."):
            continue
        other = part_of(module)
        if (own == "registry" or (own, other) == ("basis", "structures")) and module not in imported(path, types=False):
            continue  # annotations: a basis builds a Mole from a structure, a quantity knows all stages
        if other in RANK:  # `from qcsurrogate import load` names no part
            allowed = other == own or RANK[other] < RANK[own]
            assert allowed, f"{name_of(path)} imports {module}, which stands right of it"


@pytest.mark.parametrize(
    "path", [p for p in MODULES if part_of(name_of(p)) in LEARNING or p.stem in ("graphs", "blocks")], ids=name_of
)
def test_networks_import_neither_pyscf_nor_h5py(path: Path) -> None:
    forbidden = {"pyscf", "h5py"}
    assert not {module.split(".")[0] for module in imported(path, types=False)} & forbidden


def loaded_after(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after an import."""
    code = f"{statement}\nimport sys\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    return set(done.stdout.split())


def test_learning_loads_neither_pyscf_nor_h5py() -> None:
    names = [name_of(p) for p in MODULES if part_of(name_of(p)) in LEARNING]
    names += ["qcsurrogate.data.graphs", "qcsurrogate.data.blocks"]
    assert len(names) > 10
    assert not loaded_after(f"import {', '.join(names)}") & {"pyscf", "h5py", "dask", "distributed", "matplotlib"}


@pytest.mark.parametrize("module", ["qcsurrogate", "qcsurrogate.units", "qcsurrogate.errors"])
def test_a_leaf_is_cheap(module: str) -> None:
    assert not loaded_after(f"import {module}") & {"torch", "numpy", "pyscf", "h5py", "dask", "ase"}


def test_the_command_line_starts_without_torch_and_pyscf() -> None:
    assert not loaded_after("import qcsurrogate.cli") & {"torch", "pyscf", "dask", "matplotlib"}
