"""A store grows: structures that its spec has come to have are added behind those that it holds.

What decides a record's numbers (method, targets) never changes, nor does a structure
leave, nor its part of the split.  The new plan and spec are written beside the old ones
before ``store.json`` names them, so a process that dies leaves the old store or the new.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import Final

from qcsurrogate.errors import SpecError
from qcsurrogate.reference.atoms import free_atoms
from qcsurrogate.store.folder import StoreFolder
from qcsurrogate.store.header import Extent, Header, source_digest, write_header, write_plan_and_spec
from qcsurrogate.store.plan import make_plan
from qcsurrogate.store.spec import (
    DESCRIPTIVE,
    SPLIT_NAMES,
    AutoSplit,
    DataSpec,
    HashSplit,
    MoleculeSplit,
    SizeSplit,
    differences,
)
from qcsurrogate.store.store import Store

_COUNTS: Final = tuple(f"split.{name}" for name in SPLIT_NAMES)
_MAY_CHANGE: Final = ("structures", *DESCRIPTIVE)

_RULES: Final[dict[type, str]] = {
    SizeSplit: "by size, small ones by a seeded hash",
    AutoSplit: "by a seeded hash, in the same shares",
    MoleculeSplit: "with its molecule where the store has it, else by a seeded hash",
}


def resumed(folder: StoreFolder, spec: DataSpec, say: Callable[[str], None]) -> Header:
    """The header of a store with which a spec goes on; the store grows first where the spec has grown.

    Raises:
        SpecError: if something else has changed, or a structure of the store is missing.
        StructureError, BasisError, ConvergenceError: if the new structures cannot be planned.
    """
    header = folder.read_header()
    changes = differences(header.spec, spec)
    _require_growth(folder, header.spec, spec, changes)
    digest = source_digest(spec)
    of_structures = any(line.startswith(("structures", "split")) for line in changes)
    if not of_structures and digest in (None, header.source_digest):
        return header if not changes else _revised(folder, replace(header, spec=spec))
    say(f"planning {spec.name}: its structures have changed since '{folder.path.name}' was planned")
    plan, collected = make_plan(spec, header.plan)
    say("structures: " + ", ".join(f"{what} {n}" for what, n in collected.items()))
    n_new, surplus = len(plan) - len(header.plan), collected.get("left out: more than the split asks for", 0)
    say(f"store grows: {n_new} new structure{'s' * (n_new != 1)}, {len(header.plan)} kept")
    if surplus:
        say(f"split: {surplus} structures are more than its counts ask for; raise them to take in more")
    if n_new and (how := how_grown(spec)):
        say(f"split: {how}")
    grown = replace(header, spec=spec, plan=plan, collected=collected, source_digest=digest)
    if not changes and not n_new:  # another file of the same structures
        write_header(folder.path, grown)
        return grown
    elements = [z for z in plan.elements if z not in header.atoms]
    atoms = {**header.atoms, **free_atoms(elements, spec.method)} if elements else header.atoms
    return _revised(folder, replace(grown, atoms=dict(sorted(atoms.items()))))


def how_grown(spec: DataSpec) -> str:
    """How the split of a spec divides structures that are added later, in words; nothing where it says so itself."""
    if isinstance(spec.split, HashSplit):
        return ""
    rule = _RULES.get(type(spec.split), "by a seeded hash")
    return (
        f"'{spec.split.kind}' divides a set that is there at once; what comes later is divided {rule}. Only 'by_hash' "
        "gives a store that grows the parts of one made at once"
    )


def _require_growth(folder: StoreFolder, before: DataSpec, after: DataSpec, changes: list[str]) -> None:
    counts = _has_counts(before) and _has_counts(after)
    names = {line: line.partition(":")[0] for line in changes}
    refused = [
        line
        for line, name in names.items()
        if name.partition(".")[0] not in _MAY_CHANGE and not (counts and name in _COUNTS)
    ]
    if refused:
        raise SpecError(
            f"'{folder.path}' was begun with another spec; expected the same, but for structures that are added "
            "(`structures`, counts of `split`), `name`, `licence` and `citation`. Changed:\n  "
            + "\n  ".join(refused)
            + "\nGenerate into another folder, or take the changes back."
        )


def _has_counts(spec: DataSpec) -> bool:
    return not isinstance(spec.split, SizeSplit) and not spec.split.are_fractions


def _revised(folder: StoreFolder, grown: Header) -> Header:
    """Write a header whose spec or plan are new, as the next revision."""
    with closing(Store.open(folder.path)) as store:
        extent = Extent(store.header.plan_digest, len(store.plan), store.dataset_hash())
    header = write_plan_and_spec(folder.path, replace(grown, earlier=(*grown.earlier, extent)))
    write_header(folder.path, header)
    return header
