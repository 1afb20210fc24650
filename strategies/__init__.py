"""Flower strategies, one method per file. `STRATEGIES` says how to build each, `TRAITS` what it needs."""

from collections.abc import Callable
from typing import Any

from strategies import cdc, fedavg, fedprox, static
from strategies.traits import Traits

STRATEGIES: dict[str, Callable[..., Any]] = {
    "static": static.build,
    "cdc": cdc.build,
    "upload_all": cdc.build_all,
    "fedavg_lora": fedavg.build_lora,
    "fedprox_lora": fedprox.build,
    "fedavg_full": fedavg.build_full,
    "fedavg_pseudo": fedavg.build_pseudo,
}
"""Method -> `build(config, shared, world)`, a Flower `Strategy` with `fleet`, `model`, `metrics` and
`initial_arrays()`.
"""

TRAITS: dict[str, Traits] = {
    "static": static.TRAITS,
    "cdc": cdc.TRAITS,
    "upload_all": cdc.TRAITS,
    "fedprox_lora": fedprox.TRAITS,
    **fedavg.TRAITS,
}

__all__ = ["STRATEGIES", "TRAITS", "Traits"]
