"""How far does a prediction jump where atoms come into each other's reach?

    python tests/benchmarks/continuity.py run_of_hamiltonian/model.safetensors run_of_density/model.safetensors

Two waters, and water and methane, are moved apart; at every distance at which an atom of one
comes into the reach (of messages, of pairs) of an atom of the other, the molecules are
predicted a little before and a little behind, in float64.  Printed is the largest change of
any element, in 1e-6 of its unit: of D = X (H - H0) X and of the whole H (microhartree), of
density coefficients (PySCF's functions).  A change that grows with the step is a slope and
no jump, so that two steps are shown.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase.build import molecule
from numpy.typing import NDArray

from qcsurrogate.models.base import SurrogateModel
from qcsurrogate.models.files import read_model
from qcsurrogate.quantities.hamiltonian.model import HamiltonianModel
from qcsurrogate.structures import Structure
from qcsurrogate.testing import assert_continuous
from qcsurrogate.units import BOHR_PER_ANGSTROM

STEPS = 1e-9, 1e-8
"""bohr."""


class Whole:
    """A Hamiltonian model that predicts H and not its correction."""

    kind = "whole hamiltonian"

    def __init__(self, model: HamiltonianModel) -> None:
        self.model, self.graphs = model, model.graphs

    def predict_arrays(self, structures: Sequence[Structure]) -> list[NDArray[np.float64]]:
        """H in Hartree."""
        starts = self.model.starting_points(structures)
        corrections = self.model.corrections(structures, starts)
        return [start.hamiltonian(correction) for start, correction in zip(starts, corrections, strict=True)]


def known(name: str) -> Structure:
    """A molecule of ASE's collection."""
    atoms = molecule(name)
    return Structure(np.asarray(atoms.numbers, np.int64), atoms.positions * BOHR_PER_ANGSTROM, name=name)


def main() -> None:
    """Walk, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--directions", type=int, default=2, help="ways apart that are tried")
    options = parser.parse_args()
    for path in options.models:
        model: SurrogateModel = read_model(path)[0].double()
        kinds: list[Any] = [model, Whole(model)] if isinstance(model, HamiltonianModel) else [model]
        reaches = " and ".join(
            f"{r:.2f}" for r in (model.graphs.message_cutoff, model.graphs.pair_cutoff) if r is not None
        )
        for kind, (first, second) in itertools.product(kinds, (("H2O", "H2O"), ("H2O", "CH4"))):
            jumps = [
                max(
                    assert_continuous(kind, known(first), known(second), tolerance=np.inf, step=step, seed=seed)
                    for seed in range(options.directions)
                )
                for step in STEPS
            ]
            found = ", ".join(f"{1e6 * jump:.5f} (step {step:g})" for jump, step in zip(jumps, STEPS, strict=True))
            print(f"{kind.kind:18} {first} and {second}, reaches {reaches} bohr: largest change {found} x 1e-6")


if __name__ == "__main__":
    main()
