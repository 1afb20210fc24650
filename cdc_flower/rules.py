"""What can be said of a setting's value from the settings alone, beyond its type and bounds.

A rule reads a checked `Config` and returns what is wrong and what is allowed, in a few words, or None.
`parse` asks them all, and puts the name of the setting and its value before.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module
from typing import Any

from cdc_flower import plugins
from cdc_flower.setting import MESSAGE_BYTES


def _axes(config: Any) -> str | None:
    known = ("object", "question", "style", "mixed")
    odd = next((axis for axis in config.axes if axis not in known), None)
    return odd and f"unknown axis '{odd}'; allowed: a comma list of {', '.join(known)}, or auto, or none"


def _failing(config: Any) -> str | None:
    run = config.run
    if not re.fullmatch(r"(\s*[0-9]{1,9}:[0-9]{1,9}\s*(,\s*[0-9]{1,9}:[0-9]{1,9}\s*)*)?", run.fail_devices):
        return "allowed: round:device pairs, e.g. '2:1,4:0'"
    for pair in filter(None, run.fail_devices.split(",")):
        if int(pair.partition(":")[0]) < 1 or int(pair.partition(":")[2]) >= run.devices:
            return f"'{pair.strip()}'; allowed: rounds from 1, devices from 0 to {run.devices - 1}"
    return None


POISONS = (
    *("noise", "shuffled", "mirrored", "average", "huge", "misleading"),
    *("replayed", "copied", "sybil", "flood", "swamp", "mislabelled"),
    *("colliding", "creeping", "crowding"),
)
"""What devices send that mean harm, as in `clients.poisons.KINDS`."""


def poisoners(spec: str) -> tuple[list[int], str]:
    """Devices, and the kind of harm, of "1,4:huge"; without a kind it is the first."""
    devices, _, kind = spec.partition(":")
    return [int(part) for part in devices.split(",") if part.strip()], kind.strip() or POISONS[0]


def _poisoning(config: Any) -> str | None:
    run, most = config.run, config.run.devices - 1
    devices, colon, kind = run.poison_devices.partition(":")
    parts = [part.strip() for part in devices.split(",") if run.poison_devices.strip()]
    odd = next((p for p in parts if not re.fullmatch("[0-9]{1,9}", p) or int(p) > most), None)
    if odd is not None:
        return f"'{odd}'; allowed: a comma list of devices from 0 to {most}, and ':kind' of harm behind it"
    if colon and kind.strip() not in POISONS:
        return f"'{kind.strip()}'; allowed behind ':': {', '.join(POISONS)}"
    return None


def _callbacks(config: Any) -> str | None:
    known = plugins.names(plugins.CALLBACKS)
    odd = {name.strip() for name in config.run.callbacks.split(",")} - {"", *known}
    return f"allowed: {', '.join(known)}" if odd else None


def _zones(config: Any) -> str | None:
    try:
        fine = all(-12 <= float(zone) <= 14 for zone in config.fleet.zones.split(","))
    except ValueError:
        fine = False
    return None if fine else "allowed: a comma list of offsets from UTC in hours, -12 to 14"


def _share(name: str) -> Callable[[Any], str | None]:
    def rule(config: Any) -> str | None:
        spec = getattr(config.data, name).strip()
        fine = not spec.endswith("%") or (
            re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,9})?%", spec) and 0 < float(spec[:-1]) <= 100
        )
        return None if fine else "allowed: a share from above 0% to 100%, such as '50%'"

    return rule


def _message(config: Any) -> str | None:
    if 0 < config.uplink.budget <= MESSAGE_BYTES:
        return f"a message without a sample has up to {MESSAGE_BYTES} bytes; allowed: 0 (no limit), or more"
    return None


def _clip(config: Any) -> str | None:
    unclipped = config.uplink.noise > 0 and not config.uplink.clip
    return "noise goes with a clip; allowed: 'uplink.clip' above 0, or 0" if unclipped else None


def _tokens_alone(config: Any) -> str | None:
    pictures = config.uplink.clip > 0 and config.uplink.unit != "tokens"
    return "pictures go up as they are; allowed: 'uplink.unit' = 'tokens', or 0" if pictures else None


def _update(config: Any) -> str | None:
    codec = import_module("cdc_flower.downlink.codecs").CODECS[config.downlink.codec]
    least = import_module("cdc_flower.downlink.update").ENVELOPE + 1
    small = codec.budgeted and 1 <= config.downlink.budget < least
    return f"an update needs at least {least} bytes; allowed: more, or a share below 1" if small else None


def _both(config: Any) -> str | None:
    alone = bool(config.pair.teacher) != bool(config.pair.student)
    return "'pair.teacher' and 'pair.student' go together; allowed: both or none" if alone else None


RULES: dict[str, Callable[[Any], str | None]] = {
    "run.fail-devices": _failing,
    "run.poison-devices": _poisoning,
    "run.callbacks": _callbacks,
    "data.known-styles": _share("known_styles"),
    "data.known-objects": _share("known_objects"),
    "data.known-questions": _share("known_questions"),
    "drift.axes": _axes,
    "pair.teacher": _both,
    "uplink.budget": _message,
    "uplink.clip": _tokens_alone,
    "uplink.noise": _clip,
    "downlink.budget": _update,
    "fleet.zones": _zones,
}
"""Setting -> its rule."""
