"""From a spec to a store, through Dask."""

from __future__ import annotations

from qcsurrogate.generation.run import GenerationSummary, generate

__all__ = ["GenerationSummary", "generate"]
