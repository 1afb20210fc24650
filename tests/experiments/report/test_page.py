"""The page stands alone and says what the folder holds."""

import re
from html.parser import HTMLParser

import pandas as pd
import pytest

from experiments.report import charts, page
from experiments.report.notes import notes
from experiments.report.terminal import share, size
from experiments.run import compare

VOID = {"meta", "br", "image", "path", "use", "link", "img"}


@pytest.fixture
def comparison(engine, tmp_path):
    return compare.run(
        {"run.rounds": 4, "run.devices": 2},
        ("static", "cdc", "fedprox_lora", "fedavg_lora"),
        2,
        tmp_path / "out",
        0,
        progress=False,
        engine=engine,
    )


class Balance(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):
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


def test_the_page_shows_every_method_domain_and_picture(comparison):
    shown = (comparison.out / page.REPORT).read_text()
    for text in ("static", "fedprox_lora", "fedavg_lora", "source", "object", "question"):
        assert text in shown
    assert "device 0, 2 of 4 tokens" in shown
    assert shown.count("<figure") == 8  # 2 seeds, 4 rounds
    assert "what &lt;b&gt;?" in shown
    assert "what <b>?" not in shown
    assert "8 device-tasks did not end well" in shown


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
    assert page.render(comparison) == page.render(comparison)


def test_bytes_are_cumulative_over_rounds_and_mean_over_seeds():
    devices = pd.DataFrame(
        [("m", s, r, 10 * (s + 1), 1) for s in (0, 1) for r in (1, 2)],
        columns=["method", "seed", "round", "uplink_bytes", "downlink_bytes"],
    )
    assert charts.bytes_until(devices) == {("m", 1): 16.0, ("m", 2): 32.0}


def test_prequential_accuracy_weighs_samples_not_domains():
    rounds = pd.DataFrame(
        {
            "method": "m",
            "seed": 0,
            "round": 1,
            "kind": "prequential",
            "domain": ["source", "object"],
            "accuracy": [1.0, 0.0],
            "n": [30, 10],
        }
    )
    assert charts.prequential(rounds)["mean"].tolist() == [0.75]


def test_notes_conclude_nothing_from_runs_that_were_not_completed(comparison):
    comparison.runs.loc[0, "status"] = "interrupted"
    (line,) = notes(comparison)
    assert line.startswith(f"1 of {len(comparison.runs)} runs were not completed")


def test_notes_say_who_is_ahead_whichever_way_it_falls(comparison):
    lines = " ".join(notes(comparison))
    assert "cdc closes" in lines
    assert "fedavg_lora, which learns from true labels, ends not ahead of cdc" in lines
    comparison.methods.loc[comparison.methods["method"] == "fedavg_lora", "acc_drift"] = 0.99
    assert "ends ahead of cdc" in " ".join(notes(comparison))


def test_the_arms_of_a_study_are_set_against_its_first_by_seed(engine, tmp_path):
    arms = {
        "nothing": {"run.method": "static"},
        "ours": {"run.method": "cdc"},
        "all": {"run.method": "fedprox_lora"},
    }
    small = {"run.rounds": 4, "run.devices": 2}
    made = compare.run(small, arms, 2, tmp_path / "out", 0, progress=False, engine=engine)
    assert notes(made) == [
        "ours against nothing, points, by seed: drift +45.0 ±0.0, source +0.0 ±0.0.",
        "all against nothing, points, by seed: drift +50.0 ±0.0, source +0.0 ±0.0.",
    ]
    gap = made.methods.set_index("method")["gap_closed"]
    assert gap["nothing"] == 0.0
    assert gap["all"] > gap["ours"] > 0.5  # from the arm whose method is static, whatever its name
    alone = compare.run(small, arms, 1, tmp_path / "one", 0, progress=False, engine=engine)
    assert notes(alone) == []


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (12_345, "12.3 kB"),
        (999_900, "1 MB"),
        (5e12, "5 TB"),
        (None, "-"),
    ],
)
def test_sizes_for_people(count, text):
    assert size(count) == text


def test_shares_for_people():
    assert share(0.914) == "91.4"
    assert share(0.914, 0.9, 0.93) == "91.4 ±1.5"
    assert share(None) == "-"
