"""Files that were damaged or made to hurt are refused in words, and never read."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from qcsurrogate.errors import StoreError
from qcsurrogate.store.hdf5 import Declared, read_arrays
from tests.store.arrays import StoredArray, write_arrays

ARRAYS = {
    "energy": StoredArray(np.linspace(-76.0, -75.0, 50), "hartree", "total energy"),
    "positions": StoredArray(np.arange(60.0).reshape(20, 3), "bohr", "nuclear positions"),
    "keys": StoredArray(np.array([b"a" * 32, b"b" * 32]), "1", "content keys"),
}
EXPECTED = {name: Declared(a.values.dtype, a.values.shape, a.units) for name, a in ARRAYS.items()}
FILTERS = {"chunks": True, "compression": "gzip", "shuffle": True, "fletcher32": True}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_arrays(tmp_path / "a.h5", ARRAYS)
    return tmp_path / "a.h5"


def test_round_trip_with_meanings(path: Path) -> None:
    found = read_arrays(path, EXPECTED)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array.values)
        assert found[name].dtype == array.values.dtype
    with h5py.File(path) as file:
        for name, array in ARRAYS.items():
            assert file[name].attrs["units"].decode() == array.units
            assert file[name].attrs["description"].decode() == array.description
            assert (file[name].compression, file[name].shuffle, file[name].fletcher32) == ("gzip", True, True)


def test_same_arrays_give_the_same_bytes(path: Path) -> None:
    digest = write_arrays(path.with_name("b.h5"), ARRAYS)
    assert path.read_bytes() == path.with_name("b.h5").read_bytes()
    assert read_arrays(path, EXPECTED, digest).keys() == ARRAYS.keys()


def test_large_arrays_come_in_chunks(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(100_000, 3))
    write_arrays(tmp_path / "a.h5", {"x": StoredArray(values, "bohr", "positions")})
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["x"].chunks[0] < 20_000
    found = read_arrays(tmp_path / "a.h5", {"x": Declared(values.dtype, (None, 3), "bohr")})
    np.testing.assert_array_equal(found["x"], values)


def external_link(file: h5py.File, folder: Path) -> None:
    with h5py.File(folder / "other.h5", "w") as other:
        other.create_dataset("energy", data=np.zeros(50), **FILTERS).attrs["units"] = np.bytes_("hartree")
    file["energy"] = h5py.ExternalLink(str(folder / "other.h5"), "energy")


def soft_link(file: h5py.File, folder: Path) -> None:
    file["energy"] = h5py.SoftLink("/positions")


def external_storage(file: h5py.File, folder: Path) -> None:
    (folder / "secret").write_bytes(bytes(400))
    file.create_dataset("energy", (50,), "<f8", external=[(str(folder / "secret"), 0, 400)])


def virtual(file: h5py.File, folder: Path) -> None:
    with h5py.File(folder / "other.h5", "w") as other:
        other["energy"] = np.zeros(50)
    layout = h5py.VirtualLayout((50,), "<f8")
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "energy", (50,))
    file.create_virtual_dataset("energy", layout)


def huge_shape(file: h5py.File, folder: Path) -> None:
    file.create_dataset("energy", (2**50,), "<f8", chunks=(2**14,), compression="gzip", shuffle=True, fletcher32=True)


def huge_chunks(file: h5py.File, folder: Path) -> None:
    file.create_dataset(
        "energy", (50,), "<f8", maxshape=(None,), chunks=(2**24,), compression="gzip", shuffle=True, fletcher32=True
    )


def unallocated(file: h5py.File, folder: Path) -> None:
    file.create_dataset("energy", (50,), "<f8", **FILTERS)


def other_dtype(file: h5py.File, folder: Path) -> None:
    file.create_dataset("energy", data=np.zeros(50, ">f4"), **FILTERS)


def strings(file: h5py.File, folder: Path) -> None:
    file.create_dataset("energy", data=["x"] * 50, dtype=h5py.string_dtype(), chunks=True, shuffle=True)


def vlen(file: h5py.File, folder: Path) -> None:
    data = np.empty(50, dtype=object)
    data[:] = [np.zeros(2)] * 50
    file.create_dataset("energy", data=data, dtype=h5py.vlen_dtype("<f8"), chunks=True)


def unfiltered(file: h5py.File, folder: Path) -> None:
    file.create_dataset("energy", data=np.zeros(50), chunks=True)


def other_filter(file: h5py.File, folder: Path) -> None:
    file.create_dataset("energy", data=np.zeros(50), chunks=True, compression="lzf", shuffle=True, fletcher32=True)


def contiguous(file: h5py.File, folder: Path) -> None:
    file.create_dataset("energy", data=np.zeros(50))


def group(file: h5py.File, folder: Path) -> None:
    file.create_group("energy")


def named_type(file: h5py.File, folder: Path) -> None:
    file["energy"] = np.dtype("<f8")


def missing(file: h5py.File, folder: Path) -> None:
    pass


def extra(file: h5py.File, folder: Path) -> None:
    file.create_dataset("energy", data=np.zeros(50), **FILTERS)
    file["payload"] = np.zeros(3)


def no_units(file: h5py.File, folder: Path) -> None:
    file.create_dataset("energy", data=np.zeros(50), **FILTERS)


def wrong_units(file: h5py.File, folder: Path) -> None:
    file.create_dataset("energy", data=np.zeros(50), **FILTERS).attrs["units"] = np.bytes_("eVeVeVe")


def odd_units(file: h5py.File, folder: Path) -> None:
    file.create_dataset("energy", data=np.zeros(50), **FILTERS).attrs["units"] = "hartree"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (external_link, "'energy' is a soft or external link"),
        (soft_link, "'energy' is a soft or external link"),
        (external_storage, "'energy' keeps its values in an external file"),
        (virtual, "'energy' is not chunked"),
        (huge_shape, "'energy' declares the shape"),
        (huge_chunks, "'energy' declares 400 bytes in chunks of 134217728"),
        (unallocated, "'energy' has 0 chunks; expected 1"),
        (other_dtype, r"'energy' has another dtype than expected \(float64\)"),
        (strings, "'energy' went through the filters"),
        (vlen, "'energy' went through the filters"),
        (unfiltered, "'energy' went through the filters"),
        (other_filter, "'energy' went through the filters"),
        (contiguous, "'energy' is not chunked"),
        (group, "'energy' is no dataset"),
        (named_type, "'energy' is no dataset"),
        (missing, r"missing \['energy'\]"),
        (extra, r"not expected \['payload'\]"),
        (no_units, "'energy' has no attribute 'units'"),
        (wrong_units, "'energy' is in 'eVeVeVe'; expected 'hartree'"),
        (odd_units, "'energy' has units of another type"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_hostile_files_are_refused(tmp_path: Path, make: Callable[[h5py.File, Path], None], message: str) -> None:
    path = tmp_path / "hostile.h5"
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        for name in ("positions", "keys"):
            array = ARRAYS[name]
            file.create_dataset(name, data=array.values, **FILTERS).attrs["units"] = np.bytes_(array.units)
        make(file, tmp_path)
    with pytest.raises(StoreError, match=message) as caught:
        read_arrays(path, EXPECTED)
    assert str(path) in str(caught.value)
    assert "generate" in str(caught.value)


def test_free_lengths_are_held_against_the_size_of_the_file(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w", libver=("v110", "v110")) as file:
        huge_shape(file, tmp_path)
    with pytest.raises(StoreError, match=r"declares 9007199254740992 bytes .* more than .* can hold"):
        read_arrays(tmp_path / "a.h5", {"energy": Declared(np.dtype("<f8"), (None,), "hartree")})


def test_user_block_and_old_format_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "block.h5", "w", userblock_size=512) as file:
        file["energy"] = np.zeros(50)
    with pytest.raises(StoreError, match="does not begin with the HDF5 signature"):
        read_arrays(tmp_path / "block.h5", EXPECTED)
    with h5py.File(tmp_path / "old.h5", "w", libver=("earliest", "v108")) as file:
        file["energy"] = np.zeros(50)
    with pytest.raises(StoreError, match="superblock has version 0 or 1"):
        read_arrays(tmp_path / "old.h5", EXPECTED)


def test_no_file_or_something_else(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot find the file"):
        read_arrays(tmp_path / "nothing.h5", EXPECTED)
    with pytest.raises(StoreError, match=r"cannot find the file .* expected a regular file"):
        read_arrays(tmp_path, EXPECTED)
    for content in (b"", b"\x89HDF\r\n\x1a\n", b"not HDF5 at all" * 100):
        (tmp_path / "other.h5").write_bytes(content)
        with pytest.raises(StoreError, match="cannot be used"):
            read_arrays(tmp_path / "other.h5", EXPECTED)


def cut(data: bytes) -> bytes:
    return data[:-1]


def flip(data: bytes) -> bytes:
    return data[:900] + bytes([data[900] ^ 1]) + data[901:]


def append(data: bytes) -> bytes:
    return data + b"x"


@pytest.mark.parametrize("damage", [cut, flip, append])
def test_a_changed_byte_is_noticed_before_hdf5_looks(
    path: Path, damage: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = write_arrays(path, ARRAYS)
    monkeypatch.setattr(h5py.h5f, "open_file_image", None)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(StoreError, match="SHA-256 is not the one in its manifest"):
        read_arrays(path, EXPECTED, digest)


FUZZ = """
import sys
from pathlib import Path
import numpy as np
from qcsurrogate.errors import StoreError
from qcsurrogate.store.hdf5 import read_arrays
from tests.store.test_hdf5 import ARRAYS, EXPECTED

path, good = Path(sys.argv[1]), Path(sys.argv[1]).read_bytes()
generator = np.random.default_rng(0)
refused = unharmed = 0
for trial in range(600):
    data = bytearray(good)
    if trial % 3 == 0:
        data = data[: generator.integers(len(data))]
    for _ in range(trial % 3):
        data[generator.integers(len(data))] ^= 1 << generator.integers(8)
    path.write_bytes(data)
    try:
        found = read_arrays(path, EXPECTED)
    except StoreError:
        refused += 1
    else:
        assert all(np.array_equal(found[name], ARRAYS[name].values) for name in found)
        unharmed += 1
print(refused, unharmed)
"""


def test_random_damage_never_crashes_and_never_yields_wrong_numbers(path: Path) -> None:
    """Without a digest, as for a pending record: HDF5's own checksums have to hold."""
    done = subprocess.run(
        [sys.executable, "-c", FUZZ, str(path)], capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == 0, done.stderr
    refused, unharmed = (int(n) for n in done.stdout.split())
    assert refused + unharmed == 600
    assert refused > 300
