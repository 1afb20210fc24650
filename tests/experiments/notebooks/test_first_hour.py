"""The notebook runs from its first cell to its last, in a folder of its own, and shows what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[3] / "experiments" / "notebooks" / "first_hour.ipynb"


def test_it_is_committed_without_outputs():
    code = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    assert len(code) > 5
    assert [cell["source"] for cell in code if cell["outputs"] or cell["execution_count"]] == []


@pytest.mark.slow
def test_every_cell_runs(tmp_path):
    nbclient = pytest.importorskip("nbclient", reason="pip install 'cdc-flower[notebook]'")
    import nbformat

    book = nbformat.read(NOTEBOOK, 4)
    where = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(book, timeout=600, kernel_name="python3", resources=where).execute()
    shown = [output for cell in book.cells for output in cell.get("outputs", ())]
    errors = [output.text for output in shown if output.get("name") == "stderr"]
    assert "Traceback" not in "".join(errors)
    assert sum("image/png" in output.get("data", ()) for output in shown) == 3
    shares = next(
        output.data["text/plain"]
        for output in shown
        if "right" in output.get("data", {}).get("text/plain", "")
    )
    before, after = (int(part.split()[-4]) for part in shares.strip("'").split(", "))
    assert before < after, shares
    assert (tmp_path / "results" / "first_hour" / "report.html").is_file()
