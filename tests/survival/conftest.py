import contextlib
import os

import pytest
from children import Nursery
from mounts import SmallDisk, seclusion


@pytest.fixture(scope="session")
def nursery():
    if not hasattr(os, "fork"):
        pytest.skip("children are forked, and this system cannot fork")
    with contextlib.closing(Nursery()) as nursery:
        yield nursery


@pytest.fixture
def started(nursery, tmp_path):
    """Start a servant on the same folder; all of them end with the test."""
    with contextlib.ExitStack() as ending:

        def start(folder=tmp_path, **settings):
            child = nursery.start("servants:serve", str(folder), settings)
            ending.callback(child.end)
            assert child.hear() == "open"
            return child

        yield start


@pytest.fixture(scope="session")
def secluded():
    with contextlib.closing(Nursery(*seclusion())) as nursery:
        yield nursery


@pytest.fixture
def disk(secluded, tmp_path):
    """A small disk that is full soon."""
    with contextlib.closing(SmallDisk(secluded, tmp_path / "disk")) as disk:
        yield disk
