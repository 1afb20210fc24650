"""What a reader meets in a browser: on a phone, in the dark, on paper, without a mouse, without eyes."""

from dataclasses import replace

import pandas as pd
import pytest

from experiments.report import beside, page, summary
from tests.browser import browser
from tests.experiments.report.test_charts_fleet import in_virtual_time
from tests.experiments.report.test_charts_personal import map_of, personal_of
from tests.experiments.report.test_clip import ROW

MEASURE = """
(() => {
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const light = text => {
    const [r, g, b] = parse(text).slice(0, 3).map(v => v / 255)
      .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = element => {
    for (let at = element; at; at = at.parentElement) {
      const ground = getComputedStyle(at).backgroundColor;
      if (parse(ground)[3] !== 0) return ground;
    }
    return "rgb(255, 255, 255)";
  };
  const all = name => [...document.querySelectorAll(name)];
  const text = element => element.textContent.trim().slice(0, 40);
  const faint = [], texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let count = 0;
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !element.checkVisibility()) continue;
    const look = getComputedStyle(element);
    const own = light(element.closest("svg") ? look.fill : look.color), ground = light(behind(element));
    const [a, b] = [own, ground].sort((x, y) => y - x);
    count += 1;
    if ((a + 0.05) / (b + 0.05) < 4.5) faint.push(text(element));
  }
  const seen = all("main *").filter(e => e.checkVisibility() && !e.closest("thead, svg"));
  const levels = all("h1, h2, h3, h4").map(h => +h.tagName[1]);
  return {
    count, faint,
    wide: Math.max(document.documentElement.scrollWidth - innerWidth, 0),
    cut: seen.filter(e => e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).overflowX != "visible")
      .map(text),
    outside: seen.filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(text),
    unnamed: all("svg, img, table").filter(e => !e.ariaLabel && !e.alt && e.ariaHidden != "true").length,
    headless: all("th:not([scope])").length + all("table").filter(t => !t.querySelector("thead th")).length,
    language: document.documentElement.lang,
    headings: levels.filter((level, i) => level - (levels[i - 1] ?? 0) > 1).length,
    titles: levels.filter(level => level == 1).length,
    ground: getComputedStyle(document.body).backgroundColor,
  };
})()
"""
FINE = {"faint": [], "wide": 0, "cut": [], "outside": [], "unnamed": 0, "headless": 0, "language": "en"} | {
    "headings": 0,
    "titles": 1,
}
GROUNDS = {"light": "rgb(251, 251, 250)", "dark": "rgb(20, 23, 26)"}
TOLD = {
    "method": "cdc",
    "seed": 0,
    "round": 1,
    "device": 0,
    "side": 0,
    "device_answer": "",
    "teacher_answer": "",
}
PAPER = 718  # pixels between the margins of A4


@pytest.fixture(scope="module")
def pages(of_four, compared, tmp_path_factory):
    """A page of everything that a report can hold, and one of two results."""
    folder = tmp_path_factory.mktemp("pages")
    timed = compared({"run.rounds": 4, "run.devices": 40}, ("static", "cdc"))
    for run in timed.runs.to_dict("records"):
        in_virtual_time(summary.run_folder(timed.out, run["method"], run["seed"]), run["seed"])
    timed = summary.read(timed.out)
    clips = replace(
        timed,
        personal=pd.concat([personal_of("static"), personal_of("cdc")]),
        summaries=map_of("cdc"),
        pictures=pd.DataFrame([{**ROW, **TOLD}]),
    )
    made = {
        "pictures": page.render(of_four),
        "clips, a fleet": page.render(clips),
        "two": beside.render(beside.read([of_four.out, timed.out])),
    }
    for name, text in made.items():
        (folder / f"{name}.html").write_text(text)
    return {name: folder / f"{name}.html" for name in made}


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    """A page in a browser."""
    with browser(tmp_path_factory.mktemp("browser")) as found:
        yield found


def opened(found):
    """Open what is folded."""
    found.run("document.querySelectorAll('details').forEach(d => d.open = true)")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pictures", "clips, a fleet", "two"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 820, 1200])
def test_a_page_is_legible_and_fits(pages, chromium, name, scheme, width):
    chromium.show(pages[name], width, scheme)
    opened(chromium)
    found = chromium.run(MEASURE)
    assert found.pop("count") > 100
    assert found.pop("ground") == GROUNDS[scheme]
    assert found == FINE


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pictures", "clips, a fleet", "two"])
def test_on_paper_it_is_white_whole_and_nothing_is_folded(pages, chromium, name):
    chromium.show(pages[name], PAPER, "dark", "print")
    found = chromium.run(MEASURE)
    assert found.pop("count") > 100
    assert found.pop("ground") == "rgb(255, 255, 255)"
    assert found == FINE
    folded = (
        "[...document.querySelectorAll('details > :not(summary)')].filter(e => e.offsetHeight < 40).length"
    )
    assert chromium.run(folded) == 0


@pytest.mark.slow
def test_what_is_folded_opens_without_a_mouse(pages, chromium):
    chromium.show(pages["pictures"], 1200)
    for key, code, text in (("Tab", 9, {}), ("Enter", 13, {"text": "\r"})):
        press = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        chromium.ask("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **press, **text)
        chromium.ask("Input.dispatchKeyEvent", type="keyUp", **press)
    there = "document.activeElement"
    assert chromium.run(f"[{there}.tagName, {there}.parentElement.open]") == ["SUMMARY", True]
    assert chromium.run(f"getComputedStyle({there}).outlineStyle") != "none"
