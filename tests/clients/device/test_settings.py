"""`device.toml` and `settings.json` are read whole, or refused in one line that names the file."""

import json
import subprocess
import sys

import pytest

from cdc_flower.config import ConfigError
from cdc_flower.setting import written
from clients.device.settings import FILE, RUN, Bundle, DeviceConfig


def bundle(tmp_path, text="number = 3", run='{"run.rounds": 3}'):
    (tmp_path / FILE).write_text(text)
    (tmp_path / RUN).write_text(run)
    return tmp_path


def test_what_is_written_is_read_and_paths_are_seen_from_the_bundle(tmp_path, monkeypatch):
    own = DeviceConfig(number=3, name="kitchen", feed="camera", feed_path="/var/camera", min_battery=0.5)
    monkeypatch.chdir(bundle(tmp_path, written(own)))
    from pathlib import Path

    found = Bundle.of(Path("."))
    assert found.device == own
    assert found.feed == Path("/var/camera")
    assert found.state == tmp_path / "state"
    assert found.about == "device 3 (kitchen)"
    assert found.run_config() == {"run.rounds": 3}
    assert not found.state.exists()


def test_the_folder_of_the_feed_is_in_the_bundle_where_nobody_says_another(tmp_path):
    assert Bundle.of(bundle(tmp_path)).feed == tmp_path / "feed"
    assert Bundle.of(bundle(tmp_path, 'feed = "stream"')).feed == tmp_path / "stream"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("number = -1", "setting 'number' = -1"),
        ("spool_samples = 3", "did you mean spool-samples"),
        ("spool-samples = 0", "'spool-samples' = 0"),
        ('feed = "tv"', "'folder', 'camera' or 'stream'"),
        ("number = ", "no TOML"),
        ("http-port = 70000", "65535"),
        ("min-battery = 3", "'min-battery' = 3"),
    ],
)
def test_settings_that_cannot_be_used_are_one_line(tmp_path, text, says):
    with pytest.raises(ConfigError) as caught:
        Bundle.of(bundle(tmp_path, text))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "run", ["", "[]", "[" * 10**5, '{"a": {"b": 1}}', '{"rounds": 1}', json.dumps({"run.a": "x" * 2**20})]
)
def test_a_run_config_that_is_none_is_one_line(tmp_path, run):
    with pytest.raises(ConfigError, match="is no run config"):
        Bundle.of(bundle(tmp_path, run=run)).run_config()


def test_a_folder_that_is_no_bundle_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match="has no device.toml"):
        Bundle.of(tmp_path)
    (tmp_path / FILE).write_text("")
    found = Bundle.of(tmp_path)
    with pytest.raises(ConfigError, match="No such file"):
        found.run_config()


def test_reading_them_takes_no_torch():
    code = "import sys, clients.device.settings; print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "False"
