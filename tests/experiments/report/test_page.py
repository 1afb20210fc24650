"""The page stands alone and says what the folder holds."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd

from experiments.report import page
from tests.experiments.report.made import contrast

VOID = {"meta", "br", "image", "path", "use", "link", "img"}


class Balance(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag


def test_the_page_fetches_nothing_runs_nothing_and_is_well_formed(comparison):
    shown = (comparison.out / page.REPORT).read_text()
    assert "<script" not in shown
    links = re.findall(r'(?:src|href|url)\s*[=(]\s*["\']?([^"\')> ]+)', shown)
    assert links
    assert {link[:5] for link in links} <= {"data:"} | {link[:5] for link in links if link[0] == "#"}
    parser = Balance()
    parser.feed(shown)
    assert parser.open == []


def test_every_picture_and_table_says_what_it_is(comparison):
    parser = Balance()
    parser.feed((comparison.out / page.REPORT).read_text())
    has = {tag: [attrs for name, attrs in parser.seen if name == tag] for tag, _ in parser.seen}
    assert has["html"] == [{"lang": "en"}]
    assert len(has["h1"]) == 1
    assert all(svg.get("aria-label") or svg.get("aria-hidden") == "true" for svg in has["svg"])
    assert all(table["aria-label"] for table in has["table"])
    assert {th.get("scope") for th in has["th"]} == {"col", "row"}


def test_text_stands_out_on_every_ground():
    style = (Path(page.__file__).parent / "templates/base.html.j2").read_text()
    schemes = [dict(re.findall(r"--(\w+): (#\w+)", one)) for one in re.findall(r":root {(.*?)}", style, re.S)]
    assert len(schemes) == 3  # light, dark, paper
    for scheme in schemes:
        for text in ("ink", "soft", "bad"):
            assert min(contrast(scheme[text], scheme[ground]) for ground in ("bg", "card")) >= 4.5, text


def test_the_page_shows_every_method_domain_and_picture(comparison):
    shown = (comparison.out / page.REPORT).read_text()
    for text in ("static", "fedprox_lora", "fedavg_lora", "source", "object", "question"):
        assert text in shown
    assert "device 0, 2 of 4 tokens" in shown
    assert shown.count("<figure") == 9  # 2 seeds, 4 rounds, and the first screen
    assert "what &lt;b&gt;?" in shown
    assert "what <b>?" not in shown
    assert "8 device-tasks did not end well" in shown


def test_settings_are_those_that_what_was_run_reads(comparison):
    def listed(of):
        return {key for key, _ in page._settings(of)}

    index = comparison.index
    assert {"run.rounds", "cloud.steps", "fedavg.lr", "fedprox.mu"} <= listed(index)
    assert not {"run.out-dir", "tent.lr"} & listed(index)
    assert "tent.lr" in listed({**index, "arms": {"theirs": {"run.method": "not_installed"}}})


def test_kept_tokens_are_outlined_and_all_others_dimmed():
    row = {"image": b"\x89PNG", "positions": [0, 3], "side": 2}
    drawn = page._picture(row)
    assert drawn["kept"] == [(0, 0), (1, 1)]
    assert drawn["dropped"] == [(1, 0), (0, 1)]
    assert drawn["url"].startswith("data:image/png;base64,")


def test_pictures_are_spread_over_the_rounds():
    frame = pd.DataFrame({"method": "cdc", "round": range(1, 101), "device": 0})
    assert [p["round"] for p in page.chosen(frame, limit=4)] == [1, 26, 51, 76]
    assert page.chosen(frame.iloc[:0]) == []


def test_the_page_is_the_same_each_time(comparison):
    assert page.render(comparison) == (comparison.out / page.REPORT).read_text()
