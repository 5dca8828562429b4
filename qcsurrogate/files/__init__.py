"""Atomic writes, locks and YAML models: what everyone uses.

What cannot be read or written is a StoreError, YAML that cannot be used a SpecError.
"""
