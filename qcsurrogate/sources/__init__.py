"""From the ``structures:`` of a spec to structures: readers, samplers, selection, de-duplication.

A file or a geometry that cannot be used is a StructureError, a setting or a package that
is missing a SpecError; docstrings name what else may be raised, and why.
"""
