"""What a run tells on a terminal."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import sys
import termios

import pytest

from qcsurrogate.training.reporting import Reporter

FIGURES = {
    "hamiltonian": {"hamiltonian_mae": 1.234e-3, "atom_block_mae": 2.345e-3, "pair_block_mae": 3.456e-4},
    "density": {"coefficient_mae": 1.234e-3, "coefficient_norm_per_electron": 2.345e-3},
}


def _all_of(terminal: int) -> bytes:
    """What was written to the other, closed end; the kernel hands it over piece by piece."""
    found = b""
    try:
        while piece := os.read(terminal, 65536):
            found += piece
    except OSError as error:
        assert error.errno == errno.EIO  # noqa: PT017 - how Linux says that the other end is closed
    return found


@pytest.mark.parametrize(("columns", "whole"), [(80, 1), (110, 2), (200, 3)])
@pytest.mark.parametrize("kind", ["hamiltonian", "density"])
def test_the_bar_keeps_its_figures(kind: str, columns: int, whole: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    terminal = os.fdopen(theirs, "w")
    monkeypatch.setattr(sys, "stderr", terminal)
    figures = FIGURES[kind]
    with Reporter(f"training {kind}", 4000, 3998, quiet=False, tensorboard=None) as reporter:
        reporter.stepped(3999, 0.1)
        reporter.validated(3999, {f"validation_{k}": v for k, v in figures.items()}, best=True)
    terminal.close()
    lines = _all_of(ours).decode().replace("\n", "\r").split("\r")
    os.close(ours)
    assert all(len(line) <= columns for line in lines)
    shown = next(line for line in lines if "e-0" in line)
    assert [f"{k} {v:.3e}" in shown for k, v in figures.items()] == [k < whole for k in range(len(figures))], shown
    assert shown.rstrip().endswith("]")
