"""What ``import qcsurrogate`` offers, and ``python -m qcsurrogate``."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import qcsurrogate


@pytest.mark.parametrize("name", qcsurrogate.__all__)
def test_every_public_name_exists_and_says_what_it_is(name: str) -> None:
    found = getattr(qcsurrogate, name)
    assert name in dir(qcsurrogate)
    if name != "__version__":
        assert inspect.getdoc(found)
        assert found.__module__.startswith("qcsurrogate.")


def test_submodules_do_not_hide_public_names() -> None:
    import qcsurrogate.comparison.run
    import qcsurrogate.generation.run
    import qcsurrogate.store.store

    assert callable(qcsurrogate.compare)
    assert callable(qcsurrogate.generate)
    assert inspect.isclass(qcsurrogate.Store)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'qcsurrogate' has no attribute 'predict_everything'"):
        _ = qcsurrogate.predict_everything


def test_the_package_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "qcsurrogate", "--version"], capture_output=True, text=True)
    assert done.returncode == 0
    assert qcsurrogate.__version__ in done.stdout
