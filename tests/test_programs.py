"""Where Flower's programs are and what they are told."""

import os
import socket
import sys
from pathlib import Path

from cdc_flower import programs


def test_a_program_finds_the_commands_of_this_environment_and_tells_nobody_anything(tmp_path):
    found = programs.environment(tmp_path)
    assert found["FLWR_HOME"] == str(tmp_path)
    assert found["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    assert found["FLWR_TELEMETRY_ENABLED"] == "0"


def test_a_free_port_can_be_had():
    port = programs.free_port()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", port))
