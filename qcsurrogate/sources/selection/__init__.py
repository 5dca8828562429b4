"""Choosing among many structures: diverse subsets, and none twice."""

from qcsurrogate.sources.selection.diversity import coulomb_spectra, most_diverse
from qcsurrogate.sources.selection.duplicates import geometric_duplicates
from qcsurrogate.sources.selection.superposition import superposition_rmsd

__all__ = ["coulomb_spectra", "geometric_duplicates", "most_diverse", "superposition_rmsd"]
