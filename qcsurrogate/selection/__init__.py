"""Choosing among many structures: diverse subsets, and none twice."""

from qcsurrogate.selection.diversity import coulomb_spectra, most_diverse
from qcsurrogate.selection.duplicates import geometric_duplicates
from qcsurrogate.selection.superposition import superposition_rmsd

__all__ = ["coulomb_spectra", "geometric_duplicates", "most_diverse", "superposition_rmsd"]
