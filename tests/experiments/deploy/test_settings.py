"""cloud.toml: what stands there is checked before anything is started."""

import pytest

from cdc_flower.config import ConfigError
from cdc_flower.setting import written
from experiments.deploy.settings import FILE, CloudConfig, cloud


def test_a_cloud_is_described_by_its_file(tmp_path):
    made = CloudConfig(port=4443, hosts="cloud.example, 10.0.0.1", rounds="buffer")
    (tmp_path / FILE).write_text(written(made))
    assert cloud(tmp_path) == made
    assert made.named == ("cloud.example", "10.0.0.1")
    assert not made.insecure


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("hosts = ' ,'", "a name, or several"),
        ("port = 0", "a whole number from"),
        ("rounds = 'never'", "'sync' or 'buffer'"),
    ],
)
def test_what_cannot_be_used_is_refused(text, says, tmp_path):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(ConfigError, match=says):
        cloud(tmp_path)


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="provision init"):
        cloud(tmp_path)
