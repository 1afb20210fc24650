"""The files that settings of a fleet name by path: a mix with its profiles, a cost model, a trace.

They decide the results of a run as its settings do, and may change behind their names.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from cdc_flower.fleet.cost.mixes import files_of
from cdc_flower.fleet.settings import FleetConfig


def digests(fleet: FleetConfig) -> dict[str, str]:
    """Path, as the settings name it -> sha256 hex; {} where no setting names a file.

    Args:
        fleet: checked settings; what is no file is left out, and so is a trace without virtual time.
    """
    paths = files_of(fleet.mix)
    if fleet.cost_model.endswith(".json"):
        paths.append(Path(fleet.cost_model))
    if fleet.mode != "off" and fleet.trace not in ("", "always"):
        paths.append(Path(fleet.trace))
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths if path.is_file()}
