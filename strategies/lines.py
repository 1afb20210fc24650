"""A line of adapters for each device: what each holds, and the way from there to what it is to have.

As `strategies.lineage`, once a device: every device has a mirror of its own, so what a codec leaves out of
one message is in that device's next. A line begins at version 0 when it is first asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cdc_flower.downlink.versions import Mirror
from strategies.lineage import Lineage


@dataclass
class Lines:
    """The lines of all devices.

    Attributes:
        begin: makes a mirror of version 0.
        of: device -> its line.
    """

    begin: Callable[[], Mirror]
    of: dict[int, Lineage] = field(default_factory=dict)

    def __getitem__(self, device: int) -> Lineage:
        """The line of a device; it begins now where there is none."""
        if device not in self.of:
            self.of[device] = Lineage(self.begin())
        return self.of[device]

    def advance(self, device: int, target: np.ndarray) -> float | None:
        """Make a device's next version, as near to `target` (P,) as codec and budget allow: the share of the
        way that its update goes. None where it is there.
        """
        line = self[device]
        if np.array_equal(line.newest(), target):
            return None
        line.advance(target)
        return line.mirror.sent_energy

    def restored(self, lost: Mapping[int, bytes]) -> dict[bytes, np.ndarray]:
        """See `Lineage.restored`."""
        found: dict[bytes, np.ndarray] = {}
        for device, digest in lost.items():
            if device in self.of:
                found |= self.of[device].restored({device: digest})
        return found

    def state(self) -> dict[str, Any]:
        """All lines, flat: `device.part.name`."""
        return {
            f"{device}.{part}.{name}": value
            for device, line in self.of.items()
            for part, of in (("mirror", line.mirror), ("line", line))
            for name, value in of.state().items()
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on where `state()` was taken."""
        parts: dict[int, dict[str, dict[str, Any]]] = {}
        for key, value in state.items():
            device, part, name = key.split(".", 2)
            parts.setdefault(int(device), {"mirror": {}, "line": {}})[part][name] = value
        self.of = {}
        for device, of in parts.items():
            self[device].mirror.load(of["mirror"])
            self[device].load(of["line"])
