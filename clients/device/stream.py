"""The feed of a demo or a test: what the simulator published for this device, round by round.

With it a deployed run gives the ledger of a simulated one: the same samples, in the same order, with the
tokens that the simulator computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cdc_flower.config import Config, ConfigError
from cdc_flower.data.source import Simulated, source
from cdc_flower.models.shared import Shared
from clients.device.feed import Item, round_key


@dataclass(frozen=True)
class Stream:
    """A `Feed` whose time is rounds.

    Attributes:
        source: of the device of this number in the published fleet.
        pictures: whether samples need their pictures.
    """

    source: Simulated
    pictures: bool

    @classmethod
    def of(cls, config: Config, shared: Shared, device: int) -> Stream:
        """The stream of a device, from the folder `pair.token-cache` of the settings.

        Raises:
            ConfigError: nothing was published for this run, or not for this device.
        """
        found = source(config, shared, device)
        assert isinstance(found, Simulated)
        devices = len(found.published.streams)
        if device >= devices:
            raise ConfigError(f"setting 'number' = {device}: the stream has {devices} devices, from 0")
        return cls(found, config.uplink.unit != "tokens")

    def longest_question(self, shared: Shared) -> int:
        """Ids of the longest question of all devices."""
        return max(len(shared.text.question_ids(q)) for q in self.source.published.questions)

    def poll(self, most: int) -> Sequence[Item]:
        """See `Feed`: nothing comes between rounds."""
        return ()

    def spooled(self, key: str) -> None:
        """See `Feed`: the spool knows."""

    def place(self) -> str:
        """See `Feed`."""
        return ""

    def asked(self, round: int) -> Sequence[Item]:
        """See `Feed`: the items of the round, none where the stream has ended."""
        known = self.source
        if not 1 <= round <= known.published.streams.shape[1]:
            return ()
        return [
            Item(
                known.question(i),
                known.picture(i) if self.pictures else b"",
                round_key(round),
                known.tokens(i),
                known.grid(i),
            )
            for i in known.items(round).tolist()
        ]
