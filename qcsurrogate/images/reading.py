"""Grey images from files: PNG, MNIST's idx, npz, and the digits that come with the package."""

from __future__ import annotations

import gzip
import math
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qcsurrogate.errors import StructureError

PACKAGED: Final = "digits"
MAXIMUM_PIXELS: Final = 2**28
"""Of all images of a file together."""
_LARGEST_SIDE: Final = 4096
_UNSIGNED_BYTE: Final = 8


@dataclass(frozen=True, eq=False)
class Images:
    """Grey images of one size.

    Attributes:
        pixels: (n, height, width) from 0 to 1.
        labels: (n,) classes; None where nothing is known.
    """

    pixels: NDArray[np.float32]
    labels: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.pixels)

    def taken(self, indices: Sequence[int] | NDArray[np.int64]) -> Images:
        """Some of them, in this order."""
        index = np.asarray(indices, dtype=np.int64)
        return Images(self.pixels[index], None if self.labels is None else self.labels[index])


def read_images(source: str | Path) -> Images:
    """Images of a file or a folder.

    Args:
        source: a PNG file; a folder of PNG files, or of folders of them, each named by its class (a number); a
            file in MNIST's idx format, compressed with gzip or not, whose labels lie beside it under the
            published name (``idx3`` and ``images`` become ``idx1`` and ``labels``); npz with ``images`` and perhaps
            ``labels``; or ``digits``, those that come with the package.

    Raises:
        StructureError: if it is missing, damaged, too large or of another format, naming the file.
    """
    path = Path(source).expanduser()
    if str(source) == PACKAGED and not path.exists():
        return _read_npz(Path(str(resources.files("qcsurrogate.images") / "digits.npz")))
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise StructureError(f"cannot find the images '{source}'; expected a file, a folder, or the name '{PACKAGED}'")
    if path.suffix.lower() == ".png":
        return _joined(path, [(path, None)])
    if path.suffix.lower() == ".npz":
        return _read_npz(path)
    if "idx" in path.name:
        return _read_mnist(path)
    raise StructureError(f"cannot read '{path}' as images; expected .png, .npz, or an idx file (MNIST's format)")


def _checked(path: Path, pixels: NDArray[Any], labels: NDArray[Any] | None, brightest: float) -> Images:
    if pixels.ndim != 3 or 0 in pixels.shape or pixels.dtype.kind not in "uif":
        raise StructureError(
            f"'{path}' holds images of shape {pixels.shape}, {pixels.dtype}; expected (n, height, width) numbers"
        )
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise StructureError(f"'{path}' holds pixels that are not finite; expected grey values")
    if labels is not None and (labels.shape != (len(pixels),) or labels.dtype.kind not in "ui"):
        raise StructureError(
            f"'{path}' holds {len(pixels)} images, but labels of shape {labels.shape} and type {labels.dtype}; "
            "expected one whole number for each"
        )
    if pixels.min() < 0 or pixels.max() > brightest:
        raise StructureError(
            f"'{path}' holds grey values from {pixels.min()} to {pixels.max()}; expected 0 to {brightest:g}"
        )
    scaled = (pixels / brightest).astype(np.float32)
    return Images(scaled, None if labels is None else labels.astype(np.int64))


