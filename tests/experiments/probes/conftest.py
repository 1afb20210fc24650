"""Probes of few items."""

import pytest

from experiments.probes import uplink


@pytest.fixture(scope="module", autouse=True)
def few_items():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uplink, "ITEMS", 12)
        yield
