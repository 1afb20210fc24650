"""How weights travel in the FedAvg family: whole, in float16, or as changes through a codec of updates.

`fp16` is FedAvg as it is known, at half the bytes of its textbook form. `dyadic` is what `cdc` sends down,
both ways: the server keeps a mirror of what devices hold and codes what they lack (`strategies.lineage`), and
a device answers with an UPDATE frame from the version it holds (`clients.coded`). Budgets are those of `cdc`,
`downlink.budget` and `uplink.budget`. What a budget leaves out is not lost: the server has it in the next
difference to its mirror, a device carries it to its next round.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from flwr.app import Array, ArrayRecord
from numpy.typing import NDArray

from cdc_flower.checkpoint import Saved
from cdc_flower.config import Config, ConfigError
from cdc_flower.downlink import update
from cdc_flower.downlink.versions import HasLayout, Mirror
from cdc_flower.stages import DownlinkConfig
from cdc_flower.wire import keys
from cdc_flower.wire.fields import Bytes, Flat, Frame, Number
from cdc_flower.wire.frame import FrameError
from cdc_flower.wire.messages import payload
from cdc_flower.wire.reply import Form, Reply
from strategies.averages import beyond
from strategies.lineage import Lineage

LEAST = 1024  # bytes of a device's message in which a change fits beside everything else
_ROUNDED = 2  # times its size that a coded value can have: half a step becomes one


def check_codec(config: Config, codec: str) -> None:
    """Refuse a codec of updates with settings that it cannot work with.

    Raises:
        ConfigError: names the setting and what is allowed.
    """
    if codec == "fp16":
        return
    if 0 < config.uplink.budget < LEAST:
        raise ConfigError(
            f"setting 'uplink.budget' = {config.uplink.budget} with 'fedavg.codec' = '{codec}'; "
            f"allowed: 0 (no limit), or at least {LEAST}"
        )
    if config.run.poison_devices:
        raise ConfigError(
            f"setting 'run.poison-devices' = {config.run.poison_devices!r} with 'fedavg.codec' = '{codec}': "
            "harmful devices know whole weights alone; allowed: fp16, or no such devices"
        )


class Way(Protocol):
    """Weights there and back.

    Attributes:
        work: of the device.
        start: (P,) float32, what devices count their changes from.
    """

    work: str
    start: NDArray[np.float32]

    def begin(self, newest: NDArray[np.float32]) -> None:
        """A round begins in which the server has the weights `newest` (P,)."""
        ...

    def sent(self, device: int) -> tuple[dict[str, Any], ArrayRecord | None]:
        """What goes down to a device: of its order, and its array."""
        ...

    def form(self, form: Form) -> Form:
        """The form of a reply, with what this way adds to it."""
        ...

    def read(self, device: int, reply: Reply, most: float) -> NDArray[Any] | None:
        """The weights (P,) of a reply, None where it brings none.

        Raises:
            FrameError: they cannot be, or a change is above `most`.
        """
        ...

    def target(self, newest: NDArray[np.float32]) -> NDArray[np.float32]:
        """The weights (P,) that the round's changes are counted from."""
        ...

    def end(self, newest: NDArray[np.float32]) -> None:
        """The server's weights after the round."""
        ...

    def held(self, newest: NDArray[np.float32]) -> NDArray[np.float32]:
        """What devices hold when they have heard the last."""
        ...

    def parts(self) -> dict[str, Saved]:
        """Of a checkpoint."""
        ...

    def restored(self, lost: Mapping[int, bytes]) -> Mapping[bytes, NDArray[np.float32]] | None:
        """See `Method.restored`; None where devices hold nothing."""
        ...


def half(flat: np.ndarray) -> np.ndarray:
    """float16, as it goes over the wire; what does not fit becomes infinite and is refused there."""
    with np.errstate(over="ignore"):
        return np.asarray(flat).astype(np.float16)


