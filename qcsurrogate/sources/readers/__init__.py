"""Files of structures: xyz, extxyz, SDF, npz, ASE databases, QM9's archives."""

from qcsurrogate.sources.readers.read import ENDINGS, folder_files, read_geometries, read_structures

__all__ = ["ENDINGS", "folder_files", "read_geometries", "read_structures"]
