"""Atomic writes, locks and YAML models: what everyone uses."""
