"""Geometries made from molecules: vibrations, displacements, torsions, dynamics, conformers."""
