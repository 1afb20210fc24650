"""The bench of a GPU runs with tiny shapes on a CPU, and says in a line that there is none."""

import json

import pytest
import torch

from experiments.bench import gpu


def test_tiny_shapes_run_on_a_cpu_and_write_every_figure(tmp_path, capsys):
    gpu.main(["--quick", "--device", "cpu", "--out", str(tmp_path)])
    found = json.loads((tmp_path / "bench-gpu.json").read_text())
    names = [f["name"] for f in found]
    assert len(names) == 8
    for kind in ("teacher tiny", "student in nf4 tiny", "a step of 6 lessons of a tiny student"):
        assert sum(name.startswith(kind) for name in names) == 2
    assert all(f["value"] > 0 and f["limit"] > 0 for f in found)
    assert all(f["ratio"] < 1 for f in found if f["name"].endswith("[1/s]"))
    assert "CPU" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_there_is_one_line(tmp_path, capsys):
    gpu.main(["--out", str(tmp_path / "none")])
    assert capsys.readouterr().out == "bench-gpu: skipped, torch sees no GPU\n"
    assert not (tmp_path / "none").exists()
