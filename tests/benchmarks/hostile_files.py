"""Question: can a damaged or hostile file crash the reader, fill the memory, or give a wrong value?

Every file of a store, small and large shards, is damaged at random places: single bits
flipped, lengths cut, stretches overwritten, and HDF5 metadata changed with its checksum
made right again, as somebody would who means harm.  After each change the store is
opened and everything in it is read, by a process of limited memory.  What comes back is
``refused`` (an error of this package), ``harmless`` (all values are as they were) or
``wrong``.

    python tests/benchmarks/hostile_files.py --trials 1000

Exit code 1 if a value was wrong, or a process crashed or grew beyond its limit.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from qcsurrogate.errors import QCSurrogateError  # noqa: E402
from qcsurrogate.reference.atoms import free_atoms_to_dict  # noqa: E402
from qcsurrogate.store import store as store_module  # noqa: E402
from qcsurrogate.store.consolidate import consolidate  # noqa: E402
from qcsurrogate.store.plan import read_plan  # noqa: E402
from qcsurrogate.store.shards import read_records, stored_fields  # noqa: E402
from qcsurrogate.store.store import Store  # noqa: E402
from tests.store import fakes  # noqa: E402
from tests.store.stores import make_store  # noqa: E402

MEMORY_BYTES = 512 * 2**20
"""What a reader may use beyond what it has when everything is imported."""

FILES = {
    "shard": "shards/shards/shard_00000.h5",
    "shard manifest": "shards/shards/shard_00000.json",
    "single record": "shards/pending/*.record",
    "large shard": "large/shards/shard_00000.h5",
    "plan": "shards/plan.h5",
    "spec": "shards/spec.yaml",
    "header": "shards/store.json",
}
PLANNED = ("n_atoms", "atomic_numbers", "positions", "charge", "spin", "names")
DAMAGES = ("flip", "cut", "overwrite", "metadata")


def build(folder: Path) -> None:
    """A store in shards with two single records, and the same in large files."""
    make_store(folder / "shards", fakes.spec(12, shard_size=5), pending=2, shuffled=True)
    consolidate(folder / "shards", folder / "large", max_bytes=10**9, quiet=True)


def contents(path: Path, *, digests: bool) -> str:
    """A hash of everything that a store gives.

    Without ``digests`` shards are read as if no digest were known, so that only HDF5's
    checksums and our own checks stand between a changed byte and the reader.
    """
    store_module.LARGE_FILE_BYTES = 0 if path.name == "large" else 2**26  # read record by record
    store = Store.open(path)
    if digests:
        for shard in store.folder.manifests():
            store_module.check_digest(shard.path, shard.digest)
    found = hashlib.sha256()

    def add(*values: object) -> None:
        for value in values:
            found.update(value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode())

    add(store.spec, free_atoms_to_dict(store.atoms), sorted(store.header.versions.items()), store.counts())
    for key in store.plan.keys:
        structure = store.structure(key)
        add(key, structure.name, structure.key, store.split_of(key), store.state_of(key))
    if digests or path.name == "large":
        for record in store.read_many(store.keys()):
            add(*(record.value(field) for field in _fields(store)))
    else:
        files = [(m.path, m.keys) for m in store.folder.manifests()]
        files += [(p, (p.stem,)) for p in sorted(store.folder.pending.glob("*.record"))]
        records = {}
        for file, keys in files:
            packed = read_records(file, keys, store.plan, store.spec)
            records |= {key: packed.record(key) for key in keys}
        for key in store.keys():  # noqa: SIM118 - no mapping
            add(*(records[key].value(field) for field in _fields(store)))
    store.close()
    return found.hexdigest()


def _fields(store: Store) -> list[str]:
    return [field.name for field in stored_fields(store.spec)]


def plan_contents(path: Path) -> str:
    """A hash of what the plan of a store gives, if no digest of it were known."""
    plan = read_plan(path)
    numbers = [plan.split, plan.n_ao, plan.n_aux, *(getattr(plan.structures, n) for n in PLANNED)]
    return hashlib.sha256(repr((plan.keys, [a.tobytes() for a in numbers])).encode()).hexdigest()


def flip(data: bytes, generator: np.random.Generator) -> bytes:
    changed = bytearray(data)
    changed[generator.integers(len(changed))] ^= 1 << int(generator.integers(8))
    return bytes(changed)


def cut(data: bytes, generator: np.random.Generator) -> bytes:
    return data[: generator.integers(len(data))]


def overwrite(data: bytes, generator: np.random.Generator) -> bytes:
    changed = bytearray(data)
    start, length = int(generator.integers(len(data))), int(generator.integers(1, 64))
    changed[start : start + length] = generator.bytes(len(changed[start : start + length]))
    return bytes(changed)


def metadata(data: bytes, generator: np.random.Generator) -> bytes:
    """Change a few bytes of one block of HDF5 metadata, and make its checksum right again."""
    blocks = checksummed_blocks(data)
    start, stop = blocks[int(generator.integers(len(blocks)))]
    changed = bytearray(data)
    for _ in range(int(generator.integers(1, 4))):
        place = int(generator.integers(start + 4, stop))
        changed[place] = int(generator.choice([0, 1, 2, 0x7F, 0x80, 0xFF, generator.integers(256)]))
    changed[stop : stop + 4] = lookup3(bytes(changed[start:stop])).to_bytes(4, "little")
    return bytes(changed)


_BLOCKS: dict[str, list[tuple[int, int]]] = {}


def checksummed_blocks(data: bytes) -> list[tuple[int, int]]:
    """Where metadata lies that carries a checksum right behind it: superblock, object headers, arrays of chunks."""
    name = hashlib.sha256(data).hexdigest()
    if name not in _BLOCKS:
        candidates = [(0, 44)]
        for signature in (b"OHDR", b"FAHD", b"FADB", b"BTHD", b"BTLF", b"FRHP"):
            start = data.find(signature)
            while start >= 0:
                candidates += [(start, stop) for stop in _possible_stops(data, start, signature)]
                start = data.find(signature, start + 4)
        _BLOCKS[name] = [(a, b) for a, b in candidates if lookup3(data[a:b]) == _number(data[b : b + 4])]
    return _BLOCKS[name]


def _possible_stops(data: bytes, start: int, signature: bytes) -> list[int]:
    if signature == b"FAHD":
        return [start + 24]
    if signature != b"OHDR":
        return list(range(start + 14, min(start + 200, len(data) - 4)))
    flags = data[start + 5]
    before = 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
    width = 1 << (flags & 3)
    return [start + before + width + _number(data[start + before : start + before + width])]


def _number(data: bytes) -> int:
    return int.from_bytes(data, "little")


def lookup3(data: bytes) -> int:
    """The checksum of HDF5's metadata: Bob Jenkins's hash ``lookup3`` (2006), initial value 0."""
    mask = 0xFFFFFFFF

    def rotated(value: int, bits: int) -> int:
        return ((value << bits) | (value >> (32 - bits))) & mask

    state = [(0xDEADBEEF + len(data)) & mask] * 3
    padded = data + bytes(-len(data) % 12)
    for start in range(0, len(padded), 12):
        for i in range(3):
            state[i] = (state[i] + _number(padded[start + 4 * i : start + 4 * i + 4])) & mask
        if start + 12 < len(padded):
            for step, bits in enumerate((4, 6, 8, 16, 19, 4)):
                i, last, other = step % 3, (step + 2) % 3, (step + 1) % 3
                state[i] = ((state[i] - state[last]) & mask) ^ rotated(state[last], bits)
                state[last] = (state[last] + state[other]) & mask
    for step, bits in enumerate((14, 11, 25, 16, 4, 14, 24)):
        i, last = (2 + step) % 3, (1 + step) % 3
        state[i] = ((state[i] ^ state[last]) - rotated(state[last], bits)) & mask
    return state[2]


def trials(folder: Path, damage: str, kinds: list[str], count: int, seed: int) -> Iterator[tuple[str, str, str]]:
    """Damage files one after the other: (kind of file, with or without digests, what came back)."""
    change: Callable[[bytes, np.random.Generator], bytes] = globals()[damage]
    generator = np.random.default_rng(seed)
    truth = {name: contents(folder / name, digests=True) for name in ("shards", "large")}
    plan = plan_contents(folder / FILES["plan"])
    sizes = {kind: next(folder.glob(FILES[kind])).stat().st_size for kind in kinds}
    for trial in range(count):
        # every kind of file in turn, so that small files have their share
        kind = kinds[trial % len(sizes)]
        path = next(folder.glob(FILES[kind]))
        good = path.read_bytes()
        store = FILES[kind].partition("/")[0]
        bad = change(good, generator)
        try:
            path.write_bytes(bad)
            for digests in (True, False):
                by_itself = not digests and kind == "plan"
                try:
                    found = plan_contents(path) if by_itself else contents(folder / store, digests=digests)
                except QCSurrogateError:
                    outcome = "refused"
                else:
                    outcome = "harmless" if found == (plan if by_itself else truth[store]) else "wrong"
                yield kind, "with digests" if digests else "without", outcome
        finally:
            path.write_bytes(good)


def limit_memory() -> int:
    """Allow this process no more than it has and :data:`MEMORY_BYTES`; returns its peak so far in bytes."""
    size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY_BYTES, size + MEMORY_BYTES))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def child(folder: Path, damage: str, kinds: list[str], count: int, seed: int) -> None:
    """Run trials in this process and print what came of them, as JSON."""
    before = limit_memory()
    outcomes: Counter[tuple[str, str, str]] = Counter(trials(folder, damage, kinds, count, seed))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"outcomes": [[*key, n] for key, n in sorted(outcomes.items())], "grown": peak - before}))


def run(folder: Path, damage: str, kinds: list[str], count: int, seed: int = 0) -> dict[str, Any]:
    """Run trials in a process of their own.

    Returns:
        ``returncode``, ``stderr``, ``grown`` (bytes of memory) and ``outcomes``: (kind of
        file, with or without digests, outcome) -> count.
    """
    arguments = [damage, json.dumps(kinds), str(count), str(seed)]
    command = [sys.executable, "-m", "tests.benchmarks.hostile_files", "--child", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})
    found = json.loads(done.stdout) if done.returncode == 0 else {"outcomes": [], "grown": 0}
    outcomes = {(kind, how, outcome): n for kind, how, outcome, n in found["outcomes"]}
    return {"returncode": done.returncode, "stderr": done.stderr, "grown": found["grown"], "outcomes": outcomes}


def kinds_for(damage: str) -> list[str]:
    """Which files a damage makes sense for."""
    return [kind for kind, path in FILES.items() if damage != "metadata" or path.endswith(".h5")]


def main() -> int:
    """Run everything and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000, help="of each kind of damage (default: 1000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        folder, damage, kinds, count, seed = options.child
        child(Path(folder), damage, json.loads(kinds), int(count), int(seed))
        return 0
    sound = True
    with tempfile.TemporaryDirectory() as name:
        build(Path(name))
        for damage in DAMAGES:
            start = time.perf_counter()
            result = run(Path(name), damage, kinds_for(damage), options.trials, options.seed)
            seconds, grown = time.perf_counter() - start, result["grown"] / 2**20
            print(f"{damage}: {options.trials} trials in {seconds:.0f} s, memory grew by {grown:.0f} MiB")
            if result["returncode"]:
                print(f"  the process ended with {result['returncode']}: {result['stderr'][-2000:]}")
                sound = False
            rows = sorted({(kind, how) for kind, how, _ in result["outcomes"]})
            for kind, how in rows:
                counts = {o: result["outcomes"].get((kind, how, o), 0) for o in ("refused", "harmless", "wrong")}
                sound = sound and not counts["wrong"]
                print(f"  {kind:18} {how:13} " + "  ".join(f"{o} {n:5}" for o, n in counts.items()))
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
