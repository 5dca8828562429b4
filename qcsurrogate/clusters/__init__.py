"""Where a Dask client comes from: this machine, batch systems, SSH, a running scheduler."""
