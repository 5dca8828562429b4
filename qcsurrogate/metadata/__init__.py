"""Charge, spin, unit, periodicity and ghosts as people write them: one rule for every reader.

A reader hands over all that stands beside a geometry, as pairs of key and value.  A key is
compared without regard to case, blanks and punctuation.  What is recognised is understood, or
refused in one line; what is not recognised is none of our business.

- A charge, spin (unpaired electrons) or multiplicity is one whole number.  ``total_spin`` may mean
  S, 2S or 2S + 1, and has to agree with a spin or multiplicity beside it, unless it is zero.
- A number for each atom counts by its sum, which states the whole number within 0.05 of it: so
  initial charges are read, and partial charges of a calculation are fine where they add up to the
  charge that is stated, or to a whole one where none is.  Another sum is refused.  Zeros say nothing.
- All that is stated has to agree, in keys, columns and free text.
- Lengths are in Angstrom: another unit is refused, never converted.  So are ghosts, drawings (2D),
  and periodicity, of which a cell is a sign unless ``pbc`` says otherwise.
- In free text ("charge 2", "triplet", "0 3", "in bohr") a number has to follow its word.
  Charges within a formula or a name ("SO4 2-", "hydroxide anion", "a cation") are not read: state them.
"""

from qcsurrogate.metadata.rule import molecular_state, whole_number
from qcsurrogate.metadata.words import comment_entries, is_ghost, kind_of

__all__ = ["comment_entries", "is_ghost", "kind_of", "molecular_state", "whole_number"]
