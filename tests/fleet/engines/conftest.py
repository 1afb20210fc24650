import sys
from pathlib import Path

import pytest

from cdc_flower.fleet.engines.workers import start_ray


@pytest.fixture(scope="module")
def ray():
    """One Ray of two cores for all tests of a file, whose workers find what stands here."""
    sys.path.insert(0, str(Path(__file__).parent))
    import ray

    head = start_ray("", 2)
    assert head is not None
    yield ray
    head.close()
    sys.path.remove(str(Path(__file__).parent))
