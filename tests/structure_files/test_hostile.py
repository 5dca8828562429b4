"""Files made to harm: refused, without unpacking, running or remembering them."""

from __future__ import annotations

import bz2
import io
import sqlite3
import tarfile
import time
import zipfile
from pathlib import Path

import ase
import ase.db
import numpy as np
import pytest

from qcsurrogate.errors import StructureError
from qcsurrogate.sources.readers import read_structures
from qcsurrogate.sources.readers.archive import tar_members
from tests.structure_files.files import METHANE, write_tar


def tar_of(path: Path, *members: tarfile.TarInfo, tail: bytes = b"\0" * 1024) -> Path:
    path.write_bytes(b"".join(m.tobuf(tarfile.GNU_FORMAT) for m in members) + tail)
    return path


def info(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.size, member.linkname = kind, size, link
    return member


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, b"S", b"Z"])
def test_what_is_no_file_is_refused(tmp_path: Path, kind: bytes) -> None:
    path = tar_of(tmp_path / "a.tar", info("x.xyz", kind, link="/etc/passwd"))
    with pytest.raises(StructureError, match=r"a\.tar' holds 'x\.xyz', which is no ordinary file"):
        read_structures(path)


def test_names_cannot_lead_anywhere(tmp_path: Path) -> None:
    path = write_tar(
        tmp_path / "a.tar.bz2", {"../../../evil.xyz": b"1\n\nHe 0 0 0\n", "/etc/b.xyz": b"1\n\nNe 0 0 0\n"}
    )
    before = sorted(tmp_path.parent.rglob("*"))
    assert [s.name for s in read_structures(path)] == ["evil", "b"]
    assert sorted(tmp_path.parent.rglob("*")) == before


