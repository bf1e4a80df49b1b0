"""One Ray for all tests of a process, and a crew that they share: workers take seconds to start."""

import os

import pytest

from freshkv.compare import OnRay
from freshkv.compare.cluster.connection import disconnect, start
from tests.compare.cluster.mortal import FUSE


@pytest.fixture(scope="session")
def fuse_file(tmp_path_factory):
    return tmp_path_factory.mktemp("fuse") / "fuse"


@pytest.fixture(scope="session")
def cluster(fuse_file):
    """The address of a Ray on this machine, to which this process is connected."""
    ray = pytest.importorskip("ray", reason="needs ray: pip install 'freshkv[ray]'")
    os.environ[FUSE] = str(fuse_file)
    start(ray, num_cpus=3)
    yield ray.get_runtime_context().gcs_address
    disconnect(ray)
    del os.environ[FUSE]


@pytest.fixture(scope="session")
def crew(cluster):
    """Two workers."""
    with OnRay(workers=2).open() as crew:
        yield crew


@pytest.fixture
def fuse(fuse_file):
    """A function that tells workers what to die of; afterwards they live again."""
    yield fuse_file.write_text
    fuse_file.unlink(missing_ok=True)
