"""The settings of a device, `device.toml` in its bundle, and where things are in a bundle.

They are the device's own: whoever has the device may change them. What all devices of a run have in common
is `settings.json` beside it, the run config. No torch here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass as plain
from pathlib import Path
from typing import Any, Literal

from pydantic.dataclasses import dataclass

from cdc_flower.config import ConfigError
from cdc_flower.setting import STRICT, YEAR, read, setting
from clients.device.conditions import BackpressureConfig

FILE, RUN = "device.toml", "settings.json"
MOST_BYTES = 2**20  # of settings.json


@dataclass(frozen=True, config=STRICT)
class DeviceConfig(BackpressureConfig):
    """Which device this is, what it reads, and how much it keeps."""

    number: int = setting(0, "of the device, from 0; the cloud knows it by this", "device", ge=0, lt=10**7)
    name: str = setting("", "how people call it", "device")
    superlink: str = setting("127.0.0.1:9443", "where the cloud listens, host:port", "device")
    feed: Literal["folder", "camera", "stream"] = setting(
        "folder",
        "folder = pictures and a file of questions; camera = what a program puts there; stream = of a demo",
        "device",
    )
    feed_path: str = setting(
        "",
        "the folder of the feed, as seen from the bundle; '' = `feed` in it, for stream `stream`",
        "device",
    )
    longest_question: int = setting(
        0,
        "ids of a question, at most; a longer one is refused, as the cloud would; 0 = as the stream says",
        "device",
        ge=0,
        le=2**16 - 1,
    )
    compression: Literal["", "nf4", "int4", "int8", "none"] = setting(
        "", "of the student's weights on this device; '' = as the run says", "device"
    )
    device: Literal["", "auto", "cpu", "cuda"] = setting(
        "", "what the student computes on, as of `run.device`; '' = as the run says", "device"
    )
    threads: int = setting(
        0, "that compute; 0 = as the run says; with more than 1 last bits may differ", "device", ge=0, le=1024
    )
    spool_samples: int = setting(
        2000, "kept until they are sent; those that are worth least go first", "device", ge=1, le=10**7
    )
    spool_bytes: int = setting(
        2**28, "of samples that are kept, at most [bytes]", "device", ge=2**16, le=2**40
    )
    http_port: int = setting(
        8480, "on loopback, of the program's questions and of metrics; 0 = none", "device", ge=0, le=65535
    )
    furthest: float = setting(
        2.0,
        "from version 0 that an update may take the adapter, in lengths of version 0; 0 = any distance",
        "device",
        ge=0,
        le=1e6,
    )
    wait: float = setting(
        540.0, "the longest that a message waits for the agent's work [s]", "device", gt=0, le=YEAR
    )


@plain(frozen=True)
class Bundle:
    """The folder of a device.

    Attributes:
        folder: it, absolute.
        device: its own settings.
    """

    folder: Path
    device: DeviceConfig

    @classmethod
    def of(cls, folder: Path) -> Bundle:
        """Open the bundle of a device; nothing of it is written.

        Raises:
            ConfigError: no bundle, or settings that cannot be used.
        """
        folder = folder.expanduser().absolute()
        if not (folder / FILE).is_file():
            raise ConfigError(
                f"'{folder}' has no {FILE}; allowed: a bundle that `cdc-flower provision device` made"
            )
        return cls(folder, read(DeviceConfig, folder / FILE))

    @property
    def state(self) -> Path:
        """What the agent keeps."""
        return self.folder / "state"

    @property
    def adapters(self) -> Path:
        """The adapter that the device holds, by its digest."""
        return self.state / "adapters"

    @property
    def stream(self) -> Path:
        """What was published for a demo."""
        return self.folder / "stream"

    @property
    def feed(self) -> Path:
        """The folder that the device reads."""
        default = "stream" if self.device.feed == "stream" else "feed"
        return self.folder / (self.device.feed_path or default)

    @property
    def about(self) -> str:
        """The device in words."""
        own = self.device
        return f"device {own.number} ({own.name})" if own.name else f"device {own.number}"

    def run_config(self) -> dict[str, Any]:
        """The flat run config that all devices have.

        Raises:
            ConfigError: it cannot be read, or is no flat run config.
        """
        path = self.folder / RUN
        try:
            with path.open("rb") as file:
                data = file.read(MOST_BYTES + 1)
            found = json.loads(data) if len(data) <= MOST_BYTES else None
        except OSError as err:
            raise ConfigError(f"'{path}': {err.strerror}; allowed: a file that can be read") from None
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, Mapping) or not all(
            "." in key and isinstance(value, str | int | float) for key, value in found.items()
        ):
            raise ConfigError(
                f"'{path}' is no run config; allowed: a JSON object of settings, \"stage.key\": value"
            )
        return dict(found)
