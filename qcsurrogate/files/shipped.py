"""YAML files that come with the package, and are called by their names."""

from __future__ import annotations

from pathlib import Path

from qcsurrogate.errors import SpecError, suggestion

_PACKAGE = Path(__file__).parents[1]
_IS_CHECKOUT = (_PACKAGE.parent / "pyproject.toml").is_file()


class Shipped:
    """YAML files of one kind.

    Args:
        what: what messages call one.
        checkout: where they lie from the root of the repository; installed, the last
            part of it is a folder of the package.
    """

    def __init__(self, what: str, checkout: str) -> None:
        self._what = what
        folders = [_PACKAGE.parent / checkout] * _IS_CHECKOUT + [_PACKAGE / Path(checkout).name]
        self._files = {path.stem: path for folder in folders for path in sorted(folder.glob("*.yaml"))}

    def names(self) -> list[str]:
        return sorted(self._files)

    def find(self, source: str | Path) -> Path:
        """The file of a path, or of a name.

        Raises:
            SpecError: if there is none.
        """
        path = Path(source).expanduser()
        if not path.is_file() and str(source) not in self._files:
            raise SpecError(
                f"cannot find the {self._what} '{source}'; expected a YAML file or one of {', '.join(self.names())}"
                f"{suggestion(path.stem, self._files)}"
            )
        return path if path.is_file() else self._files[str(source)]
