"""The bench of speed runs on a tiny student, and its figures follow from what it measured."""

import json

import pytest

from experiments.bench import speed


def test_a_quick_bench_writes_its_figures(tmp_path, capsys):
    speed.main(["--quick", "--threads", "1", "--out", str(tmp_path)])
    found = {f["name"]: f for f in json.loads((tmp_path / "bench-speed.json").read_text())}
    assert all(f["value"] > 0 and f["limit"] > 0 for f in found.values())
    models = [*speed.COMPRESSIONS, "transformers, bfloat16", "transformers, float32"]
    words = [f for n, f in found.items() if n.endswith("ms a word (limit: its bytes)")]
    assert len(words) == len(models)
    for name in models:
        a_word, words_a_second = (
            found[f"{name}: {what}"] for what in ("ms a word (limit: its bytes)", "words a second")
        )
        assert a_word["value"] * words_a_second["value"] == pytest.approx(1e3)
        assert a_word["limit"] * words_a_second["limit"] == pytest.approx(1e3)
        assert f"{name}: words a second, 16 answers at a time" in found
    dense = found["none: ms a word (limit: its bytes)"]["value"]
    assert found["nf4: ms a word (limit: float32)"]["limit"] == dense
    ids = [n for n in found if n.startswith("nf4: ms of ")]
    assert len(ids) == 1
    half, whole = (found[f"transformers, {t}: ms a word (limit: its bytes)"] for t in ("bfloat16", "float32"))
    assert half["limit"] == pytest.approx(whole["limit"] / 2)
    order = [found[f"{n}: ms a word (limit: its bytes)"]["limit"] for n in ("int4", "nf4", "int8", "none")]
    assert order[0] == order[1] < order[2] < order[3]
    assert {f["target"] for f in found.values()} == {"", "<= 3", "<= 2"}
    assert "host: " in capsys.readouterr().out
