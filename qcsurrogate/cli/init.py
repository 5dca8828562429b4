"""The command ``init``: from files of structures to a commented data spec, with what they hold and may cost."""

from __future__ import annotations

import argparse
import os
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill, indent
from typing import TYPE_CHECKING, Any

from qcsurrogate.cli.arguments import JSON, QUIET, Commands, argument, command, overrides, print_json, say, setting
from qcsurrogate.errors import SpecError, StructureError
from qcsurrogate.units import duration

if TYPE_CHECKING:
    from qcsurrogate.sources.chosen import Collected
    from qcsurrogate.store.spec import DataSpec

_Lines = Sequence[tuple[str, str | None, str]]

_SETTINGS: Mapping[str, _Lines] = {
    "structures": (
        ("path", None, "from this file's folder; one, a pattern with *, or a list"),
        ("limit", "1000", "take at most so many; default: all"),
        ("subset", "{elements: [H, C, N, O], max_atoms: 20}", "default: all"),
        ("deduplicate", "{tolerance_angstrom: 0.05}", "up to motion and order of atoms; default: equal coordinates"),
        ("skip_bad", None, "true: leave bad geometries out, and count them"),
    ),
    "method": (
        ("xc", None, "functional by PySCF's name, as b3lyp or b3lyp-d3bj"),
        ("basis", None, "by PySCF's name; spherical, all-electron"),
        ("auxiliary_basis", None, "expands the density; smaller is finer, and so are diffuse: 1, higher_l: 1"),
        ("charge", None, "where the file does not say"),
        ("spin", None, "unpaired electrons, where the file does not say"),
        ("spin_treatment", None, "restricted: closed shells only; unrestricted: any charge and spin"),
        ("density_fit", None, "or true: fits the two-electron integrals of the SCF"),
        ("search", None, "which solution: first, lowest or auto"),
        ("stability", None, "examine every solution, and follow instabilities"),
        ("grid_level", None, "of PySCF, 0 to 9"),
        ("conv_tol", None, "Hartree"),
    ),
    "targets": (
        ("density_coefficients", None, "what density models learn"),
        ("core_hamiltonian", None, "kinetic energy and nuclear attraction"),
        ("forces", None, "with the response of the grid"),
    ),
}
"""Common settings by section: key, an example where there is no default, comment."""

_FASTEST = 0.2
"""Of what the cost model expects before it has learnt: the least that a molecule took in trials (0.22 to 0.47)."""


def add_commands(commands: Commands) -> None:
    command(
        commands,
        "init",
        "write a commented data spec for files of structures, and say what they hold and may cost",
        "qcsurrogate init molecules.xyz --set method.basis=def2-tzvp",
        _init,
        argument("structures", metavar="FILE", nargs="+", help="xyz, extxyz, sdf, npz, db, tar, or a folder"),
        argument("--out", metavar="SPEC", help="new file (default: named after the first, in this folder)"),
        setting("a value of the spec", "method.charge=1"),
        QUIET,
        JSON,
    )


def _init(options: argparse.Namespace) -> int:
    from qcsurrogate.store.spec import make_spec, name_of

    first = Path(options.structures[0])
    out = Path(options.out or f"{name_of(first)}.yaml")
    if out.exists():
        raise SpecError(f"'{out}' is there already and is not overwritten; expected a new name: --out OTHER.yaml")
    paths = [str(Path(path).absolute()) for path in options.structures]
    data: dict[str, Any] = {
        "name": name_of(out),
        "structures": {"kind": "file", "path": paths if len(paths) > 1 else paths[0]},
        "method": {"xc": "pbe", "basis": "def2-svp"},
    }
    spec = make_spec(data, str(out), Path.cwd(), overrides(options.set))
    spec, found = _collected(spec)
    facts = _facts(spec, found)
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(_text(spec, facts, out.absolute().parent))
    except FileExistsError as error:
        raise SpecError(f"'{out}' is there already and is not overwritten; expected a new name") from error
    store = out.stem if not Path(out.stem).exists() else f"{out.stem}_store"
    following = shlex.join(["qcsurrogate", "generate", str(out), "--out", store])
    if options.json:
        print_json({"spec": str(out), **facts, "next": following})
        return 0
    if not options.quiet:
        for line in _sentences(facts):
            say(line)
        say(f"wrote {out}: read it, change what you like, then")
    print(following)
    return 0


