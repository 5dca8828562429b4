"""Driver: one run left alone, one killed again and again at random moments; both folders are kept.

``python -m tests.training.kill_and_resume FOLDER SEED`` prints the number of kills.  The
children are forked, so that only the first start pays for the imports.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

from tests.training.runs import HookedData, run_tiny, tiny_config

MAXIMUM_KILLS = 20
CONFIG = tiny_config(steps=220, gradient_clip=0.5)


def start(out: Path) -> int:
    """A child that trains in ``out`` and ends with exit code 0."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        run_tiny(out, CONFIG, HookedData(lambda _: time.sleep(0.002)))
        code = 0
    except BaseException:  # noqa: BLE001 - the child ends here
        traceback.print_exc()
    finally:
        os._exit(code)


def main(folder: Path, seed: int) -> None:
    generator = random.Random(seed)
    began = time.monotonic()
    if os.waitpid(start(folder / "whole"), 0)[1] != 0:
        raise SystemExit("the run that was left alone failed")
    duration = time.monotonic() - began  # so that a busy machine does not kill every start at once
    kills = 0
    while kills < MAXIMUM_KILLS:
        child = start(folder / "killed")
        time.sleep(duration * generator.uniform(0.1, 0.4))
        os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        if status == 0:
            break
        if not os.WIFSIGNALED(status):
            raise SystemExit(f"a resumed run failed with status {status}")
        kills += 1
    else:
        if os.waitpid(start(folder / "killed"), 0)[1] != 0:
            raise SystemExit("the last start failed")
    print(kills)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
