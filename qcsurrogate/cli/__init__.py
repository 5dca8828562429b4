"""The command line ``qcsurrogate``: parse, call, print.

Data goes to standard output, everything else to standard error.  What a command needs is
imported when it runs, so that ``--help`` is immediate.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
import warnings
from collections.abc import Sequence
from io import TextIOWrapper
from typing import NoReturn

from qcsurrogate.cli import curves, dataset, init, lesson, references, surrogates
from qcsurrogate.cli.arguments import Parser, say
from qcsurrogate.errors import QCSurrogateError, SpecError

EXIT_CODES = """\
exit codes:
  0    done (structures that failed are counted and listed; they do not fail the command)
  1    anything else that went wrong; demo: a target was missed
  2    an option, a spec, a configuration or a path that cannot be used, or a package that is missing
  3    a structure, a structure file or a basis that cannot be used
  4    no structure converged, or a reference record failed its checks
  5    a store that is missing, damaged or not writable
  6    a model file that is missing or damaged
  7    a model asked about elements, a charge, a spin or a basis it was not trained on
  8    training that cannot start, resume or go on
  9    a result that cannot be written, or read back
  10   a cluster that cannot be started, reached or kept up; generate goes on when it is started again
  130  stopped by Ctrl-C; generate, train, learning-curve and demo go on when they are started again
  141  whatever read the output closed it"""

_INTERRUPTED, _PIPE_CLOSED = 130, 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code, see :data:`EXIT_CODES`.
    """
    _print_whatever_the_terminal_knows()
    of_python, warnings.formatwarning = warnings.formatwarning, _warning_in_words
    try:
        try:
            return _run(arguments)
        finally:
            warnings.formatwarning = of_python
            sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes standard output once more at exit; let that go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _PIPE_CLOSED
    except KeyboardInterrupt:
        say("interrupted; generate, train, learning-curve and demo go on when they are started again")
        return _INTERRUPTED
    except (QCSurrogateError, OSError, ModuleNotFoundError) as error:
        if os.environ.get("QCSURROGATE_TRACEBACK"):
            raise
        if isinstance(error, ModuleNotFoundError) and (error.name or "qcsurrogate").startswith("qcsurrogate"):
            raise  # not missing on this machine, but in this program
        say(f"error: {_words(error)}")
        return error.exit_code if isinstance(error, QCSurrogateError) else SpecError.exit_code


def _print_whatever_the_terminal_knows() -> None:
    """A terminal may know ASCII only, and a path need not be text: such characters are escaped, never an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _warning_in_words(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning without the line of the program that it comes from."""
    return f"warning: {message}\n"


_EXTRAS = {
    "asyncssh": "cluster",
    "cryptography": "cluster",
    "dask_jobqueue": "cluster",
    "rdkit": "conformers",
    "tensorboard": "tensorboard",
    "torch_scatter": "scatter",
}


def _words(error: QCSurrogateError | OSError | ModuleNotFoundError) -> str:
    """What an error says, in a line where it comes from the system."""
    if isinstance(error, ModuleNotFoundError):
        package = str(error.name).partition(".")[0]
        wanted = f"'qcsurrogate[{_EXTRAS[package]}]'" if package in _EXTRAS else package
        return f"the package '{package}' is missing; expected it installed: pip install {wanted}"
    if isinstance(error, OSError) and error.filename is not None:
        path = os.fsdecode(error.filename) if isinstance(error.filename, bytes) else error.filename
        advice = {
            errno.EACCES: "give yourself the right to it, or name another place",
            errno.EPERM: "give yourself the right to it, or name another place",
            errno.EROFS: "name a place that can be written",
            errno.ENOSPC: "free some space",
            errno.EDQUOT: "free some space",
            errno.ENOENT: "name one that is there",
        }.get(error.errno or 0, "name another place")
        return f"cannot use '{path}': {error.strerror or error}; {advice}"
    return str(error)


def _run(arguments: Sequence[str] | None) -> int:
    options, unknown = build_parser().parse_known_args(arguments)
    if unknown:
        options.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    code: int = options.run(options)
    return code


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = Parser(
        prog="qcsurrogate",
        description="Neural surrogates of Kohn-Sham density functional theory: generate references with PySCF, train "
        "equivariant networks, predict densities and Hamiltonians, compare.",
        epilog=EXIT_CODES + "\n\nQCSURROGATE_TRACEBACK=1 shows where an error comes from.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)
    for module in (init, references, dataset, surrogates, curves, lesson):
        module.add_commands(commands)
    return parser


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        import qcsurrogate

        print(f"qcsurrogate {qcsurrogate.__version__}")
        parser.exit()
