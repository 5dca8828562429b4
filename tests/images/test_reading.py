"""Images from files, and from files that are none."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qcsurrogate.errors import StructureError
from qcsurrogate.images.reading import read_idx, read_images

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 4, 5)).astype(np.uint8)


def idx(values: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, dtype=">u4").tobytes()
    return header + values.astype(np.uint8).tobytes()


def test_the_digits_that_come_with_the_package() -> None:
    digits = read_images("digits")
    assert digits.pixels.shape == (1797, 8, 8)
    assert digits.labels is not None
    assert np.bincount(digits.labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert (digits.pixels.min(), digits.pixels.max()) == (0.0, 1.0)


@pytest.mark.parametrize("packed", [False, True])
def test_mnist_as_published(tmp_path: Path, packed: bool) -> None:
    write = gzip.compress if packed else bytes
    ending = ".gz" if packed else ""
    path = tmp_path / f"train-images-idx3-ubyte{ending}"
    path.write_bytes(write(idx(PIXELS)))
    assert read_images(path).labels is None
    (tmp_path / f"train-labels-idx1-ubyte{ending}").write_bytes(write(idx(np.array([7, 0, 9]))))
    images = read_images(path)
    assert images.labels is not None
    assert images.labels.tolist() == [7, 0, 9]
    np.testing.assert_array_equal(np.round(images.pixels * 255), PIXELS)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "begins with nothing"),
        (b"\x89PNG\r\n", "begins with 89504e47"),
        (idx(PIXELS)[:9], "expected 3 lengths"),
        (idx(PIXELS)[:-1], "holds 59 values; expected 60"),
        (idx(PIXELS) + b"\x00", "holds more values; expected 60"),
        (bytes([0, 0, 8, 3]) + b"\xff" * 12, "at most"),
        (bytes([0, 0, 13, 1]) + b"\x00" * 8, "idx file of unsigned bytes"),
        (gzip.compress(idx(PIXELS))[:-12], "cannot read"),
        (gzip.compress(idx(PIXELS))[:30] + b"\x00" * 40, "cannot read"),
        (gzip.compress(idx(PIXELS)[:-1]), "holds 59 values"),
    ],
)
def test_damaged_idx_files_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(StructureError, match=words):
        read_idx(path)


def test_labels_that_do_not_fit_their_images(tmp_path: Path) -> None:
    (tmp_path / "images-idx3-ubyte").write_bytes(idx(PIXELS))
    (tmp_path / "labels-idx1-ubyte").write_bytes(idx(np.array([1, 2])))
    with pytest.raises(StructureError, match=r"3 images, but labels of shape \(2,\)"):
        read_images(tmp_path / "images-idx3-ubyte")
    (tmp_path / "labels-idx1-ubyte").unlink()
    (tmp_path / "images-idx3-ubyte").write_bytes(idx(np.array([1, 2])))
    with pytest.raises(StructureError, match=r"expected \(n, height, width\)"):
        read_images(tmp_path / "images-idx3-ubyte")


def test_png_files_in_folders_named_by_their_class(tmp_path: Path) -> None:
    for label, pixels in zip((0, 4, 4), PIXELS, strict=True):
        folder = tmp_path / str(label)
        folder.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{pixels[0, 0]}.png")
    images = read_images(tmp_path)
    assert images.labels is not None
    assert images.labels.tolist() == [0, 4, 4]
    by_name = [PIXELS[0], *sorted(PIXELS[1:], key=lambda p: str(p[0, 0]))]
    np.testing.assert_array_equal(np.round(images.pixels * 255), by_name)
    one = read_images(tmp_path / "0" / f"{PIXELS[0, 0, 0]}.png")
    np.testing.assert_array_equal(one.pixels[0], images.pixels[0])


def test_colours_become_grey_and_what_is_transparent_black(tmp_path: Path) -> None:
    colours = np.zeros((2, 2, 4), dtype=np.uint8)
    colours[0, 0] = [255, 255, 255, 255]
    colours[1, 1] = [255, 255, 255, 0]
    Image.fromarray(colours).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_images(tmp_path / "a.png").pixels[0], [[1, 0], [0, 0]])


def test_folders_that_do_not_go_together(tmp_path: Path) -> None:
    with pytest.raises(StructureError, match="holds no images"):
        read_images(tmp_path)
    Image.fromarray(PIXELS[0]).save(tmp_path / "a.png")
    Image.fromarray(PIXELS[0, :3]).save(tmp_path / "b.png")
    with pytest.raises(StructureError, match=r"b.png' has \(3, 5\) pixels, those before it \(4, 5\)"):
        read_images(tmp_path)
    (tmp_path / "b.png").unlink()
    (tmp_path / "1").mkdir()
    Image.fromarray(PIXELS[0]).save(tmp_path / "1" / "b.png")
    with pytest.raises(StructureError, match="with a class and others without"):
        read_images(tmp_path)


def test_files_that_are_no_images(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\x00" * 40)
    with pytest.raises(StructureError, match="expected a PNG image"):
        read_images(tmp_path / "a.png")
    with pytest.raises(StructureError, match="cannot find the images 'no_such_thing'"):
        read_images("no_such_thing")
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(StructureError, match=r"expected .png, .npz, or an idx file"):
        read_images(tmp_path / "a.txt")


def test_npz_is_read_without_pickle(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=PIXELS, labels=np.arange(3))
    np.testing.assert_array_equal(np.round(read_images(tmp_path / "a.npz").pixels * 255), PIXELS)
    np.savez(tmp_path / "b.npz", images=np.array([{"a": 1}], dtype=object))
    np.savez(tmp_path / "c.npz", images=np.full((1, 2, 2), np.nan))
    np.savez(tmp_path / "d.npz", pixels=PIXELS)
    (tmp_path / "e.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:90])
    for name, words in (("b", "cannot read"), ("c", "not finite"), ("d", "cannot read"), ("e", "cannot read")):
        with pytest.raises(StructureError, match=words):
            read_images(tmp_path / f"{name}.npz")
