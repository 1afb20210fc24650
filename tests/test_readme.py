"""What README.md says about files and formats is so."""

import json
import re
from pathlib import Path

import jsonschema

from cdc_flower import plugins
from cdc_flower.config import keys

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_example_summary_follows_the_schema():
    example = json.loads(re.search(r"```json\n(.*?)```", README, re.S)[1])
    jsonschema.validate(example, json.loads((ROOT / "docs/summary.schema.json").read_text()))


def test_every_link_to_a_file_leads_somewhere():
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_setting_and_method_in_a_command_exists():
    named = re.findall(r"--set ([a-z.-]+)=", README)
    assert named
    assert set(named) <= set(keys())
    assert [m for m in plugins.names(plugins.METHODS) if f"`{m}`" not in README] == []
