"""Hostile and damaged files: refused in words, without a crash, a wrong value or a full memory."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from qcsurrogate.errors import StoreError
from qcsurrogate.files.atomic import read_sealed_json, sealed_json
from qcsurrogate.store.chunks import decoded_chunk, fletcher32, largest_stored_size
from qcsurrogate.store.hdf5 import ArrayFile, Declared, read_arrays
from qcsurrogate.store.store import Store
from tests.benchmarks import hostile_files
from tests.store.test_hdf5 import EXPECTED, FILTERS

ROOT = Path(__file__).parents[2]
FLOAT = np.dtype("<f8")


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hostile")
    hostile_files.build(path)
    return path


def assert_held(result: dict, trials: int, *, wrong_allowed: str = "nowhere") -> None:
    assert result["returncode"] == 0, result["stderr"]
    outcomes = result["outcomes"]
    assert sum(outcomes.values()) == 2 * trials
    wrong = {key: n for key, n in outcomes.items() if key[2] == "wrong" and key[1] != wrong_allowed}
    assert not wrong
    assert result["grown"] < 64 * 2**20
    assert sum(n for (_, how, outcome), n in outcomes.items() if (how, outcome) == ("with digests", "refused"))


@pytest.mark.parametrize(("damage", "trials"), [("flip", 63), ("cut", 9), ("overwrite", 9)])
def test_damage_is_noticed_or_harmless(stores: Path, damage: str, trials: int) -> None:
    result = hostile_files.run(stores, damage, hostile_files.kinds_for(damage), trials, seed=1)
    assert_held(result, trials)


def test_hostile_metadata_does_not_crash(stores: Path) -> None:
    """With a checksum made right, only a digest can tell that values were exchanged."""
    result = hostile_files.run(stores, "metadata", hostile_files.kinds_for("metadata"), 40, seed=1)
    assert_held(result, 40, wrong_allowed="without")


@pytest.mark.slow
@pytest.mark.parametrize("damage", hostile_files.DAMAGES)
def test_a_thousand_of_each_damage(stores: Path, damage: str) -> None:
    result = hostile_files.run(stores, damage, hostile_files.kinds_for(damage), 1000, seed=2)
    assert_held(result, 1000, wrong_allowed="without" if damage == "metadata" else "nowhere")


def compound(file: h5py.File, folder: Path) -> None:
    file.create_dataset("x", data=np.zeros(50, [("a", "<f8")]), **FILTERS)


def reference(file: h5py.File, folder: Path) -> None:
    file.create_dataset("x", (50,), h5py.ref_dtype, chunks=(50,), shuffle=True, compression="gzip", fletcher32=True)


def opaque(file: h5py.File, folder: Path) -> None:
    file.create_dataset("x", data=np.zeros(50, "V8"), **FILTERS)


def enum(file: h5py.File, folder: Path) -> None:
    kind = h5py.enum_dtype({"A": 1}, basetype="i8")
    file.create_dataset("x", data=np.zeros(50, "i8"), dtype=kind, **FILTERS)


def array_type(file: h5py.File, folder: Path) -> None:
    file.create_dataset("x", (50,), np.dtype(("<f8", (2,))), **FILTERS)


def big_endian(file: h5py.File, folder: Path) -> None:
    file.create_dataset("x", data=np.zeros(50, ">f8"), **FILTERS)


def wide_chunks(file: h5py.File, folder: Path) -> None:
    file.create_dataset("x", (50, 4), "<f8", chunks=(50, 2), compression="gzip", shuffle=True, fletcher32=True)[:] = 0


def deep_groups(file: h5py.File, folder: Path) -> None:
    group = file
    for _ in range(3000):
        group = group.create_group("x")


def loop_of_links(file: h5py.File, folder: Path) -> None:
    file["x"] = h5py.SoftLink("/x")


def many_names(file: h5py.File, folder: Path) -> None:
    for i in range(2000):
        file[f"x{i}"] = h5py.SoftLink("/y")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (compound, "'x' has another dtype than expected"),
        (reference, "'x' has another dtype than expected"),
        (opaque, "'x' has another dtype than expected"),
        (enum, "'x' has another dtype than expected"),
        (array_type, "'x' has another dtype than expected"),
        (big_endian, "'x' has another dtype than expected"),
        (wide_chunks, "'x' declares the shape"),
        (deep_groups, "'x' is no dataset"),
        (loop_of_links, "'x' is a soft or external link"),
        (many_names, "the tree of its links is not as HDF5 writes it"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_other_contents_are_refused_in_memory_and_on_the_disk(
    tmp_path: Path, make: Callable[[h5py.File, Path], None], message: str
) -> None:
    path = tmp_path / "hostile.h5"
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        make(file, tmp_path)
    for read in (read_arrays, ArrayFile.open):
        with pytest.raises(StoreError, match=message):
            read(path, {"x": Declared(FLOAT, (50,), "1")})


def test_chunks_are_of_whole_rows(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w", libver=("v110", "v110")) as file:
        wide_chunks(file, tmp_path)
    with pytest.raises(StoreError, match="expected chunks of whole rows"):
        read_arrays(tmp_path / "a.h5", {"x": Declared(FLOAT, (50, 4), "1")})


def bomb(path: Path, deflated: bytes, n_chunks: int) -> None:
    """Every chunk is declared with 256 KiB, and holds something else with the right checksum."""
    stored = deflated + fletcher32(deflated).to_bytes(4, "little")
    rows = 2**15
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        x = file.create_dataset("x", (rows * n_chunks,), "<f8", **{**FILTERS, "chunks": (rows,)})
        x.attrs["units"] = np.bytes_(b"1")
        for i in range(n_chunks):
            x.id.write_direct_chunk((i * rows,), stored)


READ = """
import sys, resource
from pathlib import Path
import numpy as np
from qcsurrogate.errors import StoreError
from qcsurrogate.store.hdf5 import ArrayFile, Declared, read_arrays
from tests.benchmarks.hostile_files import limit_memory
before = limit_memory()
path, length = Path(sys.argv[1]), None if sys.argv[2] == "free" else int(sys.argv[2])
expected = {"x": Declared(np.dtype("<f8"), (length,), "1")}
for read in (read_arrays, lambda path, expected: ArrayFile.open(path, expected).read("x", 0, 10)):
    try:
        read(path, expected)
    except StoreError as error:
        print(error)
    else:
        print("read")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before) // 2**20)
