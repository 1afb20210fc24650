"""Claims about the bench: its limits are true, its verdicts follow from them, and it misses nothing."""

import json
import math

import numpy as np
import pytest

from cdc_flower.downlink import update
from cdc_flower.downlink.codecs import CODECS
from experiments.bench import wire as bench


@pytest.mark.parametrize(("n", "k"), [(10, 3), (1000, 1), (5000, 700), (20, 20)])
def test_the_positions_limit_is_the_number_of_choices(n, k):
    assert bench.choose_bits(n, k) == pytest.approx(math.log2(math.comb(n, k)), abs=1e-6)


def test_the_entropy_of_a_fair_coin_is_a_bit_a_throw():
    assert bench.entropy_bits(np.array([0, 1] * 50)) == pytest.approx(100)


@pytest.mark.parametrize(
    ("value", "target", "ok"),
    [
        (1.0, "<= 1.01", True),
        (1.02, "<= 1.01", False),
        (21, ">= 20", True),
        (19, ">= 20", False),
        (9, "", True),
    ],
)
def test_a_verdict_follows_from_its_target(value, target, ok):
    assert bench.figure("x", value, 1.0, target).ok is ok


@pytest.mark.parametrize("kind", bench.DISTRIBUTIONS)
def test_an_update_taken_apart_adds_up_and_stays_near_its_limits(kind):
    sizes = bench.even(20_000, 7)
    payload = CODECS["dyadic"].encode(bench.draw(kind, sizes), sizes, 2000)
    parts = bench.take_apart(payload, sizes)
    assert parts.frame == len(payload) + update.ENVELOPE
    coded = parts.positions + parts.values
    assert coded <= parts.frame - parts.envelope <= coded + 4 + 8 + 2  # words counted, rounded up, signs
    assert parts.positions / parts.positions_limit < 1.01  # below 1 where tensors of a class differ
    assert parts.whole < 1.03
    assert parts.envelope <= 64 + 16 * len(sizes)


def test_updates_are_drawn_from_their_seed():
    assert np.array_equal(bench.draw("layers", [50, 50]), bench.draw("layers", [50, 50]))
    assert not np.array_equal(bench.draw("layers", [50, 50]), bench.draw("layers", [50, 50], seed=1))


def test_the_arms_table_has_every_codec_on_every_update_within_its_budget():
    sizes = bench.even(8_000, 4)
    rows = bench.arms(sizes)
    assert {(kind, name) for kind, name, *_ in rows} == {(d, c) for d in bench.DISTRIBUTIONS for c in CODECS}
    assert all(size <= budget for _, _, budget, size, _ in rows if budget)
    text = bench.arms_markdown(rows, 8_000).splitlines()
    assert len(text) == 2 + len(bench.DISTRIBUTIONS) * len(CODECS)
    assert {line.count("|") for line in text} == {len(bench.FACTORS) + 3}


def test_missed_targets_are_written_as_missed_and_do_not_fail(tmp_path, monkeypatch, capsys):
    found = [bench.figure("near", 1.0, 1.0, "<= 1.01"), bench.figure("far", 2.0, 1.0, "<= 1.01")]
    monkeypatch.setattr(bench, "measure", lambda quick, largest: iter(found))
    monkeypatch.setattr(bench, "layout_sizes", lambda: (12_000, 3000))
    bench.main(["--out", str(tmp_path)])
    written = json.loads((tmp_path / "bench.json").read_text())
    assert [w["ok"] for w in written] == [True, False]
    assert set(written[0]) == {"name", "value", "limit", "ratio", "target", "ok"}
    out = capsys.readouterr().out
    assert "host: " in out
    assert out.count(" NO ") == 1
