"""Geometries made from molecules: vibrations, displacements, torsions, dynamics, conformers."""

from qcsurrogate.sampling.conformers import sample_conformers
from qcsurrogate.sampling.dynamics import sample_dynamics
from qcsurrogate.sampling.torsions import TorsionScan, rotatable_dihedrals, scan_torsions
from qcsurrogate.sampling.vibrations import (
    MAXIMUM_DRAWS,
    HarmonicModes,
    Statistics,
    normal_coordinate_deviations,
    sample_displacements,
    sample_thermal,
)

__all__ = [
    "MAXIMUM_DRAWS",
    "HarmonicModes",
    "Statistics",
    "TorsionScan",
    "normal_coordinate_deviations",
    "rotatable_dihedrals",
    "sample_conformers",
    "sample_displacements",
    "sample_dynamics",
    "sample_thermal",
    "scan_torsions",
]
