"""Open whatever a model may learn from: a store, or a table."""

from __future__ import annotations

from pathlib import Path

from qcsurrogate.errors import StoreError, suggestion
from qcsurrogate.sources.readers import ENDINGS, folder_files
from qcsurrogate.store.header import HEADER_NAME
from qcsurrogate.store.store import Store
from qcsurrogate.tables.spec import YAML_ENDINGS, packaged_names
from qcsurrogate.tables.table import Table, open_table


def open_set(source: str | Path) -> Store | Table:
    """A store by its folder; a table by its YAML file, its file or folder of structures, or its name.

    Raises:
        StoreError: if there is nothing of this name, or it is a damaged store.
        SpecError, StructureError: if a table cannot be read.
    """
    path = Path(source).expanduser()
    if path.is_dir() and (path / HEADER_NAME).is_file():
        return Store.open(path)
    if is_table(source):
        return open_table(source)
    if path.is_dir():
        return Store.open(path)  # says what is missing
    if not path.is_file():
        names = packaged_names()
        raise StoreError(
            f"cannot find the store or table '{source}'; expected a store's folder, a file of structures "
            f"({', '.join(ENDINGS)}), the YAML file of a table, or one of {', '.join(names)}"
            f"{suggestion(str(source), names)}"
        )
    raise StoreError(
        f"cannot learn from '{source}'; expected the folder of a store, a file of structures ({', '.join(ENDINGS)}), "
        "or the YAML file of a table"
    )


def is_table(source: str | Path) -> bool:
    """Whether this looks like a table: a YAML file, structures in a file or folder, or the name of what is shipped."""
    path = Path(source).expanduser()
    if path.is_dir():
        return bool(folder_files(path))
    if path.is_file():
        return path.name.lower().endswith((*ENDINGS, *YAML_ENDINGS))
    return str(source) in packaged_names()
