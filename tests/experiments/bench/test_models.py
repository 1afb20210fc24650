import json

import pytest

from cdc_flower.config import parse
from cdc_flower.fleet.cost.profiles import read_profiles
from experiments.bench import models, pairs


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    home = tmp_path_factory.mktemp("models")
    return models.settings(pairs.write(pairs.QUICK, home / "pair"), home)


def test_every_step_is_done_and_has_limits_beside_it(own, capsys):
    models.steps(own)
    found = [models.Step(*json.loads(line)) for line in capsys.readouterr().out.splitlines()]
    beside = models.limits(parse(own), read_profiles()["minipc"])
    assert [step.name for step in found] == list(beside)
    assert all(limit.seconds > 0 and limit.more > 0 for limit in beside.values())
    assert all(step.peak >= step.before > 1e8 for step in found)
    shown = list(models.figures(found, beside))
    assert len(shown) == 2 * len(found) + 1
    assert {f.name for f in shown if f.target} == {
        "update: encode, s",
        "update: encode, GiB more",
        "all of these in one process, GiB",
    }


def test_a_step_that_takes_no_memory_has_no_peak_below_what_was_there(monkeypatch, capsys):
    seen = {"VmRSS": 300e6, "VmHWM": 299.9e6}
    monkeypatch.setattr(models, "_status", seen.get)
    models._done("rest", lambda: None)
    assert models.Step(*json.loads(capsys.readouterr().out)).peak == 300e6


def test_limits_grow_with_the_models(own, tmp_path):
    larger = pairs.Shapes(
        pairs.Language(128, 2, 4, 2, 256), pairs.Language(128, 4, 4, 2, 256), pairs.QUICK.tower, 2000
    )
    more = models.settings(pairs.write(larger, tmp_path / "pair"), tmp_path)
    small, large = (models.limits(parse(s), read_profiles()["minipc"]) for s in (own, more))
    for name in ("load device", "load twin", "load teacher", "answer", "update: encode"):
        assert large[name].seconds > 1.3 * small[name].seconds, name
        assert large[name].more > 1.3 * small[name].more, name


@pytest.mark.slow
def test_the_quick_bench_writes_its_figures(tmp_path, monkeypatch):
    models.main(["--quick", "--out", str(tmp_path)])
    written = json.loads((tmp_path / "bench-models.json").read_text())
    names = [f["name"] for f in written]
    assert "compare, 1 round of 2 devices, GiB" in names
    assert "answer, s" in names
    assert all(f["value"] >= 0 for f in written)
