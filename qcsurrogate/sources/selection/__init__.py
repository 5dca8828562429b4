"""Choosing among many structures: diverse subsets, and none twice."""
