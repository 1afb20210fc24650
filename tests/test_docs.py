"""Claims about the site: it is built without a warning, every page is there, none is wider than a phone."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PHONE = 390  # pixels
MEASURE = """<body><script>
const pages = %s, found = {};
function next() {
  if (!pages.length) { document.title = "done"; document.body.textContent = JSON.stringify(found); return; }
  const page = pages.pop(), frame = document.createElement("iframe");
  frame.style = "width:%dpx;height:800px;border:0";
  frame.onload = () => {
    found[page] = frame.contentDocument.documentElement.scrollWidth; frame.remove(); next();
  };
  frame.src = page;
  document.body.append(frame);
}
next();
</script></body>"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site."""
    if find_spec("sphinx") is None or find_spec("furo") is None:
        pytest.skip("Sphinx is not installed; `make docs` installs it (cdc-flower[docs])")
    out = tmp_path_factory.mktemp("site")
    build = [sys.executable, str(ROOT / "docs" / "build.py"), str(out)]
    made = subprocess.run(build, capture_output=True, text=True, cwd=ROOT)
    assert made.returncode == 0, made.stderr[-3000:]
    return out


@pytest.mark.slow
def test_every_document_and_the_reference_are_pages(site):
    documents = [p.relative_to(ROOT / "docs").with_suffix(".html") for p in (ROOT / "docs").rglob("*.md")]
    names = ("settings", "methods", "messages", "files", "python")
    reference = [Path("reference", f"{name}.html") for name in names]
    first = [Path("index.html"), Path("source/experiments/notebooks/first_hour.ipynb.html")]
    missing = [page for page in [*first, *documents, *reference] if not (site / page).is_file()]
    assert missing == []
    assert "uplink.token-score" in (site / "reference" / "settings.html").read_text()
    assert "strategies.cdc.CDC" in (site / "reference" / "python.html").read_text()


@pytest.mark.slow
def test_no_page_is_wider_than_a_phone(site):
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium on this machine")
    pages = [p.relative_to(site).as_posix() for p in site.rglob("*.html") if "_static" not in p.parts]
    (site / "measure.html").write_text(MEASURE % (json.dumps(pages), PHONE))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    shown = subprocess.run(
        [browser, *options, "--virtual-time-budget=60000", "--dump-dom", (site / "measure.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=300,
    )
    (site / "measure.html").unlink()
    assert "<title>done</title>" in shown.stdout, shown.stderr[-2000:]
    found = json.loads(html.unescape(re.search(r"<body>(.*)</body>", shown.stdout, re.S)[1]))
    assert len(found) == len(pages) > 0
    assert {page: wide for page, wide in found.items() if wide > PHONE} == {}
