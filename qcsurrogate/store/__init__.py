"""The folder of reference records: planned, written, read, grown, merged and checked.

In every function here, what is missing, damaged, hostile, of another form or cannot be
written is a StoreError; a docstring names it only where it means something else too.
"""
