"""A data card: what a store holds and how it was made, in markdown for people.

The same store gives the same card: it has no dates, and names no paths of the machine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from qcsurrogate.files.nested import flat
from qcsurrogate.reference.ladder import LADDER
from qcsurrogate.reference.record import Field
from qcsurrogate.sources.kinds import without_folders
from qcsurrogate.store.failures import group_failures
from qcsurrogate.store.growth import how_grown
from qcsurrogate.store.header import Header
from qcsurrogate.store.manifest import count_versions
from qcsurrogate.store.shards import stored_fields
from qcsurrogate.store.spec import SPLIT_NAMES, DataSpec
from qcsurrogate.store.store import Store
from qcsurrogate.units import duration

_BAR_LENGTH = 40
_MOST_BINS = 24
_MOST_GROUPS = 10
_SHOWN_VERSIONS = ("qcsurrogate", "pyscf", "numpy", "scipy", "h5py", "python")


def data_card(path: str | Path) -> str:
    """The card of a store, as markdown.

    Raises:
        StoreError: if the folder is no store, or a file of it is damaged.
    """
    with closing(Store.open(path)) as store:
        parts = [
            _title(store),
            _contents(store),
            _composition(store),
            _level_of_theory(store.spec),
            _fields(store.spec),
            _computation(store),
            _failures(store),
            _origin(store.header),
            _loading(store),
        ]
        return "\n\n".join(part for part in parts if part) + "\n"


def _title(store: Store) -> str:
    spec, method = store.spec, store.spec.method
    return (
        f"# {spec.name}\n\n"
        f"{len(store):,} converged Kohn-Sham calculations ({method.xc}/{method.basis}) of molecules made of "
        f"{_listed(chemical_symbols[z] for z in store.plan.elements)}: densities, Hamiltonian (Fock) matrices and "
        "energies, generated with qcsurrogate and PySCF."
    )


def _contents(store: Store) -> str:
    counts = store.counts()
    splits = {name: len(store.keys(name)) for name in SPLIT_NAMES}
    states = _table(("structures", "count"), [(f"{state}", f"{n:,}") for state, n in counts.items() if n])
    parts = _table(("split", "records"), [(name, f"{n:,}") for name, n in splits.items()])
    return f"## Contents\n\n{states}\n\n{parts}"


def _composition(store: Store) -> str:
    keys = store.keys()
    if not keys:
        return ""
    complete = np.array([store.plan.index[key] for key in keys], np.int64)
    structures = store.plan.structures.take(complete)
    owner = np.repeat(np.arange(len(structures)), structures.n_atoms)
    rows = []
    for z in np.unique(structures.atomic_numbers):
        atoms = structures.atomic_numbers == z
        inside = len(np.unique(owner[atoms]))
        rows.append(
            (chemical_symbols[z], f"{int(atoms.sum()):,}", f"{inside:,}", f"{100 * inside / len(structures):.1f} %")
        )
    charges = Counter(zip(structures.charge.tolist(), structures.spin.tolist(), strict=True))
    lines = [(f"{q:+d}" if q else "0", str(s), f"{n:,}") for (q, s), n in sorted(charges.items())]
    return "\n\n".join(
        [
            "## Composition",
            _table(("element", "atoms", "in molecules", "share"), rows),
            "Atoms per molecule:",
            histogram(structures.n_atoms, "atoms"),
            "Orbitals per molecule:",
            histogram(store.plan.n_ao[complete], "orbitals"),
            _table(("charge", "unpaired electrons", "molecules"), lines),
        ]
    )


def histogram(values: NDArray[np.int64], what: str) -> str:
    """Text bars; values in bins of equal width where there are many different ones."""
    low, high = int(values.min()), int(values.max())
    width = -(-(high - low + 1) // _MOST_BINS)
    counts = np.bincount((values - low) // width, minlength=(high - low) // width + 1)
    rows = []
    for i, count in enumerate(counts):
        first, last = low + i * width, min(low + (i + 1) * width - 1, high)
        label = f"{first}" if first == last else f"{first}-{last}"
        filled = round(_BAR_LENGTH * count / counts.max())
        rows.append((label, ("█" * filled) or ("▏" if count else ""), f"{count:,}"))
    labels = max(len(row[0]) for row in rows)
    lines = [f"{label:>{labels}} {what}  {bar:<{_BAR_LENGTH}}  {count}" for label, bar, count in rows]
    return "```text\n" + "\n".join(line.rstrip() for line in lines) + "\n```"


def _level_of_theory(spec: DataSpec) -> str:
    settings = {**spec.method.model_dump(mode="json"), "targets": spec.targets.model_dump(mode="json")}
    return f"## Level of theory\n\n{_settings(settings)}"


def _settings(data: object) -> str:
    rows = [(f"`{key}`", _shown(value)) for key, value in flat(data).items() if value is not None]
    return _table(("setting", "value"), rows)


def _fields(spec: DataSpec) -> str:
    rows = [(f"`{f.name}`", _shape(f), f.units, f.description) for f in stored_fields(spec)]
    return "## Each record\n\nAtomic units; matrices in PySCF's AO order, spherical functions.\n\n" + _table(
        ("quantity", "shape", "unit", "meaning"), rows
    )


def _shape(field: Field) -> str:
    shapes = {"scalar": "", "vector3": "3", "atom": "atoms", "atom3": "atoms x 3", "triangle": "ao x ao"}
    return shapes.get(field.shape, field.shape)


def _computation(store: Store) -> str:
    if not len(store):
        return ""
    columns = store.scalars(("ladder_step", "cycles", "wall_time"))
    steps = Counter(columns["ladder_step"].tolist())
    seconds, cycles = columns["wall_time"], columns["cycles"]
    rows = [(LADDER[step] if step < len(LADDER) else str(step), f"{n:,}") for step, n in sorted(steps.items())]
    times = [
        ("wall time of all records together", duration(float(seconds.sum()))),
        ("per record: mean, largest", f"{seconds.mean():.2f} s, {seconds.max():.2f} s"),
        ("SCF cycles per record: mean, largest", f"{cycles.mean():.1f}, {int(cycles.max())}"),
    ]
    made = count_versions(store.folder.versions_of(store.header).values())
    names = [name for name in _SHOWN_VERSIONS if any(name in versions for versions, _ in made)]
    versions = [(*(found.get(name, "") for name in names), f"{n:,}") for found, n in made]
    return "\n\n".join(
        [
            "## Computation",
            _table(("converged by", "records"), rows),
            _table(("quantity", "value"), times),
            _table((*names, "records"), versions),
        ]
    )


def _failures(store: Store) -> str:
    failures = store.failures()
    if not failures:
        return "## Failures\n\nNone: every structure that was tried is complete."
    causes = Counter(failure.cause for failure in failures)
    rows = [(cause, f"{n:,}") for cause, n in causes.most_common()]
    groups = [(g.cause, f"{len(g.failures):,}", g.pattern) for g in group_failures(failures)[:_MOST_GROUPS]]
    return (
        f"## Failures\n\n{len(failures):,} structures have no record.\n\n{_table(('cause', 'structures'), rows)}\n\n"
        f"{_table(('cause', 'structures', 'message, without numbers and names'), groups)}"
    )


def _origin(header: Header) -> str:
    spec = header.spec
    numbers = [(what, f"{n:,}") for what, n in header.collected.items()]
    counted = [_table(("structures", "number"), numbers)] if numbers else []
    return "\n\n".join(
        [
            "## Structures, split, licence",
            "How the structures were collected:",
            _settings(without_folders(spec.structures.model_dump(mode="json"))),
            *counted,
            "How they were divided:",
            _settings(spec.split.model_dump(mode="json")),
            *_grown(header),
            f"Licence of the structures: {spec.licence or 'not stated'}.",
            f"To cite for the structures: {spec.citation or 'nothing stated'}.",
            "To cite for the calculations: PySCF (Sun et al., J. Chem. Phys. 2020, 153, 024109).",
        ]
    )


def _grown(header: Header) -> list[str]:
    sizes = [*(extent.n_structures for extent in header.earlier), len(header.plan)]
    if sizes[0] == sizes[-1]:
        return []
    how = how_grown(header.spec)
    grown = f"It was begun with {sizes[0]:,} structures and has grown to {_listed(f'{n:,}' for n in sizes[1:])}."
    return [f"{grown} The split {how}." if how else grown]


def _loading(store: Store) -> str:
    folder = store.spec.name
    return f"""## Loading

