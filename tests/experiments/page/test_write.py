"""What the page leaves for programs and readers."""

import json
from pathlib import Path

import jsonschema
import pytest

from cdc_flower.config import ConfigError
from experiments.page import numbers, write

SCHEMA = json.loads((Path(__file__).parents[3] / "docs/page.schema.json").read_text())


def test_a_page_without_cells_is_a_page(plan, tmp_path):
    write.write(plan, tmp_path / "docs/results", tmp_path / "out")
    found = json.loads((tmp_path / "out/page.json").read_text())
    jsonschema.validate(found, SCHEMA)
    assert len(found["missing"]) == len(plan.cells())
    assert "Not made yet" in (tmp_path / "docs/results/main.md").read_text()


def test_everything_is_written_from_the_cells(making, plan, tmp_path, monkeypatch):
    monkeypatch.setattr(numbers, "LEAST", 2)
    making(only=("main", "ladder", "budgets"), seeds=2)
    document = tmp_path / "docs/method.md"
    document.write_text("<!-- page: main scenes -->\nold\n<!-- /page -->\n")
    write.write(plan, making.folder, tmp_path / "page", documents=True)
    found = json.loads((tmp_path / "page/page.json").read_text())
    jsonschema.validate(found, SCHEMA)
    scenes = found["data"]["scenes"]
    assert (scenes["teacher_on_stream"], scenes["teacher_on_test"]) == (0.8, 0.9)
    assert list(scenes["methods"]) == ["static", "cdc", "random tokens"]
    cdc = scenes["methods"]["cdc"]
    assert cdc["acc_drift"] == pytest.approx(0.855)
    assert cdc["acc_drift_ci"] == pytest.approx([0.855 - 12.706 * 0.005, 0.855 + 12.706 * 0.005])
    assert (cdc["uplink_bytes"], cdc["seeds"], cdc["forgetting"]) == (800, 2, 0.02)
    assert [row["arm"] for row in found["ladder"]] == ["cdc"]
    assert [row["variant"] for row in found["uplink_at_budget"]] == ["1 kB", "2 kB"]
    assert (tmp_path / "page/budgets-scenes.png").read_bytes()[1:4] == b"PNG"
    assert "old" not in document.read_text()
    assert "| cdc | no | no |" in document.read_text()


def test_a_mark_that_names_nothing_is_refused(plan, tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/a.md").write_text("<!-- page: nothing -->\n<!-- /page -->\n")
    with pytest.raises(ConfigError, match=r"a\.md: mark 'page: nothing'; allowed: main scenes"):
        write.write(plan, tmp_path / "docs/results", tmp_path / "out", documents=True)


def test_documents_are_filled_in_only_where_that_is_asked_for(making, plan, tmp_path):
    making()
    places = [tmp_path / "README.md", tmp_path / "docs/method.md"]
    for path, block in zip(places, ("main summary", "nothing"), strict=True):
        path.write_text(f"<!-- page: {block} -->\nold\n<!-- /page -->\n")
    written = write.write(plan, making.folder, tmp_path / "page")
    assert not set(places) & set(written)
    assert all("old" in path.read_text() for path in places)
    text = (making.folder / "main.md").read_text()
    assert text.index("| cdc | 85.0 |") < text.index("## scenes") < text.index("| cdc | no | no |")
