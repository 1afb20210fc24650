"""The bench misses nothing, and what it says of a target is what it found."""

import json

from cdc_flower.downlink.codecs import CODECS
from experiments.bench import wire as bench
from experiments.bench.figures import figure
from experiments.bench.updates import DISTRIBUTIONS, even


def test_the_arms_table_has_every_codec_on_every_update_within_its_budget():
    sizes = even(8_000, 4)
    rows = bench.arms(sizes)
    assert {(kind, name) for kind, name, *_ in rows} == {(d, c) for d in DISTRIBUTIONS for c in CODECS}
    assert all(size <= budget for _, _, budget, size, _ in rows if budget)
    text = bench.arms_markdown(rows, 8_000).splitlines()
    assert len(text) == 2 + len(DISTRIBUTIONS) * len(CODECS)
    assert {line.count("|") for line in text} == {len(bench.FACTORS) + 3}


def test_missed_targets_are_written_as_missed_and_do_not_fail(tmp_path, monkeypatch, capsys):
    found = [figure("near", 1.0, 1.0, "<= 1.01"), figure("far", 2.0, 1.0, "<= 1.01")]
    monkeypatch.setattr(bench, "measure", lambda quick, largest: iter(found))
    monkeypatch.setattr(bench, "layout_sizes", lambda: (12_000, 3000))
    bench.main(["--out", str(tmp_path)])
    written = json.loads((tmp_path / "bench.json").read_text())
    assert [w["ok"] for w in written] == [True, False]
    assert set(written[0]) == {"name", "value", "limit", "ratio", "target", "ok"}
    out = capsys.readouterr().out
    assert "host: " in out
    assert out.count(" NO ") == 1