def _read_npz(path: Path) -> Images:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
            pixels = data["images"]
            labels = data["labels"] if "labels" in data.files else None
    except (OSError, ValueError, KeyError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise StructureError(
            f"cannot read '{path}' as images ({error}); expected npz with 'images' (n, h, w)"
        ) from error
    brightest = 1.0
    if pixels.size and pixels.dtype.kind in "ui":  # 4 bits (scikit-learn's digits), or 8
        brightest = 16.0 if pixels.max() <= 16 else 255.0
    return _checked(path, pixels, labels, brightest)


def _read_folder(path: Path) -> Images:
    files: list[tuple[Path, int | None]] = [(file, None) for file in sorted(path.glob("*.png"))]
    for folder in sorted(p for p in path.iterdir() if p.is_dir() and p.name.isdecimal() and len(p.name) < 10):
        files += [(file, int(folder.name)) for file in sorted(folder.glob("*.png"))]
    if not files:
        raise StructureError(
            f"the folder '{path}' holds no images; expected .png files, or folders of them named 0, 1, ..."
        )
    return _joined(path, files)


def _joined(path: Path, files: Iterable[tuple[Path, int | None]]) -> Images:
    pixels: list[NDArray[np.uint8]] = []
    labels: list[int | None] = []
    for file, label in files:
        grey = _read_png(file)
        if pixels and grey.shape != pixels[0].shape:
            raise StructureError(
                f"'{file}' has {grey.shape} pixels, those before it {pixels[0].shape}; expected one size"
            )
        pixels.append(grey)
        labels.append(label)
        if len(pixels) * grey.size > MAXIMUM_PIXELS:
            raise StructureError(f"'{path}' holds more than {MAXIMUM_PIXELS} pixels; expected fewer images")
    known = [label for label in labels if label is not None]
    if known and len(known) < len(labels):
        raise StructureError(
            f"'{path}' holds images with a class and others without; expected all in folders named 0, 1, ..."
        )
    return _checked(path, np.stack(pixels), np.array(known) if known else None, 255.0)


def _read_png(path: Path) -> NDArray[np.uint8]:
    """(height, width) grey values; colours by their luminance, transparent pixels as black."""
    from PIL import Image

    try:
        with Image.open(path, formats=("PNG",)) as image:
            if max(image.size) > _LARGEST_SIDE:
                raise StructureError(f"'{path}' has {image.size} pixels; expected at most {_LARGEST_SIDE} on a side")
            grey = image.convert("L")
            if "A" in image.getbands():
                black = Image.new("L", image.size)
                black.paste(grey, mask=image.getchannel("A"))
                grey = black
            return np.array(grey, dtype=np.uint8)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, zlib.error) as error:
        if isinstance(error, StructureError):
            raise
        raise StructureError(f"cannot read '{path}' ({error}); expected a PNG image") from error


def _read_mnist(path: Path) -> Images:
    labels = None
    beside = path.with_name(path.name.replace("idx3", "idx1").replace("images", "labels"))
    if beside != path and beside.is_file():
        labels = read_idx(beside)
    return _checked(path, read_idx(path), labels, 255.0)


def read_idx(path: str | Path) -> NDArray[np.uint8]:
    """An array in MNIST's idx format (Y. LeCun, C. Cortes and C. J. C. Burges): unsigned bytes, one to three axes.

    Two zero bytes, the type (8: unsigned byte), the number of axes, their lengths as big-endian 32-bit
    numbers, the values.

    Raises:
        StructureError: if the file cannot be read, is of another type, or holds fewer or more values than it says.
    """
    path = Path(path)
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            with gzip.GzipFile(fileobj=raw) if packed else raw as file:
                magic = file.read(4)
                if len(magic) < 4 or magic[:3] != bytes([0, 0, _UNSIGNED_BYTE]) or not 1 <= magic[3] <= 3:
                    raise StructureError(
                        f"'{path}' begins with {magic.hex() or 'nothing'}; expected 00000801 to 00000803, an idx file "
                        "of unsigned bytes"
                    )
                header = file.read(4 * magic[3])
                shape = tuple(int(n) for n in np.frombuffer(header[: len(header) // 4 * 4], dtype=">u4"))
                if len(shape) != magic[3] or not 0 < math.prod(shape) <= MAXIMUM_PIXELS:
                    raise StructureError(
                        f"'{path}' says that it holds {' x '.join(map(str, shape)) or 'nothing'} values; expected "
                        f"{magic[3]} lengths and at most {MAXIMUM_PIXELS} values"
                    )
                content = file.read(math.prod(shape) + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise StructureError(f"cannot read '{path}' as an idx file ({error}); copy it again") from error
    if len(content) != math.prod(shape):
        much = "more" if len(content) > math.prod(shape) else f"{len(content)}"
        raise StructureError(
            f"'{path}' holds {much} values; expected {math.prod(shape)}, as its header says: copy it again"
        )
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)
