"""What people and machines read of the project before they run it: citation, issue forms, the lock."""

import itertools
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

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


NOT_LOCKED = "docs", "captions", "mlflow", "wandb"  # extras


def test_the_lock_has_what_the_package_and_its_extras_need():
    project = PROJECT["project"]
    extras = {k: v for k, v in project["optional-dependencies"].items() if k not in NOT_LOCKED}
    asked = [Requirement(text) for text in [*project["dependencies"], *itertools.chain(*extras.values())]]
    lines = (ROOT / "requirements.lock").read_text().splitlines()[1:]
    pinned = {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}
    assert [str(a) for a in asked if pinned.get(canonicalize_name(a.name), "0") not in a.specifier] == []
    assert "uv.lock" not in {p.name for p in ROOT.iterdir()}, "one lock: see CONTRIBUTING.md"
