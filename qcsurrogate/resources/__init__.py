"""Geometries and labels that come with the package: flat arrays in npz files.

``qm9_small``: the 759 molecules of H, C, N, O in QM9 with at most 6 non-hydrogen atoms
(uncharacterised entries left out), B3LYP/6-31G(2df,p) geometries in Angstrom, named by
their GDB index. R. Ramakrishnan, P. O. Dral, M. Rupp, O. A. von Lilienfeld, Sci. Data
2014, 1, 140022; published under CC0.

``qm9_properties``: 2,114 molecules of the same source with fewer than 9 non-hydrogen atoms, H, C, N, O, with all 19
targets in the units of the published files (:mod:`qcsurrogate.tables.qm9`); positions rounded to single precision.
CC0 as well. They are about a tenth of the molecules of that size, and gdb_814 is
none of them.
"""
