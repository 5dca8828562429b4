"""The command line where something around it is missing: packages, permissions, characters, locks."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from qcsurrogate import cli
from qcsurrogate.cli.arguments import print_tree
from qcsurrogate.clusters.settings import SshSettings
from qcsurrogate.errors import SpecError, StoreError
from qcsurrogate.files.atomic import exclusive_lock, is_locked

ATOMS = "2\nname=h2\nH 0 0 0\nH 0 0 0.74\n"


def test_long_lists_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    print_tree({"structures": [f"water_{i}" for i in range(190)], "elements": ["H", "O"]})
    assert capsys.readouterr().out.splitlines() == [
        "structures: water_0, water_1, water_2, water_3, water_4, ... (190 in all; --json lists them)",
        "elements: H, O",
    ]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "a b/w.xyz"), "cannot use 'a b/w.xyz': Permission denied"),
        (OSError(errno.EROFS, "Read-only file system", "out"), "Read-only file system; name a place that can be"),
        (OSError(errno.ENOSPC, "No space left on device", "out"), "No space left on device; free some space"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", b"out"), "cannot use 'out': No such file"),
        (
            ModuleNotFoundError("no", name="rdkit.Chem"),
            r"'rdkit' is missing; .*pip install 'qcsurrogate\[conformers\]'",
        ),
        (ModuleNotFoundError("no", name="dask_jobqueue"), r"pip install 'qcsurrogate\[cluster\]'"),
        (ModuleNotFoundError("no", name="scipy"), r"'scipy' is missing; expected it installed: pip install scipy"),
    ],
)
def test_what_the_system_refuses_is_one_line(
    error: Exception, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("qcsurrogate.inspection.inspect", refused)
    assert cli.main(["inspect", "x"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.match("error: .*" + words, line)


def test_a_module_missing_from_the_package_itself_is_a_fault_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ModuleNotFoundError("no", name="qcsurrogate.lost")

    monkeypatch.setattr("qcsurrogate.inspection.inspect", broken)
    with pytest.raises(ModuleNotFoundError):
        cli.main(["inspect", "x"])


@pytest.mark.parametrize("package", ["rdkit", "asyncssh", "dask_jobqueue", "cryptography", "torch.utils.tensorboard"])
def test_an_optional_package_that_is_missing_is_named_with_its_extra(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qcsurrogate.clusters.queues import job_queue_module
    from qcsurrogate.clusters.ssh import ssh_cluster
    from qcsurrogate.clusters.tls import make_keys
    from qcsurrogate.sources.samplers.conformers import sample_conformers
    from qcsurrogate.training.reporting import _tensorboard_writer

    for name in [*sys.modules]:
        if name == package or name.startswith(package + "."):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    use: dict[str, Any] = {
        "rdkit": lambda: sample_conformers("C", 1, 0),
        "asyncssh": lambda: ssh_cluster(SshSettings(kind="ssh", hosts=("a",), workers=1, memory="1GB"), None),
        "dask_jobqueue": lambda: job_queue_module("dask_jobqueue"),
        "cryptography": lambda: make_keys(tmp_path / "keys"),
        "torch.utils.tensorboard": lambda: _tensorboard_writer(tmp_path, 0),
    }
    extra = {"rdkit": "conformers", "torch.utils.tensorboard": "tensorboard"}.get(package, "cluster")
    with pytest.raises(Exception, match=rf"pip install 'qcsurrogate\[{extra}\]'") as caught:
        use[package]()
    assert "\n" not in str(caught.value)
    assert type(caught.value).__module__ == SpecError.__module__


@pytest.mark.parametrize(
    "ascii_only",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    ],
)
def test_a_terminal_that_knows_only_ascii(ascii_only: dict[str, str], tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[2]), **ascii_only}
    shown = "from qcsurrogate.cli import main; import sys, qcsurrogate.cli as c\n"
    shown += "def run(_): print('\\u00b5Eh \\u00b7 \\udce9'); c.say('\\u00c5'); return 0\n"
    shown += "c._run = run; sys.exit(main([]))"
    done = subprocess.run(
        [sys.executable, "-c", shown], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "\\xb5Eh \\xb7 \\udce9\n", "\\xc5\n")
    done = subprocess.run(
        [sys.executable, "-m", "qcsurrogate", "status", "Mol\u00e9cules"],
        env=environment, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 5
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ")


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_without_locks_is_told(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refused)
    words = r"has no locks, .*make sure that this one is alone, or choose a folder"
    with pytest.warns(UserWarning, match=words), exclusive_lock(tmp_path / "lock"):
        assert not is_locked(tmp_path / "lock")


def test_other_trouble_with_a_lock_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with exclusive_lock(tmp_path / "lock"):
            assert is_locked(tmp_path / "lock")

    def refused(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", refused)
    with (
        pytest.raises(StoreError, match=r"cannot write '.*lock': Input/output error"),
        exclusive_lock(tmp_path / "lock"),
    ):
        pass


@pytest.mark.parametrize(
    "arguments",
    [
        ("generate", "{0}", "--out", "{1}/out"),
        ("status", "{1}"),
        ("inspect", "{0}"),
        ("predict", "{1}", "{0}", "--out", "{1}/o.npz"),
        ("schema", "spec"),
    ],
)
def test_files_that_may_not_be_read_give_one_line(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "secret.yaml"
    path.write_text("name: a\n")
    for module, function in (("io", "open"), ("builtins", "open"), ("os", "mkdir")):
        monkeypatch.setattr(f"{module}.{function}", _guarded(getattr(__import__(module), function), str(tmp_path)))
    code = cli.main([text.format(path, tmp_path) for text in arguments])
    out, err = capsys.readouterr()
    if arguments[0] == "schema":
        assert (code, err) == (0, "")
    else:
        assert code in (2, 5, 6)
        assert [line[:7] for line in err.splitlines() if line.startswith("error")] == ["error: "]
        assert "Traceback" not in err + out


def _guarded(function: Any, folder: str) -> Any:
    def call(path: Any, *arguments: Any, **options: Any) -> Any:
        if str(path).startswith(folder):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return function(path, *arguments, **options)

    return call
