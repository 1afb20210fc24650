"""A machine's settings are read, written and refused like those of a run."""

import dataclasses

import pytest
from pydantic.dataclasses import dataclass

from cdc_flower.setting import STRICT, ConfigError, read, setting, written


@dataclass(frozen=True, config=STRICT)
class Machine:
    """Of the tests."""

    host_name: str = setting("here", "how it is called", "device")
    port: int = setting(1, "that it listens on", "device", ge=1, le=9)
    share: float = setting(0.5, "of it", "device", ge=0, le=1)
    fast: bool = setting(False, "whether it hurries", "device")


def test_what_is_written_is_read_with_the_meaning_above(tmp_path):
    machine = Machine(host_name='a "b" \\ ü', port=3, fast=True)
    (tmp_path / "m.toml").write_text(written(machine))
    assert read(Machine, tmp_path / "m.toml") == machine
    assert "# that it listens on\nport = 3\n" in written(machine)
    (tmp_path / "m.toml").write_text("")
    assert read(Machine, tmp_path / "m.toml") == Machine()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("port = 0", "setting 'port' = 0; allowed: a whole number from 1"),
        ('port = "x"', "a whole number"),
        ("share = nan", "allowed: a number"),
        ("host_name = 'a'", "unknown setting 'host_name'; did you mean host-name?"),
        ("zzz = 1", "allowed: host-name, port, share, fast"),
        ("port = [", "is no TOML"),
        ('host-name = "a\\u0007"', "allowed: printable text"),
        ("[port]\na = 1", "setting 'port'"),
    ],
)
def test_what_cannot_be_used_is_one_line_that_names_the_file(text, says, tmp_path):
    (tmp_path / "m.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        read(Machine, tmp_path / "m.toml")
    assert says in str(caught.value)
    assert "m.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_no_text(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        read(Machine, tmp_path / "m.toml")
    (tmp_path / "m.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is no TOML"):
        read(Machine, tmp_path / "m.toml")


def test_a_checked_dataclass_stays_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Machine().port = 2  # type: ignore[misc]
