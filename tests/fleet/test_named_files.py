"""Which files the settings of a fleet name, and that their content is what counts."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from cdc_flower.fleet.named_files import digests
from cdc_flower.fleet.settings import FleetConfig


@pytest.fixture
def named(tmp_path):
    """Settings that name files, of every kind."""
    for name in ("trace.json", "config.json", "mine.json"):
        (tmp_path / name).write_text(name)
    (tmp_path / "mix.toml").write_text('profiles = ["mine.json"]\n[mix]\nmine = 100\n')
    files = {"mix": "mix.toml", "cost_model": "config.json", "trace": "trace.json"}
    return FleetConfig(mode="sync", **{name: str(tmp_path / file) for name, file in files.items()})


def test_each_file_that_a_setting_or_a_mix_names_has_a_digest(named, tmp_path):
    found = digests(named)
    assert sorted(found) == [
        str(tmp_path / name) for name in ("config.json", "mine.json", "mix.toml", "trace.json")
    ]
    assert found[named.trace] == hashlib.sha256(b"trace.json").hexdigest()


@pytest.mark.parametrize("name", ["config.json", "mine.json", "mix.toml", "trace.json"])
def test_another_content_is_another_digest_of_that_file_alone(name, named, tmp_path):
    before = digests(named)
    with (tmp_path / name).open("a") as file:
        file.write("\n")
    after = digests(named)
    assert [path for path in before if before[path] != after[path]] == [str(tmp_path / name)]


def test_names_of_what_is_packaged_or_generated_are_no_files(named, tmp_path):
    assert digests(FleetConfig()) == digests(FleetConfig(mode="sync")) == {}
    assert digests(FleetConfig(mode="async", trace="always", cost_model="llava-qwen-0.5b")) == {}
    assert named.trace not in digests(replace(named, mode="off"))  # is not read then
