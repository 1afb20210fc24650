"""`spa` trains a path that the adapter must have; its runs are held by test_on_device.py."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from cdc_flower.config import ConfigError, parse
from strategies.spa import SPA


def test_an_adapter_without_a_side_path_is_refused():
    with pytest.raises(ConfigError, match=r"'pair.adapter' = 'norms': method 'spa' .*; allowed: 'lora'"):
        SPA.check(SimpleNamespace(config=parse({"pair.adapter": "norms"})))
    SPA.check(SimpleNamespace(config=parse({})))