class Whole:
    """All weights in float16, both ways.

    Args:
        newest: (P,) float32.
    """

    work = "clients.fedavg:work"

    def __init__(self, newest: NDArray[np.float32]) -> None:
        self.begin(newest)

    def begin(self, newest: NDArray[np.float32]) -> None:
        """See `Way`."""
        self._sent = half(newest)
        self._body = ArrayRecord({keys.PAYLOAD: Array(self._sent)})
        self.start = self._sent.astype(np.float32)

    def sent(self, device: int) -> tuple[dict[str, Any], ArrayRecord | None]:
        """The same to all."""
        return {}, self._body

    def form(self, form: Form) -> Form:
        """The array alone."""
        return Form(form.metrics, array=Flat(len(self._sent), "float16"))

    def read(self, device: int, reply: Reply, most: float) -> NDArray[Any] | None:
        """The array itself."""
        assert reply.array is not None
        if reply.metrics[keys.EXAMPLES] and (far := beyond(reply.array, self._sent, most)):
            raise FrameError(f"{far} weights changed by more than {most:.3g}, the most of its training")
        return reply.array

    def target(self, newest: NDArray[np.float32]) -> NDArray[np.float32]:
        """What was sent."""
        return self.start

    def end(self, newest: NDArray[np.float32]) -> None:
        """Nothing is kept."""

    def held(self, newest: NDArray[np.float32]) -> NDArray[np.float32]:
        """The server's own, which are rounded only on their way."""
        return newest

    def parts(self) -> dict[str, Saved]:
        """None."""
        return {}

    def restored(self, lost: Mapping[int, bytes]) -> Mapping[bytes, NDArray[np.float32]] | None:
        """Nothing: devices get all weights in every round."""
        return None


class Coded:
    """Changes through a codec, both ways.

    Args:
        newest: (P,) float32, version 0.
        layout: of the weights.
        codec: key of `downlink.codecs.CODECS`.
        down: budget and history of the updates.
        up: bytes of a device's message; 0 = no limit.
    """

    work = "clients.coded:work"

    def __init__(
        self, newest: NDArray[np.float32], layout: HasLayout, codec: str, down: DownlinkConfig, up: int
    ) -> None:
        budget = update.budget_bytes(down.budget, len(newest))
        self.lineage = Lineage(Mirror(newest, layout, codec, budget, down.history))
        self.layout, self.up, self.start = layout, up, newest

    def begin(self, newest: NDArray[np.float32]) -> None:
        """See `Way`."""
        self.start = self.lineage.newest()

    def sent(self, device: int) -> tuple[dict[str, Any], ArrayRecord | None]:
        """What a device lacks."""
        frame = self.lineage.frame_for(device)
        return {keys.VERSION: self.lineage.mirror.newest}, payload(frame) if frame is not None else None

    def form(self, form: Form) -> Form:
        """Version, digest and a frame."""
        longest = update.longest(len(self.start))
        return Form(
            {**form.metrics, keys.VERSION: Number(int, 0, 2**32 - 1)},
            {keys.DIGEST: Bytes(update.DIGEST_BYTES)},
            Frame(min(longest, self.up or longest)),
            self.up,
        )

    def read(self, device: int, reply: Reply, most: float) -> NDArray[Any] | None:
        """The newest version with the device's change, which must begin there."""
        self.lineage.heard(device, reply.metrics[keys.VERSION], reply.config[keys.DIGEST])
        if not reply.frame:
            return None
        newest, sizes = self.lineage.mirror.newest, tuple(self.layout.sizes)
        flat, version = update.apply(
            reply.frame, self.start, newest, self.layout.digest, sizes, len(reply.frame), max_chain=1
        )
        if version != newest + 1:
            raise FrameError(f"the frame leads to version {version}; allowed: {newest + 1}")
        far = int((np.abs(flat - self.start) > _ROUNDED * most + np.abs(flat) * 2.0**-22).sum())
        if far:
            raise FrameError(f"{far} weights changed by more than {most:.3g}, the most of its training")
        return flat

    def target(self, newest: NDArray[np.float32]) -> NDArray[np.float32]:
        """The server's own, of which the mirror is behind."""
        return newest

    def end(self, newest: NDArray[np.float32]) -> None:
        """The next version, as near to `newest` as the budget allows."""
        self.lineage.advance(newest)

    def held(self, newest: NDArray[np.float32]) -> NDArray[np.float32]:
        """The newest version."""
        return self.lineage.newest()

    def parts(self) -> dict[str, Saved]:
        """Who has which version, and the versions."""
        return {"lineage": self.lineage, "mirror": self.lineage.mirror}

    def restored(self, lost: Mapping[int, bytes]) -> Mapping[bytes, NDArray[np.float32]] | None:
        """From the mirror."""
        return self.lineage.restored(lost)