def _collected(spec: DataSpec) -> tuple[DataSpec, Collected]:
    """What the spec's files hold, and the spec with the spin treatment that they need."""
    from qcsurrogate.sources.collect import collect

    try:
        found = collect(spec)
    except StructureError as error:
        advice = "; in an xyz file: charge=1 or spin=1 in the comment line; for all: --set method.charge=1"
        raise StructureError(f"{error}{advice if ' electrons (charge' in str(error) else ''}") from error
    if any(s.spin for s in found.structures) and "spin_treatment" not in spec.method.model_fields_set:
        open_shell = spec.method.model_copy(update={"spin_treatment": "unrestricted"})
        spec = spec.model_copy(update={"method": open_shell})
    for structure in found.structures:
        spec.method.require_spin(structure)
    return spec, found


def _facts(spec: DataSpec, found: Collected) -> dict[str, Any]:
    """What was found, as plain data; refuses elements that a basis lacks."""
    import numpy as np
    from ase.data import chemical_symbols

    from qcsurrogate.generation.batches import CostModel, size_measures
    from qcsurrogate.store.spec import SPLIT_NAMES
    from qcsurrogate.store.splits import LEFT_OUT, assign_splits

    keys = [s.key for s in found.structures]
    found = found.keeping(sorted({key: i for i, key in reversed(list(enumerate(keys)))}.values()), "repeated")
    structures = found.structures
    elements = sorted({int(z) for s in structures for z in s.atomic_numbers})
    orbital = spec.method.orbital_basis(elements)
    if spec.targets.density_coefficients:
        spec.method.density_basis(elements)
    functions = np.zeros(max(elements) + 1, np.int64)
    functions[elements] = [orbital[z].n_functions for z in elements]
    n_atoms = np.array([len(s) for s in structures])
    n_ao = np.array([functions[s.atomic_numbers].sum() for s in structures])
    parts = np.bincount(assign_splits(spec.split, structures, found.groups), minlength=LEFT_OUT + 1)
    return {
        "structures": len(structures),
        "report": found.report,
        "elements": [chemical_symbols[z] for z in elements],
        "atoms": [int(n_atoms.min()), int(n_atoms.max())],
        "orbitals": [int(n_ao.min()), int(n_ao.max())],
        "charges": {str(q): n for q, n in sorted(Counter(s.charge for s in structures).items())},
        "unpaired_electrons": {str(n): k for n, k in sorted(Counter(s.spin for s in structures).items())},
        "split": dict(zip(SPLIT_NAMES, parts[:LEFT_OUT].tolist(), strict=True)),
        "estimated_core_seconds": float(CostModel().seconds(size_measures(n_atoms, n_ao)).sum()),
    }


