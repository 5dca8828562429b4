"""Every figure that a comparison can report: its name, unit and definition, once.

All figures are errors, costs or times: smaller is better.  Unless a definition says
otherwise there is one value per molecule, and the summary runs over molecules.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from qcsurrogate.errors import SpecError
from qcsurrogate.units import DEBYE_PER_ATOMIC_UNIT, MICROHARTREE_PER_HARTREE, MILLIELECTRONVOLT_PER_HARTREE


@dataclass(frozen=True)
class Figure:
    """One reported quantity.

    Attributes:
        name: key in ``metrics.json``.
        group: heading in the report.
        title: what the report calls it.
        unit: unit in ``metrics.json``.
        definition: formula, in words or symbols.
        shown_unit, shown_factor: the report prints ``value * shown_factor`` in ``shown_unit``.
    """

    name: str
    group: str
    title: str
    unit: str
    definition: str
    shown_unit: str
    shown_factor: float = 1.0

    def shown(self, value: float) -> float:
        """A value in the unit that the report prints."""
        return value * self.shown_factor


def _matrix(name: str, title: str, definition: str) -> Figure:
    return Figure(name, "Hamiltonian", title, "hartree", definition, "µEh", MICROHARTREE_PER_HARTREE)


def _level(name: str, title: str, definition: str) -> Figure:
    return Figure(name, "Orbitals", title, "hartree", definition, "meV", MILLIELECTRONVOLT_PER_HARTREE)


def _split(
    name: str, title: str, unit: str, definition: str, shown_unit: str, shown_factor: float = 1.0
) -> tuple[Figure, ...]:
    """A density error, and its split into what the fit leaves and what the network adds."""
    whole = Figure(name, "Density", title, unit, definition, shown_unit, shown_factor)
    floor = Figure(
        f"{name}_fit_floor",
        "Density",
        f"{title}: fit floor",
        unit,
        f"the same for the fitted coefficients of the store: {definition}",
        shown_unit,
        shown_factor,
    )
    network = Figure(
        f"{name}_network",
        "Density",
        f"{title}: network part",
        unit,
        f"the same between predicted and fitted density: {definition}",
        shown_unit,
        shown_factor,
    )
    return whole, floor, network


FIGURES: Final[tuple[Figure, ...]] = (
    _matrix("hamiltonian_mae", "Mean error", "mean over all elements of |H_pred - H_ref|"),
    _matrix("hamiltonian_largest_error", "Largest element error", "max over all elements of |H_pred - H_ref|"),
    _matrix(
        "hamiltonian_frobenius_per_sqrt_n",
        "Frobenius norm of the Hamiltonian error / sqrt(N)",
        "sqrt(sum_ij (H_pred - H_ref)_ij^2 / N), N electrons: a norm, no mean; not diluted as molecules grow",
    ),
    _matrix("baseline_mae", "Mean error of H0 (no network)", "mean over all elements of |H_0 - H_ref|"),
    _level("occupied_energy_mae", "Occupied energies", "mean over occupied orbitals of |e_pred - e_ref|, HC = SCe"),
    _level("homo_error", "HOMO energy", "|HOMO_pred - HOMO_ref|"),
    _level("lumo_error", "LUMO energy", "|LUMO_pred - LUMO_ref|"),
    _level("gap_error", "HOMO-LUMO gap", "|gap_pred - gap_ref|"),
    Figure(
        "occupied_subspace_defect",
        "Orbitals",
        "Occupied space missed",
        "1",
        "1 - |C_ref^T S C_pred|_F^2 / n_occ over occupied orbitals; 0 is perfect",
        "ppm",
        1e6,
    ),
    Figure(
        "orbital_cosine_defect",
        "Orbitals",
        "Orbital shapes (fragile under degeneracy)",
        "1",
        "mean over occupied orbitals of 1 - |c_ref^T S c_pred|; read only beside the occupied space",
        "ppm",
        1e6,
    ),
    *_split("density_nmae", "Density error (NMAE)", "%", "100 * int |rho - rho_KS| dr / N on a PySCF grid", "%"),
    Figure(
        "density_nmae_over_fit_floor",
        "Density",
        "Density error over fit floor",
        "1",
        "density_nmae / density_nmae_fit_floor; 1 means that the network adds nothing",
        "x",
    ),
    Figure(
        "density_nmae_free_atoms",
        "Density",
        "Density error of free atoms (no network)",
        "%",
        "100 * int |rho_atoms - rho_KS| dr / N: the superposition that the network corrects",
        "%",
    ),
    Figure(
        "electron_count_error",
        "Density",
        "Electron count",
        "e",
        "|int rho dr - N|, analytic",
        "e",
    ),
    *_split("dipole_error", "Dipole moment", "e bohr", "|mu - mu_KS|", "D", DEBYE_PER_ATOMIC_UNIT),
    *_split(
        "quadrupole_error",
        "Quadrupole moment",
        "e bohr^2",
        "Frobenius norm of Q - Q_KS; traceless, origin at the centre of nuclear charge",
        "e bohr²",
    ),
    *_split(
        "hartree_energy_error",
        "Hartree energy",
        "hartree",
        "|E_H - E_H,KS| with E_H = 1/2 int int rho rho' / |r - r'|",
        "mEh",
        1e3,
    ),
    Figure(
        "one_shot_energy_error",
        "Energy and trust",
        "One-shot energy",
        "hartree",
        "|E[D_pred] - E_ref|: one Kohn-Sham energy evaluation, no SCF, against the converged energy",
        "mEh",
        1e3,
    ),
    Figure(
        "commutator_norm",
        "Energy and trust",
        "Commutator |FDS - SDF|",
        "hartree",
        "Frobenius norm of FDS - SDF after one Fock build from D_pred; needs no reference, 0 is self-consistent",
        "mEh",
        1e3,
    ),
    Figure("scf_cycles_minao", "SCF", "SCF cycles from minao", "1", "iterations to the method's thresholds", "cycles"),
    Figure("scf_cycles", "SCF", "SCF cycles from the surrogate", "1", "the same, started from D_pred", "cycles"),
    Figure(
        "scf_cycle_ratio",
        "SCF",
        "SCF cycles, surrogate over minao",
        "1",
        "scf_cycles / scf_cycles_minao of each molecule",
        "x",
    ),
    Figure(
        "scf_fock_builds_minao",
        "SCF",
        "Fock builds from minao",
        "1",
        "evaluations of the potential, the initial and the final one included",
        "builds",
    ),
    Figure("scf_fock_builds", "SCF", "Fock builds from the surrogate", "1", "the same, started from D_pred", "builds"),
    Figure(
        "scf_wall_time_minao",
        "SCF",
        "SCF wall time from minao",
        "s",
        "fresh objects, from the bare molecule to convergence, grid and integrals included",
        "s",
    ),
    Figure(
        "scf_wall_time",
        "SCF",
        "SCF wall time from the surrogate",
        "s",
        "the same, started from D_pred; the prediction itself is counted",
        "s",
    ),
    Figure(
        "scf_energy_difference",
        "SCF",
        "Energy difference of the two SCFs",
        "hartree",
        "|E_surrogate - E_minao| of the converged runs: both must end in the same state",
        "µEh",
        MICROHARTREE_PER_HARTREE,
    ),
    Figure(
        "prediction_time",
        "Cost",
        "Prediction time",
        "s",
        "wall time of predict on one molecule, everything included",
        "s",
    ),
    Figure(
        "reference_time",
        "Cost",
        "Reference time",
        "s",
        "wall time of the stored reference record, on the machine that made it",
        "s",
    ),
)

FIGURE: Final[dict[str, Figure]] = {figure.name: figure for figure in FIGURES}
"""All known figures by name, in the order of the report."""


def define(figures: Iterable[Figure]) -> None:
    """Make the figures of a quantity known to tables and summaries.

    Raises:
        SpecError: if a name has another definition already.
    """
    for figure in figures:
        if FIGURE.setdefault(figure.name, figure) != figure:
            raise SpecError(f"the figure '{figure.name}' is defined already; give yours another name")