def test_declared_sizes_are_not_believed(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tar", info("x.xyz", size=2**33))
    with pytest.raises(StructureError, match=r"holds 'x\.xyz' of 8589934592 bytes; expected at most 1073741824"):
        read_structures(path)
    path = tar_of(tmp_path / "b.tar", info("x.xyz", size=2**29))
    with pytest.raises(StructureError, match="ends early"):
        read_structures(path)
    path = tar_of(tmp_path / "c.tar", info("x.xyz", tarfile.XHDTYPE, size=2**29))
    with pytest.raises(StructureError, match="no ordinary file"):
        read_structures(path)


def test_a_bomb_is_not_unpacked_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.bz2"
    with bz2.open(path, "wb") as file:
        for _ in range(8):
            file.write(info("x.bin", size=2**22).tobuf() + b"\0" * 2**22)
        file.write(b"\0" * 1024)
    with pytest.raises(StructureError, match=r"unpacks to more than 10000000 bytes"):
        for _ in tar_members(path, limit=10_000_000):
            pass
    assert sum(1 for _ in tar_members(path)) == 8


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("ending", ["tar.bz2", "tar.gz", "tar"])
def test_damage_is_an_error_or_harmless(tmp_path: Path, ending: str, seed: int) -> None:
    mode = {"tar.bz2": "w:bz2", "tar.gz": "w:gz", "tar": "w"}[ending]
    members = {f"m{i}.xyz": METHANE.encode() for i in range(3)}
    data = bytearray(write_tar(tmp_path / f"a.{ending}", members, mode).read_bytes())
    generator = np.random.default_rng(seed)
    if seed % 3 == 0:
        data = data[: int(generator.integers(len(data) if ending != "tar" else 5 * 512))]
    else:
        data[int(generator.integers(len(data)))] ^= 1 << int(generator.integers(8))
    path = tmp_path / f"b.{ending}"
    path.write_bytes(data)
    try:
        found = read_structures(path)
    except StructureError:
        return
    assert seed % 3
    assert len(found) <= 3


def test_long_names_are_refused_and_ordinary_extra_headers_are_not(tmp_path: Path) -> None:
    for name, fine in (("n" * 300 + ".xyz", False), ("short.xyz", True)):
        path = tmp_path / f"{fine}.tar"
        with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
            member = tarfile.TarInfo(name)
            member.size, member.mtime = 13, 1.5  # type: ignore[assignment]
            archive.addfile(member, io.BytesIO(b"1\n\nHe 0 0 0.\n"))
        if fine:
            assert [s.name for s in read_structures(path)] == ["short"]
        else:
            with pytest.raises(StructureError, match="long name or size"):
                read_structures(path)


def test_an_archive_without_structures(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar.bz2", {"readme.txt": b"hello"})
    with pytest.raises(StructureError, match="holds no structure"):
        read_structures(path)
    (tmp_path / "b.tar.gz").write_bytes(b"no archive at all")
    with pytest.raises(StructureError, match=r"cannot read the archive '.*b\.tar\.gz'"):
        read_structures(tmp_path / "b.tar.gz")


def test_an_array_that_declares_more_than_its_member_holds(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, positions_angstrom=np.zeros((1, 1, 3)), atomic_numbers=np.array([2]))
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**12, 1, 3)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("positions_angstrom.npy", header.getvalue() + b"\0" * 24)
    with pytest.raises(StructureError, match=r"positions_angstrom\.npy declares 24000000000000 bytes; its member has"):
        read_structures(path)


def test_counts_cannot_overflow(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    counts = np.array([2**62, 2**62, 2**62, 2**62 + 2])  # adds up to 2 in 64 bits
    np.savez(path, positions_angstrom=np.zeros((2, 3)), atomic_numbers=np.array([1, 1]), num_atoms=counts)
    with pytest.raises(StructureError, match="num_atoms is no list of numbers from 1 to 2"):
        read_structures(path)


def test_the_comment_is_read_in_linear_time(tmp_path: Path) -> None:
    path = tmp_path / "a.xyz"
    for comment in ("=" + "a" * 900_000, 'a="' * 300_000, "a='\\" * 200_000, "a={" * 300_000, "gdb 1" + " 1" * 400_000):
        path.write_text(f"1\n{comment}\nHe 0 0 0\n")
        start = time.process_time()
        assert len(read_structures(path)) == 1
        assert time.process_time() - start < 2.0


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE VIEW systems AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT x AS id, "
        "x AS numbers, x AS positions, 0 AS pbc, NULL AS initial_magmoms, NULL AS initial_charges, "
        "NULL AS key_value_pairs FROM c",
        "CREATE TABLE systems (id INTEGER, numbers BLOB AS (zeroblob(900000000)), positions BLOB, pbc, initial_magmoms,"
        " initial_charges, key_value_pairs)",
        "CREATE VIRTUAL TABLE systems USING fts5(numbers)",
        "CREATE TABLE other (id INTEGER)",
    ],
)
def test_a_database_that_computes_is_refused(tmp_path: Path, statement: str) -> None:
    path = tmp_path / "a.db"
    with sqlite3.connect(path) as connection:
        connection.execute(statement)
    connection.close()
    with pytest.raises(StructureError, match=r"cannot read '.*a\.db' as an ASE database: expected a plain table"):
        read_structures(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("numbers = 'text'", "row 1: numbers are no array of <i4"),
        ("numbers = zeroblob(7)", "numbers are no array"),
        ("numbers = zeroblob(8)", "expected atomic numbers from 1 to 118"),
        ("positions = zeroblob(24)", "2 numbers and 3 coordinates do not fit"),
        ("key_value_pairs = '['", "key-value pairs are no JSON"),
        ('key_value_pairs = \'{"spin": "one"}\'', "spin=one; expected an integer"),
        ("initial_charges = zeroblob(3)", "initial_charges are no array"),
    ],
)
def test_bad_rows_of_a_database(tmp_path: Path, change: str, words: str) -> None:
    path = tmp_path / "a.db"
    ase.db.connect(path).write(ase.Atoms("HH", [[0, 0, 0], [0, 0, 0.74]]))
    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE systems SET {change}")
    connection.close()
    with pytest.raises(StructureError, match=words):
        read_structures(path)


def test_a_database_in_the_middle_of_a_change_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    ase.db.connect(path).write(ase.Atoms("HH", [[0, 0, 0], [0, 0, 0.74]]))
    (tmp_path / "a.db-journal").write_bytes(b"pages")
    with pytest.raises(StructureError, match=r"'a\.db-journal' lies beside it: another program is writing"):
        read_structures(path)


def test_no_database(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    with pytest.raises(StructureError, match="as an ASE database"):
        read_structures(tmp_path / "a.db")
    before = (tmp_path / "a.db").stat().st_mtime_ns
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.db"]
    assert (tmp_path / "a.db").stat().st_mtime_ns == before
