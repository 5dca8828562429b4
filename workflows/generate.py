"""Generate the reference data of a spec with Dask: copy this script and change it to fit your cluster.

    python workflows/generate.py water_thermal --out data/water            # all cores of this machine
    python workflows/generate.py my_spec.yaml --out data/mine --workers 8 --threads 4
    python workflows/generate.py my_spec.yaml --out data/mine --scheduler tcp://10.0.0.1:8786

Start it again after an interruption and it goes on.
"""

from __future__ import annotations

import argparse
import sys

from distributed import Client

from qcsurrogate.errors import QCSurrogateError
from qcsurrogate.generation import generate
from qcsurrogate.store.spec import load_spec


def main() -> None:
    """Parse, connect, generate, say what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spec", help="a YAML file or the name of a shipped spec")
    parser.add_argument("--out", required=True, help="folder of the store; every worker must see it")
    parser.add_argument("--workers", type=int, help="local processes (default: one per --threads cores)")
    parser.add_argument("--threads", type=int, default=1, help="threads of each calculation")
    parser.add_argument("--scheduler", help="address of a running Dask scheduler, instead of local processes")
    arguments = parser.parse_args()

    client = Client(arguments.scheduler) if arguments.scheduler else None
    summary = generate(
        load_spec(arguments.spec),
        arguments.out,
        client=client,
        n_workers=arguments.workers,
        threads=arguments.threads,
    )
    print(f"{summary.path}: {summary.counts}, {summary.computed} computed in {summary.wall_time:.0f} s")
    for failure in summary.failures:
        print(f"failed: {failure.name}: {failure.cause}: {failure.message}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted; everything finished is kept, start again to go on")
    except QCSurrogateError as error:
        sys.exit(f"error: {error}")