"""


def read_in_a_process(path: Path, length: str) -> tuple[list[str], int]:
    done = subprocess.run([sys.executable, "-c", READ, str(path), length], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    *messages, grown = done.stdout.splitlines()
    return messages, int(grown)


def test_a_gzip_bomb_does_not_go_off(tmp_path: Path) -> None:
    """HDF5's own filter would inflate all 100 MB of each chunk before it looks."""
    bomb(tmp_path / "bomb.h5", zlib.compress(bytes(100 * 2**20), 6), n_chunks=2)
    messages, grown = read_in_a_process(tmp_path / "bomb.h5", str(2**16))
    assert all("does not inflate to the 262144 bytes" in m for m in messages)
    assert grown < 32
    bomb(tmp_path / "large.h5", bytes(300_000), n_chunks=2)
    messages, grown = read_in_a_process(tmp_path / "large.h5", str(2**16))
    assert all("'x' keeps 300004 bytes for a chunk of 262144" in m for m in messages)
    assert grown < 32


def test_a_file_of_nothing_but_zeros_may_not_fill_the_memory(tmp_path: Path) -> None:
    bomb(tmp_path / "zeros.h5", zlib.compress(bytes(2**18)), n_chunks=2000)  # 500 MB in half a megabyte
    messages, grown = read_in_a_process(tmp_path / "zeros.h5", "free")
    assert all("'x' declares 524288000 bytes" in m for m in messages)
    assert grown < 32


def test_superblocks_that_say_odd_things(tmp_path: Path, stores: Path) -> None:
    good = (stores / "shards" / "plan.h5").read_bytes()
    for place, value, message in (
        (8, 4, "unknown version"),
        (9, 4, "unusual sizes"),
        (11, 1, "flags"),
        (12, 8, "a base address"),
        (20, 0, "has an extension"),
        (28, 1, "it was truncated or something was appended"),
    ):
        bad = bytearray(good)
        bad[place] = value
        bad[44:48] = hostile_files.lookup3(bytes(bad[:44])).to_bytes(4, "little")
        (tmp_path / "a.h5").write_bytes(bad)
        for read in (read_arrays, ArrayFile.open):
            with pytest.raises(StoreError, match=message):
                read(tmp_path / "a.h5", EXPECTED)


