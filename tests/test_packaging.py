"""What people and machines read of the project before they run it: citation, issue forms, the lock."""

import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_citation_has_the_version_and_licence_of_the_package():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = PROJECT["project"]
    assert (cited["version"], cited["license"]) == (project["version"], project["license"])
    assert {"cff-version", "title", "message", "authors"} <= cited.keys()


@pytest.mark.parametrize("name", ["bug.yml", "idea.yml", "figure.yml"])
def test_an_issue_form_asks_for_something_and_names_each_field_once(name):
    form = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / name).read_text())
    assert {"name", "description", "body"} <= form.keys()
    ids = [field["id"] for field in form["body"]]
    assert len(set(ids)) == len(ids)
    assert any(field.get("validations", {}).get("required") for field in form["body"])


def test_the_lock_has_what_every_extra_needs():
    pinned = {line.partition("==")[0] for line in (ROOT / "requirements.lock").read_text().splitlines()}
    assert "av" in pinned
    assert "uv.lock" not in {p.name for p in ROOT.iterdir()}, "one lock: see CONTRIBUTING.md"
