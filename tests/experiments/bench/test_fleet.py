"""The bench of the fleet runs, on few devices, and its figures follow from what it measured."""

import json

import pytest

from cdc_flower.fleet.engines.workers import start_ray
from experiments.bench import fleet as bench_fleet

RAYS_OWN = ["ignore:.*subprocess .* is still running:ResourceWarning", "ignore:unclosed file:ResourceWarning"]


def test_the_middle_of_two_is_the_smaller():
    assert [bench_fleet.median(v) for v in ([3], [4, 2], [9, 1, 5])] == [3, 2, 5]


@pytest.fixture
def ray():
    """One Ray for all grids of the bench, which start and stop their own otherwise."""
    head = start_ray("", 1)
    assert head is not None
    yield
    head.close()


@pytest.mark.slow
@pytest.mark.usefixtures("ray")
@pytest.mark.filterwarnings(*RAYS_OWN)
def test_a_quick_bench_writes_its_figures(tmp_path, capsys):
    bench_fleet.main(["--quick", "--workers", "1", "--out", str(tmp_path)])
    found = {f["name"]: f for f in json.loads((tmp_path / "bench-fleet.json").read_text())}
    assert all(f["value"] > 0 and f["limit"] > 0 for f in found.values())
    for name in ("bytes of an idle device, of 100,000", "bytes more of a device asked once, of 500"):
        assert found[name]["value"] < 3 * found[name]["limit"]  # other threads of this process allocate, too
    assert {name.partition(":")[0] for name in found if name.startswith("the model alone")} == {
        f"the model alone, batches of {n}" for n in (1, 128)
    }
    assert "host: " in capsys.readouterr().out
