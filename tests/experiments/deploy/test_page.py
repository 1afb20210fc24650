"""Claims about the page of the cloud: it shows what the files say, escapes it, and runs no scripts."""

from __future__ import annotations

import html.parser
import json
import re
import subprocess
import time
from pathlib import Path

import pytest

from experiments.controls import story
from experiments.deploy import page
from tests.asking import ask

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>\u202e"


@pytest.fixture
def cloud(tmp_path: Path) -> Path:
    """A cloud's folder after 12 rounds; one device has a hostile name, one is revoked."""
    now = time.time()
    versions = [
        {
            "version": r if r < 9 else r - 5,
            "round": r,
            "time": now - 60 * (12 - r),
            "agreement": 0.5 + r / 30,
            "back": r == 9,
        }
        for r in range(1, 13)
    ]
    devices = [
        {"device": 0, "connected": True, "version": 7, "seen": now - 5, "bytes_up": 1_460_000, "refused": 0},
        {"device": 1, "connected": False, "version": 6, "seen": now - 700, "refused": 3},
    ]
    status = {
        "time": now,
        "round": 12,
        "version": 7,
        "period": 60.0,
        "devices": devices,
        "versions": versions,
    }
    status |= {"agreement": 0.9, "guard": 1.0, "rollback": {"version": 4, "round": 9, "refused": ""}}
    status |= {"accuracy": {"version": 6, "domains": {"source": 0.875}}, "kept": [6, 7]}
    status |= {"strangers": [{"node": "77", "reason": HOSTILE}], "state": "waiting", "method": "cdc"}
    names = {
        "0": {"name": "greenhouse", "status": "registered"},
        "1": {"name": HOSTILE, "status": "registered"},
        "2": {"name": "old", "status": "revoked"},
    }
    (tmp_path / "status.json").write_text(json.dumps(status))
    (tmp_path / "devices.json").write_text(json.dumps(names))
    return tmp_path


class _Seen(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in ("meta", "link", "line", "circle", "polyline"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)


def test_the_page_shows_devices_versions_and_what_was_refused(cloud):
    app = page.application(cloud)
    shown = ask(app, "/").text
    for words in (
        "greenhouse",
        "1 of 2",
        "1.46\u00a0MB",
        "(1 behind)",
        "12\u00a0min ago",
        "revoked",
        "source</bdi> 88\u00a0%",
        "node <bdi>77</bdi>",
    ):
        assert words in shown
    assert "Sent back to version 4 in round 9." in shown
    assert shown.count("<polyline") == 2  # agreement and versions
    assert f'http-equiv="refresh" content="{page.EVERY}"' in shown
    assert "refresh" not in ask(app, "/?still=1").text
    assert ask(app, "/style.css").headers["content-type"].startswith("text/css")
    assert ask(app, "/status.json").json()["devices"][0]["version"] == 7


def test_a_hostile_name_is_words_and_no_script_runs(cloud):
    answer = ask(page.application(cloud), "/")
    seen = _Seen()
    seen.feed(answer.text)
    assert seen.open == []
    assert not seen.tags & {"script", "img", "iframe", "form", "object"}
    assert not [name for name in seen.attributes if name.startswith("on") or name == "style"]
    assert "\u202e" not in answer.text
    assert "&lt;script&gt;alert(1)" in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_nothing_is_there_yet_or_it_is_damaged(tmp_path):
    app = page.application(tmp_path)
    assert "No status.json yet" in ask(app, "/").text
    (tmp_path / "status.json").write_text("{")
    assert "damaged" in ask(app, "/").text


def test_another_host_name_and_other_methods_are_refused(cloud):
    app = page.application(cloud)
    assert ask(app, "/", host="evil.example").status_code == 400
    assert ask(app, "/", "POST").status_code == 405
    assert ask(app, "/../cloud.toml").status_code == 404


def test_every_column_has_its_name_on_a_narrow_screen(cloud):
    shown = ask(page.application(cloud), "/").text
    heads = re.findall(r'columnheader"[^>]*>([^<]+)<', shown)
    labels = re.findall(r'data-label="([^"]+)"', shown)
    assert labels == heads[1:] * 3


@pytest.mark.parametrize(
    ("value", "words"), [(None, "–"), (0, "0 B"), (999, "999 B"), (1000, "1 kB"), (1_048_576, "1.05 MB")]
)
def test_sizes(value, words):
    assert page.size(value).replace(page.GAP, " ") == words


@pytest.mark.slow
def test_in_a_browser_nothing_is_wider_than_a_phone_and_the_style_is_used(cloud, tmp_path):
    browser = story.browser()
    if browser is None:
        pytest.skip("no Chromium on this machine")
    with page.shown(cloud, 0) as port:
        how = [
            browser,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={tmp_path / 'p'}",
        ]
        address = f"http://127.0.0.1:{port}/?still=1"
        dumped = subprocess.run(
            [*how, "--window-size=500,900", "--dump-dom", address],
            capture_output=True,
            timeout=120,
            check=True,
        ).stdout.decode()
        assert "greenhouse" in dumped
        assert "alert(1)" in dumped  # as words
        shot = tmp_path / "page.png"
        story.photograph(cloud, shot)
        assert shot.stat().st_size > 20_000
