"""Generate the reference data of a spec on a cluster: copy this script and change it to fit yours.

    python workflows/generate.py water_thermal --out data/water                            # all cores of this machine
    python workflows/generate.py my_spec.yaml --out data/mine --cluster workflows/clusters/slurm.yaml
    python workflows/generate.py my_spec.yaml --out data/mine --scheduler tls://10.0.0.1:8786

Start it again after an interruption and it goes on.  It does what `qcsurrogate generate` does; what a file of
workflows/clusters cannot say, say here: make a Dask client of any kind and pass `client=` instead of `cluster=`.
"""

from __future__ import annotations

import argparse
import sys

from qcsurrogate.clusters.settings import load_cluster, local_cluster, running_scheduler
from qcsurrogate.errors import QCSurrogateError
from qcsurrogate.generation import generate
from qcsurrogate.store.spec import load_spec


def main() -> None:
    """Parse, connect, generate, say what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spec", help="a YAML file or the name of a shipped spec")
    parser.add_argument("--out", required=True, help="folder of the store; every worker must see it")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--cluster", help="a file of workflows/clusters, edited")
    where.add_argument("--scheduler", help="address of a running Dask scheduler")
    arguments = parser.parse_args()

    if arguments.cluster:
        cluster = load_cluster(arguments.cluster)
    elif arguments.scheduler:
        cluster = running_scheduler(arguments.scheduler)
    else:
        cluster = local_cluster()
    summary = generate(load_spec(arguments.spec), arguments.out, cluster=cluster)
    print(f"{summary.path}: {summary.counts}, {summary.computed} computed in {summary.wall_time:.0f} s")
    for failure in summary.failures:
        print(f"failed: {failure.name}: {failure.cause}: {failure.message}")


if __name__ == "__main__":  # workers import this file too
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted; everything finished is kept, start again to go on")
    except QCSurrogateError as error:
        sys.exit(f"error: {error}")