```python
from qcsurrogate.store.store import Store

store = Store.open("{folder}")
for record in store.read_many(store.keys("train")):
    print(record.structure.formula, record.energy, record.hamiltonian.shape)
```

```bash
qcsurrogate verify {folder} --sample 3   # checksums, physics, three records computed again
qcsurrogate train hamiltonian {folder} --out runs/{folder}
```

Hash of spec and records: `{store.dataset_hash()}`"""


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_shown(v) for v in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _listed(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table, columns of numbers to the right."""
    cells = [[_escaped(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(head), *cells]) for i in range(len(head))]
    right = [bool(cells) and all(_is_number(row[i]) for row in cells) for i in range(len(head))]

    def line(row: Sequence[str]) -> str:
        padded = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True))
        return f"| {' | '.join(padded)} |"

    rule = "|".join("-" * (w + 1) + (":" if r else "-") for w, r in zip(widths, right, strict=True))
    return "\n".join([line(head), f"|{rule}|", *(line(row) for row in cells)])


def _escaped(cell: str) -> str:
    return " ".join(str(cell).replace("|", "\\|").split())


def _is_number(cell: str) -> bool:
    return cell.replace(",", "").replace(".", "").removesuffix(" %").lstrip("+-").isdecimal() and cell.count(".") <= 1
