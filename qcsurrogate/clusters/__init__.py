"""Where a Dask client comes from: this machine, batch systems, SSH, a running scheduler.

A setting, a key or a missing package is a SpecError, workers that do not start or do not
stay are a ClusterError.
"""
