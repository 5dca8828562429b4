"""Batch systems of one machine: commands that run job scripts as local processes, in groups of their own."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

_SUBMIT = r"""#!/bin/bash
cd "$STAND_IN_QUEUE" || exit 1
if [ -e refuse ]; then echo "error: invalid partition specified" >&2; exit 1; fi
exec 9>lock; flock 9
number=$((100 + $(ls | grep -c '\.sh$')))
cat "${1:-/dev/stdin}" > $number.sh
folder=$(sed -n 's/^#[A-Z$]* -e \(.*\)\/[^/]*$/\1/p' $number.sh)
setsid bash $number.sh </dev/null >"$folder/qcsurrogate.o$number" 2>"$folder/qcsurrogate.e$number" 9>&- &
echo $! > $number.pid
echo "SAID"
"""

_LIST = r"""#!/bin/bash
cd "$STAND_IN_QUEUE" || exit 1
if [ -e mute ]; then echo "error: cannot reach the controller" >&2; exit 1; fi
for file in *.pid; do
  [ -e "$file" ] || continue
  number=${file%.pid}
  kill -0 -- -$(cat "$file") 2>/dev/null && echo "LINE"
done
exit 0
"""

_CANCEL = r"""#!/bin/bash
cd "$STAND_IN_QUEUE" && kill -TERM -- -$(cat "$1.pid")
"""

_SYSTEMS = {
    "slurm": (("sbatch", "squeue", "scancel"), "Submitted batch job $number", "$number RUNNING"),
    "pbs": (("qsub", "qstat", "qdel"), "$number.server", "$number.server qcsurrogate $USER 00:00:01 R workq"),
    "sge": (
        ("qsub", "qstat", "qdel"),
        'Your job $number (\\"qcsurrogate\\") has been submitted',
        "$number 0.555 qcsurrogat $USER r 01/01/2026 12:00:00 all.q@node 1",
    ),
    "lsf": (
        ("bsub", "bjobs", "bkill"),
        "Job <$number> is submitted to default queue <normal>.",
        "$number $USER RUN normal login node qcsurrogate Jan  1 12:00",
    ),
}


class StandIn:
    """A batch system that lives in a folder."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder = folder
        (folder / "bin").mkdir(parents=True)
        names, said, line = _SYSTEMS[kind]
        texts = (_SUBMIT.replace("SAID", said), _LIST.replace("LINE", line), _CANCEL)
        for name, text in zip(names, texts, strict=True):
            (folder / "bin" / name).write_text(text)
            (folder / "bin" / name).chmod(0o755)

    def scripts(self) -> list[str]:
        """All job scripts so far, in the order of submission."""
        return [path.read_text() for path in sorted(self.folder.glob("*.sh"))]

    def alive(self) -> list[int]:
        """Process groups of jobs that still run."""
        groups = [int(path.read_text()) for path in sorted(self.folder.glob("*.pid"))]
        return [group for group in groups if _is_alive(group)]

    def kill(self, which: int = 0) -> None:
        """End a running job as the end of its walltime does, at once."""
        os.killpg(self.alive()[which], signal.SIGKILL)

    def end(self) -> None:
        """Leave nothing behind."""
        for group in self.alive():
            os.killpg(group, signal.SIGKILL)


def _is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


StartQueue = Callable[[str], StandIn]


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StartQueue]:
    """Makes a stand-in, whose commands come first on the PATH."""
    started: list[StandIn] = []

    def start(kind: str) -> StandIn:
        stand_in = StandIn(tmp_path / "queue", kind)
        started.append(stand_in)
        monkeypatch.setenv("PATH", f"{stand_in.folder / 'bin'}:{os.environ['PATH']}")
        monkeypatch.setenv("STAND_IN_QUEUE", str(stand_in.folder))
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        monkeypatch.setenv("USER", "somebody")
        return stand_in

    yield start
    for stand_in in started:
        stand_in.end()


def wait_until(condition: Callable[[], bool], seconds: float = 60, tend: Callable[[], None] = lambda: None) -> None:
    """Wait for something, tending a cluster meanwhile."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"nothing came of it in {seconds} s"
        tend()
        time.sleep(0.1)
