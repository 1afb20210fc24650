"""Asking the agent that runs on this machine, over its endpoint. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from cdc_flower.config import ConfigError, RunError
from cdc_flower.loopback import HOST
from clients.device.asked import MOST_BYTES
from clients.device.feed import MOST_FRAMES
from clients.device.settings import Bundle

WAIT = 600.0  # s, for an answer: the agent may be at an order of the cloud
LOOK = 5.0  # s, for whether it runs


def ask(bundle: Bundle, images: Sequence[Path], question: str, *, keep: bool = True) -> dict[str, Any]:
    """What the agent answers: {"answer", "uncertainty", "version"}.

    Args:
        bundle: of the device.
        images: file of a picture, or files of the frames of a clip in their order.
        question: words.
        keep: it may become a sample.

    Raises:
        ConfigError: no picture that can be read, or the agent refuses the question.
        RunError: no agent of this device runs, or it cannot answer now.
    """
    own = bundle.device
    if not own.http_port:
        raise ConfigError(
            f"setting 'http-port' = 0 in '{bundle.folder}': the agent of this device is not asked"
        )
    if len(images) > MOST_FRAMES:
        raise ConfigError(f"--image {len(images)} times; allowed: up to {MOST_FRAMES}, the frames of a clip")
    pictures, left = list[bytes](), MOST_BYTES
    for image in images:
        try:
            with image.open("rb") as file:
                pictures.append(file.read(left + 1))
        except OSError as err:
            raise ConfigError(f"--image '{image}': {err.strerror}") from None
        left -= len(pictures[-1])
        if left < 0:
            of = f"'{image}'" if len(images) == 1 else f"{len(images)} times"
            raise ConfigError(f"--image {of}: more than {MOST_BYTES} bytes in all")
    field = "image" if len(pictures) == 1 else "frames"
    address = f"http://{HOST}:{own.http_port}"
    start = f"start it with `cdc-flower device run {bundle.folder}`"
    try:
        with httpx.Client(base_url=address, timeout=WAIT, trust_env=False) as client:
            here = client.get("/health", timeout=LOOK).json().get("device")
            if here != own.number:
                raise RunError(f"{address} is not the agent of {bundle.about}; {start}")
            fields = {"question": question, "keep": str(keep).lower()}
            found = client.post("/answer", data=fields, files=[(field, ("picture", one)) for one in pictures])
            said = found.json()
    except (httpx.ConnectError, httpx.ConnectTimeout):
        raise RunError(f"the agent of {bundle.about} is not running ({address}); {start}") from None
    except (httpx.HTTPError, ValueError, AttributeError) as err:
        raise RunError(f"the agent of {bundle.about} did not answer ({type(err).__name__})") from None
    if found.status_code == 200:
        return said
    why = said.get("error") if isinstance(said, dict) else None
    raise (ConfigError if found.status_code in (400, 413) else RunError)(f"the agent says: {why}")
