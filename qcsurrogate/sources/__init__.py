"""From the ``structures:`` of a spec to structures: readers, samplers, selection, de-duplication."""
