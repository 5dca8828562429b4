"""Geometries made from molecules: vibrations, displacements, torsions, dynamics, conformers."""

from qcsurrogate.sources.samplers.conformers import sample_conformers
from qcsurrogate.sources.samplers.dynamics import sample_dynamics
from qcsurrogate.sources.samplers.torsions import TorsionScan, rotatable_dihedrals, scan_torsions
from qcsurrogate.sources.samplers.vibrations import (
    MAXIMUM_DRAWS,
    Statistics,
    normal_coordinate_deviations,
    sample_displacements,
    sample_thermal,
)

__all__ = [
    "MAXIMUM_DRAWS",
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
