"""CDC with true labels: what the same cloud loop would reach with a teacher that is always right.

Devices send the true answer with each sample, in the place of their own, and the cloud teaches it. The
teacher answers none of the questions that devices have. It still answers the source samples that are
replayed, and further questions about a picture (`cloud.further`), to which no device has a label. All else is
`cdc`: what is sent, how much, how many steps, replay, codec.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cdc_flower.fleet.cost.charges import CloudWork
from cdc_flower.uplink.sample import Sample
from cdc_flower.wire import keys
from cdc_flower.wire.reply import Reply
from strategies.cdc import CDC
from strategies.method import Traits
from strategies.received import Received


class Labelled(CDC):
    """The upper bound of `cdc`: labels that no device would have in the place of the teacher's answers."""

    name = "labelled"
    about = "as cdc, but devices send true answers and the cloud teaches these: what its loop allows"
    traits = Traits(labels=True, device_backprop=False, takes_late=True)
    work = "clients.labelled:work"
    order: Mapping[str, Any] = {keys.LABELS: keys.TRUE}

    def cloud_work(self, samples: int) -> CloudWork:
        """As `cdc`, but the teacher answers no device's own question."""
        work = super().cloud_work(samples)
        return replace(work, taught=work.taught - samples)

    def _compare(self, samples: list[Sample], answers: list[str]) -> None:
        """Nothing: what came is not what devices answered."""

    def _received(self, device: int, reply: Reply) -> Received:
        """The answers of the frame are labels."""
        found = super()._received(device, reply)
        pairs = zip(found.samples, found.batch.samples, strict=True)
        return replace(
            found, samples=tuple(replace(one, label=tuple(sent.answer_ids)) for one, sent in pairs)
        )
