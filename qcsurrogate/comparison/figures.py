"""What a comparison reports: every figure's name, unit and definition, once.

All figures are errors, costs or times: smaller is better.  Unless a definition says
otherwise there is one value per molecule, and the summary runs over molecules.  Here are
those that several quantities share; the others stand in the judge of their quantity.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Figure:
    """One reported figure.

    Attributes:
        name: key in ``metrics.json``.
        title: what the report calls it.
        unit: unit in ``metrics.json``.
        definition: formula, in words or symbols.
        shown: unit in which the report shows it, of :mod:`qcsurrogate.comparison.text` or any other
            word; its prefix follows from the values.  Empty for ``unit``.
    """

    name: str
    title: str
    unit: str
    definition: str
    shown: str = ""


DENSITY_NMAE: Final = Figure(
    "density_nmae", "Density error", "%", "NMAE: 100 * int |rho - rho_KS| dr / N on a PySCF grid"
)
SPIN_DENSITY_NMAE: Final = Figure(
    "spin_density_nmae",
    "Spin density error",
    "%",
    "100 * int |m - m_KS| dr / N on a PySCF grid, m = rho_alpha - rho_beta, N electrons",
)
DIPOLE: Final = Figure("dipole_error", "Dipole moment", "e bohr", "|mu - mu_KS|")
QUADRUPOLE: Final = Figure(
    "quadrupole_error",
    "Quadrupole moment",
    "e bohr^2",
    "Frobenius norm of Q - Q_KS; traceless, origin at the centre of nuclear charge",
)
HARTREE_ENERGY: Final = Figure(
    "hartree_energy_error", "Hartree energy", "hartree", "|E_H - E_H,KS| with E_H = 1/2 int int rho rho' / |r - r'|"
)

SHARED: Final = (
    DENSITY_NMAE,
    Figure(
        "density_nmae_free_atoms",
        "Density error of free atoms, no network",
        "%",
        "100 * int |rho_atoms - rho_KS| dr / N: the superposition that the network corrects",
    ),
    Figure("electron_count_error", "Electron count", "e", "|int rho dr - N|, analytic"),
    DIPOLE,
    QUADRUPOLE,
    HARTREE_ENERGY,
    Figure(
        "one_shot_energy_error",
        "One-shot energy",
        "hartree",
        "|E[D_pred] - E_ref|: one Kohn-Sham energy evaluation, no SCF, against the converged energy",
    ),
    Figure(
        "corrected_energy_error",
        "One-shot energy, corrected",
        "hartree",
        "the same less remaining_energy, times the median ratio of the model's calibration if it has one",
    ),
    Figure(
        "remaining_energy",
        "Energy estimated to remain",
        "hartree",
        "second-order estimate of E[D_pred] - E_ref from the Fock matrix of D_pred; needs no reference",
    ),
    Figure(
        "commutator_norm",
        "Commutator |FDS - SDF|",
        "hartree",
        "Frobenius norm of FDS - SDF after one Fock build from D_pred; needs no reference, 0 is self-consistent",
    ),
    Figure("scf_cycles_minao", "SCF cycles from minao", "1", "iterations to the method's thresholds", "cycles"),
    Figure("scf_cycles", "SCF cycles from the surrogate", "1", "the same, started from D_pred", "cycles"),
    Figure(
        "scf_cycle_ratio", "SCF cycles, surrogate over minao", "1", "scf_cycles / scf_cycles_minao of each molecule"
    ),
    Figure(
        "scf_fock_builds_minao",
        "Fock builds from minao",
        "1",
        "evaluations of the potential, the initial and the final one included",
    ),
    Figure("scf_fock_builds", "Fock builds from the surrogate", "1", "the same, started from D_pred"),
    Figure(
        "scf_wall_time_minao",
        "SCF wall time from minao",
        "s",
        "fresh objects, from the bare molecule to convergence, grid and integrals included",
    ),
    Figure(
        "scf_wall_time",
        "SCF wall time from the surrogate",
        "s",
        "the same, started from D_pred; the prediction itself is counted",
    ),
    Figure(
        "scf_energy_difference",
        "Energy difference of the two SCFs",
        "hartree",
        "|E_surrogate - E_minao| of the converged runs: both must end in the same state",
    ),
    Figure("prediction_time", "Prediction time", "s", "wall time of predict on one molecule, everything included"),
    Figure(
        "reference_time", "Reference time", "s", "wall time of the stored reference record, on the machine that made it"
    ),
)
"""Figures of densities, energies, SCFs and costs, in the order of the report."""
