"""Arrays with their meaning, written as the store writes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from qcsurrogate.store import streaming
from qcsurrogate.store.hdf5 import Declared


class StoredArray(NamedTuple):
    values: Any
    units: str
    description: str

    @property
    def declared(self) -> Declared:
        return Declared(self.values.dtype, self.values.shape, self.units, self.description)


def write_arrays(path: Path, arrays: Mapping[str, StoredArray]) -> str:
    declared = {name: array.declared for name, array in arrays.items()}
    return streaming.write_arrays(path, declared, {name: array.values for name, array in arrays.items()})
