"""Claims about asking an agent that cannot be asked; what a running one answers is in `test_http`."""

from __future__ import annotations

import pytest

from cdc_flower import loopback
from cdc_flower.config import ConfigError, RunError
from clients.device import ask as asking
from clients.device.ask import ask
from clients.device.settings import Bundle, DeviceConfig


def test_one_clear_line_where_nobody_can_answer(tmp_path, monkeypatch):
    image = tmp_path / "x.png"
    image.write_bytes(b"0123456789")
    free = loopback.listening(0)
    port = free.getsockname()[1]
    free.close()
    own = Bundle(tmp_path, DeviceConfig(http_port=port))
    with pytest.raises(RunError, match="device 0 is not running.*cdc-flower device run"):
        ask(own, [image], "what?")
    with pytest.raises(ConfigError, match="http-port"):
        ask(Bundle(tmp_path, DeviceConfig(http_port=0)), [image], "what?")
    with pytest.raises(ConfigError, match="No such file"):
        ask(own, [tmp_path / "absent.png"], "what?")
    for most, images in ((9, [image]), (19, [image, image])):
        monkeypatch.setattr(asking, "MOST_BYTES", most)
        with pytest.raises(ConfigError, match=f"more than {most} bytes"):
            ask(own, images, "what?")
