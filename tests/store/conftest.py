"""A small finished store, and a Dask client without processes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import dask
import pytest
from distributed import Client, LocalCluster

from qcsurrogate.generation import generate
from tests.store import fakes


@pytest.fixture(scope="session")
def client() -> Iterator[Client]:
    with (
        dask.config.set({"distributed.logging": {"distributed": "critical"}}),
        LocalCluster(
            n_workers=1,
            threads_per_worker=1,
            processes=False,
            dashboard_address="127.0.0.1:0",
            worker_dashboard_address="127.0.0.1:0",
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.fixture(scope="session")
def finished(client: Client, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("finished") / "store"
    generate(fakes.spec(), path, client=client, quiet=True, calculator=fakes.pretend)
    return path


@pytest.fixture
def store_path(finished: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage: 10 records in shards of 4, 4 and 2."""
    return Path(shutil.copytree(finished, tmp_path / "store"))