def _sentences(facts: Mapping[str, Any]) -> list[str]:
    """What was found, for people."""

    def span(name: str) -> str:
        low, high = facts[name]
        return f"{low} {name}" if low == high else f"{low} to {high} {name}"

    def counted(name: str) -> str:
        values = facts[name]
        return ", ".join(values if len(values) == 1 else (f"{value} ({n})" for value, n in values.items()))

    n, seconds = facts["structures"], facts["estimated_core_seconds"]
    report = ", ".join(f"{what} {n}" for what, n in facts["report"].items())
    parts = ", ".join(f"{name} {n}" for name, n in facts["split"].items())
    cost = " to ".join(dict.fromkeys(duration(max(s, 1)) for s in (_FASTEST * seconds, seconds)))
    lines = [
        f"{n} structure{'s' * (n != 1)} of {', '.join(facts['elements'])}: {span('atoms')}, {span('orbitals')} "
        f"({report}).",
        f"Charge: {counted('charges')}. Unpaired electrons: {counted('unpaired_electrons')}.",
        f"Split: {parts}.",
        f"Rough cost: {cost} of one core, guessed from sizes before anything was measured; small molecules "
        "took 0.2 to 0.5 of the upper end in trials, difficult ones may exceed it. "
        "`qcsurrogate status` estimates from what is done.",
    ]
    if set(facts["unpaired_electrons"]) != {"0"}:
        lines.insert(2, "Open shells: the method is unrestricted; models then learn both spins.")
    if not facts["split"]["validation"]:
        lines.insert(-1, "Labels only: training needs at least one structure to train and one to validate on.")
    return lines


def _text(spec: DataSpec, facts: Mapping[str, Any], folder: Path) -> str:
    """The file: what is said stands there, what is not stands in comments with its default."""
    said = spec.model_dump(mode="json", exclude_unset=True)
    said["structures"] = {"kind": "file", "path": "", **said["structures"]}  # first
    for key in ("path", "leave_out"):
        value = said["structures"].get(key)
        if value is not None:
            said["structures"][key] = (
                [_nearby(v, folder) for v in value] if isinstance(value, list) else _nearby(value, folder)
            )
    head = ["Written by `qcsurrogate init`. What is commented out shows other settings, with their defaults.", ""]
    head += [*_sentences(facts), "", "All settings: qcsurrogate schema"]
    lines = [("# " + fill(line, 116).replace("\n", "\n# ")).rstrip() for line in head]
    lines += [_entry("name", said.pop("name"))]
    for section, settings in _SETTINGS.items():
        lines += ["", *_section(section, said.pop(section, {}), settings, getattr(spec, section))]
    lines += [""] + [_entry(key, value) for key, value in said.items()]
    for key, other, comment in (
        ("split", None, "80, 10, 10 %; few are divided too. Or:"),
        ("split", "{kind: by_molecule, train: 0.8, validation: 0.1, test: 0.1}", "no molecule in two parts"),
        ("licence", None, "of the structures, such as CC-BY-4.0; travels with the data"),
        ("citation", None, "what to cite for the structures"),
    ):
        if key not in said:
            lines.append(_with_comment("# ", key, getattr(spec, key), other, comment))
    return "\n".join(lines) + "\n"


def _section(name: str, said: Mapping[str, Any], settings: _Lines, values: object) -> list[str]:
    """A section; all of it is a comment if nothing of it is said."""
    comments = {key: comment for key, _, comment in settings}
    mark, outer = ("  # ", "") if said else ("#   ", "# ")
    rest = [setting for setting in settings if setting[0] not in said]
    return [
        f"{outer}{name}:",
        *(indent(_with_comment("", key, value, None, comments.get(key, ""), 46), "  ") for key, value in said.items()),
        *(_with_comment(mark, key, getattr(values, key), example, comment) for key, example, comment in rest),
    ]


def _with_comment(mark: str, key: str, value: Any, instead: str | None, comment: str, width: int = 48) -> str:
    """``key: value  # comment``; of values of many lines without the comment."""
    entry = mark + (_entry(key, value) if instead is None else f"{key}: {instead}")
    return entry if "\n" in entry or not comment else f"{entry:<{width}}  # {comment}"


def _entry(key: str, value: Any) -> str:
    from qcsurrogate.files.yaml_model import dump_yaml

    text = dump_yaml({key: value.model_dump(mode="json") if hasattr(value, "model_dump") else value}).rstrip()
    return text[1:-1] if text.startswith("{") else text


def _nearby(path: str, folder: Path) -> str:
    """A path as it is written into a spec: from the spec's folder, if it lies in there."""
    return os.path.relpath(path, folder) if Path(path).is_relative_to(folder.resolve()) else path
