"""What a run tells while it goes: a progress bar, or plain lines, and TensorBoard on request."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm

from qcsurrogate.errors import TrainingError

_LINE_EVERY_SECONDS = 10.0
_BAR_FORMAT = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
_BAR_OF_UNKNOWN_WIDTH = 10  # what tqdm draws where it does not know the terminal


class Reporter:
    """Progress on standard error: a bar on a terminal, lines elsewhere, nothing if quiet."""

    def __init__(self, name: str, steps: int, start: int, *, quiet: bool, tensorboard: Path | None) -> None:
        self._name, self._steps, self._start = name, steps, start
        self._quiet = quiet
        self._bar: tqdm[Any] | None = None
        if not quiet and sys.stderr.isatty():
            self._bar = tqdm(
                total=steps, initial=start, desc=name.split()[-1], dynamic_ncols=True, bar_format=_BAR_FORMAT
            )
        self._writer = _tensorboard_writer(tensorboard, start) if tensorboard else None
        self._began = self._last_line = time.monotonic()
        self._latest = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        if self._writer is not None:
            self._writer.close()

    def stepped(self, step: int, loss: float) -> None:
        """After every step."""
        if self._bar is not None:
            self._bar.update()
            return
        now = time.monotonic()
        if now - self._last_line > _LINE_EVERY_SECONDS:
            self._line(f"step {step}/{self._steps}, loss {loss:.3e}, {self._rate(step, now)}")

    def validated(self, step: int, row: Mapping[str, float], *, best: bool) -> None:
        """After every validation, with the new row of the table."""
        figures = {k.removeprefix("validation_"): v for k, v in row.items() if k.startswith("validation_")}
        self._latest = ", ".join(f"{name} {value:.3e}" for name, value in figures.items())
        if self._bar is not None:
            self._bar.set_postfix_str(self._fitting(self._latest))
        else:
            mark = " (best)" if best else ""
            rate = f", {self._rate(step, time.monotonic())}" if step > self._start else ""
            self._line(
                f"step {step}/{self._steps}, loss {row['train_loss']:.3e}, validation {self._latest}{mark}{rate}"
            )
        if self._writer is not None:
            for name, value in row.items():
                if name != "step":
                    self._writer.add_scalar(name, value, step)

    def say(self, text: str) -> None:
        """One line, whatever the mode, unless quiet."""
        if self._bar is not None:
            self._bar.write(f"{self._name}: {text}", file=sys.stderr)
        else:
            self._line(text)

    def _fitting(self, figures: str) -> str:
        """As many of the figures as the terminal has room for beside a short bar; the first in any case."""
        if self._bar is None:
            return figures
        state = self._bar.format_dict
        columns = state["ncols"]
        without = self._bar.format_meter(**{**state, "ncols": None, "postfix": ""})
        taken = len(without) - _BAR_OF_UNKNOWN_WIDTH + len("##, ")
        while columns and len(figures) > columns - taken and ", " in figures:
            figures = figures.rpartition(", ")[0]
        return figures

    def _line(self, text: str) -> None:
        self._last_line = time.monotonic()
        if not self._quiet:
            print(f"{self._name}: {text}", file=sys.stderr, flush=True)

    def _rate(self, step: int, now: float) -> str:
        per_second = (step - self._start) / max(now - self._began, 1e-9)
        left = (self._steps - step) / max(per_second, 1e-9)
        return f"{per_second:.1f} steps/s, {left / 60:.1f} min left"


def _tensorboard_writer(folder: Path, start: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise TrainingError(
            "training.tensorboard=true needs TensorBoard, which is not installed; "
            "run `pip install 'qcsurrogate[tensorboard]'` or leave the setting out"
        ) from error
    return SummaryWriter(str(folder), purge_step=start + 1)