@pytest.mark.parametrize(
    ("signature", "changes", "message"),
    [
        # with these HDF5 2.0 divided by zero, left its memory, or found its heap damaged
        (b"BTHD", {6: 2, 10: 0, 16: 0}, "the tree of its links is not as HDF5 writes it"),
        (b"BTHD", {8: 1, 10: 0}, "the tree of its links is not as HDF5 writes it"),
        (b"BTHD", {5: 1, 12: 128}, "the tree of its links is not as HDF5 writes it"),
        (b"FRHP", {6: 200}, "the heap of its links is not as HDF5 writes it"),
        (b"FRHP", {110: 0}, "the heap of its links is not as HDF5 writes it"),
        (b"FRHP", {140: 255}, "the heap of its links is not as HDF5 writes it"),
        (b"FRHP", {52: 255}, "the heap of its links is larger than the file"),
        (b"OHDR", {18: 255}, "the names of its links lie beyond its end"),
        (b"OHDR", {6: 0}, "does not say where its links are"),
    ],
)
def test_metadata_that_hdf5_would_stumble_over(
    tmp_path: Path, stores: Path, signature: bytes, changes: dict[int, int], message: str
) -> None:
    good = (stores / "shards" / "plan.h5").read_bytes()
    start, stop = next(b for b in hostile_files.checksummed_blocks(good) if good[b[0] : b[0] + 4] == signature)
    bad = bytearray(good)
    for place, value in changes.items():
        bad[start + place] = value
    bad[stop : stop + 4] = hostile_files.lookup3(bytes(bad[start:stop])).to_bytes(4, "little")
    (tmp_path / "a.h5").write_bytes(bad)
    for read in (read_arrays, ArrayFile.open):
        with pytest.raises(StoreError, match=message):
            read(tmp_path / "a.h5", EXPECTED)


def test_a_pipe_or_a_folder_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.h5")
    for read in (read_arrays, ArrayFile.open):
        with pytest.raises(StoreError, match="expected a regular file"):
            read(tmp_path / "a.h5", EXPECTED)


def test_json_that_is_no_store_of_words(tmp_path: Path, stores: Path) -> None:
    store = Path(shutil.copytree(stores / "large", tmp_path / "store"))
    (manifest,) = (store / "shards").glob("*.json")
    good = read_sealed_json(manifest)
    for text in ("[" * 200_000, "NaN", '{"a": NaN}', '{"a": "\\ud800"}', '{"keys": 1e999}', "9" * 10_000, ""):
        manifest.write_text(text)
        with pytest.raises(StoreError, match=r"json' is damaged"):
            Store.open(store)
    for change in ({"keys": [["a"]]}, {"keys": {}}, {"versions": [[]]}, {"versions": 7}, {"computed_with": 1}):
        manifest.write_bytes(sealed_json(good | change))
        with pytest.raises(StoreError, match="its manifest lacks keys"):
            Store.open(store)
    manifest.write_text(json.dumps(good))  # without its seal
    with pytest.raises(StoreError, match="content_sha256"):
        Store.open(store)


def test_chunks_decode_as_hdf5_encodes_them(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for dtype, n in (("<f8", 1000), ("S32", 33), ("u1", 777), ("<i8", 1)):
        values = np.frombuffer(generator.bytes(n * np.dtype(dtype).itemsize), dtype)
        with h5py.File(tmp_path / "a.h5", "w") as file:
            x = file.create_dataset("x", data=values, **{**FILTERS, "chunks": (n,)})
            file.flush()
            _, stored = x.id.read_direct_chunk((0,))
            np.testing.assert_array_equal(decoded_chunk(stored, np.dtype(dtype), values.nbytes), x[()])
        assert len(stored) <= largest_stored_size(values.nbytes)
        for bad in (stored[:-1], stored[:-5], b"", stored + b"x", stored[1:]):
            with pytest.raises(ValueError, match=r"is damaged|does not inflate to"):
                decoded_chunk(bad, np.dtype(dtype), values.nbytes)
        body = zlib.compress(bytes(values.nbytes + 1))
        with pytest.raises(ValueError, match="does not inflate to"):
            decoded_chunk(body + fletcher32(body).to_bytes(4, "little"), np.dtype(dtype), values.nbytes)
