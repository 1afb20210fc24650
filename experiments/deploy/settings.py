"""The settings of a cloud machine: `cloud.toml` in its folder, and what else stands there."""

from __future__ import annotations

from pathlib import Path

from pydantic.dataclasses import dataclass

from cdc_flower.setting import STRICT, ConfigError, read, setting
from strategies.served.settings import ServedConfig

FILE = "cloud.toml"
PORTS = {"ge": 1, "le": 65535}


@dataclass(frozen=True, config=STRICT)
class CloudConfig(ServedConfig):
    """Where the cloud listens, and how it runs its rounds."""

    address: str = setting("127.0.0.1", "that the cloud listens on; 0.0.0.0 = all of the machine", "cloud")
    port: int = setting(9443, "that the cloud listens on", "cloud", **PORTS)
    hosts: str = setting(
        "localhost,127.0.0.1",
        "names and addresses that devices call the cloud by; after a change `provision rotate CLOUD server`",
        "cloud",
    )
    page_port: int = setting(
        9480, "of the page that shows the cloud, on loopback; 0 = no page", "cloud", ge=0, le=65535
    )

    @property
    def named(self) -> tuple[str, ...]:
        """Each of `hosts`."""
        return tuple(name.strip() for name in self.hosts.split(",") if name.strip())


def cloud(folder: Path) -> CloudConfig:
    """The settings of the cloud in a folder.

    Raises:
        ConfigError: no folder of a cloud, or settings that cannot be used.
    """
    if not (folder / FILE).is_file():
        raise ConfigError(
            f"'{folder}' has no {FILE}; allowed: a folder that `cdc-flower provision init` made"
        )
    found = read(CloudConfig, folder / FILE)
    if not found.named:
        raise ConfigError(
            f"'{folder / FILE}': setting 'hosts' = {found.hosts!r}; allowed: a name, or several"
        )
    return found
