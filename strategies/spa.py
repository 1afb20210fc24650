"""Side parameters on the device, after SPA (arXiv 2403.07088): the base is untouched, additions are personal.

From the paper: a base model that nobody trains, small additive parameters that a device holds and trains on
its own data, and no gradient through the base, which is what makes it cheap on a device. Simplified: there is
one side path, of low rank, from the last hidden states to the words (LoRA of the head); the base runs on the
device, too, where the paper leaves it in the cloud; there is no choice, sample by sample, between base and
side.
"""

from __future__ import annotations

from cdc_flower.config import ConfigError
from strategies.local import Local
from strategies.method import Setup


class SPA(Local):
    """As `local`, of the head's low-rank path alone."""

    name = "spa"
    about = "every device trains side parameters at the head on true labels, the base is untouched (SPA)"
    work = "clients.spa:work"

    @classmethod
    def check(cls, setup: Setup) -> None:
        """Refuse an adapter without a side path."""
        if setup.config.pair.adapter != "lora":
            raise ConfigError(
                f"setting 'pair.adapter' = '{setup.config.pair.adapter}': method 'spa' trains the low-rank "
                "path at the head; allowed: 'lora'"
            )
