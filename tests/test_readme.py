"""What README.md and the documents say about files, settings and formats is so."""

import json
import re
from dataclasses import fields
from pathlib import Path

import jsonschema
import pytest

from cdc_flower import plugins
from cdc_flower.config import keys
from clients.device.settings import DeviceConfig

ROOT = Path(__file__).parents[1]
README, GUIDE = ROOT / "README.md", ROOT / "docs" / "guide.md"
DOCUMENTS = [README, *sorted((ROOT / "docs").glob("*.md"))]


def test_the_example_summary_follows_the_schema():
    example = json.loads(re.search(r"```json\n(.*?)```", GUIDE.read_text(), re.S)[1])
    jsonschema.validate(example, json.loads((ROOT / "docs/summary.schema.json").read_text()))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_every_link_to_a_file_leads_somewhere(document):
    links = re.findall(r"\]\((?!http)([^)#]+)\)", document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []


def anchors(document):
    """Of its headings, as GitHub and MyST name them."""
    text = re.sub(r"^(`{3,}).*?^\1", "", document.read_text(), flags=re.M | re.S)
    heads = [re.sub(r"[^\w\- ]", "", head.lower()) for head in re.findall(r"^#+ (.+)$", text, re.M)]
    return {head.replace(" ", "-") for head in heads}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_every_link_to_a_heading_leads_to_one(document):
    links = re.findall(r"\]\((?!http)([^)#]*\.md|)#([^)]+)\)", document.read_text())
    lost = [(f, head) for f, head in links if head not in anchors(document.parent / f if f else document)]
    assert lost == []


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if d.name != "log.md"], ids=lambda p: p.name)
def test_every_setting_in_a_command_exists(document):
    named = re.findall(r"--set ([a-z.-]+)=", document.read_text())
    devices = {f.name.replace("_", "-") for f in fields(DeviceConfig)}  # of `provision device`
    example = {"patient.every"}  # of the package in extending.md
    assert set(named) <= set(keys()) | devices | example


def test_the_readme_names_every_method_and_is_short():
    text = README.read_text()
    assert [m for m in plugins.names(plugins.METHODS) if f"`{m}`" not in text] == []
    assert len(text.splitlines()) <= 160


@pytest.mark.parametrize("document", DOCUMENTS[1:], ids=lambda p: p.name)
def test_lines_of_prose_are_at_most_140_characters_long(document):
    """Rows of tables and blocks of code cannot be wrapped."""
    prose = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.S | re.M).splitlines()
    assert [line for line in prose if len(line) > 140 and not line.lstrip().startswith("|")] == []
